"""Kept scores and counts with any bytes of their files changed: a right score, a new one or a refusal, no other."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from xalma.scorecache import ScoreCache, text_key
from xalma.scoring import kept_statistics

SCORES = {text_key(i): i / 7 for i in range(300)}
KINDS = ("one bit", "one byte", "64 bytes", "zeros", "cut", "two parts changed places", "a part twice")


def damage(data: bytes, kind: str, rng: random.Random) -> bytes:
    """The bytes with one damage, at a place by chance."""
    i, j = rng.randrange(len(data)), rng.randrange(len(data))
    start, other = (4096 * (place // 4096) for place in (i, j))
    if kind == "one bit":
        return data[:i] + bytes([data[i] ^ 1 << rng.randrange(8)]) + data[i + 1 :]
    if kind == "one byte":
        return data[:i] + bytes([rng.randrange(256)]) + data[i + 1 :]
    if kind == "64 bytes":
        return data[:i] + rng.randbytes(64) + data[i + 64 :]
    if kind == "zeros":
        return data[:start] + bytes(4096) + data[start + 4096 :]
    if kind == "cut":
        return data[:i]
    first, second = data[start : start + 4096], data[other : other + 4096]
    changed = data[:other] + first + data[other + 4096 :]
    if kind == "a part twice":
        return changed
    return changed[:start] + second + changed[start + 4096 :]


def score_cache_counts(folder: Path, n: int, seed: int = 0) -> Counter:
    """Of n damages to a score cache of 300 scores: "right" (what came was right), "refused", "wrong"."""
    whole, path, rng = folder / "whole.sqlite", folder / "damaged.sqlite", random.Random(seed)
    with ScoreCache(whole) as cache:
        for start in range(0, 300, 50):
            cache.put(dict(list(SCORES.items())[start : start + 50]))
    data, found = whole.read_bytes(), Counter()
    for number in range(n):
        path.write_bytes(damage(data, KINDS[number % len(KINDS)], rng))
        try:
            with ScoreCache(path) as cache:
                got = cache.get(list(SCORES))
            found["right" if all(SCORES.get(key) == score for key, score in got.items()) else "wrong"] += 1
        except OSError:
            found["refused"] += 1
    return found


def statistics_counts(folder: Path, n: int, seed: int = 0) -> Counter:
    """Of n damages to kept counts of n-grams: "right", "refused", "wrong"."""
    arguments = ([f"a b c {i}" for i in range(99)], [f"a b d {i}" for i in range(99)], "en", "bleu", "sig")
    counts = kept_statistics(*arguments, str(folder / "kept"))
    (file,) = (folder / "kept").iterdir()
    data, rng, found = file.read_bytes(), random.Random(seed), Counter()
    for number in range(n):
        file.write_bytes(damage(data, KINDS[number % len(KINDS)], rng))
        try:
            got = kept_statistics(*arguments, str(folder / "kept"))
            found["right" if np.array_equal(got, counts) else "wrong"] += 1
        except OSError:
            found["refused"] += 1
    return found


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
