"""What the ablations of notebook 09 have in common: systems trained for several seeds, filed, as tables and sentences.

± is half a 95 % t-interval over seeds, from three seeds on. A difference is taken seed by seed: a seed gives all
systems of a study the same base and test sentences. Bits per byte come first in the sentences: they tell small models
apart where BLEU is near 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.evaluation.records import Record, footnote, off_target_label, read_records, write_records
from xalma.files import read_json, write_json
from xalma.languages import ARROWS
from xalma.paper.studies.seeds import LEAST_BLEU, by_seed, cells_of, on_seeds, paired
from xalma.paper.tables import mark_doubtful
from xalma.training.ladder import BITS_SIGNATURE
from xalma.training.workers import one_share as one_share

BITS = "bits_per_byte"
_SCORES = {"BLEU": "bleu", "chrF": "chrf", "bits per byte": BITS}  # columns with an interval


@dataclass(frozen=True)
class Study:
    """An ablation: its systems, compared with `baseline`, and their records, whose `stage` is the system's name.

    systems: name -> what it was: "system", its label, then columns of the table (updates, …); in the table's order.
    """

    name: str
    title: str
    baseline: str
    systems: dict[str, dict[str, Any]]
    records: list[Record]

    @property
    def labels(self) -> dict[str, str]:
        """Label by name, in the order of the table."""
        return {name: columns["system"] for name, columns in self.systems.items()}


def file_study(folder: Path, study: Study) -> Study:
    """Write <name>.jsonl (records) and <name>.json (what was compared); returns the study as read back."""
    write_records(folder / f"{study.name}.jsonl", study.records)
    about = {key: getattr(study, key) for key in ("title", "baseline", "systems")}
    write_json(folder / f"{study.name}.json", about)
    return read_study(folder, study.name)


def read_study(folder: Path, name: str) -> Study:
    """A filed study. Raises FileNotFoundError where it is not there, ValueError, naming the file, for a damaged one."""
    path, keys = folder / f"{name}.json", ("title", "baseline", "systems")
    about = {key: read_json(path, "run notebook 09 again", keys=keys)[key] for key in keys}
    return Study(name, records=read_records(folder / f"{name}.jsonl"), **about)


def study_table(study: Study, paper: Mapping[tuple[str, str], str] | None = None) -> pd.DataFrame:
    """One row per direction class and system: what it was, its scores with ±, its bits per byte minus the baseline's.

    paper: (direction class, system) -> COMET-22 as the paper prints it, a column of its own.
    """
    values = by_seed(study.records).sort_index()
    rates = {off_target_label(study.records): "off_target", "empty %": "empty"}

    def before(name: str, direction: str) -> dict[str, Any]:
        printed = {} if paper is None else {"paper COMET-22": paper.get((direction, name), "")}
        return study.systems[name] | printed

    def after(name: str, direction: str, means: Mapping[str, float]) -> dict[str, Any]:
        gap, half = paired(values, name, study.baseline, direction, BITS)
        shares = {column: means[metric] for column, metric in rates.items()}
        return {"bits − baseline": gap, "bits − baseline ±": half} | shares

    return rows_of(study.records, study.systems, before, _SCORES, after)


def rows_of(
    records: Iterable[Record],
    names: Iterable[str],
    before: Callable[[str, str], Mapping[str, Any]],
    columns: Mapping[str, str],
    after: Callable[[str, str, Mapping[str, float]], Mapping[str, Any]] = lambda *_: {},
) -> pd.DataFrame:
    """One row per direction class and system: what `before` gives, each column's metric with ±, what `after` gives.

    Both are asked with the system and the direction class, `after` with its means by metric too. ‡ stands at scores
    that are no independent ones.
    """
    records = list(records)
    names = list(names)
    found = cells_of(records)
    rows: list[dict[str, Any]] = []
    cells: dict[tuple[Any, str], tuple[str, str]] = {}
    for direction, arrow in ARROWS.items():
        for name in names:
            mean, half = found[name, direction]
            row = {"direction": arrow, **before(name, direction)}
            for column, metric in columns.items():
                row |= {column: mean[metric], f"{column.removeprefix('our ')} ±": half[metric]}
                cells[len(rows), column] = (name, metric)
            rows.append({**row, **after(name, direction, mean)})
    return mark_doubtful(pd.DataFrame(rows), records, cells)


def study_note(study: Study, made: str) -> str:
    """The line under a study's table: the command that made it, segments, seeds, signatures and the baseline."""
    return (
        f"{footnote(study.records, 'bleu', made)}; bits per byte: {BITS_SIGNATURE}; "
        f"the baseline is {study.labels[study.baseline]}"
    )


def study_findings(study: Study) -> list[str]:
    """Sentences for each direction class: bits per byte against the baseline's, and BLEU where there is any."""
    found = cells_of(study.records)
    values = by_seed(study.records).sort_index()
    labels = study.labels
    sentences = []
    for direction, arrow in ARROWS.items():
        means = {name: found[name, direction][0] for name in labels}
        gaps = [
            f"{label} {_judged(*paired(values, name, study.baseline, direction, BITS))}"
            for name, label in labels.items()
            if name != study.baseline
        ]
        sentences.append(
            f"{arrow}, bits per byte of the reference, less is better: {labels[study.baseline]} "
            f"{means[study.baseline][BITS]:.3f}; against it " + "; ".join(gaps) + "."
        )
        bleu = {label: means[name]["bleu"] for name, label in labels.items()}
        sentences.append(
            f"{arrow}, BLEU: " + "; ".join(f"{label} {value:.1f}" for label, value in bleu.items()) + "."
            if max(bleu.values()) >= LEAST_BLEU
            else f"{arrow}: none reaches {LEAST_BLEU} BLEU at this size, so BLEU says nothing here."
        )
    return [*sentences, on_seeds(int(found["n_seeds", "max"]))]


def _judged(gap: float, half: float) -> str:
    if pd.isna(half):
        return f"{gap:+.3f}"
    verdict = "within the interval" if abs(gap) <= half else "better" if gap < 0 else "worse"
    return f"{gap:+.3f} ± {half:.3f} ({verdict})"


def file_records(path: Path, records: Iterable[Record]) -> list[Record]:
    """Write the records to `path` and return them as read back, in the file's order."""
    return read_records(write_records(path, records))
