"""Where a run stands: every stage of every chain in one place, from run.json, checkpoints and progress.json."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.checkpoints import checkpoint_folder
from xalma.files import read_json
from xalma.meter import PROGRESS_FILE
from xalma.profiles import Profile
from xalma.runs import BASE, STAGE_NAMES, read_run, stage_folder

SILENT_S = 300  # a training that has said nothing for so long is not running


def stage_status(p: Profile, number: int, group: int) -> dict[str, Any]:
    """State of one stage: done, training, stopped (resumable from a step), begun or to do; with what is known of it."""
    folder = stage_folder(p, number, group)
    row: dict[str, Any] = {"stage": f"{number} {STAGE_NAMES[number]}", "group": group or "base", "state": "to do"}
    if (folder / "run.json").exists():
        run = read_run(folder)
        hours = timedelta(seconds=round(run.get("seconds", 0)))
        return row | {"state": "done", "progress": f"{run['steps']:,} steps" if "steps" in run else "", "time": hours}
    begun = checkpoint_folder(folder)
    saved = [int(f.name.removeprefix("step-")) for f in begun.glob("step-*")]
    said = _read(begun / PROGRESS_FILE)
    if said.keys() >= {"step", "steps", "loss", "at", "seconds_left", "tokens/s"}:
        row["progress"] = f"step {said['step']:,} of {said['steps']:,} ({100 * said['step'] / said['steps']:.0f} %)"
        row["loss"] = said["loss"]
        if time.time() - said["at"] < SILENT_S:
            left = timedelta(seconds=said["seconds_left"])
            return row | {"state": "training", "time": f"{left} left", "tokens/s": said["tokens/s"]}
        return row | {"state": f"stopped, goes on from step {max(saved):,}" if saved else "stopped, starts anew"}
    return row | ({"state": "begun"} if begun.exists() else {})


def status_table(p: Profile) -> pd.DataFrame:
    """One row a stage of the main ladder: the base's, then each group's chain."""
    jobs = [(0, BASE), (1, BASE), *((number, group) for group in p.group_numbers for number in range(2, 6))]
    return pd.DataFrame([stage_status(p, *job) for job in jobs]).fillna("")


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, "remove it, a training that goes on writes it anew") if path.exists() else {}
