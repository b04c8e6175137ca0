"""Commands that train: run, stage, plan, status, prepare."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from xalma.cli.options import add_set, at_least_one, overrides
from xalma.profiles import PROFILES


def add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="run the notebooks in order")
    run.add_argument("--profile", default="tiny", help=f"{', '.join(PROFILES)}; default: tiny")
    run.add_argument("--only", help="some notebooks, by number, name or range: 08, 00,03-07")
    run.add_argument("--force", action="store_true", help="run notebooks again that are done")
    run.add_argument(
        "--overwrite", action="store_true", help="values set may replace results of others in the folder"
    )
    run.add_argument("--launch", help="accelerate configuration for stages 1 to 5: 1x, 8x, 2x8 or a file")
    add_set(run)
    run.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from xalma.cli.notebooks import run
    from xalma.profiles import load_profile

    given = overrides(arguments.set) | ({"launch": arguments.launch} if arguments.launch else {})
    checked = load_profile(arguments.profile, **given)
    run(
        arguments.profile,
        {key: getattr(checked, key) for key in given},
        arguments.only,
        arguments.force,
        arguments.overwrite,
    )


def add_stage(commands: Any) -> None:
    stage = commands.add_parser(
        "stage", help="run one stage: what accelerate launch, torchrun or sbatch start"
    )
    stage.add_argument("number", type=int, choices=range(6))
    stage.add_argument("--profile", default="tiny")
    stage.add_argument(
        "--group", type=int, default=0, help="its number; 0 (default), the base: all weights, all languages"
    )
    stage.add_argument("--previous", help="folder of the stage before; default: the main ladder's")
    stage.add_argument("--branch", default="ladder")
    add_set(stage)
    stage.set_defaults(run=_stage)


def _stage(arguments: argparse.Namespace) -> None:
    from xalma.preference.pairs import NoPairs
    from xalma.profiles import load_profile
    from xalma.training import distributed, stages
    from xalma.training import workers as workers_
    from xalma.training.ladder import MODULE_STAGES

    p = load_profile(arguments.profile, **overrides(arguments.set))
    body = {0: stages.stage0_backbone, 1: stages.stage1_monolingual_base, **MODULE_STAGES}[arguments.number]
    distributed.start()
    if distributed.world_size() > 1 and arguments.number not in workers_.LAUNCHED_STAGES:
        raise ValueError(
            f"stage {arguments.number} runs in one process: start it without a launcher, or with one GPU"
        )
    try:
        folder = body(p, arguments.group, arguments.previous, branch=arguments.branch)
    except NoPairs as error:
        workers_.report_no_pairs(error)
        raise
    if distributed.rank() == 0:
        print(folder)
    distributed.stop()


def add_plan(commands: Any) -> None:
    plan = commands.add_parser("plan", help="what a run costs: tokens, FLOPs, memory, days, disk")
    plan.add_argument("--profile", default="full")
    plan.add_argument(
        "--gpus", type=int, help="that train one stage together; default: 8, or fewer that share evenly"
    )
    plan.add_argument("--gpu", default="h200", help="h200 (default), h100, b200, a100 or l40s")
    plan.add_argument(
        "--slurm", action="store_true", help="print the sbatch commands of the whole graph instead"
    )
    add_set(plan)
    plan.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace) -> None:
    from xalma.profiles import load_profile
    from xalma.training.plan import plan_text, shareable, slurm_lines
    from xalma.training.workers import CONFIGURATIONS

    p = load_profile(arguments.profile, **overrides(arguments.set))
    gpus = shareable(p) if arguments.gpus is None else arguments.gpus
    text = plan_text(p, gpus, arguments.gpu)
    same = " ".join(
        [f"--profile {arguments.profile}", *(f"--set {shlex.quote(pair)}" for pair in arguments.set)]
    )
    print(slurm_lines(p, gpus, CONFIGURATIONS / "stage.sbatch", same) if arguments.slurm else text)


def add_status(commands: Any) -> None:
    status = commands.add_parser("status", help="state and progress of all stages of a profile")
    status.add_argument("--profile", default="tiny")
    add_set(status)
    status.set_defaults(run=_status)


def _status(arguments: argparse.Namespace) -> None:
    from xalma.profiles import load_profile
    from xalma.training.monitor import status_table

    print(status_table(load_profile(arguments.profile, **overrides(arguments.set))).to_string(index=False))


def add_prepare(commands: Any) -> None:
    prepare = commands.add_parser(
        "prepare", help="clean, tokenise and pack a corpus into files for mixing_blocks"
    )
    prepare.add_argument("--profile", default="full", help="whose corpus and base; default: full")
    prepare.add_argument(
        "--kind", choices=("monolingual", "bitext"), default="monolingual", help="stages 1, 2 | 3"
    )
    prepare.add_argument(
        "--languages", help="separated by commas; default: those of the profile, and English"
    )
    prepare.add_argument(
        "--to", dest="out", required=True, metavar="DIR", help="the folder mixing_blocks then names"
    )
    prepare.add_argument("--tokens", type=float, help="at most this many of each language, such as 1e9")
    prepare.add_argument("--processes", type=int, help="default: one per core")
    prepare.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS", help="on a Ray cluster; no address: here"
    )
    add_set(prepare)
    prepare.set_defaults(run=_prepare)


def _prepare(arguments: argparse.Namespace) -> None:
    from functools import partial

    from xalma.data.prepare import prepare_profile
    from xalma.data.prepare_workers import cores, processes, ray_cluster
    from xalma.profiles import load_profile
    from xalma.runtime import listed

    p = load_profile(arguments.profile, **overrides(arguments.set))
    workers = at_least_one("--processes", arguments.processes) or cores()
    local = arguments.ray is None
    engine = partial(processes, workers) if local else partial(ray_cluster, address=arguments.ray or None)
    limit = at_least_one("--tokens", arguments.tokens)
    codes = tuple(listed(arguments.languages))
    prepare_profile(p, arguments.out, arguments.kind, codes, engine, limit, workers if local else 0)
