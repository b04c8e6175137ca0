"""The recipe on a real base in minutes: tasks that a few processes share, each result written as soon as it is there.

`python benchmarks/real.py run` reads a folder of `pack` (token ids alone), trains the ladder, then what it is compared
with, in the order of their worth, and appends to OUT: ladder-*.jsonl.gz, studies.jsonl.gz, whole-*.jsonl.gz (token ids
of outputs, nats of references) and log.jsonl (settings, tasks, seconds, tokens, losses, failures). `scores` turns these
into scores.
WORK has the weights and which tasks are done: the same command again goes on. A cut-off loses the tasks in hand alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from real_base.context import Run
from xalma.languages import parse_groups
from xalma.profiles import Profile, load_profile
from xalma.runtime import provenance

METHOD_RATES = (1.0, 0.3, 3.0)  # times the profile's learning rate of stage 5


@dataclass(frozen=True)
class RealTask:
    """A part of the run that one process does. needs: names of tasks that must be done before."""

    name: str
    needs: tuple[str, ...]
    run: Callable[[Any], None]


def real_tasks(p: Profile) -> list[RealTask]:
    """All tasks, the most wanted first."""
    from real_base import tasks as t

    # compared ones first
    groups = sorted(p.group_numbers, key=lambda g: g not in parse_groups(p.comparison_groups))
    compared = [g for g in groups if g in parse_groups(p.comparison_groups)]
    others = [g for g in groups if g not in compared]
    without = lambda g, n: RealTask(  # noqa: E731
        f"without.{n}.g{g}", () if n == 1 else ("stage1",), lambda r: t.without(r, g, n)
    )
    first = (compared + others)[:2]
    tasks = [
        RealTask("stage1", (), t.stage1),
        # what needs no stage 1, while it is trained
        *(RealTask(f"base.g{g}", (), lambda r, g=g: t.base(r, g)) for g in groups),
        *(without(g, 1) for g in first),
        *(RealTask(f"g{g}", ("stage1",), lambda r, g=g: t.ladder(r, g)) for g in groups),
        *(RealTask(f"stage1.scores.g{g}", ("stage1",), lambda r, g=g: t.stage1_scores(r, g)) for g in groups),
    ]
    arpo = [RealTask(f"g{g}.arpo", (f"g{g}",), lambda r, g=g: t.preference(r, g)) for g in compared + others]
    tasks += arpo[: len(compared)]
    tasks += _sharing(groups) if others else []
    tasks += arpo[len(compared) :]
    tasks += [task for g in compared for task in _methods(g, METHOD_RATES[:1])]
    tasks += [without(g, n) for g in first for n in (2, 3)]
    tasks += [task for g in compared for task in _methods(g, METHOD_RATES[1:])]
    if {2, 4} <= set(groups):
        tasks.append(RealTask("french", ("stage1", "g4"), t.french))
    for name, need in (("stage4", "g{}"), ("stage5", "g{}.arpo"), ("base", "g{}")):
        tasks += [
            RealTask(f"whole.{name}.g{g}", (need.format(g),), lambda r, g=g, n=name: t.whole(r, g, n))
            for g in groups
        ]
    return tasks


def _methods(group: int, rates: Sequence[float]) -> list[RealTask]:
    """Preference methods on a group at each of the rates; the ladder has ARPO and continued SFT at 1."""
    from real_base.preference_objectives import OBJECTIVES
    from real_base.tasks import method

    names = ("arpo", *OBJECTIVES, "arpo-detach", "arpo-released", "sft")
    cells = [
        (name, rate) for rate in rates for name in names if (name, rate) not in (("arpo", 1), ("sft", 1))
    ]
    return [
        RealTask(
            f"m.g{group}.{name}.{rate:g}",
            (f"g{group}.arpo",),
            lambda r, name=name, rate=rate: method(r, group, name, rate),
        )
        for name, rate in cells
    ]


def _sharing(groups: Sequence[int]) -> list[RealTask]:
    """One model for all groups, and a module per group on the same rows."""
    from real_base.tasks import own, shared

    one = {
        name: RealTask(f"share.{name}", ("stage1",), lambda r, name=name: shared(r, name))
        for name in ("wide", "dense", "shared")
    }
    owns = [RealTask(f"share.own.g{g}", ("stage1",), lambda r, g=g: own(r, g)) for g in groups]
    return [one["wide"], one["dense"], *owns, one["shared"]]


def work_through(run: Run, wanted: Sequence[RealTask], until: float) -> None:
    """Do tasks that nobody has, in order, until none is left or the time is over."""
    marks = {kind: run.work / kind for kind in ("claimed", "done", "failed")}
    has = lambda kind, name: (marks[kind] / name).exists()  # noqa: E731
    while time.time() < until:
        open_tasks = [t for t in wanted if not any(has(kind, t.name) for kind in marks)]
        open_tasks = [t for t in open_tasks if not _hopeless(t, wanted, marks["failed"])]
        ready = [t for t in open_tasks if all(has("done", need) for need in t.needs)]
        task = next((t for t in ready if _claim(marks["claimed"] / t.name)), None)
        if task is None:
            if not open_tasks:
                return
            time.sleep(0.3)
            continue
        started = time.perf_counter()
        try:
            _with_room(task, run)
            kind = "done"
        except Exception as error:  # the others go on
            kind = "failed"
            run.log(
                "failed",
                task=task.name,
                error=f"{type(error).__name__}: {error}",
                trace=traceback.format_exc(),
            )
        run.log(
            "task",
            task=task.name,
            result=kind,
            seconds=round(time.perf_counter() - started, 2),
            pid=os.getpid(),
        )
        (marks[kind] / task.name).touch()


def _with_room(task: RealTask, run: Run) -> None:
    """Run the task, again where the processes beside this one had the memory: they give it back."""
    for left in (2, 1, 0):
        try:
            return task.run(run)
        except torch.cuda.OutOfMemoryError as error:
            if not left:
                raise
            run.log("no room", task=task.name, error=str(error)[:200])
        gc.collect()
        torch.cuda.empty_cache()
        time.sleep(5)


def _hopeless(task: RealTask, wanted: Sequence[RealTask], failed: Path) -> bool:
    by_name = {t.name: t for t in wanted}
    needs = [by_name[name] for name in task.needs if name in by_name]
    return any((failed / need.name).exists() or _hopeless(need, wanted, failed) for need in needs)


def _claim(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def scaled(p: Profile, scale: float) -> Profile:
    """The profile with `scale` times the training text of stages 1 to 4."""
    changes: dict[str, Any] = {"sft_pairs": max(8, round(p.sft_pairs * scale))}
    for n in (1, 2, 3):
        least = p.stage(n).batch_size * p.block_tokens
        changes[f"stage{n}_tokens"] = max(least, round(p.stage(n).tokens * scale))
    return p.but(**changes)


def chosen(all_tasks: Iterable[RealTask], only: str) -> list[RealTask]:
    """Tasks whose names begin with one of `only`, separated by commas, and what they need; all for ""."""
    all_tasks = list(all_tasks)
    if not only:
        return all_tasks
    named = {t.name for t in all_tasks if t.name.startswith(tuple(only.split(",")))}
    while more := {need for t in all_tasks if t.name in named for need in t.needs} - named:
        named |= more
    return [t for t in all_tasks if t.name in named]


def run_command(argv: Sequence[str]) -> int:
    """The command; see the module's text. Exit code 1 where a task failed, 2 for bad input."""
    a = _arguments(argv)
    values = dict(pair.split("=", 1) for pair in a.set)
    try:
        p = scaled(load_profile(a.profile, **values), a.scale)
        if not (a.pack / "index.json").is_file():
            raise FileNotFoundError(f"no pack in {a.pack}: write it with `python benchmarks/real.py pack`")
    except (ValueError, OSError) as error:
        print(f"xalma: {error}", file=sys.stderr)
        return 2
    until = a.until or time.time() + a.seconds
    if not a.worker:
        return _lead(a, p, until)
    if torch.cuda.is_available():
        _for_gpu()
    else:
        torch.set_num_threads(max(1, p.threads))
    run = Run(p, a.pack, a.out, a.work, a.form, a.pairs)
    work_through(run, chosen(real_tasks(p), a.only), until)
    return 0


def _lead(a: argparse.Namespace, p: Profile, until: float) -> int:
    for folder in (a.out, *(a.work / kind for kind in ("claimed", "done", "failed"))):
        folder.mkdir(parents=True, exist_ok=True)
    for kind in ("claimed", "failed"):
        for path in (a.work / kind).iterdir():
            if kind == "failed" or not (a.work / "done" / path.name).exists():
                path.unlink()
    settings = {
        "profile": p.values(),
        "scale": a.scale,
        "workers": a.workers,
        "seconds": a.seconds,
        "only": a.only,
        "form": a.form,
        "pairs": a.pairs,
    }
    line = json.dumps({"event": "run"} | settings | provenance())
    with (a.out / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(line + "\n")
    script = Path(__file__).parents[1] / "real.py"
    command = [sys.executable, str(script), "run", *a.argv, "--worker", "--until", f"{until:.1f}"]
    env = os.environ | {"TQDM_DISABLE": "1"}
    workers = [subprocess.Popen(command, env=env) for _ in range(a.workers)]
    codes = [worker.wait() for worker in workers]
    failed = sorted(path.name for path in (a.work / "failed").iterdir())
    done = len(list((a.work / "done").iterdir()))
    print(f"{done} tasks done, failed: {', '.join(failed) or 'none'}, exit codes {codes}", flush=True)
    return int(bool(failed) or any(codes))


def _for_gpu() -> None:
    """More logits at once than on a CPU, fewer kernels, and no plans that cuDNN makes for each new length."""
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

    from xalma.models import losses

    losses.LOGITS = 2**28  # a GiB: eight processes share a GPU
    Gemma3RMSNorm.forward = fused_norm
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.set_num_threads(2)


def fused_norm(norm: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Gemma3RMSNorm's forward with one kernel for what are six: a base of this size waits for its kernels. (…, D)"""
    weight = 1.0 + norm.weight.float()
    return torch.nn.functional.rms_norm(x.float(), weight.shape, weight, norm.eps).type_as(x)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/real.py run", description="The recipe on a real base."
    )
    parser.add_argument("--profile", default="real")
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e6, help="no task is begun after these")
    parser.add_argument("--scale", type=float, default=1.0, help="of the training text")
    parser.add_argument("--only", default="", help="beginnings of task names, separated by commas")
    parser.add_argument(
        "--form", default="", choices=("", "few-shot", "prompted"), help="measure in this one alone"
    )
    parser.add_argument(
        "--pairs",
        default="references",
        choices=("references", "samples"),
        help="preference pairs: references over the SFT model's answers, or its best samples over its worst",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=0.0, help=argparse.SUPPRESS)
    a = parser.parse_args(argv)
    a.argv = argv
    return a
