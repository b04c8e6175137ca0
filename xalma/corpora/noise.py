"""Misaligned pairs, added on purpose: the noise of web bitext in a known share (`bitext_noise`)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from xalma.corpora.base import Pair
from xalma.profiles import Profile

NOISE_CHUNK = 500  # pairs among which targets are swapped
# wrong targets below which a chunk, the last of a corpus, is left as it is: two might be the same
FEWEST = 10


def noisy(pairs: Iterable[Pair], p: Profile) -> Iterator[Pair]:
    """The pairs, a share `bitext_noise` of each CHUNK with another pair's target."""
    pairs = iter(pairs)
    while chunk := list(islice(pairs, NOISE_CHUNK)):
        yield from chunk if p.bitext_noise * len(chunk) < FEWEST else misalign(chunk, p.bitext_noise, p.seed)


def misalign(pairs: Sequence[Pair], share: float, seed: int) -> list[Pair]:
    """`pairs` with `round(share * len(pairs))` wrong targets: the noise of web bitext (stage 3).

    The rows chosen by `seed` exchange their targets so that none keeps one equal to its own.
    Raises ValueError for a share outside 0..1, and where too many chosen targets are the same.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share of misaligned pairs is {share}: choose a number from 0 to 1")
    rng = random.Random(f"misalign {seed}")
    rows = rng.sample(range(len(pairs)), round(share * len(pairs)))
    own = [pairs[row][1] for row in rows]
    same = max(Counter(own).values(), default=0)
    if 2 * same > len(rows):
        raise ValueError(f"{len(rows)} of {len(pairs)} pairs can't all get a wrong target: {same} share one")
    targets = rng.sample(own, len(own))
    for i, target in enumerate(own):
        if targets[i] == target:
            # Some j fits: i is among the at most `same` rows with this target before and after.
            fits = [j for j, t in enumerate(targets) if t != target and own[j] != target]
            j = rng.choice(fits)
            targets[i], targets[j] = targets[j], targets[i]
    noisy = list(pairs)
    for row, target in zip(rows, targets, strict=True):
        noisy[row] = (pairs[row][0], target)
    return noisy
