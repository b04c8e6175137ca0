"""Work in several processes of this machine, and a stage started on many devices."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

from xalma.profiles import PROFILES, Profile
from xalma.training.distributed import rank
from xalma.training.monitor import view

LAUNCHED_STAGES = (1, 2, 3, 4, 5)
CONFIGURATIONS = Path(__file__).parent / "launch"
NO_PAIRS = "XALMA_NO_PAIRS"  # a file in which a launched stage says why it has no pairs


def launch(p: Profile, number: int, group: int, previous: Path | None, branch: str) -> None:
    """Run one stage as `accelerate launch` does with the configuration `p.launch`; its output is shown as it comes.

    Raises FileNotFoundError for an unknown configuration, NoPairs as the launched stage did, RuntimeError if it failed
    otherwise.
    """
    from xalma.preference.pairs import NoPairs

    named = CONFIGURATIONS / f"{p.launch}.yaml"
    configuration = named if named.exists() else Path(p.launch)
    if not configuration.exists():
        known = ", ".join(sorted(f.stem for f in CONFIGURATIONS.glob("*.yaml")))
        raise FileNotFoundError(
            f"launch={p.launch!r} is no file and none of {known}: give one of these, or a file"
        )
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configuration)]
    command += ["-m", "xalma.cli", *stage_arguments(p, number, group, previous, branch)]
    with view(p), tempfile.TemporaryDirectory() as folder:
        reason = Path(folder) / "reason"
        ended = subprocess.run(command, env={**os.environ, NO_PAIRS: str(reason)})
        if ended.returncode and reason.exists():
            raise NoPairs(reason.read_text(encoding="utf-8"))
    if ended.returncode:
        raise RuntimeError(
            f"stage {number}, group {group}: the launched run ended with {ended.returncode}; see above"
        )


def report_no_pairs(error: Exception) -> None:
    """Tell the process that launched this one, if one did: launchers pass no exception on."""
    if NO_PAIRS in os.environ and rank() == 0:
        Path(os.environ[NO_PAIRS]).write_text(str(error), encoding="utf-8")


def stage_arguments(p: Profile, number: int, group: int, previous: Path | None, branch: str) -> list[str]:
    """Arguments of `xalma` that run this stage of this profile in another process."""
    standard = PROFILES[p.name].values()
    changed = [
        f"{key}={value}" for key, value in p.values().items() if value != standard[key] and key != "launch"
    ]
    arguments = ["stage", str(number), "--profile", p.name, "--group", str(group), "--branch", branch]
    arguments += ["--previous", str(previous)] if previous else []
    return arguments + [part for value in changed for part in ("--set", value)]


def run_jobs(p: Profile, jobs: Sequence[tuple[Callable[..., Any], tuple]]) -> list[Any]:
    """Results of independent jobs (function, arguments), in order, in up to `p.workers` processes.

    Groups share nothing after stage 1: two processes of one thread each train two groups in less time than one
    process of two threads trains them in turn. Each job gets its share of the threads, however many run at once,
    so that its numbers do not depend on the others. On a GPU the jobs run one after another in this process.
    """
    workers = 1 if torch.cuda.is_available() else min(p.workers, len(jobs))
    share = one_share(p).threads
    if workers <= 1:
        before = torch.get_num_threads()
        try:
            return [_with_threads(share, function, arguments) for function, arguments in jobs]
        finally:
            torch.set_num_threads(before)
    futures = [
        _pool(p.workers).submit(_with_threads, share, function, arguments) for function, arguments in jobs
    ]
    with view(p):
        return [future.result() for future in futures]


def one_share(p: Profile) -> Profile:
    """The profile with the threads of one worker."""
    return p.but(threads=max(1, (p.threads or torch.get_num_threads()) // max(1, p.workers)))


@cache
def _pool(workers: int) -> ProcessPoolExecutor:
    """One pool a kernel. Its processes are forked from a server that has imported everything once, and no more."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xalma.training.ladder", "xalma.preference.methods"])
    pool = ProcessPoolExecutor(workers, context, _follow_parent)
    atexit.register(pool.shutdown, wait=False, cancel_futures=True)
    return pool


def _follow_parent() -> None:
    """Make this worker leave interrupts to its kernel, and end when the kernel does, however it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _with_threads(threads: int, function: Callable[..., Any], arguments: tuple) -> Any:
    torch.set_num_threads(threads)
    return function(*arguments)
