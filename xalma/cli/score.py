"""Bodies of `xalma score --system-outputs`, `xalma compare` and `xalma contamination`: what they print and write."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd

from xalma.cli.systems import ENDPOINT_OPTIONS
from xalma.evaluation.comet import Judge
from xalma.evaluation.interference import MARK, flagged, mark_explained, parse_chosen_by
from xalma.evaluation.score_file import FILE_METRICS, check_metrics, check_outputs
from xalma.evaluation.scoring import Outputs, Scores, coverage_sentence, find_outputs, score_all
from xalma.evaluation.significance import compare, paired_mean, sentence
from xalma.evaluation.thresholds import ACCURACY, SOURCE, THRESHOLDS, explained, is_noticed, marks
from xalma.paper.contamination_report import write_report
from xalma.paper.score_tables import (
    METRIC_NAMES,
    published_of,
    win_tie_loss_table,
    write_checks,
    write_published,
    write_scores,
)
from xalma.runtime import command_line, data_root, home, listed
from xalma.systems.outputs import metrics_behind

_HEADS = {"value_a": "A", "value_b": "B", "delta": "A - B", "p_value": "p", "p_adjusted": "p adjusted"}


def score_outputs(arguments: Namespace, checkpoints: dict[str, str]) -> None:
    """Scores of every system under a folder over a test set; with --results also as files."""
    metrics = _metrics(arguments.metrics or "bleu,chrf++")
    outputs = _of_systems(find_outputs(arguments.system_outputs), arguments.systems)
    directions = listed(arguments.directions) or None
    neural = {"checkpoints": checkpoints, "cache": arguments.score_cache}
    with _judges(arguments) as judges:
        scores = score_all(
            outputs,
            arguments.testset,
            arguments.origin,
            directions,
            metrics,
            arguments.workers,
            partial=arguments.partial,
            resample=arguments.resample,
            judges=judges,
            **neural,
        )
    scores = replace(scores, chosen_by=_chosen_by(outputs, arguments.chosen_by))
    chosen = list(scores.table["direction"].unique())
    checks = check_outputs(outputs, arguments.testset, arguments.origin, chosen)
    _print_scores(scores, arguments.testset, arguments.origin, arguments.resample)
    off_target = checks.pivot(index="direction", columns="system", values="off-target %").round(2)
    wide = off_target.reindex(index=chosen, columns=list(outputs))
    print(f"\noff-target, percent of outputs\n{_plain(wide)}")
    for metric in (name for name in metrics if len(outputs) > 1 and any(scores.statistics[name].values())):
        print(f"\n{METRIC_NAMES.get(metric, metric)}, pairs of systems")
        for row in win_tie_loss_table(scores, metric).itertuples(index=False):
            print(f"  {row[0]} against {row[1]}: {row[2]}")
    if arguments.results:
        details = {"origin": arguments.origin, "resample": arguments.resample, "chosen_by": scores.chosen_by}
        paths = write_scores(
            scores, arguments.results, arguments.testset, command_line(["xalma", *sys.argv[1:]]), **details
        )
        paths += write_checks(checks, arguments.results, arguments.testset)
        if arguments.origin == "data" and published_of(arguments.testset):
            scored = {
                name: {d: file for d, file in own.items() if d in chosen} for name, own in outputs.items()
            }
            written, note = write_published(scored, arguments.testset, Path(arguments.results))
            paths += written
            print(f"\n{note}")
        print("\nwritten:", *paths, sep="\n  ")


def _print_scores(scores: Scores, testset: str, origin: str, resample: str) -> None:
    over = " over documents" if resample == "documents" else ""
    for metric, part in scores.table.groupby("metric", sort=False):
        if part["value"].isna().all():
            print(f"\n{METRIC_NAMES.get(metric, metric)}: {part['signature'].iloc[0]}")
            continue
        values = part.groupby("direction")["value"]
        signs = pd.concat([pd.Series(marks(metric, list(here)), here.index) for _, here in values])
        doubtful = flagged(metric, scores.chosen_by)
        shown = part.assign(
            shown=[
                f"{r.value:.2f} ± {r.half_width:.2f}{signs[r.Index]}{MARK if r.system in doubtful else ''}"
                for r in part.itertuples()
            ]
        )
        wide = shown.pivot(index="direction", columns="system", values="shown")
        wide = wide.loc[part["direction"].unique(), part["system"].unique()].rename_axis(columns=None)
        print(
            f"\n{METRIC_NAMES.get(metric, metric)} (± half the 95 % bootstrap interval{over})\n{_plain(wide)}"
        )
        for note in (mark_explained(metric, scores.chosen_by), explained(metric) if any(signs) else ""):
            if note:
                print(f"  {note}")
        for signature, found in part.groupby("signature", sort=False)["direction"]:
            names = list(dict.fromkeys(found))
            print(
                f"  {signature}: {', '.join(names[:12])}{f' and {len(names) - 12} more' if len(names) > 12 else ''}"
            )
    print(f"\n{coverage_sentence(list(scores.table['direction'].unique()), testset, origin)}")


def compare_systems(arguments: Namespace) -> None:
    """Two systems' outputs, direction by direction, by a paired test; then the mean over directions."""
    metrics = _metrics(arguments.metric)
    both = [_one_system(arguments.a), _one_system(arguments.b)]
    (a, b), outputs = ("A", "B"), {"A": both[0][1], "B": both[1][1]}
    if not arguments.directions and outputs[a].keys() != outputs[b].keys():
        odd = sorted(outputs[a].keys() ^ outputs[b].keys())
        raise ValueError(
            f"{arguments.a} and {arguments.b} do not have the same directions ({', '.join(odd[:8])} in one alone): "
            f"add the files, or choose with --directions"
        )
    directions = listed(arguments.directions) or None
    scores = score_all(
        outputs,
        arguments.testset,
        arguments.origin,
        directions,
        metrics,
        arguments.workers,
        resample=arguments.resample,
    )
    print(f"A: {both[0][0]} ({arguments.a})\nB: {both[1][0]} ({arguments.b})")
    chosen_by = _chosen_by(dict(both), arguments.chosen_by)
    for metric in metrics:
        sides = scores.statistics[metric]
        if not sides[a]:
            signature = scores.table.query("metric == @metric")["signature"].iloc[0]
            print(f"\n{METRIC_NAMES.get(metric, metric)}: {signature}")
            continue
        frame = compare(sides[a], sides[b], metric, arguments.test, arguments.correction, arguments.alpha)
        if metric in THRESHOLDS:
            frame["people notice"] = [
                "yes" if is_noticed(metric, delta) else "no" for delta in frame["delta"]
            ]
        shown = frame.rename(columns=_HEADS)
        print(f"\n{METRIC_NAMES.get(metric, metric)}\n{_plain(shown.round(4).set_index('direction'))}")
        mean = paired_mean(sides[a], sides[b], metric)
        print(
            f"mean A {mean.value_a:.2f}, B {mean.value_b:.2f}, A - B {mean.delta:+.2f} "
            f"(95 % {mean.low:+.2f} to {mean.high:+.2f}, p = {mean.p_value:.4f})\nA: {sentence(frame)}"
        )
        print(_noticed(metric, mean.delta))
        if note := mark_explained(metric, chosen_by):
            print(note)


def _noticed(metric: str, difference: float) -> str:
    """Whether people would notice a difference of means, and by which published threshold."""
    noticed = is_noticed(metric, difference)
    if noticed is None:
        return f"people notice: no threshold is published for {METRIC_NAMES.get(metric, metric)}"
    return (
        f"people notice a mean difference of {difference:+.2f}: {'yes' if noticed else 'no'}, "
        f"below {THRESHOLDS[metric]:g} the metric agrees with them on fewer than {ACCURACY:.0%} of pairs of systems "
        f"({SOURCE})"
    )


def contamination() -> None:
    """Which training texts under XALMA_DATA hold test sentences; written to results/contamination.*."""
    root = data_root()
    if root is None:
        raise FileNotFoundError("no texts to search: set XALMA_DATA to the folder that holds them")
    report = write_report(root)
    with pd.option_context("display.width", 200, "display.max_columns", None, "display.max_colwidth", None):
        print(f"Test sentences in training texts:\n{_plain(report['table'].set_index('training text'))}")
        print(
            f"\nEnglish lines shared by files of several pairs:\n{_plain(report['blocks'].set_index('files'))}"
        )
    print(f"\nwritten: {home() / 'results' / 'contamination.json'} and .md")


@contextmanager
def _judges(arguments: Namespace) -> Iterator[dict[str, Judge]]:
    """The judge of --judge by its metric's name; at the end it says what it spent."""
    if arguments.judge is None:
        yield {}
        return
    from xalma.systems.chat.judge import GEMBA_ESA, ChatJudge

    options = {name: value for name in ENDPOINT_OPTIONS if (value := getattr(arguments, name)) is not None}
    journal = options.pop("journal", str(Path(arguments.results or ".") / f"{GEMBA_ESA}.journal.jsonl"))
    judge = ChatJudge(arguments.judge, journal, **options)
    try:
        yield {GEMBA_ESA: judge}
    finally:
        print(f"{GEMBA_ESA} {judge.endpoint.spending()}", file=sys.stderr)
        judge.endpoint.close()


def _chosen_by(outputs: Outputs, given: str) -> dict[str, list[str]]:
    """System -> metrics that chose or filtered its training pairs: as given, else as its record or row says.

    Raises ValueError for a system that is not scored, or an unknown metric.
    """
    named = parse_chosen_by(given)
    if strangers := named.keys() - outputs.keys():
        raise ValueError(f"--chosen-by names {', '.join(sorted(strangers))}: there are {', '.join(outputs)}")
    found = {name: named.get(name) or metrics_behind(name, files.values()) for name, files in outputs.items()}
    return {name: list(metrics) for name, metrics in found.items() if metrics}


def _of_systems(outputs: Outputs, chosen: str | None) -> Outputs:
    """The systems named in `chosen`, separated by commas; all if None. Raises ValueError for one that is not there."""
    if not chosen:
        return outputs
    if missing := [name for name in listed(chosen) if name not in outputs]:
        raise ValueError(f"no outputs of {', '.join(missing)}: there are {', '.join(outputs)}")
    return {name: outputs[name] for name in listed(chosen)}


def _one_system(folder: str) -> tuple[str, dict[str, Path]]:
    found = find_outputs(folder)
    if len(found) > 1:
        raise ValueError(
            f"{folder} holds {len(found)} systems ({', '.join(found)}): name one of them, not the folder"
        )
    return next(iter(found.items()))


def _metrics(text: str) -> list[str]:
    """Names separated by commas. Raises ValueError for an unknown one, before any file is read."""
    if not (names := listed(text)):
        raise ValueError(f"no metric named: use one or more of {', '.join(FILE_METRICS)}")
    check_metrics(names, has_sources=True)
    return names


def _plain(frame: pd.DataFrame) -> str:
    return frame.to_string() if len(frame) else "none"
