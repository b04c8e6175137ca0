"""The finished stages that the harnesses harm: the tests' micro profile, and how it is named on a command line."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import MICRO
from shell import Shell

GROUP = 6
FOLDERS = {
    0: "stage0_backbone/base", 1: "stage1_monolingual_base/base", 2: "stage2_monolingual_modules/group6",
    3: "stage3_pseudo_monolingual/group6", 4: "stage4_sft/group6", 5: "stage5_arpo/group6",
}  # fmt: skip


def options(runs: Path, **values: object) -> list[str]:
    """The arguments that name the micro profile with its stages in `runs`."""
    given = MICRO | {"run_dir": str(runs), "results_dir": str(runs.parent / "results")} | values
    return [part for key, value in given.items() for part in ("--set", f"{key}={value}")]


def folder_of(runs: Path, number: int) -> Path:
    return runs / "tiny" / "ladder" / FOLDERS[number]


def copied(runs: Path, to: Path, upto: int = 5) -> Path:
    """A copy of the finished stages up to a number, free to be harmed."""
    shutil.rmtree(to, ignore_errors=True)
    for number in range(upto + 1):
        shutil.copytree(folder_of(runs, number), folder_of(to, number))
    return to


def made(work: Path) -> Path:
    """All six stages, made by the command line; returns their run_dir. A minute."""
    runs = work / "runs"
    with Shell(work) as shell:
        for number in FOLDERS:
            done = shell.run("stage", number, "--group", GROUP if number > 1 else 0, *options(runs))
            if done.code:
                raise RuntimeError(done.err)
    return runs
