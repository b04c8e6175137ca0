"""Tests against sacreBLEU's own, and against closed forms."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from sacrebleu.significance import PairedTest
from test_segment_statistics import corpus

from xalma.evaluation import significance
from xalma.evaluation.metrics import sacrebleu_metric
from xalma.evaluation.segment_statistics import bootstrap_scores, segment_statistics, statistics_of
from xalma.evaluation.significance import bootstrap, paired_bootstrap, randomisation

TESTS = {"bootstrap": paired_bootstrap, "randomisation": randomisation}
GOOD, REFERENCES = corpus(40, 1, 0.2)
POOR, _ = corpus(40, 1, 0.3)


def both(metric: str, a=GOOD, b=POOR):
    return [segment_statistics(outputs, REFERENCES, "en", metric) for outputs in (a, b)]


@pytest.mark.parametrize("metric", ["bleu", "chrf++"])
@pytest.mark.parametrize(("test", "kind"), [(paired_bootstrap, "bs"), (randomisation, "ar")])
def test_paired_tests_are_sacrebleus(metric, test, kind, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "99")
    systems = [("good", GOOD), ("poor", POOR)]
    paired = PairedTest(systems, {metric: sacrebleu_metric(metric, "en")}, [REFERENCES], kind, n_samples=700)
    _, expected = paired()
    (name,) = (key for key in expected if key != "System")
    drawn = []
    monkeypatch.setattr(significance, "_p_value", lambda trials, *_: drawn.append(trials))
    found = test(*both(metric), metric, 700, 99)
    assert (found.value_a, found.value_b) == pytest.approx([r.score for r in expected[name]], abs=1e-9)
    (trials,) = drawn
    if kind == "bs":  # sacreBLEU keeps one tail of these
        first, second = (bootstrap_scores(counts, metric, 700, 99) for counts in both(metric))
        trials = np.abs(first - second) - np.abs(first - second).mean()
    p_value = (int((trials > abs(found.delta)).sum()) + 1) / 701
    assert p_value == expected[name][1].p_value
    assert 0.002 < p_value < 0.9  # neither end, where anything agrees


def test_bootstrap_interval_is_sacrebleus(monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "5")
    expected = sacrebleu_metric("bleu", "en").corpus_score(GOOD, [REFERENCES], n_bootstrap=500)
    found = bootstrap(both("bleu")[0], "bleu", 500, 5)
    assert (found.value, found.half_width) == pytest.approx((expected.score, expected._ci), abs=1e-5)
    assert found.low < found.value < found.high


def test_randomisation_of_a_mean_against_all_sign_flips():
    a, b = (statistics_of(np.random.default_rng(s).normal(0.6, 0.1, 10)) for s in (0, 1))
    differences = (a - b)[:, 0]
    flipped = np.abs([np.mean(differences * signs) for signs in product((1, -1), repeat=10)])
    exact = np.mean(flipped >= abs(differences.mean()) - 1e-12)
    found = randomisation(a, b, "comet22", 20_000, 1)
    assert found.p_value == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000) + 2 / 1024)
    assert found.delta == pytest.approx(differences.mean())


def test_bootstrap_of_a_mean_against_its_standard_error():
    scores = np.random.default_rng(0).normal(0.8, 0.1, 400)
    found = bootstrap(statistics_of(scores), "comet22", 4000, 1)
    assert found.half_width == pytest.approx(1.96 * 100 * scores.std() / 20, rel=0.06)


def test_equal_outputs_are_no_difference():
    for test in TESTS.values():
        found = test(*both("bleu", GOOD, GOOD), "bleu", 50)
        assert (found.p_value, found.delta) == (1.0, 0.0)


def test_one_seed_is_one_result():
    runs = [paired_bootstrap(*both("chrf"), "chrf", 100, seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("test", TESTS.values(), ids=TESTS)
def test_equally_good_systems_differ_in_one_of_twenty_tests(test):
    rng, below = np.random.default_rng(0), 0
    for _ in range(400):
        a, b = (statistics_of(rng.normal(0.5, 0.1, 60)) for _ in range(2))
        below += test(a, b, "comet22", 200).p_value < 0.05
    assert below / 400 == pytest.approx(0.05, abs=0.033)  # three standard errors


def changed(k: int, metric: str) -> list[np.ndarray]:
    """Two systems' statistics of 200 segments that differ in k, each time for the worse."""
    references = [f"the small house number {i} stands on the hill of the town" for i in range(200)]
    other = [text.replace("hill", "moon") if i < k else text for i, text in enumerate(references)]
    if metric == "comet22":
        scores = np.full(200, 0.7), np.where(np.arange(200) < k, 0.7 - 1 / 3, 0.7)
        return [statistics_of(s) for s in scores]
    return [segment_statistics(outputs, references, "en", metric) for outputs in (references, other)]


@pytest.mark.parametrize("metric", ["bleu", "chrf", "chrf++", "comet22"])
@pytest.mark.parametrize("k", range(9))
def test_few_segments_that_differ_cannot_be_significant(metric, k):
    """All k favour one system, so that 2 of the 2^k assignments are as extreme: the exact p is 2 / 2^k."""
    exact = min(1.0, 2 / 2**k)
    found = randomisation(*changed(k, metric), metric, 2000, 3)
    error = math.sqrt(exact * (1 - exact) / 2000)
    assert exact <= found.p_value <= exact + 4 * error + 1 / 2000
    assert paired_bootstrap(*changed(k, metric), metric, 500, 3).p_value >= exact


def test_unequal_statistics_of_equal_scores_are_a_tie():
    """Both systems have one segment right and one wrong, not the same one: the difference of the scores is 0."""
    a, b = (statistics_of([0.5] * 20 + list(two)) for two in ((0.9, 0.1), (0.1, 0.9)))
    for test in TESTS.values():
        found = test(a, b, "comet22", 300)
        assert (found.p_value, found.delta) == (1.0, 0.0)


def test_ties_are_counted_but_for_rounding():
    """Sums of 0.1 and 0.3 round: what is equal on paper differs in the last bits."""
    a = statistics_of([0.1, 0.3, 0.1, 0.3] * 30)
    b = statistics_of([0.3, 0.1, 0.1, 0.3] * 30)
    assert randomisation(a, b, "comet22", 300).p_value == 1.0
