"""What a model of stages 0 to 3 translates before any prompt: by continuing text in the form of stage 3.

That form is source, blank, translation; a line feed parts the pairs of one document (`mixing.pair_documents`). An
English source alone does not say which language comes next, so that each sentence is asked after example pairs of its
own direction, from the dev set. Two measures stand beside BLEU. *Text bits* are what stages 1 and 2 lower: bits per
byte of a held-out sentence with nothing before it. The *partner gain* is what stage 3 teaches: how many bits per byte
a sentence costs less after its own other half than after another pair's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.corpora.registry import open_corpus
from xalma.data.collate import completion, tokenize_rows
from xalma.evaluation.metrics import bits_per_byte
from xalma.evaluation.records import Record, write_records
from xalma.languages import ENGLISH
from xalma.models.generation import generate
from xalma.models.losses import answer_nats
from xalma.profiles import Profile
from xalma.prompts import first_line
from xalma.runs import BASE, results_folder, stage_folder
from xalma.training.ladder import score_rows
from xalma.training.stages import open_merged
from xalma.training.workers import side_by_side

SHOTS = 1  # example pairs before each sentence
NO_LIMIT = 10**9  # tokens: no sentence is left out for its length
TEXT_SIGNATURE = "bits per UTF-8 byte of the reference from BOS on, without a source, its end not counted"
GAIN_SIGNATURE = "bits per UTF-8 byte of the reference after another pair's source, minus after its own"


def few_shot_rows(p: Profile, group: int, shots: int = SHOTS) -> list[dict[str, str]]:
    """Test sentences of both directions: {"direction", "prompt", "other", "source", "reference"} rows.

    prompt: `shots` dev pairs of the direction, then the source. other: the same with the source of the next test pair.
    Raises ValueError where the corpus has fewer dev pairs than `shots`.
    """
    corpus, rows = open_corpus(p), []
    for code in p.languages_of(group):
        examples, tests = corpus.dev(code), corpus.test(code)
        if len(examples) < shots:
            raise ValueError(f"{shots} example pairs asked for, but {code} has {len(examples)} dev pairs")
        for src, tgt, turn in ((ENGLISH, code, 1), (code, ENGLISH, -1)):
            for i, pair in enumerate(tests):
                shown = [examples[(i + n) % len(examples)][::turn] for n in range(shots)]
                head = "".join(f"{one}{completion(two)}\n" for one, two in shown)
                source, reference = pair[::turn]
                rows.append({
                    "direction": f"{src}-{tgt}", "prompt": head + source, "source": source, "reference": reference,
                    "other": head + tests[(i + 1) % len(tests)][::turn][0],
                })  # fmt: skip
    return rows


def continue_test(p: Profile, folder: str | Path, group: int, shots: int = SHOTS) -> list[dict[str, Any]]:
    """`few_shot_rows` with the "output" of the stage in `folder`, and what its model pays for the reference, in nats:
    "nats" after its own source, "other_nats" after another's, "text_nats" with nothing before it.
    """
    rows = few_shot_rows(p, group, shots)
    model, tokenizer = open_merged(folder, p.dtype)
    outputs = generate(
        model, tokenizer, [row["prompt"] for row in rows],
        beams=p.beams, max_new_tokens=p.max_new_tokens, batch_size=p.generation_batch,
    )  # fmt: skip
    asked = {
        "nats": ("prompt", completion), "other_nats": ("other", completion), "text_nats": (None, str),
    }  # fmt: skip
    nats = {
        name: reference_nats(model, tokenizer, [(row.get(key, ""), write(row["reference"])) for row in rows])
        for name, (key, write) in asked.items()
    }
    return [
        row | {"output": first_line(output)} | {name: values[i] for name, values in nats.items()}
        for i, (row, output) in enumerate(zip(rows, outputs, strict=True))
    ]


def reference_nats(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, str]]
) -> list[float]:
    """What `model` pays, in nats, for the second of each two texts after the first; its end is not counted."""
    rows = [{"prompt": before, "completion": text} for before, text in texts]
    encoded = [{name: ids[:-1] for name, ids in row.items()} for row in tokenize_rows(rows, tokenizer, NO_LIMIT)[0]]
    return answer_nats(model, encoded, tokenizer.pad_token_id)


def partner_gain(rows: Sequence[dict[str, Any]]) -> float:
    """Bits per byte of the references of `continue_test` after another pair's source, minus after their own."""
    saved = [row["other_nats"] - row["nats"] for row in rows]
    return bits_per_byte(saved, [row["reference"] for row in rows])


def score_continuations(rows: Sequence[dict[str, Any]], p: Profile, stage: str, seed: int) -> list[Record]:
    """`score_rows` of the continuations, and the partner gain and text bits of each direction."""
    records = score_rows(rows, p, stage, seed)
    for direction in dict.fromkeys(row["direction"] for row in rows):
        chosen = [row for row in rows if row["direction"] == direction]
        alone = bits_per_byte([row["text_nats"] for row in chosen], [row["reference"] for row in chosen])
        for metric, value, signature in (
            ("partner_gain", partner_gain(chosen), GAIN_SIGNATURE), ("text_bits", alone, TEXT_SIGNATURE),
        ):  # fmt: skip
            records.append(Record(p.name, stage, direction, metric, value, len(chosen), signature, seed))
    return records


def evaluate_continuations(p: Profile, folder: str | Path, group: int, stage: str) -> list[Record]:
    """Few-shot scores of the model in a stage's folder on a group's test sentences, under the name `stage`."""
    return score_continuations(continue_test(p, folder, group), p, stage, p.seed)


def few_shot_file(p: Profile) -> Path:
    """Where the few-shot scores of stages 0 to 3 lie."""
    return results_folder(p) / "scores" / "few_shot.jsonl"


def evaluate_few_shot(p: Profile, stages: Sequence[int] = (0, 1, 2, 3)) -> list[Record]:
    """Few-shot scores of finished `stages` for every group of the profile, written to `few_shot_file`.

    Raises FileNotFoundError for a stage that was not run.
    """
    jobs = []
    for number in stages:
        name = "base" if number == 0 else f"stage{number}"
        for group in p.group_numbers:
            folder = stage_folder(p, number, BASE if number <= 1 else group)
            jobs.append((evaluate_continuations, (p, folder, group, name)))
    records = [record for found in side_by_side(p, jobs) for record in found]
    write_records(few_shot_file(p), records)
    return records
