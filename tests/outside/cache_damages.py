"""Kept COMET scores and kept counts of n-grams with a bit, a byte or a part of their file changed, swapped or cut:
what is read is right or made again, or the file is refused by name; never is a wrong score taken.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import numpy as np

from xalma.evaluation.score_cache import ScoreCache, text_key
from xalma.evaluation.scoring import kept_statistics

TITLE = "Damaged caches of scores"
COUNT = 400
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


def run(work: Path, runs: Path, n: int, seed: int) -> dict[str, object]:
    """n damages to each of the two caches."""
    found, failed = Counter(), []
    for counted in (score_cache_counts, statistics_counts):
        (folder := work / counted.__name__).mkdir(parents=True, exist_ok=True)
        with redirect_stderr(StringIO()):
            counts = counted(folder, n, seed)
        found += counts
        failed += [f"{counted.__name__}: {counts['wrong']} wrong scores"] if counts["wrong"] else []
    named = {"right or made again": found["right"], "refused by name": found["refused"]}
    return {
        "tried": 2 * n,
        "held": sum(named.values()),
        **named,
        "wrong scores": found["wrong"],
        "failed": failed,
    }
