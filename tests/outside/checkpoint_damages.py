"""Damages to what a killed stage left beside it: checkpoints, inputs.json, progress.json, the pairs of stage 5.

Held: the stage, started again, ends as the unbroken one (from an older checkpoint, or anew), or it ends with one
sentence that names the file.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from chain import GROUP, copied, folder_of, options
from damages import kinds
from kills import EVERY, fault_of
from shell import Shell

TITLE = "Damaged checkpoints"
COUNT = 12


def run(work: Path, runs: Path, n: int, seed: int) -> dict[str, Any]:
    """n damages, drawn by `seed`, to what stages 3 and 5 left when they were killed."""
    draw, counts, failed, stopped = random.Random(seed), Counter(), [], {}
    with Shell(work) as shell:
        for i in range(n):
            number = (3, 5)[i % 2]
            if number not in stopped:
                stopped[number] = killed(shell, runs, work / f"killed{number}", number)
            harmed = work / "harmed"
            shutil.rmtree(harmed, ignore_errors=True)
            shutil.copytree(stopped[number], harmed)
            left = folder_of(harmed, number).parent / f".checkpoints-group{GROUP}"
            path = draw.choice(sorted(path for path in left.rglob("*") if path.is_file()))
            kind = draw.choice(kinds(path))
            kind(path, draw)
            done = shell.run("stage", number, "--group", GROUP, *options(harmed, **EVERY))
            if done.code:
                fault = "" if done.one_sentence(path.name) else f"{done}"
            else:
                fault = fault_of(folder_of(runs, number), folder_of(harmed, number))
            counts["refused" if done.code and not fault else "ended as the unbroken one"] += not fault
            if fault:
                failed.append(f"{i}: {kind.__name__} {path.relative_to(harmed)}: {fault}"[:600])
    return {"tried": n, "held": n - len(failed), **counts, "failed": failed}


def killed(shell: Shell, runs: Path, place: Path, number: int) -> Path:
    """A run_dir in which the stage was killed after its second checkpoint."""
    copied(runs, place, upto=number - 1)
    done = shell.start("stage", number, "--group", GROUP, *options(place, **EVERY), saves=2).wait()
    if done.code is not None:
        raise RuntimeError(f"stage {number} ended before its second checkpoint: {done}")
    return place
