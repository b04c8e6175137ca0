"""The long form of notebook 09: all its studies over several seeds, filed, and read back from files.

Under results/<profile>/ablations/long, which a short run leaves alone: <study>.jsonl and <study>.json (`studies`) and
run.json with the command, versions and hardware; the notebook adds tables/ and figures/, made from these files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xalma.evaluation.records import write_run
from xalma.files import read_json
from xalma.groupsize import size_sets
from xalma.profiles import Profile
from xalma.runs import BASE, read_run, results_folder, stage_folder
from xalma.seeds import seeds_of
from xalma.sftdata import DATA, sft_languages, shared_updates
from xalma.sharing import STAGES, sharing_labels
from xalma.studies import Study, file_study, read_study


@dataclass(frozen=True)
class LongForm:
    """What a long run found. run: run.json."""

    run: dict[str, Any]
    studies: list[Study]


def long_folder(p: Profile) -> Path:
    """Where the long form's files lie."""
    return results_folder(p) / "ablations" / "long"


def plan(p: Profile) -> str:
    """One sentence on how long the trainings of notebook 09 will take, going by the main ladder's stages."""
    try:
        seconds = training_seconds(p) / p.workers
    except FileNotFoundError:
        return "How long this takes is not known: the main ladder's stages, notebooks 03 to 07, are not all there."
    return (
        f"Training takes about {seconds / 60:.0f} minutes on {p.workers} worker(s), going by the seconds that the main "
        f"ladder's stages took; scoring comes on top, and what is finished is not trained again."
    )


def training_seconds(p: Profile) -> float:
    """Seconds of one worker for all chains of notebook 09. Raises FileNotFoundError where the ladder is not whole."""
    group = p.comparison_group_numbers[0]
    sums = [_seconds(p, 1), *(_chain(p, group, first, 5) for first in range(2, 6))]
    stages = sums[0] + sums[1] + sum(sums[1:])  # the full chain, and each without one of stages 1 to 4
    own = {g: _chain(p, g, STAGES[0], STAGES[-1]) for g in {*p.group_numbers, *p.comparison_group_numbers}}
    sharing = (len(sharing_labels(p)) - 1) * sum(own[g] for g in p.group_numbers)
    sizes = sum((len(size_sets(p, g, p.seed)) - 1) * own[g] for g in p.comparison_group_numbers)
    others = sum(own.values()) - own[group]  # the full chains of the other groups
    shared = p.ablation_share * (stages + sharing + sizes + others)
    return p.seeds * (shared + _sft_seconds(p, group))


def _chain(p: Profile, group: int, first: int, last: int) -> float:
    return sum(_seconds(p, number, group) for number in range(first, last + 1))


def _seconds(p: Profile, number: int, group: int = BASE) -> float:
    return read_run(stage_folder(p, number, group))["seconds"]


def _sft_seconds(p: Profile, group: int) -> float:
    if not sft_languages(p, group):
        return 0.0
    run = read_run(stage_folder(p, 4, group))
    return len(DATA) * shared_updates(p, group) * run["seconds"] / run["steps"]


def file_long_form(p: Profile, studies: Sequence[Study]) -> None:
    """Write the studies, and run.json, which names them."""
    for study in studies:
        file_study(long_folder(p), study)
    write_run(
        long_folder(p) / "run.json", p.command("09"), profile=p.name, seeds=list(seeds_of(p)),
        studies=[study.name for study in studies],
        **p.values("ablation_share", "ablation_sft_share", "groups", "comparison_groups"),
    )  # fmt: skip


def read_long_form(p: Profile) -> LongForm | None:
    """The profile's long form from its files alone; None where it was not run."""
    path = long_folder(p) / "run.json"
    if not path.exists():
        return None
    run = read_json(path, "run the long form of notebook 09 again", keys=("studies",))
    return LongForm(run, [read_study(path.parent, name) for name in run["studies"]])
