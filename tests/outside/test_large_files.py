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


@pytest.mark.parametrize("characters", [1, 60, 400, 10**6])
def test_long_segments_make_parts_too(monkeypatch, characters):
    """By characters, of whichever side has more: a part of one segment at least, none left out."""
    monkeypatch.setattr(metrics, "CHARACTERS_AT_ONCE", characters)
    found = [*metrics.parts(OUTPUTS, REFERENCES)]
    assert [i for part in found for i in range(N)[part]] == [*range(N)]
    sizes = [[len(part) for part in map("".join, (OUTPUTS[one], REFERENCES[one]))] for one in found]
    lengths = [one.stop - one.start for one in found]
    assert all(max(size) <= characters or n == 1 for size, n in zip(sizes, lengths, strict=True))
    assert len(found) == {1: N, 60: N, 10**6: 1}.get(characters, len(found))
    expected = sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES]).score
    assert score(OUTPUTS, REFERENCES, "de", ("bleu",))[0].value == expected


@pytest.mark.parametrize("side", ["hypotheses", "references"])
def test_a_segment_that_is_no_translation_is_refused(monkeypatch, side):
    monkeypatch.setattr(metrics, "LONGEST_SEGMENT", 10)
    texts = {"hypotheses": ["short"] * 3, "references": ["short"] * 3}
    texts[side][1] = "x" * 11
    with pytest.raises(
        ValueError, match=rf"segment 2 of {side} has 11 characters, at most 10 are scored: write one"
    ):
        score(*texts.values(), "de", ("bleu",))


def test_no_more_than_a_part_is_counted_at_once(monkeypatch):
    """The n-grams of the references are what takes memory: no call sees more of them than a part."""
    seen = []
    monkeypatch.setattr(metrics, "SEGMENTS_AT_ONCE", 40)
    plain = metrics.BLEU._cache_references
    monkeypatch.setattr(
        metrics.BLEU, "_cache_references", lambda s, refs: seen.append(len(refs[0])) or plain(s, refs)
    )
    score(OUTPUTS, REFERENCES, "de", ("bleu",))
    assert max(seen) == 40 and sum(seen) == N
