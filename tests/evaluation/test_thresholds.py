"""Differences that people notice: the printed column, and where it marks what."""

from __future__ import annotations

import math

import pytest

from xalma.evaluation.comet import NEURAL_METRICS as NEURAL
from xalma.evaluation.score_file import FILE_METRICS
from xalma.evaluation.thresholds import THRESHOLDS, explained, is_noticed, marks

# The sigmoids of the authors' package (mt_thresholds 1.0.4, `_thresholds_raw`): accuracy = a / (1 + exp(-b x)).
FITS = {
    "bleu": (88.3333, 0.966393),
    "chrf": (93.0, 1.114273),
    "spbleu": (91.0, 0.807905),
    "comet22": (96.2237, 2.835919),
    "cometkiwi": (98.8814, 2.719281),
    "xcomet-xl": (96.5674, 1.453560),
    "xcomet-xxl": (98.9343, 1.162953),
    "cometkiwi-xl": (96.3908, 1.888888),
    "cometkiwi-xxl": (96.2317, 1.282658),
}


@pytest.mark.parametrize("metric", THRESHOLDS)
def test_the_printed_numbers_are_those_of_the_authors_fits(metric):
    a, b = FITS[metric]
    assert THRESHOLDS[metric] == pytest.approx(-math.log(a / 80 - 1) / b, abs=0.006)


def test_metrics_without_a_printed_number_are_not_marked():
    assert {name for name in FILE_METRICS if name not in THRESHOLDS} == {
        "chrf++",
        "xcomet-xl-qe",
        "xcomet-xxl-qe",
        "metricx24",
        "metricx24-qe",
        "gemba-esa",
    }
    assert set(THRESHOLDS) <= set(FILE_METRICS) >= set(NEURAL)
    assert (
        is_noticed("chrf++", 0.1) is None
        and marks("chrf++", [1.0, 1.1]) == ["", ""]
        and explained("chrf++") == ""
    )


@pytest.mark.parametrize(
    ("metric", "difference", "noticed"),
    [
        ("bleu", 2.34, True),
        ("bleu", -2.34, True),
        ("bleu", 2.33, False),
        ("comet22", 0.5, False),
        ("bleu", 0.0, False),
    ],
)
def test_noticed(metric, difference, noticed):
    assert is_noticed(metric, difference) is noticed


def test_what_is_close_to_the_best_is_marked():
    assert marks("bleu", [30.0, 31.0, 28.6, 28.7, math.nan, 31.0]) == ["°", "", "", "°", "", ""]
    assert marks("bleu", [math.nan]) == [""]
