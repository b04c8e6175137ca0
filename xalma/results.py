"""Results as records, everything printed from them, and the file that says where they come from.

One measurement is one `Record`, one line of `results/<profile>/scores.jsonl`. Tables and figures
are functions of the records alone: no date, commit or duration stands in them, so two runs that
measure the same give the same bytes. Where and when a run was made stands beside them in
`run.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas.api.types import is_float, is_numeric_dtype

from xalma.evaluate import direction_class, group_means
from xalma.languages import GROUP_NAMES, known_languages
from xalma.marked import Table, write_marked
from xalma.runtime import provenance, write_atomically, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xalma.evaluate import Score

IN_BITS = ("bits_per_byte", "partner_gain", "text_bits")  # metrics in bits per byte
STAGES = ("base", "stage1", "stage2", "stage3", "stage4", "stage5")


@dataclass(frozen=True)
class Record:
    """One measurement over `n` segments; `stage` may also name a method."""

    profile: str
    stage: str
    direction: str
    metric: str
    value: float
    n: int
    signature: str
    seed: int = 0

    def __post_init__(self) -> None:
        places = 4 if self.metric in IN_BITS else 2  # bits are a few, the others run to 100
        object.__setattr__(self, "value", round(float(self.value), places))

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What was measured: no two records of one file share it."""
        return (self.profile, self.stage, self.direction, self.metric, self.seed)


def records_of(scores: Iterable[Score], profile: str, stage: str, direction: str, seed: int = 0) -> list[Record]:
    """The scores of one system in one direction as records."""
    return [Record(profile, stage, direction, s.metric, s.value, s.n, s.signature, seed) for s in scores]


def write_records(path: str | Path, records: Iterable[Record]) -> Path:
    """Write one JSON object a line, sorted by key. Raises ValueError for two records of one key."""
    records = sorted(records, key=lambda record: record.key)
    for record, following in pairwise(records):
        if record.key == following.key:
            raise ValueError(f"two records for {record.key} on the way to {path}: write each measurement once")
    return write_atomically(path, "".join(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in records))


def read_records(path: str | Path) -> list[Record]:
    """The records of a file. Raises FileNotFoundError, or ValueError naming a bad line."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no records at {path}: run `xalma run` for that profile first")
    records = []
    lines = path.read_bytes().split(b"\n")  # not splitlines: names may hold U+2028
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            records.append(Record(**json.loads(line.decode("utf-8"))))
        except (TypeError, ValueError, RecursionError) as error:
            names = ", ".join(field.name for field in fields(Record))
            raise ValueError(f"{path}, line {number} is no record ({names}): run the notebook again") from error
    return records


def ladder_table(records: Iterable[Record], metric: str = "bleu", stages: Sequence[str] = STAGES) -> pd.DataFrame:
    """Means a group and direction class, one column a stage (those of `stages` with records).

    Columns group, direction, n (directions averaged), then the stages; the last two rows, "all",
    average all directions, not groups. A cell is empty (NaN) unless every direction of its row was
    scored in that stage, so that no two numbers of a row average different languages. Seeds are
    averaged. Raises ValueError for no such metric, several profiles, or a stage that `stages` does
    not list.
    """
    chosen = _of_metric(records, metric, stages)
    present = [stage for stage in stages if any(r.stage == stage for r in chosen)]
    means = group_means(chosen)
    by_group = _rows(means, chosen, present, ["group", "direction"])
    by_group["group"] = [f"{group} {GROUP_NAMES[group]}" for group in by_group["group"]]
    # Sums over groups, since each group's mean weighs as many directions as it has.
    means["mean"] *= means["n_directions"]
    totals = means.groupby(["stage", "direction"], sort=False)[["mean", "n_directions"]].sum().reset_index()
    totals["mean"] /= totals["n_directions"]
    overall = _rows(totals, chosen, present, ["direction"])
    overall.insert(0, "group", "all")
    return pd.concat([by_group, overall], ignore_index=True)


def direction_table(records: Iterable[Record], metric: str = "bleu", stages: Sequence[str] = STAGES) -> pd.DataFrame:
    """One row a direction (en-xx first, in the order of the language table), one column a stage.

    Columns direction, group, n (segments), then the stages; NaN where a stage was not scored. Seeds
    are averaged. Raises ValueError as `ladder_table` does, and for segment counts that differ
    between stages.
    """
    chosen = _of_metric(records, metric, stages)
    present = [stage for stage in stages if any(r.stage == stage for r in chosen)]
    frame = pd.DataFrame(map(asdict, chosen))
    uneven = frame.groupby("direction")["n"].nunique()
    if (uneven > 1).any():
        name = uneven[uneven > 1].index[0]
        raise ValueError(f"{name} was scored on different numbers of segments: score every stage on one test set")
    wide = frame.pivot_table(index=["direction", "n"], columns="stage", values="value").reset_index()
    wide.insert(1, "group", [direction_class(direction)["group"] for direction in wide["direction"]])
    codes = list(known_languages())
    order = [(not d.startswith("en-"), *map(codes.index, d.split("-"))) for d in wide["direction"]]
    wide = wide.iloc[sorted(range(len(wide)), key=order.__getitem__)]
    return wide[["direction", "group", "n", *present]].rename_axis(columns=None).reset_index(drop=True)


def footnote(records: Iterable[Record], metric: str, command: str) -> str:
    """The line under a table: its command, segments a direction, seeds and every signature."""
    chosen = [record for record in records if record.metric == metric]
    if not chosen:
        raise ValueError(f"no records of metric {metric!r} for a footnote: score it first")
    counts = sorted({record.n for record in chosen})
    segments = str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    seeds = ", ".join(map(str, sorted({record.seed for record in chosen})))
    targets: dict[str, set[str]] = {}
    for record in chosen:
        targets.setdefault(record.signature, set()).add(record.direction.split("-")[1])
    common = max(targets, key=lambda signature: (len(targets[signature]), signature))
    named = [f"`{s}` ({', '.join(sorted(targets[s]))})" for s in sorted(targets) if s != common]
    return f"Made by `{command}`; n = {segments} segments a direction; seed {seeds}; " + "; ".join(
        [f"`{common}`" + (" (all other targets)" if named else ""), *named]
    )


def write_table(
    df: pd.DataFrame, path_stem: str | Path, caption: str, note: str = "", *, decimals: int = 2
) -> list[Path]:
    """Write `df` as <stem>.csv and <stem>.md, and return the paths.

    Floats get `decimals` places, NaN is an empty cell, the index is left out; caption and note are in .md.
    """
    text = df.apply(lambda column: column.map(lambda cell: _cell(cell, decimals))).astype(str)
    numeric = [is_numeric_dtype(df.iloc[:, i]) for i in range(df.shape[1])]
    rows = list(text.itertuples(index=False, name=None))
    table = Table(list(map(str, df.columns)), rows, caption, [note] if note else [], numeric)
    return write_marked(table, path_stem, (".csv", ".md"))


def write_run(path: str | Path, command: str, **facts: Any) -> Path:
    """Write run.json: command, `facts` (seconds, tokens, seed ...), commit, versions, hardware."""
    return write_json(path, {"command": command, **facts, **provenance()})


def save_figure(fig: Figure, path: str | Path, dpi: int = 100) -> Path:
    """Write `fig` as a PNG without date or software version: the same figure, the same bytes."""
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"figure {path.name!r} is not named as a PNG: call it {path.stem}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        fig.savefig(partial, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _of_metric(records: Iterable[Record], metric: str, stages: Sequence[str]) -> list[Record]:
    records = list(records)
    chosen = [record for record in records if record.metric == metric]
    if not chosen:
        found = ", ".join(sorted({record.metric for record in records})) or "none"
        raise ValueError(f"no records of metric {metric!r}: there are records of {found}")
    profiles = sorted({record.profile for record in chosen})
    if len(profiles) > 1:
        raise ValueError(f"records of several profiles ({', '.join(profiles)}) in one table: make one table each")
    for stage in sorted({record.stage for record in chosen} - set(stages)):
        near = get_close_matches(stage, stages, n=3) or list(stages)
        raise ValueError(
            f"records of {stage!r}, which is no column here: pass stages=(...) with it; near: {', '.join(near)}"
        )
    return chosen


def _rows(means: pd.DataFrame, records: list[Record], stages: list[str], keys: list[str]) -> pd.DataFrame:
    """`keys`, n, one column a stage: NaN where it lacks a direction that another stage has."""
    frame = pd.DataFrame([{**direction_class(r.direction), "name": r.direction} for r in records])
    n = frame.groupby(keys)["name"].nunique().rename("n")
    means = means.merge(n.reset_index(), on=keys)
    whole = means[means["n_directions"] == means["n"]]
    wide = whole.pivot(index=keys, columns="stage", values="mean").reindex(index=n.index, columns=stages)
    return pd.concat([n, wide], axis=1).reset_index()


def _cell(cell: Any, decimals: int) -> str:
    if pd.isna(cell):
        return ""
    # + 0.0 turns the -0.0 of a rounded small loss into 0.0
    return f"{round(cell, decimals) + 0.0:.{decimals}f}" if is_float(cell) else str(cell)
