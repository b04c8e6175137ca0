"""Decoding of token ids in large batches, greedy or sampled, and the price of given answers: what `run` measures with.

transformers' `generate` copies the cache once for each head that shares it, and looks after each token whether all rows
are done. Here a step of one token reads the cache once, decides on the device, and on a GPU is the replay of one CUDA
graph; layers with a window keep the whole cache and mask it, so that one graph serves every length.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from xalma.models.cuda_graphs import record

PROMPT_TOKENS = 2**17  # read at once
CACHE_TOKENS = 2**19  # of prompts and answers in one batch: 9 GiB for Gemma-3-270M in bfloat16
CHECK_EVERY = 8  # steps between two checks whether all rows are done


def grouped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query (B, H, T, D), key and value (B, K, L, D), mask (B, 1, T, L).

    For one token the H / K heads that share a key are the rows of one product, so that no key is copied.
    The mask is True where to look.
    """
    rows, heads, n, size = query.shape
    shared, scale = key.shape[1], scaling if scaling is not None else size**-0.5
    if n == 1:
        scores = query.reshape(rows, shared, heads // shared, size) @ key.transpose(2, 3)
        scores = (scores.float() * scale).masked_fill(~attention_mask, float("-inf"))
        found = (scores.softmax(-1).to(value.dtype) @ value).reshape(rows, heads, 1, size)
    else:
        key, value = (x.repeat_interleave(heads // shared, 1) for x in (key, value))
        found = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scale)
    return found.transpose(1, 2).contiguous(), None


AttentionInterface.register("grouped", grouped_attention)


class Places:
    """Keys and values of a batch in places that stay. While the prompts are read, some `rows` at a time, `at` is None;
    then it is (1,), where the next token goes."""

    is_compileable, is_initialized = False, True

    def __init__(self, n_rows: int, length: int) -> None:
        self.n_rows = n_rows
        self.length = length
        self.rows = slice(None)
        self.at = None
        self.kept = {}

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if self.at is None:
            _, heads, n, size = keys.shape
            if layer not in self.kept:
                self.kept[layer] = [
                    x.new_zeros(self.n_rows, heads, self.length, size) for x in (keys, values)
                ]
            for place, x in zip(self.kept[layer], (keys, values), strict=True):
                place[self.rows, :, :n] = x
            return keys, values
        kept = self.kept[layer]
        kept[0].index_copy_(2, self.at, keys)
        kept[1].index_copy_(2, self.at, values)
        return kept[0], kept[1]

    def get_seq_length(self, *_: Any) -> int:
        return 0  # positions and masks are given


@contextmanager
def attention_of(model: PreTrainedModel, name: str):
    """Inside, the model's attention is the one registered as `name`."""
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stops: Collection[int],
    pad: int,
    batch_size: int,
    temperature: float = 0.0,
) -> list[list[int]]:
    """The continuation of each prompt, in order, without the stop that ended it: greedy, or drawn at `temperature`.

    limits: most new tokens of each row. stops: ids that end a row. Draws come from torch's generator, seeded before.
    """
    order = sorted(range(len(prompts)), key=lambda i: (-limits[i], -len(prompts[i])))
    outputs: list[list[int]] = [[] for _ in prompts]
    ends = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=model.device)
    ends[list(stops)] = True
    was_training = model.training
    model.eval()
    with torch.inference_mode(), attention_of(model, "grouped"):
        start = 0
        while start < len(order):
            next_ones = order[start : start + batch_size]
            width = max(len(prompts[i]) for i in next_ones) + limits[order[start]]
            index = next_ones[: max(1, CACHE_TOKENS // width)]
            start += len(index)
            rows = [prompts[i] for i in index], [limits[i] for i in index]
            found = _batch(model, *rows, ends, pad, temperature)
            for i, ids in zip(index, found, strict=True):
                outputs[i] = ids
    model.train(was_training)
    return outputs


class _State:
    """What a step reads and changes, all on the device."""

    def __init__(
        self, prompts: Sequence[Sequence[int]], limits: Sequence[int], device: torch.device, pad: int
    ) -> None:
        self.longest = max(map(len, prompts))
        self.new = max(limits)
        gaps = torch.tensor([self.longest - len(row) for row in prompts], device=device)
        ids = [[pad] * (self.longest - len(row)) + list(row) for row in prompts]
        self.ids = torch.tensor(ids, device=device)
        columns = torch.arange(self.longest, device=device)
        self.real = columns >= gaps[:, None]  # (B, P)
        self.positions = (columns - gaps[:, None]).clamp(min=0)
        self.places = Places(len(prompts), self.longest + self.new + 1)
        self.mask = torch.zeros(len(prompts), 1, 1, self.places.length, dtype=torch.bool, device=device)
        self.mask[:, 0, 0, : self.longest] = self.real
        self.limits = torch.tensor(limits, device=device)
        self.out = torch.full((len(prompts), self.new), pad, device=device)
        self.n = torch.zeros(1, dtype=torch.long, device=device)
        self.done = torch.zeros(len(prompts), dtype=torch.bool, device=device)


def _batch(
    model: PreTrainedModel, prompts, limits, ends: Tensor, pad: int, temperature: float
) -> list[list[int]]:
    core = model.get_decoder()
    head = model.get_output_embeddings()
    state = _State(prompts, limits, model.device, pad)
    window = getattr(model.config, "sliding_window", None)

    def masks(full: Tensor, distance: Tensor) -> Any:
        """For each kind of layer; distance: from query to key, in tokens."""
        if not isinstance(getattr(model.config, "layer_types", None), list) or not window:
            return full
        return {"full_attention": full, "sliding_attention": full & (distance < window)}

    def take(hidden: Tensor) -> None:
        """The next token of each row from its last hidden state."""
        logits = head(hidden)
        if temperature:  # a draw from softmax(logits / temperature): the largest after Gumbel noise
            logits = logits.float() / temperature
            logits = logits - torch.empty_like(logits).exponential_().log()
        # `where` would copy a scalar, which no graph allows
        token = logits.argmax(-1).masked_fill(state.done, pad)
        state.out.index_copy_(1, state.n, token[:, None])
        state.n.add_(1)
        state.done.logical_or_(ends[token]).logical_or_(state.n >= state.limits)
        state.token = token[:, None] if not hasattr(state, "token") else state.token.copy_(token[:, None])

    columns = torch.arange(state.longest, device=model.device)
    distance = columns[:, None] - columns
    last = []
    n = max(1, PROMPT_TOKENS // state.longest)
    for first in range(0, len(prompts), n):
        state.places.rows = some = slice(first, first + n)
        seen = (distance >= 0) & state.real[some, None] | (distance == 0)  # padding sees itself: no empty row
        hidden = core(
            input_ids=state.ids[some],
            attention_mask=masks(seen[:, None], distance),
            position_ids=state.positions[some],
            past_key_values=state.places,
            use_cache=True,
        ).last_hidden_state
        last.append(hidden[:, -1].clone())
    del hidden, seen
    take(torch.cat(last))
    state.places.at = torch.tensor([state.longest], device=model.device)
    state.mask.index_fill_(3, state.places.at, True)
    state.at = state.positions[:, -1:] + 1
    columns = torch.arange(state.places.length, device=model.device)

    def step() -> None:
        hidden = core(
            input_ids=state.token,
            attention_mask=masks(state.mask, state.places.at - columns),
            position_ids=state.at,
            past_key_values=state.places,
            use_cache=True,
        ).last_hidden_state
        take(hidden[:, -1])
        state.at.add_(1)
        state.places.at.add_(1)
        state.mask.index_fill_(3, state.places.at, True)

    _run(step, state)
    found = []
    for row, limit in zip(state.out.tolist(), limits, strict=True):
        row = row[:limit]
        stop = next((i for i, token in enumerate(row) if ends_list(ends)[token]), len(row))
        found.append(row[:stop])
    return found


def ends_list(ends: Tensor) -> list[bool]:
    if not hasattr(ends, "as_list"):
        ends.as_list = ends.tolist()
    return ends.as_list


def _run(step: Callable[[], None], state: _State) -> None:
    replay = step
    for n in range(1, state.new):
        if n % CHECK_EVERY == 0 and bool(state.done.all()):
            return
        if n == 2 and state.new > 2 * CHECK_EVERY and state.ids.device.type == "cuda" and replay is step:
            replay = _recorded(step)
        replay()


def _recorded(step: Callable[[], None]) -> Callable[[], None]:
    """A replay of the step; the step itself, with a warning, where it can't be recorded."""
    try:
        return record(step)[0]
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"a decoding step can't be recorded, so each runs anew: {reason}", stacklevel=2)
        return step


@torch.inference_mode()
def price(
    model: PreTrainedModel, rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad: int, tokens: int = 2**14
) -> list[float]:
    """Summed nats of each answer after its prompt; rows: (prompt ids, answer ids). tokens: on the device at once."""
    core = model.get_decoder()
    head = model.get_output_embeddings()
    paid = [torch.zeros(0)] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: -sum(map(len, rows[i])))
    was_training = model.training
    model.eval()
    start, parts = 0, []
    while start < len(order):
        longest = sum(map(len, rows[order[start]]))
        index = order[start : start + max(1, tokens // longest)]
        parts.append((index, _price_batch(core, head, [rows[i] for i in index], pad, model.device)))
        start += len(index)
    for index, sums in parts:
        for i, value in zip(index, sums.tolist(), strict=True):
            paid[i] = value
    model.train(was_training)
    return paid


def _price_batch(core, head, rows, pad: int, device: torch.device) -> Tensor:
    """(B,) sums. Padding stands on the right, where a causal model does not see it."""
    width = max(sum(map(len, row)) for row in rows)
    ids = torch.tensor([[*a, *b] + [pad] * (width - len(a) - len(b)) for a, b in rows], device=device)
    owners = [i for i, (_, b) in enumerate(rows) for _ in b]
    places = [i * width + len(a) - 1 + j for i, (a, b) in enumerate(rows) for j in range(len(b))]
    hidden = core(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
    places = torch.tensor(places, device=device)
    owners = torch.tensor(owners, device=device)
    found = torch.zeros(len(rows), device=device)
    for part, who in zip(places.split(2048), owners.split(2048), strict=True):
        nats = cross_entropy(head(hidden[part]).float(), ids.flatten()[part + 1], reduction="none")
        found.index_add_(0, who, nats)
    return found
