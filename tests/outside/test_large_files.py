"""Scores of files too large for all their n-grams: the same to the bit, in parts."""

from __future__ import annotations

import pytest
import sacrebleu

from xalma.evaluation import metrics
from xalma.evaluation.metrics import score
from xalma.evaluation.segment_statistics import score_of, segment_statistics

N = 250
OUTPUTS = [f"the {i % 7} small houses stand on hill {i % 11} of town {i}" for i in range(N)]
REFERENCES = [f"the {i % 5} small house stood on the hill {i % 11} of the town {i}" for i in range(N)]


@pytest.mark.parametrize("at_once", [1, 7, 100, N, 10**6])
def test_parts_make_the_score_of_the_whole(monkeypatch, at_once):
    monkeypatch.setattr(metrics, "SEGMENTS_AT_ONCE", at_once)
    monkeypatch.setattr("xalma.evaluation.segment_statistics.SEGMENTS_AT_ONCE", at_once)
    expected = {
        "bleu": sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES]).score,
        "chrf": sacrebleu.corpus_chrf(OUTPUTS, [REFERENCES]).score,
        "chrf++": sacrebleu.corpus_chrf(OUTPUTS, [REFERENCES], word_order=2).score,
    }
    assert {s.metric: s.value for s in score(OUTPUTS, REFERENCES, "de", tuple(expected))} == expected
    assert "nrefs:1" in score(OUTPUTS, REFERENCES, "de", ("bleu",))[0].signature
    for metric, value in expected.items():
        counts = segment_statistics(OUTPUTS, REFERENCES, "de", metric)
        assert counts.shape[0] == N and score_of(counts, metric) == pytest.approx(value, abs=1e-9)


def test_no_more_than_a_part_is_counted_at_once(monkeypatch):
    """The n-grams of the references are what takes memory: no call sees more of them than a part."""
    seen = []
    monkeypatch.setattr(metrics, "SEGMENTS_AT_ONCE", 40)
    plain = metrics.BLEU._cache_references
    monkeypatch.setattr(metrics.BLEU, "_cache_references", lambda s, refs: seen.append(len(refs[0])) or plain(s, refs))
    score(OUTPUTS, REFERENCES, "de", ("bleu",))
    assert max(seen) == 40 and sum(seen) == N
