"""Results as records, everything printed from them, and the file that says where they come from.

One measurement is one `Record`, one line of `results/<profile>/scores.jsonl`. Tables and figures
are functions of the records alone: no date, commit or duration stands in them, so two runs that
measure the same give the same bytes. Where and when a run was made stands beside them in
`run.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xalma.evaluation.interference import MARK
from xalma.files import write_atomically, write_json
from xalma.languages import ENGLISH, group_of, other_side, parse_direction
from xalma.runtime import provenance

if TYPE_CHECKING:
    from xalma.evaluation.metrics import Score

IN_BITS = ("bits_per_byte", "partner_gain", "text_bits")  # metrics in bits per byte


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


def records_of(
    scores: Iterable[Score], profile: str, stage: str, direction: str, seed: int = 0
) -> list[Record]:
    """The scores of one system in one direction as records."""
    return [Record(profile, stage, direction, s.metric, s.value, s.n, s.signature, seed) for s in scores]


def write_records(path: str | Path, records: Iterable[Record]) -> Path:
    """Write one JSON object a line, sorted by key. Raises ValueError for two records of one key."""
    records = sorted(records, key=lambda record: record.key)
    for record, following in pairwise(records):
        if record.key == following.key:
            raise ValueError(
                f"two records for {record.key} on the way to {path}: write each measurement once"
            )
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
            raise ValueError(
                f"{path}, line {number} is no record ({names}): run the notebook again"
            ) from error
    return records


def footnote(records: Iterable[Record], metric: str, command: str) -> str:
    """The line under a table: its command, segments per direction, seeds and every signature."""
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
    return f"Made by `{command}`; n = {segments} segments per direction; seed {seeds}; " + "; ".join(
        [f"`{common}`" + (" (all other targets)" if named else ""), *named]
    )


def doubtful(records: Iterable[Record]) -> set[tuple[str, str]]:
    """(stage or system, metric) of the records whose signature says that they are no independent scores."""
    return {
        (record.stage, record.metric) for record in records if f"|{MARK} pairs chosen by" in record.signature
    }


def off_target_label(records: Iterable[Record]) -> str:
    """The head of a column of off-target rates: what was checked, as the records' signatures say.

    Records of older runs (`script of letters, percent of segments`) asked for the script alone.
    """
    signatures = {record.signature for record in records if record.metric == "off_target"}
    checked = {"language, script or no letters" if "no letters" in s else "script alone" for s in signatures}
    return f"off-target % ({' / '.join(sorted(checked)) or 'not measured'})"


def write_run(path: str | Path, command: str, **details: Any) -> Path:
    """Write run.json: command, `details` (seconds, tokens, seed ...), commit, versions, hardware."""
    return write_json(path, {"command": command, **details, **provenance()})


def group_means(records: Iterable[Record]) -> pd.DataFrame:
    """Mean over each group's directions: stage, metric, group, direction, mean, n_directions.

    `direction` is the class "en-xx" or "xx-en". Seeds are averaged within a direction first, so
    that each direction weighs the same. Rows keep the order stage and metric first appear in.
    """
    rows = [
        {
            "stage": r.stage,
            "metric": r.metric,
            **direction_class(r.direction),
            "key": r.direction,
            "value": r.value,
        }
        for r in records
    ]
    if not rows:
        raise ValueError("no records to average: run the stage that writes scores.jsonl first")
    keys = ["stage", "metric", "group", "direction"]
    by_direction = pd.DataFrame(rows).groupby([*keys, "key"], sort=False)["value"].mean()
    return by_direction.groupby(level=keys, sort=False).agg(mean="mean", n_directions="size").reset_index()


def direction_class(direction: str) -> dict[str, int | str]:
    """{"group": 6, "direction": "en-xx"} for "en-zh". Raises ValueError without English."""
    src, tgt = parse_direction(direction)
    return {
        "group": group_of(other_side(src, tgt)),
        "direction": "en-xx" if src == ENGLISH else "xx-en",
    }
