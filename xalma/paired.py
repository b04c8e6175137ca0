"""Two systems on one test set: intervals, paired bootstrap, approximate randomisation.

The tests are sacreBLEU's, on counts of `segmentstats`: the same seed draws the samples of `sacrebleu
--paired-bs` and `--paired-ar`. Departures:

- The bootstrap's p is two-sided. sacreBLEU (as Moses before it) takes the mean off the absolute
  differences, not off the differences, which leaves one tail of the two: of tests between equally
  good systems about 10 % come out below 0.05 (`tests/test_paired.py` counts them). Its number is kept
  as `p_sacrebleu`.
- A sample as extreme as the observed difference counts (Phipson and Smyth 2010); sacreBLEU counts
  greater ones only. Where few segments differ, most samples are such ties: with one differing segment
  sacreBLEU gives 1 / (samples + 1), the smallest p there is, and here it is 1.
- p is never below 2 / 2^k for k differing segments: that is the share of the 2^k assignments of sides
  in which all k favour the same system. Equal outputs, k = 0, get p = 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sacrebleu

from xalma.segmentstats import SEED, blocks, bootstrap_scores, corpus_score, score_of

TIE = 1e-9  # on the 0-100 scale: differences closer than this are equal but for rounding


@dataclass(frozen=True)
class Interval:
    """A score and its 95 % bootstrap interval; `half_width` is what sacreBLEU prints after ±."""

    metric: str
    value: float
    low: float
    high: float
    half_width: float
    n: int
    n_samples: int
    seed: int


@dataclass(frozen=True)
class Paired:
    """System a against b; `delta` is a - b, `low` and `high` its 95 % interval (nan without one).

    `p_value` is two-sided and counts ties, `p_sacrebleu` is what sacreBLEU prints.
    """

    metric: str
    value_a: float
    value_b: float
    delta: float
    low: float
    high: float
    p_value: float
    p_sacrebleu: float
    n: int
    test: str
    n_samples: int
    seed: int

    @property
    def signature(self) -> str:
        """All it takes to draw the same samples again."""
        short = {"bootstrap": "bs", "randomisation": "ar"}[self.test]
        return f"{short}:{self.n_samples}|seed:{self.seed}|two-sided|sacrebleu:{sacrebleu.__version__}"


def bootstrap(statistics: np.ndarray, metric: str, n_samples: int = 1000, seed: int = SEED) -> Interval:
    """The corpus score with its interval, as `sacrebleu --confidence` computes it."""
    samples = bootstrap_scores(statistics, metric, n_samples, seed)
    return interval_of(metric, score_of(statistics, metric), samples, len(statistics), seed)


def paired_bootstrap(
    statistics_a: np.ndarray, statistics_b: np.ndarray, metric: str, n_samples: int = 1000, seed: int = SEED
) -> Paired:
    """Paired bootstrap resampling (Koehn 2004) of two systems on the same segments.

    p: the share of resamples whose difference lies at least as far from the resamples' mean difference
    as the observed one from 0. Raises ValueError for unequal shapes, and for `n_samples` below 1.
    """
    check_paired(statistics_a, statistics_b, n_samples)
    samples = [bootstrap_scores(s, metric, n_samples, seed) for s in (statistics_a, statistics_b)]
    values = [score_of(s, metric) for s in (statistics_a, statistics_b)]
    n_differing = differing_segments(statistics_a, statistics_b)
    return paired_of(metric, values, samples, n_differing, len(statistics_a), seed)


def randomisation(
    statistics_a: np.ndarray, statistics_b: np.ndarray, metric: str, n_samples: int = 10_000, seed: int = SEED
) -> Paired:
    """Approximate randomisation (Riezler and Maxwell 2005): each segment's outputs change sides or not.

    p: the share of trials whose absolute difference reaches the observed one, with sacreBLEU's
    draws. Raises ValueError as `paired_bootstrap` does.
    """
    check_paired(statistics_a, statistics_b, n_samples)
    a, b = (np.asarray(s, dtype=np.float64) for s in (statistics_a, statistics_b))
    weight = 1 / len(a) if a.shape[1] == 1 else 1.0
    kept = np.random.default_rng(seed).integers(2, size=(n_samples, len(a)), dtype=bool)
    differences = []
    for block in blocks(kept):
        first = b.sum(0) + block @ (a - b)  # (rows, k)
        second = a.sum(0) + b.sum(0) - first
        differences.append(corpus_score(weight * first, metric) - corpus_score(weight * second, metric))
    value_a, value_b = score_of(a, metric), score_of(b, metric)
    delta = value_a - value_b
    trials = np.abs(np.concatenate(differences))
    p, p_sacrebleu = _p_value(trials, delta, differing_segments(a, b)), _p_sacrebleu(trials, delta)
    return Paired(
        metric, value_a, value_b, delta, math.nan, math.nan, p, p_sacrebleu, len(a), "randomisation", n_samples, seed
    )


def interval_of(metric: str, value: float, samples: np.ndarray, n: int, seed: int) -> Interval:
    """`value` with the interval of its resampled scores (n_samples,)."""
    low, high = _percentiles(samples)
    return Interval(metric, value, low, high, (high - low) / 2, n, len(samples), seed)


def _percentiles(samples: np.ndarray) -> tuple[float, float]:
    """The values that 1/40 of the samples lie beyond on either side, as sacreBLEU picks them."""
    ordered, cut = np.sort(samples), len(samples) // 40
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])


def paired_of(
    metric: str, values: Sequence[float], samples: Sequence[np.ndarray], n_differing: int, n: int, seed: int
) -> Paired:
    """The bootstrap's result for two systems' scores and their resampled scores, each (n_samples,).

    n_differing: of the `n` segments, those whose statistics differ, as `differing_segments` counts them.
    """
    (a, b), differences = values, samples[0] - samples[1]
    p = _p_value(np.abs(differences - differences.mean()), a - b, n_differing)
    p_sacrebleu = _p_sacrebleu(np.abs(differences) - np.abs(differences).mean(), a - b)
    low, high = _percentiles(differences)
    return Paired(metric, a, b, a - b, low, high, p, p_sacrebleu, n, "bootstrap", len(differences), seed)


def differing_segments(a: np.ndarray, b: np.ndarray) -> int:
    """How many segments' statistics (n_segments, k) differ between two systems."""
    return int((np.asarray(a) != np.asarray(b)).any(axis=1).sum())


def _p_value(samples: np.ndarray, observed: float, n_differing: int) -> float:
    reached = int((samples >= abs(observed) - TIE).sum())
    return min(1.0, max((reached + 1) / (len(samples) + 1), 2.0 ** (1 - n_differing)))


def _p_sacrebleu(samples: np.ndarray, observed: float) -> float:
    return (int((samples > abs(observed)).sum()) + 1) / (len(samples) + 1)


def check_paired(a: np.ndarray, b: np.ndarray, n_samples: int) -> None:
    """Raises ValueError for statistics of unequal shapes, or fewer than one sample."""
    if a.shape != b.shape or not len(a):
        raise ValueError(
            f"statistics of shapes {a.shape} and {b.shape}: both systems need the same metric on the same segments"
        )
    if n_samples < 1:
        raise ValueError(f"{n_samples} samples: take 1 or more")
