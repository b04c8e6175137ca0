"""The order of rows: every row once an epoch, like lengths together, the same from any point of it on."""

from __future__ import annotations

from itertools import islice

import pytest

from xalma.data.batches import RowBatches, like_lengths

LENGTHS = [3 + i * 7 % 40 for i in range(1003)]


def test_an_epoch_has_every_row_once_and_a_short_last_batch():
    order = like_lengths(LENGTHS, 8, 0)
    epochs = [list(islice(order, 126)) for _ in range(2)]  # 1003 = 125 × 8 + 3
    for epoch in epochs:
        assert sorted(i for batch in epoch for i in batch) == list(range(1003))
        assert [len(batch) for batch in epoch] == [8] * 125 + [3]
    assert epochs[0] != epochs[1]


def test_pairs_are_shuffled_whole():
    """Whatever their lengths: an epoch has every pair once, and what stands together is not of like length."""
    rows = [{"chosen_input_ids": [i] * n, "rejected_input_ids": [i] * n} for i, n in enumerate(LENGTHS)]
    stream = RowBatches(rows, 8, 1, lambda found: [row["chosen_input_ids"] for row in found])
    epoch = list(islice(stream, 126))
    assert sorted(ids[0] for batch in epoch for ids in batch) == list(range(1003))
    assert sum(max(map(len, batch)) - min(map(len, batch)) for batch in epoch) / 126 > 25  # 31 at random


def test_batches_are_of_like_length_in_random_order():
    batches = [[LENGTHS[i] for i in batch] for batch in islice(like_lengths(LENGTHS[:1000], 8, 0), 125)]
    assert sum(max(batch) - min(batch) for batch in batches) / 125 < 5  # of 40 at random
    longest = [max(batch) for batch in batches]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)


@pytest.mark.parametrize("stop", [0, 1, 125, 126, 200])
def test_a_resumed_stream_goes_on(stop):
    rows = [{"input_ids": [i] * n} for i, n in enumerate(LENGTHS)]
    fresh = lambda: RowBatches(rows, 8, 1, lambda found: [row["input_ids"][0] for row in found])  # noqa: E731
    whole = list(islice(fresh(), 260))
    broken = fresh()
    assert list(islice(broken, stop)) == whole[:stop]
    resumed = fresh()
    resumed.load_state_dict(broken.state_dict())
    assert list(islice(resumed, 260 - stop)) == whole[stop:]
