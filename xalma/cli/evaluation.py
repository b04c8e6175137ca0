"""Commands that score and list: score, compare, contamination, systems, outputs, languages."""

from __future__ import annotations

import argparse
from typing import Any

from xalma.cli.options import add_intervals, add_testset, at_least_one, key_values, require
from xalma.cli.systems import add_endpoint_options, add_options, print_systems, write


def add_chosen_by(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--chosen-by",
        default="",
        metavar="SYSTEM=METRIC+METRIC,…",
        help="metrics that chose a system's training pairs or outputs: its scores by their family get a mark",
    )


def add_score(commands: Any) -> None:
    score = commands.add_parser(
        "score", help="scores with signatures: an output file, or systems over a test set"
    )
    score.add_argument(
        "--output", help="the system's output, one segment per line; with --reference and --to"
    )
    score.add_argument("--reference")
    score.add_argument("--source", help="for the rate of copied segments")
    score.add_argument("--to", dest="tgt", metavar="LANG")
    score.add_argument("--system-outputs", metavar="DIR", help="one or more systems' outputs; with --testset")
    score.add_argument("--systems", help="some of them, separated by commas; default: all")
    score.add_argument("--partial", action="store_true", help="score each system in the directions it has")
    score.add_argument(
        "--results", metavar="DIR", help="write records, intervals, tests and tables to DIR/<testset>"
    )
    add_testset(score)
    add_intervals(score)
    score.add_argument(
        "--metrics",
        help="of bleu, chrf, chrf++, spbleu, comet22, xcomet-xl, xcomet-xl-qe, xcomet-xxl, xcomet-xxl-qe, "
        "cometkiwi, cometkiwi-xl, cometkiwi-xxl, metricx24, metricx24-qe, "
        "gemba-esa; default: bleu,chrf; of systems: bleu,chrf++",
    )
    score.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="METRIC=PATH_OR_ID",
        help="another hub id or a local path for a neural metric; repeatable",
    )
    score.add_argument(
        "--score-cache", metavar="FILE", help="keep neural scores here; the next run reads them"
    )
    add_chosen_by(score)
    score.add_argument(
        "--judge", metavar="MODEL", help="the chat model behind --base-url that gemba-esa asks"
    )
    add_endpoint_options(score)
    score.set_defaults(run=_score)


def _score(arguments: argparse.Namespace) -> None:
    at_least_one("--workers", arguments.workers or None)
    checkpoints = key_values("--checkpoint", arguments.checkpoint)
    if arguments.system_outputs:
        from xalma.cli.score import score_outputs

        require(arguments, "testset", "system-outputs")
        score_outputs(arguments, checkpoints)
        return
    for name in ("output", "reference", "to"):
        require(arguments, name, "system-outputs DIR --testset NAME, or --output, --reference and --to")
    from xalma.evaluation.score_file import score_files
    from xalma.runtime import listed

    metrics = listed(arguments.metrics or "bleu,chrf")
    files = (arguments.output, arguments.reference, arguments.source)
    print(score_files(*files, arguments.tgt, metrics, checkpoints, arguments.score_cache))


def add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare", help="is one system better than another: paired tests over all directions"
    )
    compare.add_argument("a", help="folder of <direction>.txt, or a path with {direction} in it")
    compare.add_argument("b")
    compare.add_argument("--metric", default="bleu,chrf++", help="default: bleu,chrf++")
    compare.add_argument("--test", default="bootstrap", choices=("bootstrap", "randomisation"))
    compare.add_argument(
        "--correction", default="holm", choices=("holm", "bh"), help="over directions; default: holm"
    )
    compare.add_argument("--alpha", type=float, default=0.05)
    add_testset(compare)
    add_intervals(compare)
    add_chosen_by(compare)
    compare.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> None:
    at_least_one("--workers", arguments.workers or None)
    if not 0 < arguments.alpha < 1:
        raise ValueError(
            f"--alpha {arguments.alpha:g} is no level of significance: give a number between 0 and 1"
        )
    from xalma.cli.score import compare_systems

    require(arguments, "testset", "testset NAME and both systems")
    compare_systems(arguments)


def add_contamination(commands: Any) -> None:
    contamination = commands.add_parser(
        "contamination", help="test sentences in the training texts of XALMA_DATA"
    )
    contamination.set_defaults(run=_contamination)


def _contamination(arguments: argparse.Namespace) -> None:
    from xalma.cli.score import contamination

    contamination()


def add_systems(commands: Any) -> None:
    systems = commands.add_parser(
        "systems", help="the systems of the papers: weights, prompt, languages, licence"
    )
    systems.set_defaults(run=print_systems)


def add_probe(commands: Any) -> None:
    probe = commands.add_parser(
        "probe", help="has a system seen a test set: the same sentences with their names swapped"
    )
    probe.add_argument(
        "--testset", required=True, help="a test set; with --outputs the folder that was written"
    )
    probe.add_argument("--direction", required=True, metavar="SRC-TGT")
    probe.add_argument("--out", metavar="DIR", help="write DIR/original and DIR/swapped, two test sets")
    probe.add_argument(
        "--outputs",
        nargs=2,
        action="append",
        metavar=("ORIGINAL", "SWAPPED"),
        help="folders of one system's outputs for the two; repeatable",
    )
    probe.set_defaults(run=_probe)


def _probe(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from xalma.paper.memorisation import probe_table, write_probe

    if bool(arguments.out) == bool(arguments.outputs):
        raise ValueError(
            "probe takes --out DIR, to write the two sets, or --outputs ORIGINAL SWAPPED, to compare"
        )
    if arguments.out:
        n = write_probe(arguments.testset, arguments.direction, arguments.out)
        print(
            f"{n} segments with names in {arguments.out}/original and {arguments.out}/swapped: translate both"
        )
        return
    file = f"{arguments.direction}.txt"
    outputs = {Path(a).name: (Path(a, file), Path(b, file)) for a, b in arguments.outputs}
    print(probe_table(arguments.testset, arguments.direction, outputs).round(2).to_string(index=False))


def add_outputs(commands: Any) -> None:
    outputs = commands.add_parser(
        "outputs", help="a system's outputs for a test set, one line per segment, resumable"
    )
    outputs.add_argument("--system", required=True, help="name in `xalma systems`")
    add_testset(outputs, required=True)
    outputs.add_argument("--out", required=True, metavar="DIR")
    add_options(outputs)
    outputs.set_defaults(run=write)


def add_languages(commands: Any) -> None:
    languages = commands.add_parser("languages", help="the 50 languages with their groups and codes")
    languages.set_defaults(run=_languages)


def _languages(arguments: argparse.Namespace) -> None:
    from xalma.languages import GROUP_NAMES, known_languages

    print(
        f"{'code':5}{'language':14}{'script':8}{'group':7}{'FLORES':11}{'OSCAR':7}{'NTREX':10}BLEU tokenizer"
    )
    for row in known_languages().values():
        group = row.group or "all"
        print(
            f"{row.code:5}{row.name:14}{row.script:8}{group!s:7}{row.flores:11}{row.oscar:7}{row.ntrex:10}{row.sacrebleu_tokenizer}"
        )
    print("\ngroups: " + "; ".join(f"{number} {name}" for number, name in GROUP_NAMES.items()))
