"""Metric interference: a metric that chose or filtered a system's training pairs is no independent judge of it.

Systems tuned by a metric, or whose outputs it chose (MBR decoding), gain on it, and on its kin, more than people see
(Pombal et al., "Adding Chocolate to Mint: Mitigating Metric Interference in Machine Translation", arXiv 2503.08327). So
every score of a metric that had a say in a system's training or outputs, or of one of its family, gets a mark. COMET's
metrics and MetricX are one family here: both are regressions on the human scores of the WMT shared tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from xalma.runs import lineage

MARK = "‡"
DOUBT = "no independent score, as this metric or one of its family chose or filtered training pairs"
UNKNOWN = "not known"  # pairs chosen by a metric that their record does not name
KINDRED = {
    "n-grams in common with the reference": ("bleu", "chrf", "chrf++", "spbleu"),
    "regressions on WMT's human scores": (
        "comet22", "xcomet-xl", "xcomet-xl-qe", "xcomet-xxl", "xcomet-xxl-qe", "cometkiwi", "cometkiwi-xl",
        "cometkiwi-xxl", "metricx24", "metricx24-qe",
    ),
    "language models as judges": ("gemba-esa", "automqm"),
}  # fmt: skip


def kindred_of(metric: str) -> str:
    """The family of a metric. Raises ValueError, naming all, for one that is in none."""
    for name, metrics in KINDRED.items():
        if metric in metrics:
            return name
    raise ValueError(
        f"unknown metric {metric!r}: choose {', '.join(m for metrics in KINDRED.values() for m in metrics)}"
    )


def interferes(metric: str, chosen_by: Iterable[str]) -> bool:
    """Whether a score by `metric` is no independent one of a system whose pairs these metrics chose or filtered."""
    families = {kindred_of(name) for name in chosen_by if name != UNKNOWN}
    return bool(families) and any(metric in KINDRED[name] for name in families)


def chosen_by_of(folder: str | Path) -> list[str]:
    """The metrics, or UNKNOWN, by which the pairs of a stage and of all before it were chosen, from their records.

    None for stage 5's own pairs: there the reference wins. Raises as `lineage`.
    """
    found = {metric for _, run in lineage(folder) for metric in (run.get("pairs") or {}).get("chosen_by", ())}
    return sorted(found)


def parse_chosen_by(text: str) -> dict[str, tuple[str, ...]]:
    """System -> metrics, from "SYSTEM=METRIC+METRIC,SYSTEM=…". Raises ValueError for another form or metric."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        system, sign, metrics = part.rpartition("=")
        if not (system and sign and metrics):
            raise ValueError(
                f"{part!r} is no SYSTEM=METRIC: write for example ALMA-13B-R=xcomet-xxl+cometkiwi-xxl"
            )
        found[system] = tuple(metrics.split("+"))
        for metric in found[system]:
            kindred_of(metric)
    return found


def is_in_doubt(metric: str, chosen_by: Iterable[str]) -> bool:
    """`interferes`, or could: the pairs' metric is not known."""
    chosen_by = list(chosen_by)
    judges = UNKNOWN in chosen_by and any(metric in metrics for metrics in KINDRED.values())
    return judges or interferes(metric, chosen_by)


def flagged(metric: str, chosen_by: Mapping[str, Iterable[str]]) -> list[str]:
    """The systems whose score by `metric` gets `MARK`, in order."""
    return [system for system, metrics in chosen_by.items() if interferes(metric, metrics)]


def mark_explained(metric: str, chosen_by: Mapping[str, Iterable[str]]) -> str:
    """What the mark means in a table of `metric`, and what is not known; "" where there is nothing to say."""
    parts = [f"{system} by {' and '.join(chosen_by[system])}" for system in flagged(metric, chosen_by)]
    unknown = [system for system, metrics in chosen_by.items() if UNKNOWN in metrics]
    parts = [f"{MARK}: {DOUBT} or outputs: {'; '.join(parts)}."] if parts else []
    parts += (
        [f"Not known by which metric the training pairs were chosen: {', '.join(unknown)}."]
        if unknown
        else []
    )
    return " ".join(parts)
