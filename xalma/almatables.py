"""What notebook 11 reads out of the records of ALMA's two studies: tables beside the paper's, and computed sentences.

BLEU of so small a model, on news, may be near 0 everywhere; bits a byte of the reference still tell models apart then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.alma import HUMAN, MONO_SHARES, PARALLEL, system_name
from xalma.evaluation.records import Record
from xalma.published import published
from xalma.runs import read_run
from xalma.seeds import DIRECTIONS, LEAST_BLEU, cells_of

BITS = "bits/byte"
METRICS = {"bleu": "BLEU", "bits_per_byte": BITS}
_WORDS = {"BLEU": "BLEU", BITS: "bits a byte (less is better)"}


def quality_table(records: Iterable[Record]) -> pd.DataFrame:
    """Monolingual text or not × kind of bitext (ALMA, table c): the paper's BLEU, our scores in other columns."""
    found, rows = cells_of(records), []
    for mono, share in (("no", 0.0), ("yes", 1.0)):
        for kind in PARALLEL:
            row: dict[str, Any] = {"monolingual": mono, "bitext": kind}
            for direction, arrow in DIRECTIONS.items():
                row[f"paper BLEU {arrow}"] = _printed_quality(direction, mono, kind)
                row |= _ours(found[system_name(share, kind), direction][0], arrow)
            rows.append(row)
    return pd.DataFrame(rows)


def amount_table(records: Iterable[Record], folders: dict[str, Path]) -> pd.DataFrame:
    """Our scores after stage 2 by tokens of monolingual text read in stage 1; the paper's curve could not be read."""
    found, rows = cells_of(records), []
    for share in MONO_SHARES:
        name = system_name(share, HUMAN)
        row = {"monolingual tokens": read_run(read_run(folders[name])["previous"]).get("tokens_seen", 0)}
        for direction, arrow in DIRECTIONS.items():
            row |= _ours(found[name, direction][0], arrow)
        rows.append(row)
    return pd.DataFrame(rows)


def weights_table(records: Iterable[Record], folders: dict[str, Path]) -> pd.DataFrame:
    """Stage 2 with full weights and with LoRA: parameters trained, the paper's 7B averages, and ours."""
    found, rows = cells_of(records), []
    for label, system, lora in (("full weights", "ALMA-7B", False), ("LoRA on down_proj", "ALMA-7B-LoRA", True)):
        name = system_name(1.0, HUMAN, lora)
        row: dict[str, Any] = {"stage 2": label, "parameters trained": read_run(folders[name])["parameters_trained"]}
        for table, (direction, arrow) in zip("ab", DIRECTIONS.items(), strict=True):
            row[f"paper BLEU {arrow}"] = _average(table, direction, system)
            row |= _ours(found[name, direction][0], arrow)
        rows.append(row)
    return pd.DataFrame(rows)


def _ours(means: Mapping[str, float], arrow: str) -> dict[str, float]:
    """BLEU and bits a byte of the reference: the latter tells models apart whose BLEU is near 0."""
    return {f"our {label} {arrow}": means[metric] for metric, label in METRICS.items()}


def quality_sentences(table: pd.DataFrame) -> list[str]:
    """What the quality table says of monolingual text and of the kinds of bitext, for each direction.

    BLEU is read where a cell of the direction reaches LEAST_BLEU, bits a byte everywhere.
    """
    said = []
    for arrow in DIRECTIONS.values():
        cells = table.set_index(["monolingual", "bitext"])
        for label in METRICS.values():
            ours, places = cells[f"our {label} {arrow}"], 1 if label == "BLEU" else 3
            if label == "BLEU" and ours.max() < LEAST_BLEU:
                said.append(f"{arrow}: the highest BLEU is {ours.max():.1f}, too little to tell models by.")
                continue
            said.append(f"{arrow}, {_WORDS[label]}: {_on_text(ours, label, places)}; {_on_kinds(ours, label, places)}.")
    return said


def _on_text(ours: pd.Series, label: str, places: int) -> str:
    before, after = ours["no", HUMAN], ours["yes", HUMAN]
    better = (after > before) == (label == "BLEU")
    return (
        f"with human-written bitext, monolingual text before it {'helps' if better else 'does not help'} "
        f"({before:.{places}f} without, {after:.{places}f} with it)"
    )


def _on_kinds(ours: pd.Series, label: str, places: int) -> str:
    after = ours["yes"][list(PARALLEL)].sort_values(ascending=label != "BLEU", kind="stable")
    return "after it, from best to worst: " + ", ".join(f"{kind} {value:.{places}f}" for kind, value in after.items())


def amount_sentences(table: pd.DataFrame) -> list[str]:
    """What the curve says: the scores from no monolingual text to all of it, and how many steps were for the better."""
    said = []
    for arrow in DIRECTIONS.values():
        for label in METRICS.values():
            ours, places = table[f"our {label} {arrow}"], 1 if label == "BLEU" else 3
            if label == "BLEU" and ours.max() < LEAST_BLEU:
                continue
            better = (ours.diff().iloc[1:] > 0) == (label == "BLEU")
            values = ", ".join(f"{value:.{places}f}" for value in ours)
            said.append(f"{arrow}, {_WORDS[label]}: {values}; better than the amount before at "
                        f"{better.sum()} of {len(better)} steps.")  # fmt: skip
    return said


def weights_sentence(table: pd.DataFrame) -> str:
    """What the table of full weights and LoRA says: the share of the weights, and what it changes in bits a byte."""
    full, lora = (row for _, row in table.iterrows())
    columns = {arrow: f"our {BITS} {arrow}" for arrow in DIRECTIONS.values()}
    changes = ", ".join(f"{arrow} {full[name]:.3f} to {lora[name]:.3f}" for arrow, name in columns.items())
    share = 100 * lora["parameters trained"] / full["parameters trained"]
    return f"Here LoRA trains {share:.1f} % of the weights; bits a byte from full weights to LoRA: {changes}."


def _printed_quality(direction: str, mono: str, kind: str) -> str:
    cells = published("c")
    cells = cells[(cells.direction == direction) & (cells.subset == f"mono={mono};parallel={kind}")]
    return cells[cells.metric == "BLEU"]["shown"].item()


def _average(table: str, direction: str, system: str) -> str:
    cells = published(table).query("direction == @direction and system == @system and group_or_lang == 'avg'")
    return cells[cells.metric == "BLEU"]["shown"].item()
