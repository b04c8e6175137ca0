"""What a run on a real base filed, read back for notebook 12; `python benchmarks/real.py score` writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from xalma.evaluation.records import Record, read_records
from xalma.evaluation.thresholds import UNNOTICED, explained, is_noticed
from xalma.files import read_json
from xalma.languages import ENGLISH
from xalma.paper.ladder_tables import STAGES as STAGES
from xalma.paper.studies.seeds import half_width
from xalma.profiles import Profile

SCORE_AGAIN = "make it again with `python benchmarks/real.py score`"
METRICS = ("bleu", "chrf++", "bits_per_byte")
OFF_TARGET = "off-target % (language, script or no letters)"
DIFFERENCE_TABLES = ("steps", "sharing", "without")  # 12_<name>.csv of differences


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """A table of results/<profile> as text, ° at differences in BLEU that people would not notice.

    One that was not written says so.
    """
    path = folder / "tables" / f"12_{name}.csv"
    if path.exists() and path.stat().st_size > 2:
        return with_unnoticed(name, pd.read_csv(path, dtype=str, keep_default_na=False))
    return pd.DataFrame({name: ["not measured"]})


READABLE = {
    "bleu": "BLEU", "chrf++": "chrF++", "bits_per_byte": "bits per byte", "bleu, less stage 4": "BLEU − SFT",
    "chrf++, less stage 4": "chrF++ − SFT", OFF_TARGET: "off-target %", "stage4": "SFT", "stage5": "ARPO",
}  # fmt: skip


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `read_table` as a page shows it: without rows and columns in which nothing was measured."""
    missing = table.eq("not measured")
    measured = table.apply(lambda column: column.str.contains("[", regex=False))
    scores = [name for name in table if (missing[name] | measured[name]).all() and len(table)]
    table = table.loc[~missing[scores].all(axis=1) if scores else table.index, ~missing.all()]
    if "metric" in table:
        table = table.assign(metric=table["metric"].map(lambda name: READABLE.get(name, name)))
    return table.rename(columns=READABLE)


def with_unnoticed(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """`table` with ° behind the cells of `shown` that are differences below their metric's threshold."""
    for column, metric in {"bleu": "bleu", "bleu, less stage 4": "bleu", "group 2 less 4": ""}.items():
        if column not in table or (column == "bleu" and name not in DIFFERENCE_TABLES):
            continue
        metrics = [metric] * len(table) if metric else table["metric"]
        table[column] = [
            cell + UNNOTICED * (" [" in cell and is_noticed(one, float(cell.split(" [")[0])) is False)
            for cell, one in zip(table[column], metrics, strict=True)
        ]
    return table


def read_methods(folders: Sequence[Path], group: int) -> pd.DataFrame:
    """The tables of preference methods of runs that start from one SFT model, as one: each row once, by rate."""
    table = pd.concat([read_table(folder, f"methods_group{group}") for folder in folders])
    if "rate" not in table:
        return table
    table = table.drop_duplicates(["method", "rate"])
    by_rate = table["rate"].replace("", "0").astype(float)
    return table.assign(by_rate=by_rate).sort_values(["by_rate", "method"]).drop(columns="by_rate")


def method_seeds(folders: Sequence[Path], p: Profile, group: int) -> pd.DataFrame:
    """What preference methods differ by from the SFT model they start from, in runs with other pairs in another order.

    folders: results/<profile> and its like, one per seed. A row per method and rate that all of them have: per metric
    the mean over seeds and directions of the group, ± half its 95 % interval over seeds (from three on), then each
    seed's.
    """
    codes = p.languages_of(group)
    directions = [one for code in codes for one in (f"{ENGLISH}-{code}", f"{code}-{ENGLISH}")]
    by_folder = [
        {path.stem: read_records(path) for path in (one / "scores").glob("*.jsonl")} for one in folders
    ]
    shared = set.intersection(*(set(one) for one in by_folder)) if by_folder else set()
    named = {"stage5": "arpo@1", "sft+": "sft@1"}
    runs = {name: named.get(name, name).split("@") for name in shared if "@" in named.get(name, name)}
    rows = []
    for name, (method, factor) in sorted(runs.items(), key=lambda one: (float(one[1][1]), one[1][0])):
        row = {"method": method, "rate": f"{p.stage5_learning_rate * float(factor):g}"}
        for metric in METRICS[:2]:
            found = [
                _mean(one[name], directions, metric) - _mean(one["stage4"], directions, metric)
                for one in by_folder
            ]
            half = half_width(found)
            row[f"{READABLE[metric]} − SFT"] = f"{np.mean(found):.2f}" + (
                f" ± {half:.2f}" if half == half else ""
            )
            row[f"{READABLE[metric]} − SFT, each seed"] = ", ".join(f"{one:.2f}" for one in found)
        rows.append(row)
    return pd.DataFrame(rows)


def _mean(records: Sequence[Record], directions: Sequence[str], metric: str) -> float:
    values = {one.direction: one.value for one in records if one.metric == metric}
    return float(np.mean([values[one] for one in directions]))


def read_about(folder: Path) -> pd.DataFrame:
    """What the tables rest on: segments, draws, intervals."""
    path = folder / "tables" / "12_about.json"
    values = read_json(path, SCORE_AGAIN) if path.exists() else {"run": "not measured"}
    return pd.DataFrame([values | {UNNOTICED: explained("bleu").partition(": ")[2]}])


def run_profile(folder: Path, p: Profile) -> Profile:
    """The profile with the values of the run that is filed, its `--scale` applied; `p` where none is."""
    path = folder / "run.json"
    runs = read_json(path, SCORE_AGAIN, keys=("runs",))["runs"] if path.exists() else []
    values = runs[-1]["profile"] if runs else {}
    return p.but(
        **{name: value for name, value in values.items() if name in p.values()}
    )  # some may be gone since
