"""Micro-batches in one order, the same for every number of processes, from any point of it on.

A stream is endless for rows (each epoch in a new order) and as long as the blocks for packed text. What `state_dict`
gives after a micro-batch, `load_state_dict` takes before the first one: the stream then goes on bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch

from xalma.profiles import StageSettings

Collate = Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]


def like_lengths(lengths: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
    """Index lists of `size` rows, epoch after epoch in new random orders, in which a batch has rows of like length.

    transformers' own length grouping takes the batches of fifty from long to short, which shows as a saw-tooth in the
    loss; here the batches are shuffled again. The last batch of an epoch may be short.
    """
    known = torch.tensor(lengths)
    generator = torch.Generator().manual_seed(seed)
    while True:
        batches: list[torch.Tensor] = []
        for pool in torch.randperm(len(known), generator=generator).split(50 * size):
            batches += pool[known[pool].argsort(stable=True)].split(size)
        order = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        yield from (part.tolist() for part in torch.cat(order).split(size))


class RowBatches:
    """Micro-batches of `size` tokenised rows, of like length, or pairs; the position is the number of those taken."""

    def __init__(self, rows: Sequence[dict[str, Any]], size: int, seed: int, collate: Collate) -> None:
        self.rows, self.size, self.seed, self.collate = rows, size, seed, collate
        self.n_taken = 0

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        # pairs are packed: any company is as good
        lengths = [len(row.get("input_ids", ())) for row in self.rows]
        order = like_lengths(lengths, self.size, self.seed)
        for indices in islice(order, self.n_taken, None):
            self.n_taken += 1
            yield self.collate([self.rows[i] for i in indices])

    def state_dict(self) -> dict[str, Any]:
        return {"n_taken": self.n_taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.n_taken = state["n_taken"]


class BlockBatches:
    """Micro-batches of `size` blocks of mixing.PackedBlocks or streams.MixedBlocks, whose position is their own."""

    def __init__(self, blocks: Any, size: int, collate: Collate) -> None:
        self.blocks, self.size, self.collate = blocks, size, collate

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        blocks = iter(self.blocks)
        while rows := list(islice(blocks, self.size)):
            yield self.collate(rows)

    def state_dict(self) -> dict[str, Any]:
        return self.blocks.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.blocks.load_state_dict(state)


def sizes(stage: StageSettings, n_processes: int = 1) -> tuple[int, int]:
    """(batch, micro-batch) of a stage, in rows or pairs. Raises ValueError if the processes can't share it evenly."""
    batch, field = stage.batch_size, f"stage{stage.number}_batch_size"
    micro = min(batch, stage.micro_batch)
    if batch % micro:
        raise ValueError(f"{field}={batch} is no multiple of micro_batch={micro}: change one of the two")
    if batch // micro % n_processes:
        raise ValueError(
            f"{field}={batch} makes {batch // micro} micro-batches of {micro}, which {n_processes} "
            f"processes can't share evenly: set micro_batch to a divisor of {batch / n_processes:g}"
        )
    return batch, micro


def stream_of(rows: Any, micro: int, seed: int, collate: Collate) -> RowBatches | BlockBatches:
    """The stream of micro-batches of a stage, in the order of all processes together."""
    if not isinstance(rows, torch.utils.data.IterableDataset):
        return RowBatches(rows, micro, seed, collate)
    return BlockBatches(rows, micro, collate)
