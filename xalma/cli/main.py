"""The `xalma` command: run the notebooks, translate, score, list the languages."""

from __future__ import annotations

import argparse
import io
import os
import select
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script: 0, or 2 with one sentence on stderr for bad input, 1 for a failed run."""
    for stream in (sys.stdout, sys.stderr):
        _print_any_letter(stream)
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
        sys.stdout.flush()  # here, where a reader that is gone is no error
    except (ValueError, OSError, ImportError, RuntimeError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return 141  # as a shell says of a program that SIGPIPE ended
        print(f"xalma: {' '.join(str(error).split())}", file=sys.stderr)  # libraries' messages may have many lines
        return 1 if isinstance(error, RuntimeError | FloatingPointError) else 2
    except KeyboardInterrupt as stop:  # who has more to say of what is kept says it
        kept = "stopped; finished notebooks and stages are kept, the same command goes on from there"
        print(f"\nxalma: {stop if stop.args else kept}", file=sys.stderr)
        return 130
    return 0


def _print_any_letter(stream: Any) -> None:
    """Translations are UTF-8 in a file or a pipe whatever the locale is; a terminal shows `?` for what it lacks."""
    if isinstance(stream, io.TextIOWrapper):
        if stream.isatty():
            stream.reconfigure(errors="replace")
        else:
            stream.reconfigure(encoding="utf-8")


def _reader_is_gone() -> bool:
    """Whether standard output is what broke, as under `| head`; then nothing more is written to it at exit either."""
    out, poll = sys.stdout.fileno(), select.poll()
    poll.register(out, select.POLLOUT)
    gone = any(events & select.POLLERR for _, events in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out)
    return gone


def _parser() -> argparse.ArgumentParser:
    from xalma.cli.systems import add_options
    from xalma.profiles import PROFILES

    parser = argparse.ArgumentParser(prog="xalma", description="The open, runnable recipe of X-ALMA.")
    commands = parser.add_subparsers(required=True, metavar="command")

    run = commands.add_parser("run", help="run the notebooks in order")
    run.add_argument("--profile", default="tiny", help=f"{', '.join(PROFILES)}; default: tiny")
    run.add_argument("--only", help="some notebooks, by number, name or range: 08, 00,03-07")
    run.add_argument("--force", action="store_true", help="run notebooks again that are done")
    run.add_argument("--overwrite", action="store_true", help="values set may replace results of others in the folder")
    run.add_argument("--launch", help="accelerate configuration for stages 1 to 5: 1x, 8x, 2x8 or a file")
    _add_set(run)
    run.set_defaults(run=_run)

    stage = commands.add_parser("stage", help="run one stage: what accelerate launch, torchrun or sbatch start")
    stage.add_argument("number", type=int, choices=range(6))
    stage.add_argument("--profile", default="tiny")
    stage.add_argument("--group", type=int, default=0, help="1 to 8; 0, the base: all weights, all languages")
    stage.add_argument("--previous", help="folder of the stage before; default: the main ladder's")
    stage.add_argument("--branch", default="ladder")
    _add_set(stage)
    stage.set_defaults(run=_stage)

    plan = commands.add_parser("plan", help="what a run costs: tokens, FLOPs, memory, days, disk")
    plan.add_argument("--profile", default="full")
    plan.add_argument("--gpus", type=int, help="that train one stage together; default: 8, or fewer that share evenly")
    plan.add_argument("--gpu", default="h200", help="h200 (default), h100, b200, a100 or l40s")
    plan.add_argument("--slurm", action="store_true", help="print the sbatch commands of the whole graph instead")
    _add_set(plan)
    plan.set_defaults(run=_plan)

    status = commands.add_parser("status", help="state and progress of all stages of a profile")
    status.add_argument("--profile", default="tiny")
    _add_set(status)
    status.set_defaults(run=_status)

    prepare = commands.add_parser("prepare", help="clean, tokenise and pack a corpus into files for mixing_blocks")
    prepare.add_argument("--profile", default="full", help="whose corpus and base; default: full")
    prepare.add_argument("--kind", choices=("monolingual", "bitext"), default="monolingual", help="stages 1, 2 | 3")
    prepare.add_argument("--languages", help="separated by commas; default: those of the profile, and English")
    prepare.add_argument("--to", dest="out", required=True, metavar="DIR", help="the folder mixing_blocks then names")
    prepare.add_argument("--tokens", type=float, help="at most this many of each language, such as 1e9")
    prepare.add_argument("--processes", type=int, help="default: one per core")
    prepare.add_argument("--ray", nargs="?", const="", metavar="ADDRESS", help="on a Ray cluster; no address: here")
    _add_set(prepare)
    prepare.set_defaults(run=_prepare)

    translate = commands.add_parser("translate", help="translate a file or standard input, one segment per line")
    translate.add_argument("--from", dest="src", required=True, metavar="LANG")
    translate.add_argument("--to", dest="tgt", required=True, metavar="LANG")
    translate.add_argument("--profile", default="tiny")
    translate.add_argument("--model", help="folder of a stage or an export; default: the profile's newest stage")
    translate.add_argument("--system", help="another system than ours, by its name in `xalma systems`")
    translate.add_argument("file", nargs="?", help="UTF-8 text; default: standard input")
    add_options(translate)
    _add_set(translate)
    translate.set_defaults(run=_translate)

    score = commands.add_parser("score", help="scores with signatures: an output file, or systems over a test set")
    score.add_argument("--output", help="the system's output, one segment per line; with --reference and --to")
    score.add_argument("--reference")
    score.add_argument("--source", help="for the rate of copied segments")
    score.add_argument("--to", dest="tgt", metavar="LANG")
    score.add_argument("--system-outputs", metavar="DIR", help="one or more systems' outputs; with --testset")
    score.add_argument("--systems", help="some of them, separated by commas; default: all")
    score.add_argument("--partial", action="store_true", help="score each system in the directions it has")
    score.add_argument("--results", metavar="DIR", help="write records, intervals, tests and tables to DIR/<testset>")
    _add_testset(score)
    score.add_argument(
        "--metrics", help="of bleu, chrf, chrf++, spbleu, comet22, xcomet-xl, xcomet-xl-qe, "
        "cometkiwi, cometkiwi-xl; default: bleu,chrf; of systems: bleu,chrf++",
    )  # fmt: skip
    score.add_argument(
        "--checkpoint", action="append", default=[], metavar="METRIC=PATH_OR_ID",
        help="another hub id or a local path for a neural metric; repeatable",
    )  # fmt: skip
    score.add_argument("--score-cache", metavar="FILE", help="keep neural scores here; the next run reads them")
    score.set_defaults(run=_score)

    compare = commands.add_parser("compare", help="is one system better than another: paired tests over all directions")
    compare.add_argument("a", help="folder of <direction>.txt, or a path with {direction} in it")
    compare.add_argument("b")
    compare.add_argument("--metric", default="bleu,chrf++", help="default: bleu,chrf++")
    compare.add_argument("--test", default="bootstrap", choices=("bootstrap", "randomisation"))
    compare.add_argument("--correction", default="holm", choices=("holm", "bh"), help="over directions; default: holm")
    compare.add_argument("--alpha", type=float, default=0.05)
    _add_testset(compare)
    compare.set_defaults(run=_compare)

    contamination = commands.add_parser("contamination", help="test sentences in the training texts of XALMA_DATA")
    contamination.set_defaults(run=_contamination)

    convert = commands.add_parser("convert", help="adapters to the all-modules checkpoint and back; a GGUF to a base")
    convert.add_argument("--from", dest="source", required=True, nargs="+", metavar="PATH_OR_ID",
                         help="a checkpoint of either layout, adapter folders of groups, or one GGUF file")  # fmt: skip
    convert.add_argument("--to", dest="out", required=True, metavar="DIR", help="a new folder")
    convert.add_argument("--layout", choices=("adapters", "all-modules"), help="default: the one it is not in")
    convert.add_argument("--base", help="folder or hub id of the adapters' base, where they do not lead to it")
    convert.add_argument("--groups", help="default: all eight")
    convert.add_argument("--max-shard-size", default="5GB")
    convert.set_defaults(run=_convert)

    trim = commands.add_parser("trim", help="a base with the vocabulary that texts use, and the way back")
    trim.add_argument("--from", dest="source", required=True, metavar="BASE", help="a folder, a hub id or a name")
    trim.add_argument("--to", dest="out", required=True, metavar="DIR", help="a new folder")
    trim.add_argument("--texts", nargs="+", default=[], metavar="FILE", help="one text a line; a .gz is read, too")
    trim.add_argument("--limit", type=int, default=0, help="most tokens, the frequent ones; default: all that are used")
    trim.add_argument("--restore", metavar="BASE", help="the whole base: give the model in --from its vocabulary back")
    trim.set_defaults(run=_trim)

    export = commands.add_parser("export", help="a merged model or adapter with a model card, checked first")
    export.add_argument("--profile", default="tiny")
    export.add_argument("--group", type=int, required=True, help="language group whose module is exported")
    export.add_argument("--to", dest="out", required=True, metavar="DIR", help="a new folder")
    export.add_argument("--what", choices=("merged", "adapter"), default="merged")
    export.add_argument("--model", help="folder of a stage; default: the newest stage of the profile")
    export.add_argument("--base-id", default="", help="hub id of the base, for the card and the adapter")
    export.add_argument("--with-base", action="store_true", help="write the adapter's base beside it, as DIR/base")
    export.add_argument("--gguf", action="store_true", help="write DIR/model.gguf too, for llama.cpp and Ollama")
    export.add_argument("--sentences", type=int, default=200, help="how many are compared before anything is written")
    export.add_argument("--licence", default="other", help="the hub's identifier of a licence")
    _add_set(export)
    export.set_defaults(run=_export)

    systems = commands.add_parser("systems", help="the systems of the papers: weights, prompt, languages, licence")
    systems.set_defaults(run=_systems)

    outputs = commands.add_parser("outputs", help="a system's outputs for a test set, one line per segment, resumable")
    outputs.add_argument("--system", required=True, help="name in `xalma systems`")
    outputs.add_argument("--testset", required=True, help="flores200, wmt15 to wmt24, wmt24pp, ntrex, or a folder")
    outputs.add_argument("--origin", default="data", help="data (default), sacrebleu or hub")
    outputs.add_argument("--directions", help="en-de,de-en,…; default: all of the test set")
    outputs.add_argument("--out", required=True, metavar="DIR")
    add_options(outputs)
    outputs.set_defaults(run=_outputs)

    languages = commands.add_parser("languages", help="the 50 languages with their groups and codes")
    languages.set_defaults(run=_languages)
    return parser


def _add_testset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--testset", help="flores200, wmt15 to wmt24, wmt24pp, ntrex, or a folder of <direction>/src.txt and ref.txt"
    )
    parser.add_argument("--origin", default="data", help="of the test set: data (default), sacrebleu or hub")
    parser.add_argument("--directions", help="en-de,de-en,…; default: all that there are outputs for")
    parser.add_argument("--workers", type=int, default=0, help="processes; default: one per core")
    parser.add_argument("--resample", choices=("segments", "documents"), default="segments",
                        help="what intervals and paired tests draw; documents where the set has them")  # fmt: skip


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a profile value; repeatable"
    )


def _overrides(pairs: Sequence[str]) -> dict[str, Any]:
    return _pairs("--set", pairs, "seeds=3")


def _pairs(option: str, pairs: Sequence[str], example: str = "comet22=/models/wmt22-comet-da") -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"bad {option} {pair!r}: write it as key=value, for example {example}")
    return dict(pair.split("=", 1) for pair in pairs)


def _run(arguments: argparse.Namespace) -> None:
    from xalma.cli.notebooks import run
    from xalma.profiles import load_profile

    given = _overrides(arguments.set) | ({"launch": arguments.launch} if arguments.launch else {})
    checked = load_profile(arguments.profile, **given)
    run(arguments.profile, {key: getattr(checked, key) for key in given}, arguments.only, arguments.force,
        arguments.overwrite)  # fmt: skip


def _stage(arguments: argparse.Namespace) -> None:
    from xalma.preference.pairs import NoPairs
    from xalma.profiles import load_profile
    from xalma.training import distributed, stages
    from xalma.training import workers as workers_
    from xalma.training.ladder import MODULE_STAGES

    p = load_profile(arguments.profile, **_overrides(arguments.set))
    body = {0: stages.stage0_backbone, 1: stages.stage1_monolingual_base, **MODULE_STAGES}[arguments.number]
    distributed.start()
    if distributed.world_size() > 1 and arguments.number not in workers_.LAUNCHED_STAGES:
        raise ValueError(f"stage {arguments.number} runs in one process: start it without a launcher, or with one GPU")
    try:
        folder = body(p, arguments.group, arguments.previous, branch=arguments.branch)
    except NoPairs as error:
        workers_.report_no_pairs(error)
        raise
    if distributed.rank() == 0:
        print(folder)
    distributed.stop()


def _plan(arguments: argparse.Namespace) -> None:
    from xalma.profiles import load_profile
    from xalma.training.plan import plan_text, shareable, slurm_lines
    from xalma.training.workers import CONFIGURATIONS

    p = load_profile(arguments.profile, **_overrides(arguments.set))
    gpus = shareable(p) if arguments.gpus is None else arguments.gpus
    text = plan_text(p, gpus, arguments.gpu)
    same = " ".join([f"--profile {arguments.profile}", *(f"--set {shlex.quote(pair)}" for pair in arguments.set)])
    print(slurm_lines(p, gpus, CONFIGURATIONS / "stage.sbatch", same) if arguments.slurm else text)


def _prepare(arguments: argparse.Namespace) -> None:
    from functools import partial

    from xalma.data.prepare import prepare_profile
    from xalma.data.prepare_workers import cores, processes, ray_cluster
    from xalma.profiles import load_profile
    from xalma.runtime import listed

    p = load_profile(arguments.profile, **_overrides(arguments.set))
    workers = _at_least_one("--processes", arguments.processes) or cores()
    local = arguments.ray is None
    engine = partial(processes, workers) if local else partial(ray_cluster, address=arguments.ray or None)
    limit = _at_least_one("--tokens", arguments.tokens)
    codes = tuple(listed(arguments.languages))
    prepare_profile(p, arguments.out, arguments.kind, codes, engine, limit, workers if local else 0)


def _at_least_one(option: str, value: float | None) -> int | None:
    if value is not None and not 1 <= value < float("inf"):
        raise ValueError(f"{option} {value:g} is no count: give a number from 1 on")
    return None if value is None else int(value)


def _status(arguments: argparse.Namespace) -> None:
    from xalma.profiles import load_profile
    from xalma.training.monitor import status_table

    print(status_table(load_profile(arguments.profile, **_overrides(arguments.set))).to_string(index=False))


def _translate(arguments: argparse.Namespace) -> None:
    if arguments.system:
        from xalma.cli.systems import translate as translate_with

        print("\n".join(translate_with(arguments, _input_lines(arguments.file))))
        return
    from xalma.languages import group_of, other_side
    from xalma.profiles import load_profile

    p = load_profile(arguments.profile, **_overrides(arguments.set))
    group = group_of(other_side(arguments.src, arguments.tgt))
    texts = _input_lines(arguments.file)

    from xalma.models.generation import translate
    from xalma.runtime import usable_device, usable_dtype
    from xalma.training.export.opened import is_export, open_exported
    from xalma.training.ladder import newest_stage
    from xalma.training.stages import open_merged

    place = usable_device(arguments.device)
    dtype = usable_dtype(arguments.dtype or "float32", place)
    folder = arguments.model or newest_stage(p, group)
    model, tokenizer = open_exported(folder, group, dtype) if is_export(folder) else open_merged(folder, dtype)
    outputs = translate(
        model.to(place), tokenizer, texts, arguments.src, arguments.tgt, prompt_style=p.prompt_style,
        beams=p.beams, max_new_tokens=p.max_new_tokens, batch_size=p.generation_batch, counts=(counts := Counter()),
    )  # fmt: skip
    if counts["cut"]:
        print(
            f"{counts['cut']} answers reached max_new_tokens={p.max_new_tokens} and may be cut: raise it with --set",
            file=sys.stderr,
        )
    print("\n".join(outputs))


def _input_lines(file: str | None) -> list[str]:
    from xalma.text_files import lines_of, read_lines

    return lines_of(sys.stdin.buffer.read(), "standard input") if file is None else read_lines(Path(file))


def _score(arguments: argparse.Namespace) -> None:
    _at_least_one("--workers", arguments.workers or None)
    checkpoints = _pairs("--checkpoint", arguments.checkpoint)
    if arguments.system_outputs:
        from xalma.cli.score import score_outputs

        _require(arguments, "testset", "system-outputs")
        score_outputs(arguments, checkpoints)
        return
    for name in ("output", "reference", "to"):
        _require(arguments, name, "system-outputs DIR --testset NAME, or --output, --reference and --to")
    from xalma.evaluation.score_file import score_files
    from xalma.runtime import listed

    metrics = listed(arguments.metrics or "bleu,chrf")
    files = (arguments.output, arguments.reference, arguments.source)
    print(score_files(*files, arguments.tgt, metrics, checkpoints, arguments.score_cache))


def _require(arguments: argparse.Namespace, option: str, beside: str) -> None:
    if not getattr(arguments, {"to": "tgt"}.get(option, option)):
        raise ValueError(f"--{option} is missing: give --{beside} together")


def _compare(arguments: argparse.Namespace) -> None:
    _at_least_one("--workers", arguments.workers or None)
    if not 0 < arguments.alpha < 1:
        raise ValueError(f"--alpha {arguments.alpha:g} is no level of significance: give a number between 0 and 1")
    from xalma.cli.score import compare_systems

    _require(arguments, "testset", "testset NAME and both systems")
    compare_systems(arguments)


def _contamination(arguments: argparse.Namespace) -> None:
    from xalma.cli.score import contamination

    contamination()


def _convert(arguments: argparse.Namespace) -> None:
    if arguments.source[0].endswith(".gguf"):
        from xalma.models.bases.gguf_files import convert_gguf

        if len(arguments.source) > 1 or arguments.layout or arguments.base or arguments.groups:
            raise ValueError("a GGUF file is converted alone, into a base: give --from FILE.gguf and --to DIR only")
        print(convert_gguf(arguments.source[0], arguments.out))
        return
    from xalma.languages import parse_groups
    from xalma.models.safetensors_io import parse_size

    limit = parse_size(arguments.max_shard_size)
    groups = parse_groups(arguments.groups) if arguments.groups else None

    from xalma.models.convert import convert
    from xalma.models.layouts import open_checkpoint

    source = arguments.source[0] if len(arguments.source) == 1 else arguments.source
    checkpoint = open_checkpoint(source, arguments.base)
    print(f"{checkpoint.layout}: groups {checkpoint.groups}, rank {checkpoint.rank}, {checkpoint.nbytes / 1e9:.2f} GB")
    print(convert(checkpoint, arguments.out, arguments.layout, groups, limit))


def _trim(arguments: argparse.Namespace) -> None:
    from xalma.models.bases.vocabulary import TextFiles, restore_base, trim_base

    if bool(arguments.texts) == bool(arguments.restore):
        raise ValueError("give --texts FILE… to trim a base, or --restore BASE to bring one back")
    if arguments.restore:
        print(restore_base(arguments.source, arguments.restore, arguments.out))
    else:
        print(trim_base(arguments.source, TextFiles(arguments.texts), arguments.out, arguments.limit))


def _systems(arguments: argparse.Namespace) -> None:
    from xalma.cli.systems import print_systems

    print_systems()


def _outputs(arguments: argparse.Namespace) -> None:
    from xalma.cli.systems import write

    write(arguments)


def _export(arguments: argparse.Namespace) -> None:
    from xalma.profiles import load_profile

    p = load_profile(arguments.profile, **_overrides(arguments.set))

    from xalma.languages import adapter_name
    from xalma.training.export.export import describe, export

    adapter_name(arguments.group)  # raises where there is no such group
    print(describe(p, arguments.group, arguments.sentences), flush=True)
    folder = export(p, arguments.group, arguments.out, what=arguments.what, folder=arguments.model,
                    base_id=arguments.base_id, licence=arguments.licence,
                    sentences=arguments.sentences, with_base=arguments.with_base, gguf=arguments.gguf)  # fmt: skip
    print(folder)


def _languages(arguments: argparse.Namespace) -> None:
    from xalma.languages import GROUP_NAMES, known_languages

    print(f"{'code':5}{'language':14}{'script':8}{'group':7}{'FLORES':11}{'OSCAR':7}{'NTREX':10}BLEU tokenizer")
    for row in known_languages().values():
        place = row.group or "all"
        print(
            f"{row.code:5}{row.name:14}{row.script:8}{place!s:7}{row.flores:11}{row.oscar:7}{row.ntrex:10}{row.sacrebleu_tokenizer}"
        )
    print("\ngroups: " + "; ".join(f"{number} {name}" for number, name in GROUP_NAMES.items()))
