"""What notebooks do with stages: run one for every group, score it, chain stages for ablations, collect the records.

Before SFT a model knows no prompt. It is scored on what it writes after a sentence, in the form of stage 3's text:
source, blank, translation, a line per pair (`few_shot_rows`). An English source alone does not say which language comes
next, so that each sentence is asked after example pairs of its own direction, from the dev set. Two measures stand
beside BLEU. *Text bits* are what stages 1 and 2 lower: bits per byte of a held-out sentence with nothing before it. The
*partner gain* is what stage 3 teaches: how many bits per byte a sentence costs less after its own other half than after
another pair's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.corpora.registry import open_corpus
from xalma.data.collate import completion, tokenize_rows
from xalma.evaluation.interference import MARK, chosen_by_of, is_in_doubt
from xalma.evaluation.metrics import bits_per_byte, empty_rate, score, wrong_language_rate
from xalma.evaluation.records import Record, read_records, records_of, write_records
from xalma.files import fingerprint, read_json, write_json
from xalma.language_id import signature
from xalma.languages import ENGLISH
from xalma.models.losses import answer_nats
from xalma.profiles import Profile
from xalma.prompts import extract_translation, first_line
from xalma.runs import BASE, open_stage, read_run, recipe_hash, results_folder, stage_folder, weights_hash
from xalma.training.stage_models import open_merged
from xalma.training.stage_pairs import asked_both_ways, continued
from xalma.training.stages import (
    stage2_monolingual_modules,
    stage3_pseudo_monolingual,
    stage4_sft,
    stage5_arpo,
)
from xalma.training.workers import one_share, run_jobs

MODULE_STAGES: dict[int, Callable[..., Path]] = {
    2: stage2_monolingual_modules,
    3: stage3_pseudo_monolingual,
    4: stage4_sft,
    5: stage5_arpo,
}
FEW_SHOT_PAIRS = 1  # example pairs before each sentence
LAST_BEFORE_SFT = 3  # up to this stage a model knows no prompt
TEXT_SIGNATURE = "bits per UTF-8 byte of the reference from BOS on, without a source, its end not counted"
GAIN_SIGNATURE = "bits per UTF-8 byte of the reference after another pair's source, minus after its own"
CONTINUED_SIGNATURE = (
    "bits per UTF-8 byte of the reference after an example pair and the source, its end not counted"
)
BITS_SIGNATURE = "bits per UTF-8 byte of the reference after the prompt, end token included"
_DECODING = (
    "beams",
    "max_new_tokens",
    "generation_batch",
    "test_pairs",
    "corpus",
    "phrasebook_",
    "prompt_style",
    "seed",
)


def for_each_group(stage: Callable[..., Path], p: Profile) -> dict[int, Path]:
    """Run a stage for every group of the profile; returns {group: its folder}."""
    jobs = [(stage, (one_share(p), group)) for group in p.group_numbers]
    return dict(zip(p.group_numbers, run_jobs(p, jobs), strict=True))


def test_rows(p: Profile, group: int) -> list[dict[str, str]]:
    """Held-out sentences, both directions: {"direction", "prompt", "source", "reference"} rows.

    Those of the languages of the group's module, or, for group 0 (`BASE`), of all the profile's.
    """
    return asked_both_ways(open_corpus(p).test, p.languages_of(group), p.prompt_style)


def outputs_file(p: Profile, folder: str | Path, group: int, shots: int | None = None) -> Path:
    """Where `translate_test`, or with `shots` example pairs `continue_test`, keeps its rows.

    The name says the weights, the languages, the code and how it decodes.

    Raises ValueError, naming the file, where the stage's weights are not those it was left with.
    """
    run = open_stage(folder)
    made_from = [run["fingerprint"], weights_hash(run), group, p.languages_of(group), recipe_hash()]
    made_from += [open_corpus(p).fingerprint(), p.values(*_DECODING)]
    if shots is None:
        return Path(folder) / f"outputs-group{group}-{fingerprint(made_from)}.json"
    return (
        Path(folder) / f"outputs-continued-group{group}-{fingerprint([*made_from, shots, p.dev_pairs])}.json"
    )


def translate_test(p: Profile, folder: str | Path, group: int) -> list[dict[str, str]]:
    """`test_rows` with the "output" of the stage in `folder`, and the "nats" its model pays for the reference.

    They are kept beside the stage, and read back the next time.
    """
    kept = outputs_file(p, folder, group)
    if kept.exists():
        return read_json(kept, "remove it, and its sentences are translated again", list)
    rows = test_rows(p, group)
    model, tokenizer = open_merged(folder, p.dtype)
    outputs = continued(p, model, tokenizer, rows)
    nats = answer_nats(model, reference_rows(rows, tokenizer), tokenizer.pad_token_id)
    rows = [
        row | {"output": extract_translation(text), "nats": paid}
        for row, text, paid in zip(rows, outputs, nats, strict=True)
    ]
    write_json(kept, rows)
    return rows


def reference_rows(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, list[int]]]:
    """The test rows with the reference as the labelled answer, none left out for its length."""
    asked = [{"prompt": row["prompt"], "completion": completion(row["reference"])} for row in rows]
    return tokenize_rows(asked, tokenizer, sys.maxsize)[0]


def score_rows(rows: Sequence[dict[str, Any]], p: Profile, stage: str, seed: int) -> list[Record]:
    """BLEU, chrF, off-target and empty rates (percent) of each direction in `rows`; bits per byte where "nats" are."""
    records = []
    for direction in dict.fromkeys(row["direction"] for row in rows):
        chosen = [row for row in rows if row["direction"] == direction]
        outputs, references = ([row[key] for row in chosen] for key in ("output", "reference"))
        tgt = direction.split("-")[1]
        records += records_of(score(outputs, references, tgt), p.name, stage, direction, seed)
        for metric, rate in (
            ("off_target", wrong_language_rate(outputs, tgt)),
            ("empty", empty_rate(outputs)),
        ):
            checked = f"{signature(tgt)}|or no letters, " if metric == "off_target" else ""
            checked += "percent of segments"
            records.append(Record(p.name, stage, direction, metric, 100 * rate, len(outputs), checked, seed))
        if all("nats" in row for row in chosen):
            bits = bits_per_byte([row["nats"] for row in chosen], references)
            records.append(
                Record(p.name, stage, direction, "bits_per_byte", bits, len(outputs), BITS_SIGNATURE, seed)
            )
    return records


def evaluate_folder(p: Profile, folder: str | Path, group: int, stage: str) -> list[Record]:
    """Scores of the model in a stage's folder on a group's test sentences, under the name `stage`."""
    records = score_rows(translate_test(p, folder, group), p, stage, p.seed)
    return signed(records, chosen_by_of(folder))


def signed(records: Sequence[Record], chosen_by: Sequence[str]) -> list[Record]:
    """The records; those of no independent score say so in their signature, which every table prints."""
    note = f"|{MARK} pairs chosen by {'+'.join(chosen_by)}"
    return [
        replace(r, signature=r.signature + note) if is_in_doubt(r.metric, chosen_by) else r for r in records
    ]


def own_rows(p: Profile, folder: str | Path, group: int) -> list[dict[str, Any]]:
    """The test rows of the model in a stage's folder, in the form that its stage was taught.

    Up to stage 3: `continue_test`, after one example pair; from stage 4 on: `translate_test`, with the prompt.
    """
    return (continue_test if read_run(folder)["number"] <= LAST_BEFORE_SFT else translate_test)(
        p, folder, group
    )


def evaluate_stage(p: Profile, number: int) -> list[Record]:
    """Scores of stage `number` for every group of the profile, written to results/<profile>/scores/<stage>.jsonl.

    Stages 0 to 3 continue a text (`evaluate_continuations`), stages 4 and 5 are asked with the prompt; stage 4 has its
    BLEU in the other form too, as the metric "one_shot_bleu". Stage 0 is filed as "base". The base of stages 0 and 1 is
    scored on each group's languages.
    """
    name = "base" if number == 0 else f"stage{number}"
    folders = {g: stage_folder(p, number, BASE if number <= 1 else g) for g in p.group_numbers}
    jobs = [(_evaluate, (p, folder, group, name, number)) for group, folder in folders.items()]
    records = [record for found in run_jobs(p, jobs) for record in found]
    write_records(results_folder(p) / "scores" / f"{name}.jsonl", records)
    return records


def _evaluate(p: Profile, folder: Path, group: int, stage: str, number: int) -> list[Record]:
    if number <= LAST_BEFORE_SFT:
        return evaluate_continuations(p, folder, group, stage)
    records = evaluate_folder(p, folder, group, stage)
    if number == LAST_BEFORE_SFT + 1:
        continued = evaluate_continuations(p, folder, group, stage)
        records += [
            replace(record, metric="one_shot_bleu") for record in continued if record.metric == "bleu"
        ]
    return records


def ladder_records(
    p: Profile, stages: Iterable[str] = ("base", *(f"stage{n}" for n in range(1, 6)))
) -> list[Record]:
    """All records of the main ladder. Raises FileNotFoundError, naming the file, for a stage not scored yet."""
    return [
        record for stage in stages for record in read_records(results_folder(p) / "scores" / f"{stage}.jsonl")
    ]


def run_chain(p: Profile, group: int, start: Path, stages: Sequence[int], branch: str) -> Path:
    """Train a group's module through `stages` (of 2 to 5, in order) from folder `start`; returns the last folder."""
    folder = start
    for number in stages:
        folder = MODULE_STAGES[number](p, group, folder, branch=branch)
    return folder


def newest_stage(p: Profile, group: int) -> Path:
    """The folder of the last finished stage of a group's module. Raises FileNotFoundError where none is finished."""
    for number in sorted(MODULE_STAGES, reverse=True):
        folder = stage_folder(p, number, group)
        if (folder / "run.json").exists():
            return folder
    raise FileNotFoundError(
        f"no module of group {group} in profile {p.name}: train it, `xalma stage N --profile {p.name} --group {group}` "
        "for stages 2 to 5 in order"
    )


def few_shot_rows(p: Profile, group: int, shots: int = FEW_SHOT_PAIRS) -> list[dict[str, str]]:
    """Test sentences of both directions: {"direction", "prompt", "other", "source", "reference"} rows.

    prompt: `shots` dev pairs of the direction, then the source. other: the same with the source of the next test pair.
    Raises ValueError where the corpus has fewer dev pairs than `shots`.
    """
    corpus = open_corpus(p)
    rows = []
    for code in p.languages_of(group):
        examples = corpus.dev(code)
        tests = corpus.test(code)
        if len(examples) < shots:
            raise ValueError(f"{shots} example pairs asked for, but {code} has {len(examples)} dev pairs")
        for src, tgt, turn in ((ENGLISH, code, 1), (code, ENGLISH, -1)):
            for i, pair in enumerate(tests):
                shown = [examples[(i + n) % len(examples)][::turn] for n in range(shots)]
                head = "".join(f"{one}{completion(two)}\n" for one, two in shown)
                source, reference = pair[::turn]
                rows.append(
                    {
                        "direction": f"{src}-{tgt}",
                        "prompt": head + source,
                        "source": source,
                        "reference": reference,
                        "other": head + tests[(i + 1) % len(tests)][::turn][0],
                    }
                )
    return rows


def continue_test(
    p: Profile, folder: str | Path, group: int, shots: int = FEW_SHOT_PAIRS
) -> list[dict[str, Any]]:
    """`few_shot_rows` with the "output" of the stage in `folder`, and what its model pays for the reference, in nats:
    "nats" after its own source, "other_nats" after another's, "text_nats" with nothing before it.

    They are kept beside the stage, and read back the next time.
    """
    kept = outputs_file(p, folder, group, shots)
    if kept.exists():
        return read_json(kept, "remove it, and its sentences are continued again", list)
    rows = few_shot_rows(p, group, shots)
    model, tokenizer = open_merged(folder, p.dtype)
    outputs = continued(p, model, tokenizer, rows)
    asked = {
        "nats": ("prompt", completion), "other_nats": ("other", completion), "text_nats": (None, str),
    }  # fmt: skip
    nats = {
        name: reference_nats(model, tokenizer, [(row.get(key, ""), write(row["reference"])) for row in rows])
        for name, (key, write) in asked.items()
    }
    rows = [
        row | {"output": first_line(output)} | {name: values[i] for name, values in nats.items()}
        for i, (row, output) in enumerate(zip(rows, outputs, strict=True))
    ]
    write_json(kept, rows)
    return rows


def reference_nats(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, str]]
) -> list[float]:
    """What `model` pays, in nats, for the second of each two texts after the first; its end is not counted."""
    rows = [{"prompt": before, "completion": text} for before, text in texts]
    encoded = [
        {name: ids[:-1] for name, ids in row.items()}
        for row in tokenize_rows(rows, tokenizer, sys.maxsize)[0]
    ]
    return answer_nats(model, encoded, tokenizer.pad_token_id)


def partner_gain(rows: Sequence[dict[str, Any]]) -> float:
    """Bits per byte of the references of `continue_test` after another pair's source, minus after their own."""
    saved = [row["other_nats"] - row["nats"] for row in rows]
    return bits_per_byte(saved, [row["reference"] for row in rows])


def score_continuations(rows: Sequence[dict[str, Any]], p: Profile, stage: str, seed: int) -> list[Record]:
    """`score_rows` of the continuations, and the partner gain and text bits of each direction."""
    records = [
        replace(record, signature=CONTINUED_SIGNATURE) if record.metric == "bits_per_byte" else record
        for record in score_rows(rows, p, stage, seed)
    ]
    for direction in dict.fromkeys(row["direction"] for row in rows):
        chosen = [row for row in rows if row["direction"] == direction]
        alone = bits_per_byte([row["text_nats"] for row in chosen], [row["reference"] for row in chosen])
        for metric, value, how in (
            ("partner_gain", partner_gain(chosen), GAIN_SIGNATURE),
            ("text_bits", alone, TEXT_SIGNATURE),
        ):
            records.append(Record(p.name, stage, direction, metric, value, len(chosen), how, seed))
    return records


def evaluate_continuations(p: Profile, folder: str | Path, group: int, stage: str) -> list[Record]:
    """Few-shot scores of the model in a stage's folder on a group's test sentences, under the name `stage`."""
    return score_continuations(continue_test(p, folder, group), p, stage, p.seed)
