"""Several seeds as one number: means, intervals, differences seed by seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from statistics import fmean, stdev

import pandas as pd

from xalma.evaluation.records import Record, direction_class
from xalma.profiles import Profile

SFT = "stage4"  # the start of every method, a row of its own
MIN_SEEDS = 3  # below this there is no interval, and no long form


def seeds_of(p: Profile) -> range:
    """The seeds of the repeats."""
    return range(p.seed, p.seed + p.seeds)


def paired(
    values: pd.Series, one: str, other: str, direction: str, metric: str = "bleu"
) -> tuple[float, float]:
    """(mean of the difference in a metric over the seeds that both have, half its interval).

    The SFT module is the same for all seeds. values: `by_seed`, sorted.
    """
    first, second = values[one, direction, metric], values[other, direction, metric]
    gap = (first - (second.iloc[0] if other == SFT else second)).dropna()
    return gap.mean(), half_width(list(gap))


# Student's t, 97.5 %, for 2, 3, ... degrees of freedom; the last one serves for more, on the safe side.
T_975 = (4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
         2.120)  # fmt: skip
LEAST_BLEU = 1  # below this, differences in BLEU say nothing


def summary(records: Iterable[Record]) -> pd.DataFrame:
    """Means over directions and seeds: system, direction ("en-xx", "xx-en"), metric, mean, half, n_seeds.

    half: half the 95 % interval of the mean over seeds, NaN below three seeds.
    """
    groups = by_seed(records).groupby(level=["stage", "class", "metric"], sort=False)
    means = groups.agg(mean=fmean, half=lambda values: half_width(list(values)), n_seeds="size")
    return means.rename_axis(["system", "direction", "metric"]).reset_index()


def by_seed(records: Iterable[Record]) -> pd.Series:
    """Means over the directions of a class, indexed by stage (the system), class, metric and seed."""
    frame = pd.DataFrame([asdict(r) | {"class": direction_class(r.direction)["direction"]} for r in records])
    return frame.groupby(["stage", "class", "metric", "seed"], sort=False)["value"].mean()


def half_width(values: Sequence[float]) -> float:
    """Half the 95 % t-interval of the mean; NaN for fewer than three values."""
    if len(values) < MIN_SEEDS:
        return float("nan")
    t = T_975[min(len(values) - MIN_SEEDS, len(T_975) - 1)]
    return t * stdev(values) / len(values) ** 0.5


def judged(gap: float, half: float) -> str:
    """A difference in BLEU with what its interval over seeds says of it."""
    if pd.isna(half):
        return f"{gap:+.1f} BLEU, too few seeds for an interval"
    return f"{gap:+.1f} ± {half:.1f} BLEU, {'not ' * (abs(gap) <= half)}significant over the seeds"


def on_seeds(n_seeds: int) -> str:
    if n_seeds >= MIN_SEEDS:
        return f"± is half the 95 % interval of the mean over {n_seeds} seeds."
    return (
        f"With {n_seeds} seed{'s' * (n_seeds > 1)} there is no interval: small differences between rows say nothing; "
        f"the long form (`--set seeds={MIN_SEEDS}`) gives one."
    )


def cells_of(records: Iterable[Record]) -> dict:
    """(system, direction class) -> (mean by metric, half by metric); ("n_seeds", "max") -> most repeats of a row."""
    frame = summary(records)
    cells: dict = {("n_seeds", "max"): frame["n_seeds"].max()}
    for key, rows in frame.groupby(["system", "direction"]):
        rows = rows.set_index("metric")
        cells[key] = (rows["mean"].to_dict(), rows["half"].to_dict())
    return cells
