"""Misaligned pairs: the exact share, none with its own target, in a corpus of files as in the phrasebook."""

from __future__ import annotations

import pytest

from xalma.corpora.noise import NOISE_CHUNK, misalign, noisy
from xalma.profiles import load_profile


@pytest.mark.parametrize("share", [0, 0.1, 0.333, 0.5, 1])
def test_misalign_has_the_exact_share_of_wrong_targets(share):
    pairs = [(f"en {i}", f"zh {i % 400}") for i in range(500)]
    noisy = misalign(pairs, share, seed=3)
    assert [source for source, _ in noisy] == [source for source, _ in pairs]
    assert sorted(target for _, target in noisy) == sorted(target for _, target in pairs)
    wrong = sum(a != b for a, b in zip(noisy, pairs, strict=True))
    assert wrong == round(share * 500)
    assert noisy == misalign(pairs, share, seed=3)
    if share:
        assert noisy != misalign(pairs, share, seed=4)


def test_misalign_parts_equal_targets():
    pairs = [(str(n), target) for n, target in enumerate("aaabbbcc")]
    for seed in range(20):
        noisy = misalign(pairs, 1, seed)
        assert all(a[1] != b[1] for a, b in zip(noisy, pairs, strict=True))


@pytest.mark.parametrize(
    ("pairs", "share", "message"),
    [
        ([("a", "x"), ("b", "y")], 1.5, "share of misaligned pairs is 1.5"),
        ([("a", "x"), ("b", "x"), ("c", "y")], 1, "2 share one"),
        ([("a", "x")], 1, "can't all get a wrong target"),
    ],
)
def test_misalign_refuses(pairs, share, message):
    with pytest.raises(ValueError, match=message):
        misalign(pairs, share, seed=0)


@pytest.mark.parametrize(("n", "wrong"), [(NOISE_CHUNK, 50), (NOISE_CHUNK + 15, 50), (2 * NOISE_CHUNK, 100)])
def test_noise_comes_by_the_chunk_and_spares_what_is_left(n, wrong):
    pairs = [(f"en {i}", f"fi {i}") for i in range(n)]
    found = list(noisy(iter(pairs), load_profile("tiny", bitext_noise=0.1)))
    assert [english for english, _ in found] == [english for english, _ in pairs]
    assert sum(a != b for a, b in zip(found, pairs, strict=True)) == wrong
    assert list(noisy(pairs, load_profile("tiny", bitext_noise=0.0))) == pairs
