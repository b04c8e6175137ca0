"""Many directions: corrections worked by hand, intervals against standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xalma.evaluation import significance as sig
from xalma.evaluation.segment_statistics import statistics_of
from xalma.languages import LANGUAGES


# By hand. Holm: 4 x .01, 3 x .02, 2 x .03 -> kept at .06, 1 x .04 -> kept at .06.
# Benjamini-Hochberg, from the largest: .04 x 4/4, then min(.04, .03 x 4/3), min(.04, .02 x 4/2), .01 x 4.
@pytest.mark.parametrize(
    ("p", "holm", "bh"),
    [
        ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06], [0.04, 0.04, 0.04, 0.04]),
        ([0.04, 0.001, 0.5], [0.08, 0.003, 0.5], [0.06, 0.003, 0.5]),
        ([0.9, 0.8], [1.0, 1.0], [0.9, 0.9]),
        ([0.2], [0.2], [0.2]),
        (
            [0.005, 0.009, 0.05, 0.1, 0.2],
            [0.025, 0.036, 0.15, 0.2, 0.2],
            [0.0225, 0.0225, 0.25 / 3, 0.125, 0.2],
        ),
    ],
)
def test_corrections_by_hand(p, holm, bh):
    assert sig.holm(p) == pytest.approx(holm)
    assert sig.benjamini_hochberg(p) == pytest.approx(bh)


@pytest.mark.parametrize("p", [[], [0.1, 1.2], [float("nan")]])
def test_corrections_refuse_what_is_no_p_value(p):
    with pytest.raises(ValueError, match="numbers from 0 to 1"):
        sig.holm(p)


def scored(shift: float, n: int = 200, seed: int = 0) -> np.ndarray:
    return statistics_of(np.random.default_rng(seed).normal(0.5 + shift, 0.1, n))


def test_compare_over_directions():
    b = {"en-de": scored(0), "de-en": scored(0), "en-zh": scored(0)}
    a = {"en-zh": scored(-0.1, seed=1), "en-de": scored(0.1, seed=2), "de-en": scored(0), "en-fr": scored(0)}
    frame = sig.compare(a, b, "comet22")
    verdicts = dict(zip(frame["direction"], frame["verdict"], strict=True))
    assert verdicts == {"en-zh": "loss", "en-de": "win", "de-en": "tie"}
    assert sig.sentence(frame) == (
        "1 win, 1 tie, 1 loss over 3 directions (bootstrap, 1,000 samples, seed 12345, Holm, alpha 0.05)"
    )
    assert (frame["p_adjusted"] == sig.holm(frame["p_value"])).all()


CODES = list(LANGUAGES)[1:21]


def test_enough_samples_for_the_correction():
    many = {f"en-{c}": scored(0, 10) for c in CODES}
    with pytest.raises(
        ValueError, match=r"smallest p after Holm is 0\.198, above alpha 0\.05; take 400 or more"
    ):
        sig.compare(many, many, "comet22", n_samples=100)
    assert sig.compare(many, many, "comet22", n_samples=100, correction="bh").attrs["n_samples"] == 100
    assert sig.compare(many, many, "comet22").attrs["n_samples"] == 2000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"en-de": scored(0)}, {"de-en": scored(0)}, "comet22"), "one system has en-de, the other de-en"),
        (({"en-de": scored(0)}, {"en-de": scored(0, 9)}, "comet22"), r"shapes \(200, 1\) and \(9, 1\)"),
        (
            ({"en-de": scored(0)}, {"en-de": scored(0)}, "comet22", "t"),
            "unknown test 't': use one of bootstrap",
        ),
        (
            ({"en-de": scored(0)}, {"en-de": scored(0)}, "comet22", "bootstrap", "none"),
            "unknown correction 'none'",
        ),
    ],
)
def test_bad_input_to_compare(arguments, message):
    with pytest.raises(ValueError, match=message):
        sig.compare(*arguments)


def test_the_interval_of_a_mean_against_its_standard_error():
    """Strata: the variance of the mean of means is the sum of theirs over 4."""
    first, second = scored(0, 300, 1), scored(0.2, 300, 2)
    a = {"en-de": first, "en-zh": second}
    found = sig.paired_mean(a, {d: np.zeros_like(s) for d, s in a.items()}, "comet22", 4000)
    error = math.sqrt(first.var() / 300 + second.var() / 300) / 2
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)
    assert found.delta == pytest.approx((first.mean() + second.mean()) / 2)


def test_paired_mean_sees_what_single_directions_do_not():
    a = {f"en-{c}": scored(0.02, 60, i) for i, c in enumerate(CODES)}
    b = {f"en-{c}": scored(0, 60, 100 + i) for i, c in enumerate(CODES)}
    assert list(sig.compare(a, b, "comet22")["verdict"]).count("tie") > 15
    found = sig.paired_mean(a, b, "comet22")
    assert found.low < found.delta < found.high
    assert found.p_value < 0.05
    assert sig.paired_mean(a, a, "comet22").p_value == 1


@pytest.mark.parametrize("test", ["bootstrap", "randomisation"])
def test_directions_that_differ_in_one_segment_are_ties(test):
    """Each of 60 directions differs in one segment of 300: no direction is a win, corrected or not."""
    base = np.random.default_rng(0).normal(0.6, 0.1, 300)
    b = {f"en-{code}": statistics_of(base) for code in list(LANGUAGES)[1:]}
    a = {d: statistics_of(np.where(np.arange(300) == i, 1.0, base)) for i, d in enumerate(b)}
    for correction in sig.CORRECTIONS:
        frame = sig.compare(a, b, "comet22", test, correction, n_samples=1200)
        assert (frame["p_value"] == 1).all() and set(frame["verdict"]) == {"tie"}
    only = {"en-de": a["en-de"]}, {"en-de": b["en-de"]}
    assert sig.paired_mean(*only, "comet22", 200).p_value == 1
