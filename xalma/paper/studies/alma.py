"""ALMA (arXiv 2309.11674), X-ALMA's forerunner: monolingual text first, then a little bitext of high quality.

    stage 1  full-weight training on monolingual text of English and five languages, given shares
    stage 2  prompted bitext, both directions, loss on the answer; full weights, or LoRA on `down_proj` alone

Its two studies: how much monolingual text, and monolingual text or not × four kinds of bitext. Stage 1 is X-ALMA's,
with ALMA's shares (profiles `alma-tiny`, `alma-7b`). Seeds change the text, its order and the pairs; all are asked the
test sentences of `p.seed`. Random weights, tuned on the same pairs, are a system of their own. What the paper calls
random and filtered bitext could not be read, only the scores (table c): here `random` is the corpus' web bitext as it
comes, misaligned pairs included, and `filtered` the same after `xalma.data.cleaning`. All kinds get the same number of
pairs of a language, so the same number of updates. On real text the kinds differ in domain too: bibles and web copy
against news.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import pandas as pd
from peft import LoraConfig, get_peft_model

from xalma.corpora.registry import open_corpus
from xalma.data import cleaning
from xalma.data.contamination import guarded_corpus
from xalma.evaluation.records import Record
from xalma.languages import ARROWS, language
from xalma.models.backbone import load_base, save_base
from xalma.paper.studies.seeds import LEAST_BLEU, by_seed, cells_of, paired
from xalma.paper.tables import mark_unnoticed
from xalma.profiles import Profile
from xalma.published import published
from xalma.runs import BASE, finished, read_run, recipe_hash, results_folder, stage_folder
from xalma.runtime import home
from xalma.training.ladder import score_rows, translate_test
from xalma.training.stages import sft_dataset, stage0_backbone, stage1_monolingual_base
from xalma.training.trainer import train
from xalma.training.workers import run_jobs

PARALLEL = ("none", "random", "filtered", "human-written")
HUMAN, RANDOM_WEIGHTS = "human-written", "random-weights"
# runs/parallel_ft_lora.sh, adapter_config; the repository's default is now all-linear
LORA_TARGETS = ["down_proj"]
GAINS = {  # question -> the two systems, each (share of monolingual text, bitext)
    "monolingual text, before random pairs": ((1.0, "random"), (0.0, "random")),
    "monolingual text, before filtered pairs": ((1.0, "filtered"), (0.0, "filtered")),
    "monolingual text, before human-written pairs": ((1.0, HUMAN), (0.0, HUMAN)),
    "filtered over random pairs": ((1.0, "filtered"), (1.0, "random")),
    "human-written over random pairs": ((1.0, HUMAN), (1.0, "random")),
}
MONO_SHARES = (0.0, 0.25, 0.5, 1.0)  # of stage 1's budget, for the curve; our choice
READ_MOST = 20  # rows of web bitext read for one that is kept; our choice


def monolingual(p: Profile, share: float = 1.0) -> Path:
    """Stage 1 with a share of its tokens, its schedule as long; the untrained base for 0. Returns its folder."""
    base = stage_folder(p, 0)
    if share == 0:
        return base
    least = p.stage1_batch_size * p.block_tokens
    short = p.but(stage1_tokens=max(least, round(p.stage1_tokens * share)))
    return stage1_monolingual_base(short, BASE, base, branch=f"seed{p.seed}-mono-{share:g}")


def random_weights(p: Profile) -> Path:
    """A base of the same size that has read nothing, with a tokenizer of its own. Returns its folder."""
    return stage0_backbone(p.but(base=""), branch=f"seed{p.seed}-{RANDOM_WEIGHTS}")


def bitext(p: Profile, kind: str, lang: str) -> list[tuple[str, str]]:
    """Pairs (English, `lang`) of a kind of `PARALLEL`: `sft_pairs`, or fewer where another kind has no more.

    Raises ValueError for another kind, or where the corpus has no pair of one.
    """
    kinds = bitext_kinds(p, lang)
    if kind not in kinds:
        raise ValueError(f"no bitext of kind {kind!r}: choose one of {', '.join(PARALLEL[1:])}")
    return kinds[kind]


@lru_cache(maxsize=16)
def bitext_kinds(p: Profile, lang: str) -> dict[str, list[tuple[str, str]]]:
    """The pairs (English, `lang`) of each kind but "none", `sft_pairs` or as many as the poorest kind has.

    Kinds must differ in quality, not in number. Raises ValueError where the corpus has no pair of one.
    """
    corpus = guarded_corpus(p, p.languages)
    most = p.sft_pairs
    rows = islice(((f"{lang}:{i}", pair) for i, pair in enumerate(corpus.bitext(lang))), READ_MOST * most)
    clean = (pair for _, pair in cleaning.clean(rows, lang, cleaning.Rules(near=False)))
    found = {
        "random": list(islice(corpus.bitext(lang), most)),
        "filtered": list(islice(clean, most)),
        HUMAN: corpus.sft(lang)[:most],
    }
    n = min(map(len, found.values()))
    if not n:
        missing = next(kind for kind, pairs in found.items() if not pairs)
        raise ValueError(
            f"no {missing} pairs of {lang} in corpus {p.corpus!r}: join a corpus that has some, with +"
        )
    return {kind: pairs[:n] for kind, pairs in found.items()}


def bitext_table(p: Profile) -> pd.DataFrame:
    """One row per language: pairs of each kind, what share of the random and the filtered was misaligned on purpose.

    The truth is known where `bitext_noise` added the misaligned pairs; what noise the corpus has by itself is not.
    """
    rows = []
    for lang in p.languages:
        aligned = set(islice(open_corpus(p.but(bitext_noise=0.0)).bitext(lang), READ_MOST * p.sft_pairs))
        pairs = {kind: bitext(p, kind, lang) for kind in ("random", "filtered")}
        wrong = {
            kind: 100 * sum(pair not in aligned for pair in found) / len(found)
            for kind, found in pairs.items()
        }
        rows.append(
            {
                "language": language(lang).name,
                "pairs of each kind": len(pairs["random"]),
                **{f"{kind}, misaligned %": share for kind, share in wrong.items()},
            }
        )
    return pd.DataFrame(rows)


def parallel(p: Profile, start: Path, kind: str, lora: bool = False) -> Path:
    """Stage 2 from the stage in folder `start` on bitext of a kind; returns its folder, `start` itself for "none".

    A finished one made from the same inputs is kept. The folder holds the whole model; LoRA is merged into it.
    """
    if kind == "none":
        return start
    out = home() / p.run_dir / p.name / "stage2_parallel" / f"seed{p.seed}"
    out /= f"{start.parts[-3]}-{kind}{'-lora' * lora}"
    values = p.values(
        "seed", "sft_", "phrasebook_", "bitext_", "stage4_", "max_length", "prompt_style", "lora_", "alma_"
    )
    inputs = values | {
        "kind": kind,
        "lora": lora,
        "start": read_run(start)["fingerprint"],
        "recipe": recipe_hash(),
    }

    def make(aside: Path) -> dict[str, Any]:
        stage = {"stage": "parallel", "number": 2, "group": BASE, "base": str(out), "previous": str(start)}
        return _fine_tune(p, start, kind, lora, aside) | stage

    return finished(out, inputs, make)


def _fine_tune(p: Profile, start: Path, kind: str, lora: bool, out: Path) -> dict[str, Any]:
    """The stage's body: the model is trained, merged and saved; returns rows, steps, parameters trained and log."""
    model, tokenizer = load_base(start, "float32")
    stage = p.stage(4)
    rows, n_long = sft_dataset(partial(bitext, p, kind), p.languages, tokenizer, p)
    if lora:
        model = get_peft_model(
            model,
            LoraConfig(
                r=p.lora_rank,
                lora_alpha=p.lora_alpha,
                lora_dropout=p.lora_dropout,
                target_modules=LORA_TARGETS,
                task_type="CAUSAL_LM",
            ),
        )
        stage = replace(stage, learning_rate=p.alma_lora_learning_rate)
    n_trained = sum(x.numel() for x in model.parameters() if x.requires_grad)
    steps = max(1, round(len(rows) * stage.epochs / stage.batch_size))
    log = train(
        model,
        rows,
        p,
        stage,
        steps=steps,
        seed=p.seed,
        pad_token_id=tokenizer.pad_token_id,
        label=f"{start.parts[-3]}, {kind}{', LoRA' * lora}",
    )
    save_base(model.merge_and_unload() if lora else model, tokenizer, out)
    return {
        "rows": len(rows),
        "rows_too_long": n_long,
        "steps": steps,
        "parameters_trained": n_trained,
        "log": log,
    }


def study(p: Profile) -> dict[str, list[Path]]:
    """Every model of the two studies, trained where it is not yet; name ("mono-1, random") -> folders, one per seed."""
    seeds = [p.but(seed=seed) for seed in range(p.seed, p.seed + p.seeds)]
    starts = run_jobs(p, [(monolingual, (q, share)) for q in seeds for share in MONO_SHARES])
    bases = dict(zip(product(seeds, MONO_SHARES), starts, strict=True))
    bases |= {(q, None): random_weights(p) for q in seeds}
    wanted: list[tuple[float | None, str, bool]] = [
        (share, kind, False) for share in MONO_SHARES for kind in PARALLEL if kind == HUMAN or share in (0, 1)
    ]
    wanted += [(1.0, HUMAN, True), (None, HUMAN, False)]
    jobs = [(parallel, (q, bases[q, share], kind, lora)) for share, kind, lora in wanted for q in seeds]
    folders = iter(run_jobs(p, jobs))
    return {system_name(*what): [next(folders) for _ in seeds] for what in wanted}


def system_name(share: float | None, kind: str, lora: bool = False) -> str:
    """Name of a model in records: its share of monolingual text, None for random weights, and its bitext."""
    return f"{RANDOM_WEIGHTS if share is None else f'mono-{share:g}'}, {kind}{', LoRA' * lora}"


def evaluate(p: Profile, folders: Mapping[str, Sequence[Path]]) -> list[Record]:
    """Scores of the models on the test sentences of the profile's languages, both directions."""
    jobs = [
        (_score, (p, folder, name, p.seed + i))
        for name, found in folders.items()
        for i, folder in enumerate(found)
    ]
    return [record for records in run_jobs(p, jobs) for record in records]


def _score(p: Profile, folder: Path, name: str, seed: int) -> list[Record]:
    return score_rows(translate_test(p, folder, BASE), p, name, seed)


def scores_file(p: Profile) -> Path:
    """Where the records of notebook 11 lie."""
    return results_folder(p) / "alma" / "scores.jsonl"


_BITS_COLUMN = "bits/byte"
_METRICS = {"bleu": "BLEU", "bits_per_byte": _BITS_COLUMN}
_WORDS = {"BLEU": "BLEU", _BITS_COLUMN: "bits per byte (less is better)"}


def quality_table(records: Iterable[Record]) -> pd.DataFrame:
    """Monolingual text or not × kind of bitext (ALMA, table c): the paper's BLEU, our scores in other columns."""
    found = cells_of(records)
    rows = []
    systems = [(mono, share, kind) for mono, share in (("no", 0.0), ("yes", 1.0)) for kind in PARALLEL]
    for mono, share, kind in [*systems, ("no, random weights", None, HUMAN)]:
        row: dict[str, Any] = {"monolingual": mono, "bitext": kind}
        for direction, arrow in ARROWS.items():
            printed = "" if share is None else _printed_quality(direction, mono, kind)
            row[f"paper BLEU {arrow}"] = printed or "not measured"
            row |= _ours(found[system_name(share, kind), direction][0], arrow)
        rows.append(row)
    return pd.DataFrame(rows)


def gains_table(records: Sequence[Record]) -> pd.DataFrame:
    """One row per direction class and question: the paper's difference in BLEU, and ours with ±, seed by seed."""
    values = by_seed(records).sort_index()
    rows = []
    for direction, arrow in ARROWS.items():
        for question, (one, other) in GAINS.items():
            printed = [
                float(_printed_quality(direction, "yes" if s else "no", kind)) for s, kind in (one, other)
            ]
            row = {"direction": arrow, "gain of": question, "paper BLEU": f"{printed[0] - printed[1]:+.2f}"}
            for metric, label in _METRICS.items():
                gap = paired(values, system_name(*one), system_name(*other), direction, metric)
                row |= {f"our {label}": gap[0], f"± {label}": gap[1]}
            rows.append(row)
    return mark_unnoticed(pd.DataFrame(rows), {"our BLEU": "bleu"})


def amount_table(records: Iterable[Record], folders: Mapping[str, Sequence[Path]]) -> pd.DataFrame:
    """Our scores after stage 2 by tokens of monolingual text read in stage 1; the paper's curve could not be read."""
    found = cells_of(records)
    rows = []
    for share in MONO_SHARES:
        name = system_name(share, HUMAN)
        row = {"monolingual tokens": read_run(read_run(folders[name][0])["previous"]).get("tokens_seen", 0)}
        for direction, arrow in ARROWS.items():
            row |= _ours(found[name, direction][0], arrow)
        rows.append(row)
    return pd.DataFrame(rows)


def weights_table(records: Iterable[Record], folders: Mapping[str, Sequence[Path]]) -> pd.DataFrame:
    """Stage 2 with full weights and with LoRA: parameters trained, the paper's 7B averages, and ours."""
    found = cells_of(records)
    rows = []
    for label, system, lora in (
        ("full weights", "ALMA-7B", False),
        ("LoRA on down_proj", "ALMA-7B-LoRA", True),
    ):
        name = system_name(1.0, HUMAN, lora)
        row: dict[str, Any] = {
            "stage 2": label,
            "parameters trained": read_run(folders[name][0])["parameters_trained"],
        }
        for table, (direction, arrow) in zip("ab", ARROWS.items(), strict=True):
            row[f"paper BLEU {arrow}"] = _average(table, direction, system)
            row |= _ours(found[name, direction][0], arrow)
        rows.append(row)
    return pd.DataFrame(rows)


def _ours(means: Mapping[str, float], arrow: str) -> dict[str, float]:
    """BLEU and bits per byte of the reference: the latter tells models apart whose BLEU is near 0."""
    return {f"our {label} {arrow}": means[metric] for metric, label in _METRICS.items()}


def quality_sentences(table: pd.DataFrame) -> list[str]:
    """The kinds of bitext after monolingual text, from best to worst, for each direction.

    BLEU is read where a cell of the direction reaches LEAST_BLEU, bits per byte everywhere.
    """
    sentences = []
    cells = table.set_index(["monolingual", "bitext"])
    for arrow in ARROWS.values():
        for label in _METRICS.values():
            ours, places = cells[f"our {label} {arrow}"], 1 if label == "BLEU" else 3
            if label == "BLEU" and ours.max() < LEAST_BLEU:
                sentences.append(
                    f"{arrow}: the highest BLEU is {ours.max():.1f}, too little to tell models by."
                )
                continue
            after = ours["yes"][list(PARALLEL)].sort_values(ascending=label != "BLEU", kind="stable")
            order = ", ".join(f"{kind} {value:.{places}f}" for kind, value in after.items())
            sentences.append(
                f"{arrow}, {_WORDS[label]}, after monolingual text, from best to worst: {order}."
            )
    return sentences


def amount_sentences(table: pd.DataFrame) -> list[str]:
    """What the curve says: the scores from no monolingual text to all of it, and how many steps were for the better."""
    sentences = []
    for arrow in ARROWS.values():
        for label in _METRICS.values():
            ours, places = table[f"our {label} {arrow}"], 1 if label == "BLEU" else 3
            if label == "BLEU" and ours.max() < LEAST_BLEU:
                continue
            better = (ours.diff().iloc[1:] > 0) == (label == "BLEU")
            values = ", ".join(f"{value:.{places}f}" for value in ours)
            sentences.append(
                f"{arrow}, {_WORDS[label]}: {values}; better than the amount before at "
                f"{better.sum()} of {len(better)} steps."
            )
    return sentences


def weights_sentence(table: pd.DataFrame) -> str:
    """What the table of full weights and LoRA says: the share of the weights, and what it changes in bits per byte."""
    full, lora = (row for _, row in table.iterrows())
    columns = {arrow: f"our {_BITS_COLUMN} {arrow}" for arrow in ARROWS.values()}
    changes = ", ".join(f"{arrow} {full[name]:.3f} to {lora[name]:.3f}" for arrow, name in columns.items())
    share = 100 * lora["parameters trained"] / full["parameters trained"]
    return (
        f"Here LoRA trains {share:.1f} % of the weights; bits per byte from full weights to LoRA: {changes}."
    )


def _printed_quality(direction: str, mono: str, kind: str) -> str:
    cells = published("c")
    cells = cells[(cells.direction == direction) & (cells.subset == f"mono={mono};parallel={kind}")]
    return cells[cells.metric == "BLEU"]["shown"].item()


def _average(table: str, direction: str, system: str) -> str:
    cells = published(table).query("direction == @direction and system == @system and group_or_lang == 'avg'")
    return cells[cells.metric == "BLEU"]["shown"].item()
