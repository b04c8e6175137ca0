"""Stages killed with SIGKILL at random moments and started again, until one start comes to its end.

Held: the weights and all other files are those of the unbroken stage, byte for byte but for seconds, and nothing half
done lies beside them.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

from chain import GROUP, copied, folder_of, options
from shell import Shell

TITLE = "Killed stages"
COUNT = 6
MOST_KILLS = 4  # of one stage
# what may differ (a process has the threads it was given), and the hashes over it
LEFT_OUT = ("seconds", "commit", "hardware", "sha256", "run_sha256")
EVERY = {"checkpoint_steps": 2}


def run(work: Path, runs: Path, n: int, seed: int) -> dict[str, Any]:
    """n stages, drawn by `seed`, each killed up to MOST_KILLS times; `runs`: the unbroken stages."""
    draw, kills, failed, late = random.Random(seed), 0, [], 0
    with Shell(work) as shell:
        for i in range(n):
            number = draw.choice([1, 3, 4, 5])
            place = copied(runs, work / "killed", upto=number - 1)
            command = ("stage", number, "--group", GROUP if number > 1 else 0, *options(place, **EVERY))
            started = time.monotonic()
            length = None
            for _ in range(MOST_KILLS):
                job = shell.start(*command)
                time.sleep(draw.random() * (length or 4.0))
                job.kill()
                if job.wait().code is not None:
                    late += 1  # it was done before the kill
                    break
                kills += 1
            done = shell.run(*command)
            length = time.monotonic() - started
            fault = (
                done.err.strip() if done.code else fault_of(folder_of(runs, number), folder_of(place, number))
            )
            if fault:
                failed.append(f"{i}: stage {number}: {fault}"[:600])
    shutil.rmtree(work / "killed", ignore_errors=True)
    return {
        "tried": n,
        "held": n - len(failed),
        "kills": kills,
        "ended before a kill": late,
        "failed": failed,
    }


def fault_of(unbroken: Path, folder: Path) -> str:
    """What is not as in the unbroken stage; "" if nothing."""
    if left := sorted(path.name for path in folder.parent.iterdir() if path != folder):
        return f"left beside it: {', '.join(left)}"
    ours, theirs = (
        {path.name: path for path in place.iterdir() if not path.match("outputs-*")}
        for place in (folder, unbroken)
    )
    if ours.keys() != theirs.keys():
        return f"other files: {sorted(ours.keys() ^ theirs.keys())}"
    for name, path in ours.items():
        same = path.read_bytes() == theirs[name].read_bytes()
        if name in ("run.json", "log.json"):
            same = _timeless(path) == _timeless(theirs[name])
        if not same:
            return f"{name} differs: {_different(path, theirs[name])}"
    return ""


def _timeless(path: Path) -> Any:
    """JSON without what may differ."""
    value = json.loads(path.read_text(encoding="utf-8"))
    rows = value if isinstance(value, list) else [value]
    return [{k: v for k, v in row.items() if k not in LEFT_OUT} for row in rows]


def _different(ours: Path, theirs: Path) -> str:
    if ours.suffix != ".json":
        return ""
    pairs = zip(_timeless(ours), _timeless(theirs), strict=False)
    odd = [(key, a[key], b.get(key)) for a, b in pairs for key in a if a[key] != b.get(key)]
    return f"{odd[:2]}"
