"""Kept scores and counts with any bytes of their files changed: a right score, a new one or a refusal, no other."""

from __future__ import annotations

import shutil

import pytest
from cache_damages import SCORES, score_cache_counts, statistics_counts

from xalma.evaluation.score_cache import ScoreCache


@pytest.mark.parametrize("counted", [score_cache_counts, statistics_counts])
def test_no_damage_gives_a_wrong_score(tmp_path, counted):
    found = counted(tmp_path, 210)
    assert found["wrong"] == 0 and found["right"] > 100


def test_damaged_scores_are_said_and_made_again(tmp_path, capsys):
    path = tmp_path / "scores.sqlite"
    with ScoreCache(path) as cache:
        cache.put(SCORES)
    wrong = next(iter(SCORES))
    with ScoreCache(path) as cache:
        cache._database.execute("UPDATE sealed_scores SET score = 0.5 WHERE key = ?", (wrong,))
        cache._database.commit()
    with ScoreCache(path) as cache:
        assert cache.get(list(SCORES)) == {key: score for key, score in SCORES.items() if key != wrong}
        cache.put({wrong: 0.25})
        assert cache.get([wrong]) == {wrong: 0.25}
    assert "1 scores in" in capsys.readouterr().err
    shutil.rmtree(tmp_path)
