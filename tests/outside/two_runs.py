"""Two runs of one stage in one folder at once, and a third afterwards.

Held: one makes the stage, the other ends with one sentence (or finds it finished); the third finds it finished, and it
is the stage of a run alone.
"""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any

from chain import GROUP, copied, folder_of, options
from kills import fault_of
from shell import Shell

TITLE = "Two runs in one folder"
COUNT = 6


def run(work: Path, runs: Path, n: int, seed: int) -> dict[str, Any]:
    """n pairs of runs, the second up to a second later."""
    draw, refused, failed = random.Random(seed), 0, []
    with Shell(work) as shell:
        for i in range(n):
            number = (0, 1, 3, 4)[i % 4]
            place = copied(runs, work / "two", upto=number - 1)
            place.mkdir(exist_ok=True)
            command = ("stage", number, "--group", GROUP if number > 1 else 0, *options(place))
            first = shell.start(*command)
            time.sleep(draw.random())
            second = shell.start(*command)
            ends = [first.wait(), second.wait()]
            told = [end.one_sentence("another run (process", "wait for its end") for end in ends]
            refused += sum(told)
            third = shell.run(*command)
            fault = third.err if third.code else fault_of(folder_of(runs, number), folder_of(place, number))
            if (
                fault
                or sum(told) > 1
                or any(end.code and not said for end, said in zip(ends, told, strict=True))
            ):
                failed.append(f"{i}: stage {number}: {fault} {ends}"[:600])
    shutil.rmtree(work / "two", ignore_errors=True)
    return {"tried": n, "held": n - len(failed), "second run refused": refused, "failed": failed}
