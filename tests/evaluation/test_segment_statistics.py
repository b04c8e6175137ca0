"""Statistics and resampled scores against sacreBLEU's own, one resample at a time."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sacrebleu.significance import _bootstrap_resample

from xalma.evaluation.metrics import sacrebleu_metric, score
from xalma.evaluation.segment_statistics import (
    bootstrap_scores,
    by_document,
    corpus_score,
    score_of,
    segment_statistics,
    statistics_of,
)
from xalma.evaluation.significance import paired_bootstrap, randomisation

TEXT = "the cat sat on a mat while it rained, and nobody saw (or heard) the dog ."
WORDS = TEXT.split()


def corpus(n: int, seed: int, damage: float = 0.3) -> tuple[list[str], list[str]]:
    """(outputs, references): words dropped and exchanged."""
    rng = random.Random(seed)
    references = [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(n)]
    outputs = [
        " ".join(rng.choice(WORDS) if rng.random() < damage else w for w in r.split()) for r in references
    ]
    return outputs, references


OUTPUTS, REFERENCES = corpus(40, 0)


@pytest.mark.parametrize(("metric", "k"), [("bleu", 10), ("chrf", 18), ("chrf++", 24)])
@pytest.mark.parametrize(
    "outputs",
    [OUTPUTS, REFERENCES, [""] * 40, ["x"] * 40, ["the cat"] * 40, ["the", *[""] * 39]],
    ids=["usual", "perfect", "empty", "no match", "no 4-grams", "one word"],
)
def test_the_sum_of_the_statistics_is_the_corpus_score(metric, k, outputs):
    statistics = segment_statistics(outputs, REFERENCES, "en", metric)
    (expected,) = score(outputs, REFERENCES, "en", (metric,))
    assert statistics.shape == (40, k)
    assert score_of(statistics, metric) == pytest.approx(expected.value, abs=1e-9)


@pytest.mark.parametrize("metric", ["bleu", "chrf", "chrf++"])
@pytest.mark.parametrize("seed", [12345, 7])
def test_resamples_are_sacrebleus(metric, seed, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", str(seed))
    statistics = segment_statistics(OUTPUTS, REFERENCES, "en", metric)
    _, expected = _bootstrap_resample(statistics.tolist(), sacrebleu_metric(metric, "en"), 600)
    found = bootstrap_scores(statistics, metric, 600, seed)
    assert found == pytest.approx(
        np.array([s.score for s in expected]), abs=1e-5
    )  # sacreBLEU adds in 32 bits


def test_many_sums_at_once():
    statistics = segment_statistics(OUTPUTS, REFERENCES, "en", "chrf++")
    totals = np.stack([statistics[:20].sum(0), statistics[20:].sum(0)])[:, None]
    halves = [
        score(OUTPUTS[s], REFERENCES[s], "en", ("chrf++",))[0].value for s in (slice(20), slice(20, 40))
    ]
    assert corpus_score(totals, "chrf++")[:, 0] == pytest.approx(np.array(halves), abs=1e-9)


def test_a_mean_of_segments():
    statistics = statistics_of([0.5, 0.7, 0.9])
    assert score_of(statistics, "comet22") == pytest.approx(70)
    samples = bootstrap_scores(statistics, "comet22", 2000)
    assert samples.mean() == pytest.approx(70, abs=1)
    assert set(np.round(samples * 3).astype(int)) <= set(range(150, 271, 20))  # means of three of 50, 70, 90


def test_the_target_decides_the_tokens():
    (one, two) = (segment_statistics(["今天天气很好"], ["今天天气很坏"], tgt, "bleu") for tgt in ("zh", "de"))
    assert one[0, :2].tolist() == [6, 6]
    assert two[0, :2].tolist() == [1, 1]
    with pytest.raises(ValueError, match="1 outputs, 2 references"):
        segment_statistics(["a"], ["a", "b"], "de", "bleu")


DOCUMENTS = [f"doc{i // 3}" for i in range(39)] + ["doc0"]  # 13 documents, one in two places


@pytest.mark.parametrize("metric", ["bleu", "chrf", "chrf++"])
def test_documents_are_drawn_whole(metric):
    """Against sacreBLEU's corpus score of the segments of the drawn documents, one resample at a time."""
    found = by_document(segment_statistics(OUTPUTS, REFERENCES, "en", metric), DOCUMENTS)
    names, rng = list(dict.fromkeys(DOCUMENTS)), np.random.default_rng(12345)
    assert found.shape[0] == len(names) == 13
    (whole,) = score(OUTPUTS, REFERENCES, "en", (metric,))
    assert score_of(found, metric) == pytest.approx(whole.value, abs=1e-9)
    for value in bootstrap_scores(found, metric, 5):
        drawn = [names[i] for i in rng.choice(13, size=13)]
        lines = [i for name in drawn for i, document in enumerate(DOCUMENTS) if document == name]
        (expected,) = score([OUTPUTS[i] for i in lines], [REFERENCES[i] for i in lines], "en", (metric,))
        assert value == pytest.approx(expected.value, abs=1e-9)


def test_a_mean_over_drawn_documents_is_that_of_their_segments():
    scores = np.random.default_rng(0).random(40)
    found = by_document(statistics_of(scores), DOCUMENTS)
    assert score_of(found, "comet22") == pytest.approx(100 * scores.mean())
    drawn = np.random.default_rng(12345).choice(13, size=13)
    segments = np.concatenate([scores[[d == f"doc{i}" for d in DOCUMENTS]] for i in drawn])
    assert bootstrap_scores(found, "comet22", 1)[0] == pytest.approx(100 * segments.mean())


def test_paired_tests_over_documents_see_documents():
    """Two systems that differ in every segment of one document: one difference, not thirty."""
    a = statistics_of(np.zeros(60))
    b = statistics_of(np.repeat([0.0, 1.0], 30))
    documents = [f"doc{i // 30}" for i in range(60)]
    assert randomisation(a, b, "comet22").p_value < 0.01
    assert randomisation(by_document(a, documents), by_document(b, documents), "comet22").p_value == 1
    assert paired_bootstrap(by_document(a, documents), by_document(b, documents), "comet22").p_value > 0.2


@pytest.mark.parametrize(
    ("documents", "why"),
    [(["a"] * 3, "3 documents named for 40 segments"), (["a"] * 40, "1 document: an interval")],
)
def test_what_documents_must_be(documents, why):
    with pytest.raises(ValueError, match=why):
        by_document(segment_statistics(OUTPUTS, REFERENCES, "en", "bleu"), documents)
