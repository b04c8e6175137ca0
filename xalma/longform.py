"""The long form of notebook 08: all methods and ARPO's switches over several seeds, filed, and read back from files.

It takes much longer than `make reproduce` may, so its results have a folder of their own under results/<profile>: a
short run leaves them alone, and shows them from these files, which need no trained module.

    scores.jsonl  a record for each system, seed, direction and metric
    probes.csv    average log-probabilities of fixed pairs during training (`rejection.probe_frame`)
    tau.csv       ARPO's z and tau, means and histograms of each batch (`rejection.tau_frame`)
    run.json      the command, systems, pairs, versions, hardware
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.comparisons import System, arpo_variants, compare_methods, read_pairs, systems
from xalma.escapes import frame_csv
from xalma.evaluation.records import Record, read_records, write_run
from xalma.files import read_json, write_atomically
from xalma.profiles import Profile
from xalma.rejection import probe_frame, tau_frame
from xalma.runs import results_folder
from xalma.seeds import MIN_SEEDS, SFT, seeds_of
from xalma.studies import file_records

_COUNTS = ["tau_counts", "z_counts"]


@dataclass(frozen=True)
class LongForm:
    """What a long run found. run: run.json; probes, taus: as in `rejection`."""

    run: dict[str, Any]
    records: list[Record]
    probes: pd.DataFrame
    taus: pd.DataFrame

    @property
    def systems(self) -> list[System]:
        """All systems compared, the methods of Table 5 first."""
        return [System(**values) for values in self.run["systems"]]

    @property
    def methods(self) -> list[System]:
        """Those that are methods of Table 5."""
        return [system for system in self.systems if system.name == system.method]

    @property
    def variants(self) -> list[System]:
        """Those that are ARPO with other values."""
        return [system for system in self.systems if system.name != system.method]

    def of(self, chosen: Iterable[System]) -> list[Record]:
        """The records of some systems and of the SFT module they start from."""
        names = {SFT, *(system.name for system in chosen)}
        return [record for record in self.records if record.stage in names]


def is_long(p: Profile) -> bool:
    """Whether the profile asks for the long form: enough seeds for an interval."""
    return p.seeds >= MIN_SEEDS


def long_folder(p: Profile) -> Path:
    """Where the long form's files lie."""
    return results_folder(p) / "preference" / "long"


def plan(p: Profile) -> str:
    """One sentence on what the long form will do; its time is in no file before it was run once."""
    n = len(systems(p)) + len(arpo_variants(p))
    return f"{n} systems × {p.seeds} seeds: {n * p.seeds} modules to train and to test on {p.workers} worker(s)."


def run_long_form(p: Profile, records: Iterable[Record]) -> LongForm:
    """Train and test ARPO's variants, and file all. records: those of the methods, from `compare_methods`.

    Finished systems are not trained again.
    """
    variants, groups = arpo_variants(p), p.comparison_group_numbers
    chosen, folder = [*systems(p), *variants], long_folder(p)
    found = [*records, *(record for group in groups for record in compare_methods(p, group, variants))]
    file_records(folder / "scores.jsonl", {record.key: record for record in found}.values())  # the start comes twice
    _write_csv(folder / "probes.csv", pd.concat([probe_frame(p, group, chosen) for group in groups]))
    taus = pd.concat([tau_frame(p, group, chosen) for group in groups])
    joined = {name: taus[name].map(lambda counts: " ".join(map(str, counts))) for name in _COUNTS}
    _write_csv(folder / "tau.csv", taus.assign(**joined))
    write_run(
        folder / "run.json", p.command("08"), profile=p.name, groups=list(groups), seeds=list(seeds_of(p)),
        updates=int(taus["step"].max()), pairs={group: read_pairs(p, group)[1] for group in groups},
        systems=[asdict(system) for system in chosen],
        **p.values("stage5_batch_size", "stage5_learning_rate", "test_pairs"),
    )  # fmt: skip
    return read_long_form(p)


def read_long_form(p: Profile) -> LongForm | None:
    """The profile's long form from its files alone; None where it was not run."""
    folder = long_folder(p)
    if not (folder / "run.json").exists():
        return None
    run = read_json(folder / "run.json", "run the long form of notebook 08 again")
    taus = pd.read_csv(folder / "tau.csv")
    for name in _COUNTS:
        taus[name] = [list(map(int, text.split())) for text in taus[name]]
    return LongForm(run, read_records(folder / "scores.jsonl"), pd.read_csv(folder / "probes.csv"), taus)


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    write_atomically(path, frame_csv(frame))
