"""Two systems over many directions: corrected tests, means with intervals, wins and losses.

X-ALMA compares systems over 98 directions (arXiv 2410.03115) and prints means without intervals. Here each
direction is tested by `paired_bootstrap`, and:

- Where many directions are tested, p-values are adjusted (Holm, Benjamini-Hochberg), and there are
  as many resamples as the smallest adjusted p needs: 1,000 can never be significant after Holm over
  98 directions.
- A mean over directions is resampled within each direction (stratified).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xalma.evaluation.segment_statistics import (
    SEED,
    bootstrap_scores,
    corpus_score,
    resampling_blocks,
    score_of,
)

ALPHA = 0.05  # below this p-value a difference is called significant
TIE = 1e-9  # on the 0-100 scale: differences closer than this are equal but for rounding


@dataclass(frozen=True)
class Interval:
    """A score and its 95 % bootstrap interval; `half_width` is what sacreBLEU prints after ±."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Paired:
    """System a against b; `delta` is a - b, `low` and `high` its 95 % interval (nan without one).

    `p_value` is two-sided and counts ties, where sacreBLEU's keeps one tail.
    """

    value_a: float
    value_b: float
    low: float
    high: float
    p_value: float

    @property
    def delta(self) -> float:
        return self.value_a - self.value_b


def bootstrap(statistics: np.ndarray, metric: str, n_samples: int = 1000, seed: int = SEED) -> Interval:
    """The corpus score with its interval, as `sacrebleu --confidence` computes it."""
    low, high = _percentiles(bootstrap_scores(statistics, metric, n_samples, seed))
    return Interval(score_of(statistics, metric), low, high)


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
    return paired_of(values, samples, differing_segments(statistics_a, statistics_b))


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
    for block in resampling_blocks(kept):
        first = b.sum(0) + block @ (a - b)  # (rows, k)
        second = a.sum(0) + b.sum(0) - first
        differences.append(corpus_score(weight * first, metric) - corpus_score(weight * second, metric))
    value_a = score_of(a, metric)
    value_b = score_of(b, metric)
    trials = np.abs(np.concatenate(differences))
    p_value = _p_value(trials, value_a - value_b, differing_segments(a, b))
    return Paired(value_a, value_b, math.nan, math.nan, p_value)


def _percentiles(samples: np.ndarray) -> tuple[float, float]:
    """The values that 1/40 of the samples lie beyond on either side, as sacreBLEU picks them."""
    ordered = np.sort(samples)
    cut = len(samples) // 40
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])


def paired_of(values: Sequence[float], samples: Sequence[np.ndarray], n_differing: int) -> Paired:
    """The bootstrap's result for two systems' scores and their resampled scores, each (n_samples,).

    n_differing: segments whose statistics differ, as `differing_segments` counts them.
    """
    (a, b), differences = values, samples[0] - samples[1]
    p_value = _p_value(np.abs(differences - differences.mean()), a - b, n_differing)
    return Paired(a, b, *_percentiles(differences), p_value)


def differing_segments(a: np.ndarray, b: np.ndarray) -> int:
    """How many segments' statistics (n_segments, k) differ between two systems."""
    return int((np.asarray(a) != np.asarray(b)).any(axis=1).sum())


def _p_value(samples: np.ndarray, observed: float, n_differing: int) -> float:
    reached = int((samples >= abs(observed) - TIE).sum())
    return min(1.0, max((reached + 1) / (len(samples) + 1), 2.0 ** (1 - n_differing)))


def check_paired(a: np.ndarray, b: np.ndarray, n_samples: int) -> None:
    """Raises ValueError for statistics of unequal shapes, or fewer than one sample."""
    if a.shape != b.shape or not len(a):
        raise ValueError(
            f"statistics of shapes {a.shape} and {b.shape}: both systems need the same metric on the same segments"
        )
    if n_samples < 1:
        raise ValueError(f"{n_samples} samples: take 1 or more")


N_RESAMPLES = {"bootstrap": 1000, "randomisation": 10_000}  # sacreBLEU's defaults

Statistics = Mapping[str, np.ndarray]  # direction -> (n_segments, k)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's (1979) step-down adjusted p-values, in the given order: they bound any false claim at all."""
    p, order = _ordered(p_values)
    adjusted = np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order])
    return _restored(np.minimum(adjusted, 1), order)


def benjamini_hochberg(p_values: Sequence[float]) -> np.ndarray:
    """Benjamini and Hochberg's (1995) adjusted p-values, in the given order: they bound the false share."""
    p, order = _ordered(p_values)
    scaled = len(p) / np.arange(1, len(p) + 1) * p[order]
    adjusted = np.minimum.accumulate(scaled[::-1])[::-1]
    return _restored(np.minimum(adjusted, 1), order)


CORRECTIONS = {"holm": holm, "bh": benjamini_hochberg}
TESTS = {"bootstrap": paired_bootstrap, "randomisation": randomisation}


def compare(
    a: Statistics,
    b: Statistics,
    metric: str,
    test: str = "bootstrap",
    correction: str = "holm",
    alpha: float = ALPHA,
    n_samples: int | None = None,
    seed: int = SEED,
) -> pd.DataFrame:
    """Tests a against b in each direction both have: value_a, value_b, delta, p_value, p_adjusted, verdict.

    `verdict` is a's: "win" or "loss" where p_adjusted < alpha, else "tie". `n_samples` None takes as
    many as the correction needs. Raises ValueError for no common direction, an unknown test or
    correction, and for too few samples for any direction to pass.
    """
    common = [direction for direction in a if direction in b]
    if not common:
        raise ValueError(f"no direction to compare: one system has {_listed(a)}, the other {_listed(b)}")
    _check_choice("test", test, TESTS)
    _check_choice("correction", correction, CORRECTIONS)
    n_samples = _enough_samples(len(common), alpha, test, correction, n_samples)
    results = [TESTS[test](a[d], b[d], metric, n_samples, seed) for d in common]
    columns = {
        name: [getattr(one, name) for one in results] for name in ("value_a", "value_b", "delta", "p_value")
    }
    frame = pd.DataFrame({"direction": common, **columns})
    frame["p_adjusted"] = CORRECTIONS[correction](frame["p_value"])
    sign = np.where(frame["p_adjusted"] < alpha, np.sign(frame["delta"]), 0)
    frame["verdict"] = [{1: "win", 0: "tie", -1: "loss"}[int(s)] for s in sign]
    frame.attrs |= {
        "test": test,
        "correction": correction,
        "alpha": alpha,
        "n_samples": n_samples,
        "seed": seed,
    }
    return frame


def sentence(frame: pd.DataFrame) -> str:
    """ "61 wins, 30 ties, 7 losses over 98 directions (…)", with the test, its samples and its correction."""
    verdicts = list(frame["verdict"])
    how = frame.attrs
    correction = {"holm": "Holm", "bh": "Benjamini-Hochberg"}[how["correction"]]
    words = {"win": "wins", "tie": "ties", "loss": "losses"}
    counts = [(verdicts.count(one), one, many) for one, many in words.items()]
    return (
        f"{', '.join(f'{n} {one if n == 1 else many}' for n, one, many in counts)} over {len(frame)} directions "
        f"({how['test']}, {how['n_samples']:,} samples, seed {how['seed']}, {correction}, alpha {how['alpha']})"
    )


def paired_mean(
    a: Statistics,
    b: Statistics,
    metric: str,
    n_samples: int = 1000,
    seed: int = SEED,
) -> Paired:
    """Paired bootstrap of the difference of two systems' means over the directions both have."""
    common = [direction for direction in a if direction in b]
    sides = [{d: side[d] for d in common} for side in (a, b)]
    for d in common:
        check_paired(a[d], b[d], n_samples)
    samples = [_mean_samples(side, metric, n_samples, seed) for side in sides]
    values = [float(np.mean([score_of(s, metric) for s in side.values()])) for side in sides]
    return paired_of(values, samples, sum(differing_segments(a[d], b[d]) for d in common))


def _mean_samples(statistics: Statistics, metric: str, n_samples: int, seed: int) -> np.ndarray:
    if not statistics:
        raise ValueError("no directions to average: give the statistics of one direction or more")
    samples = [
        bootstrap_scores(s, metric, n_samples, (seed, zlib.crc32(d.encode()))) for d, s in statistics.items()
    ]
    return np.mean(samples, axis=0)


def _enough_samples(n_tests: int, alpha: float, test: str, correction: str, n_samples: int | None) -> int:
    """The number of samples: the given one if any direction can pass with it, else one that resolves alpha."""
    needed = math.ceil(n_tests / alpha)  # p is at least 1 / (samples + 1), Holm multiplies it by n_tests
    if n_samples is None:
        return max(N_RESAMPLES[test], 5 * needed)
    if correction == "holm" and n_samples < needed:
        raise ValueError(
            f"{n_samples} samples over {n_tests} directions: the smallest p after Holm is "
            f"{min(1, n_tests / (n_samples + 1)):.3f}, above alpha {alpha}; take {needed} or more"
        )
    return n_samples


def _ordered(p_values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    p = np.asarray(p_values, dtype=np.float64)
    if not len(p) or np.isnan(p).any() or p.min() < 0 or p.max() > 1:
        raise ValueError(f"p-values to adjust must be one or more numbers from 0 to 1, not {list(p_values)}")
    return p, np.argsort(p, kind="stable")


def _restored(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    restored = np.empty_like(values)
    restored[order] = values
    return restored


def _check_choice(what: str, given: str, allowed: Mapping[str, Any]) -> None:
    if given not in allowed:
        raise ValueError(f"unknown {what} {given!r}: use one of {', '.join(allowed)}")


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(list(names)[:5]) or "none"
