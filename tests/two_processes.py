"""The small trainings of killed_runs.py in one and in two processes (gloo): a script, for test_parallel.py.

    python tests/two_processes.py FOLDER SHARDING …

It imports once and forks every process (it never trains itself: autograd can't be forked). It prints, as JSON, for
each case the largest difference to one process of weights and of losses (of pairs also of what is logged beside them),
and by how much the loss fell.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from itertools import product
from pathlib import Path

import killed_runs
import torch
from smooth import SMOOTH, difference, trained_weights

from xalma.training import distributed
from xalma.training import trainer as training

PROBED = ("full, pairs", "full")  # no stage does, but the probe must leave shards as it found them


def free_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def process(
    rank: int, world: int, port: str, folder: Path, kind: str, sharding: str, kill_at: int | None
) -> None:
    """One of `world` processes; the first leaves weights and log in `folder`."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_PORT": port}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    torch.set_num_threads(1)
    distributed.start()
    training.round = lambda value, digits: value  # the log rounds to four digits: here five must agree
    kill = lambda step: step == kill_at and os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    model, log = killed_runs.run(kind, folder / "checkpoints", kill, dropout=0.0, sharding=sharding, **SMOOTH)
    if log is None:
        del model  # what was trained must go before the group does
        return distributed.stop()
    fell = [row["loss"] for row in log if "loss" in row]
    losses = [row[key] for row in log for key in ("loss", "z", "nll_loss", "margin") if key in row]
    outcome = {"weights": trained_weights(model), "losses": losses, "fell": fell[0] - fell[-1]}
    torch.save(outcome, folder / "outcome.pt")
    distributed.stop()


def outcome(folder: Path, world: int, kind: str, sharding: str, kill_at: int | None = None) -> dict | None:
    """What `world` processes came to, None if they were killed."""
    folder.mkdir(parents=True, exist_ok=True)
    port, children = free_port(), []
    for rank in range(world):
        if (pid := os.fork()) == 0:
            try:
                process(rank, world, port, folder, kind, sharding, kill_at)
                os._exit(0)
            finally:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        children.append(pid)
    ends = {os.waitpid(pid, 0)[1] for pid in children}
    if kill_at is not None:
        assert ends == {signal.SIGKILL}, ends
        return None
    assert ends == {0}, f"{kind}, {sharding}: a process failed"
    return torch.load(folder / "outcome.pt", weights_only=True)


def compared(a: dict, b: dict) -> dict[str, float]:
    return {
        "losses": max(abs(x - y) for x, y in zip(a["losses"], b["losses"], strict=True)),
        "weights": difference(a["weights"], b["weights"]),
        "fell": a["fell"],
    }


def main(folder: Path, shardings: list[str]) -> None:
    found, cases = {}, [*product(killed_runs.KINDS, shardings)]
    for i, (kind, sharding) in enumerate([*cases, PROBED] if "full" in shardings else cases):
        one = outcome(folder / f"{i} one", 1, kind, "none")
        two = outcome(folder / f"{i} two", 2, kind, sharding)
        found[f"{kind}, sharding={sharding}"] = compared(one, two)
        if sharding != "none":  # both killed, resumed by two, and by one from what two had saved
            for name, world in (("two", 2), ("one", 1)):
                place = folder / f"{i} killed, resumed by {name}"
                outcome(place, 2, kind, sharding, kill_at=8)
                found[f"{kind}, killed, resumed by {name}"] = compared(
                    one, outcome(place, world, kind, sharding)
                )
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
