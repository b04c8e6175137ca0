"""Small trainings that are killed: imported by test_checkpoints.py, and a script that does it with real SIGKILLs.

    python tests/killed_runs.py FOLDER SEEDS

The script imports everything once and forks for each training (it never trains itself: autograd can't be forked), so
that thirty kills cost little more than one. It prints, as JSON, what became of each seed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

import torch

from xalma.data.blocks import PackedBlocks
from xalma.data.collate import IGNORE
from xalma.data.mixing import mixture
from xalma.models.adapters import attach_adapter
from xalma.models.backbone import build_llama, train_tokenizer
from xalma.profiles import TINY
from xalma.training import trainer as training
from xalma.training.objectives import Arpo

STEPS, EVERY = 12, 3
KINDS = ("full, packed", "module, rows", "module, pairs")


def profile():
    return TINY.but(
        threads=1,
        mixed_precision="off",
        stage1_batch_size=4,
        stage4_batch_size=4,
        micro_batch=2,
        block_tokens=32,
        stage5_batch_size=4,
        checkpoint_steps=EVERY,
        warmup_ratio=0.2,
    )


def texts(code: str) -> list[str]:
    return [f"{code} the number {i} is not {i * 7 % 13}" + " but words" * (i % 5) for i in range(200)]


def rows() -> list[dict[str, list[int]]]:
    """21 rows, so that 12 updates of 4 are two epochs and a bit, with a short batch at the end of each."""
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 250, (5 + i % 9,), generator=generator).tolist() for i in range(21)]
    return [{"input_ids": row, "labels": [IGNORE] * 3 + row[3:]} for row in ids]


def pairs() -> list[dict[str, list[int]]]:
    """21 pairs of two answers to one prompt, the rejected one token longer."""
    generator, found = torch.Generator().manual_seed(1), []
    for i in range(21):
        ids = torch.randint(3, 250, (4 + 9,), generator=generator).tolist()
        sides = {"chosen": ids[: 6 + i % 4], "rejected": ids[:4] + ids[5 : 8 + i % 4]}
        found.append({f"{side}_input_ids": answer for side, answer in sides.items()})
        found[-1] |= {f"{side}_labels": [IGNORE] * 4 + answer[4:] for side, answer in sides.items()}
    return found


def run(kind: str, folder: Path | None, before_step=lambda step: None, dropout: float = 0.2, **changes):
    """Train from the same start as ever, or from the checkpoint in `folder`; (model, log). Dropout needs the states."""
    tokenizer = train_tokenizer(texts("en") + texts("fi"), 300)
    model = build_llama(tokenizer, hidden_size=32, layers=2, heads=2, max_positions=64, seed=0)
    p, data, stage, more = profile().but(**changes), rows(), 4, {}
    if kind == KINDS[0]:
        sources = {code: lambda code=code: texts(code) for code in ("en", "fi")}
        stream = mixture(sources, {"en": 0.4, "fi": 0.6}, 1)
        data, stage = PackedBlocks(stream, tokenizer, p.block_tokens, 4 * STEPS), 1
    if kind.startswith("module"):
        model = attach_adapter(model, 6, rank=4, alpha=8, dropout=dropout)
    if kind.endswith("pairs"):
        data, stage, more = pairs(), 5, {"objective": Arpo(beta=0.1), "probe": pairs()[:5]}
    plain_update = training.TrainingRun.update

    def update(self, parts):
        before_step(self.step)
        return plain_update(self, parts)

    training.TrainingRun.update = update
    try:
        log = training.train(
            model,
            data,
            p,
            p.stage(stage),
            steps=STEPS,
            seed=3,
            pad_token_id=0,
            label="killed",
            checkpoints=folder,
            **more,
        )
    finally:
        training.TrainingRun.update = plain_update
    return model, log


def outcome(kind: str, folder: Path, before_step=lambda step: None) -> dict:
    """Final weights and log of a run, comparable with ==."""
    model, log = run(kind, folder, before_step)
    weights = {
        name: x.detach().numpy().tobytes().hex() for name, x in model.named_parameters() if x.requires_grad
    }
    return {"weights": weights, "log": [{k: v for k, v in row.items() if k != "seconds"} for row in log]}


def forked(kind: str, folder: Path, kill_at: int | None) -> dict | None:
    """`outcome` in a process of its own, None if it was killed, by SIGKILL, before update `kill_at`."""
    result = folder.with_suffix(".json")
    result.unlink(missing_ok=True)
    if (pid := os.fork()) == 0:
        kill = lambda step: step == kill_at and os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        result.write_text(json.dumps(outcome(kind, folder, kill)))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    return json.loads(result.read_text())


def main(folder: Path, n_seeds: int) -> None:
    torch.set_num_threads(1)
    unbroken = {kind: forked(kind, folder / f"unbroken {i}", None) for i, kind in enumerate(KINDS)}
    found = []
    for seed in range(n_seeds):
        draw, kind, place = random.Random(seed), KINDS[seed % 3], folder / f"seed {seed}"
        kills = sorted(draw.sample(range(1, STEPS), 2))  # killed, resumed, killed again, resumed
        ends = [forked(kind, place, at) for at in [*kills, None]]
        same = ends[-1] == unbroken[kind]
        found.append(
            {"seed": seed, "kind": kind, "kills": kills, "killed": ends[:2] == [None, None], "same": same}
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
