"""Stage 5 killed while it decodes the rejected answers, and twice while it trains: a script, for test_stages.py.

    python tests/killed_stage5.py RUN_DIR FOLDER SEEDS

RUN_DIR holds the micro profile's finished stage 4. The script forks for each start of the stage (it never trains
itself: autograd can't be forked), kills with SIGKILL, and prints, as JSON, what became of each seed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import torch
from conftest import MICRO
from transformers import GenerationMixin

from xalma.profiles import Profile, load_profile
from xalma.training import stages
from xalma.training import trainer as training

GROUP = 6


def profile(run_dir: Path) -> Profile:
    values = MICRO | {"generation_batch": 16, "micro_batch": 4, "stage5_batch_size": 4, "checkpoint_steps": 3}
    return load_profile("tiny", **values, run_dir=str(run_dir))


def start(p: Profile, batch: int | None = None, step: int | None = None) -> tuple[bool, int]:
    """(whether it was killed, batches it decoded). Killed before decoding `batch`, or before update `step`."""
    count = Path(p.run_dir) / "decoded"
    count.write_bytes(b"")
    if (pid := os.fork()) == 0:
        decode, update = GenerationMixin.generate, training.TrainingRun.update

        def decode_or_die(self, *args, **kwargs):
            if count.stat().st_size == batch:
                os.kill(os.getpid(), signal.SIGKILL)
            count.write_bytes(count.read_bytes() + b".")
            return decode(self, *args, **kwargs)

        def update_or_die(self, parts):
            if self.step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return update(self, parts)

        GenerationMixin.generate, training.TrainingRun.update = decode_or_die, update_or_die
        try:
            stages.stage5_arpo(p, GROUP, stages.stage_folder(p, 4, GROUP))
            os._exit(0)
        finally:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL, count.stat().st_size


def outcome(p: Profile) -> dict:
    """Weights, log and facts of the finished stage, comparable with ==."""
    folder = stages.stage_folder(p, 5, GROUP)
    run, log = stages.read_run(folder), stages.read_log(folder)
    facts = {key: run[key] for key in ("rows", "rows_too_long", "pairs", "steps", "fingerprint")}
    log = [{key: value for key, value in row.items() if key != "seconds"} for row in log]
    return facts | {"log": log, "weights": (folder / "adapter_model.safetensors").read_bytes().hex()}


def prepared(run_dir: Path, folder: Path) -> Profile:
    shutil.copytree(run_dir, folder)
    p = profile(folder)
    shutil.rmtree(stages.stage_folder(p, 5, GROUP), ignore_errors=True)
    return p


def main(run_dir: Path, folder: Path, n_seeds: int) -> None:
    torch.set_num_threads(1)
    p = prepared(run_dir, folder / "unbroken")
    assert not start(p)[0]
    unbroken, found = outcome(p), []
    for seed in range(n_seeds):
        draw, p = random.Random(seed), prepared(run_dir, folder / f"seed {seed}")
        batch, steps = draw.randrange(1, 4), sorted(draw.sample(range(1, unbroken["steps"]), 2))
        starts = [start(p, batch=batch), *(start(p, step=step) for step in steps), start(p)]
        left = [f.name for f in stages.stage_folder(p, 5, GROUP).parent.iterdir()]
        killed, decoded = zip(*starts, strict=True)
        found.append(
            {
                "killed": killed,
                "decoded": decoded,
                "expected": [batch, *unbroken_batches(p), 0, 0],
                "same": outcome(p) == unbroken,
                "left": left,
                "steps": steps,
            }
        )
    print(json.dumps(found))


def unbroken_batches(p: Profile) -> list[int]:
    return [
        -(-stages.read_run(stages.stage_folder(p, 5, GROUP))["pairs"]["considered"] // p.generation_batch)
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
