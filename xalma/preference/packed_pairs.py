"""Preference pairs without wasted tokens: pack chosen and rejected, read their log-probabilities.

A preference pair shares its prompt and, in translation, often the first words of the answer too.
`PairCollator` keeps that common prefix once and lets the two answers branch off it; a mask hides
the branches from each other, so every token sees just what it would see in a row of its own.
The pairs of a batch are then packed into as few equally long rows as possible, so padding is rare.
`sequence_logps` sends only answer positions through the LM head, in chunks.

X-ALMA §4 (ARPO) needs nothing of this: it changes the cost, not the result. `tests/preference/test_arpo.py`
checks losses and gradients against TRL's padded, concatenated forward.

Letters: B pairs, R rows, W row length, T tokens, N answer tokens, V vocabulary, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel

from xalma.data.literal import token_ids
from xalma.models.architectures import layer_kinds, why_not, window_of
from xalma.models.losses import chunked_nats

_PREFIX, _CHOSEN, _REJECTED = 0, 1, 2


@dataclass(frozen=True)
class PairCollator:
    """Batches tokenized pairs (TRL's `chosen_input_ids`, `chosen_labels`, ...), hardly padded.

    layout: "shared" keeps the common prefix of a pair once and needs a 4D attention mask (SDPA,
        eager). "varlen" lays all 2B sequences end to end in one row with restarting position ids,
        which is what variable-length attention kernels (flash, flex) understand without a mask.
    """

    pad_token_id: int
    layout: str = "shared"

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Returns the batch: (B,) lengths, (R, W) ids and positions, (N,) answer positions."""
        pack = _pack_shared if self.layout == "shared" else _pack_varlen
        packed, places = pack(rows)
        width = max(len(row["input_ids"]) for row in packed)
        fill = {"input_ids": self.pad_token_id, "position_ids": 0, "pair": -1, "branch": _PREFIX}
        batch = {
            # (B,) tensors first: `Trainer` takes the batch size from the first tensor it finds.
            f"{side}_lengths": torch.tensor(
                [sum(x != -100 for x in row[f"{side}_labels"][1:]) for row in rows]
            )
            for side in ("chosen", "rejected")
        }
        for name, value in fill.items():
            # (R, W)
            batch[name] = torch.tensor([row[name] + [value] * (width - len(row[name])) for row in packed])
        sources, targets, owners = [], [], []
        for i, row in enumerate(rows):
            for k, side in enumerate(("chosen", "rejected")):
                row_index, place = places[2 * i + k]
                for j, label in enumerate(row[f"{side}_labels"]):
                    if label != -100 and j > 0:
                        sources.append(row_index * width + place[j - 1])  # token j-1 predicts j
                        targets.append(label)
                        owners.append(i + k * len(rows))  # all chosen, then all rejected
        batch |= {
            "sources": torch.tensor(sources, dtype=torch.long),
            "targets": torch.tensor(targets, dtype=torch.long),
            "owners": torch.tensor(owners, dtype=torch.long),
        }
        return batch


def sequence_logps(
    model: torch.nn.Module, batch: dict[str, torch.Tensor], mean_logits: bool = False
) -> tuple[torch.Tensor, ...]:
    """Returns summed answer log-probabilities (nats) of chosen and of rejected, each (B,).

    mean_logits: also (2,), the mean logit over vocabulary and tokens of all chosen and all rejected sequences.
    Calls `model` as a whole, so wrappers (PEFT, DDP, autocast) work as usual, but takes the hidden
    states from its decoder and applies the LM head to the N answer positions only.
    """
    core = extract_model_from_parallel(model)
    core = core.get_base_model() if hasattr(core, "get_base_model") else core
    hidden: list[torch.Tensor] = []
    hook = core.get_decoder().register_forward_hook(lambda _m, _a, out: hidden.append(out[0]))
    try:
        model(
            input_ids=batch["input_ids"],
            attention_mask=_attention_mask(batch, core),
            position_ids=batch["position_ids"],
            use_cache=False,
            logits_to_keep=1,  # the model's own logits are not used
        )
    finally:
        hook.remove()
    states = hidden[0].flatten(0, 1)[batch["sources"]]  # (R, W, D) -> (N, D)
    logps = -chunked_nats(core.get_output_embeddings(), states, batch["targets"], reduction="none")  # (N,)
    n_pairs = batch["chosen_lengths"].numel()
    sums = logps.new_zeros(2 * n_pairs).index_add(0, batch["owners"], logps)
    means = (_mean_logits(core.get_output_embeddings(), hidden[0], batch),) if mean_logits else ()
    return sums[:n_pairs], sums[n_pairs:], *means


@torch.no_grad()
def _mean_logits(head: torch.nn.Module, states: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(2,) mean logits of chosen and rejected: the output layer is linear, so that the mean state is all it needs."""
    own = [(batch["pair"] >= 0) & (batch["branch"] != other) for other in (_REJECTED, _CHOSEN)]
    means = torch.stack([states[mask].float().mean(0) for mask in own])  # (2, D)
    return head(means.to(head.weight.dtype)).float().mean(-1)


def tokenize_pair(tokenizer: Any, row: dict[str, str], max_length: int) -> dict[str, list[int]]:
    """Returns ids and labels of both sequences, as TRL's CPO tokenizes them (BOS, EOS, cut).

    Names of special tokens in sentences are text (`xalma.data.literal`); prompts of a user's own form are the
    tokenizer's. Prompt and answer are tokenized together; the answer starts where this leaves the prompt's own
    tokens, because a tokenizer may merge across the border.
    """
    answers = ["", row["chosen"], row["rejected"]]
    prompt, *both = token_ids(tokenizer, [row["prompt"]] * 3, answers, foreign_forms=True)
    full = dict(zip(("chosen", "rejected"), both, strict=True))
    fields = {}
    for side, ids in full.items():
        start = _shared_prefix(prompt, ids)
        if tokenizer.bos_token_id is not None and ids[:1] != [tokenizer.bos_token_id]:
            ids, start = [tokenizer.bos_token_id, *ids], start + 1
        if ids[-1] != tokenizer.eos_token_id or len(ids) == start:
            ids = [*ids, tokenizer.eos_token_id]
        ids = ids[:max_length]
        fields[f"{side}_input_ids"] = ids
        fields[f"{side}_labels"] = [-100] * start + ids[start:]
    return fields


def tokenize_pairs(
    rows: Sequence[dict[str, str]], tokenizer: Any, max_length: int
) -> tuple[list[dict[str, list[int]]], int]:
    """Returns (`tokenize_pair` of the rows, how many were dropped because the chosen side is over max_length tokens).

    As in SFT a chosen answer is learned whole or not at all; a longer rejected one is cut, as in the released code.
    Raises: ValueError if no row is left.
    """
    pairs = [tokenize_pair(tokenizer, row, max_length) for row in rows]
    # it has its end
    kept = [pair for pair in pairs if pair["chosen_input_ids"][-1] == tokenizer.eos_token_id]
    if not kept:
        raise ValueError(
            f"all {len(rows)} pairs are longer than max_length={max_length} tokens: raise max_length"
        )
    return kept, len(pairs) - len(kept)


@torch.no_grad()
def pair_logps(
    model: torch.nn.Module,
    tokenizer: Any,
    rows: Sequence[dict[str, str]],
    *,
    batch_size: int = 16,
    max_length: int = 512,
) -> dict[str, torch.Tensor]:
    """Returns {chosen,rejected}_logps (summed, nats) and _lengths (tokens), each (len(rows),).

    The same measurement for every method: dropout off, no gradient, order of `rows` kept.
    """
    collate = PairCollator(tokenizer.pad_token_id, layout_for(model))
    found: dict[str, list[torch.Tensor]] = {}
    was_training = model.training
    model.eval()
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        batch = collate([tokenize_pair(tokenizer, row, max_length) for row in part])
        batch = {name: value.to(model.device) for name, value in batch.items()}
        chosen, rejected = sequence_logps(model, batch)
        for name, value in (("chosen_logps", chosen), ("rejected_logps", rejected)):
            found.setdefault(name, []).append(value.float().cpu())
        for name in ("chosen_lengths", "rejected_lengths"):
            found.setdefault(name, []).append(batch[name].cpu())
    model.train(was_training)
    return {name: torch.cat(values) for name, values in found.items()}


def layout_for(model: torch.nn.Module) -> str:
    """Returns the collator layout for the model's attention: "shared" or "varlen".

    Raises: ValueError for models that are not on the list of those that give the plain forward's result.
    """
    config = model.config.get_text_config()
    if reason := why_not(model, config):
        raise ValueError(
            f"{config.model_type} has {reason}, which packed pairs do not support: set efficient=False in ARPOConfig."
        )
    return "shared" if config._attn_implementation in ("sdpa", "eager") else "varlen"


def _shared_prefix(a: list[int], b: list[int]) -> int:
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)


def _pack_shared(rows: list[dict]) -> tuple[list[dict], list[tuple[int, list[int]]]]:
    """Each pair as [common prefix, rest of chosen, rest of rejected], several pairs per row."""
    pairs, places = [], [None] * (2 * len(rows))
    for row in rows:
        chosen, rejected = row["chosen_input_ids"], row["rejected_input_ids"]
        shared = _shared_prefix(chosen, rejected)
        n_chosen, n_rejected = len(chosen) - shared, len(rejected) - shared
        pairs.append(
            {
                "input_ids": chosen + rejected[shared:],
                "position_ids": [*range(len(chosen)), *range(shared, len(rejected))],
                "branch": [_PREFIX] * shared + [_CHOSEN] * n_chosen + [_REJECTED] * n_rejected,
                "shared": shared,
            }
        )
    packed: list[dict] = []
    for r, members in enumerate(_fill_rows([len(pair["input_ids"]) for pair in pairs])):
        packed.append({"input_ids": [], "position_ids": [], "branch": [], "pair": []})
        for i in members:
            pair = pairs[i]
            start = len(packed[r]["input_ids"])
            end, tail = start + len(pair["input_ids"]), start + len(rows[i]["chosen_input_ids"])
            for name in ("input_ids", "position_ids", "branch"):
                packed[r][name] += pair[name]
            packed[r]["pair"] += [i] * (end - start)
            places[2 * i] = (r, [*range(start, tail)])
            places[2 * i + 1] = (r, [*range(start, start + pair["shared"]), *range(tail, end)])
    return packed, places


def _fill_rows(sizes: list[int]) -> list[list[int]]:
    """Which pairs share a row: first-fit-decreasing, at the width that pads least.

    Widths up to 1.5 times the longest pair are tried; wider ones would cost more in attention.
    """
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    candidates = []
    for twentieths in range(20, 31):
        width, filled, members = sizes[order[0]] * twentieths // 20, [], []
        for i in order:
            r = next((r for r, n in enumerate(filled) if n + sizes[i] <= width), len(filled))
            if r == len(filled):
                filled.append(0)
                members.append([])
            filled[r] += sizes[i]
            members[r].append(i)
        candidates.append((len(filled) * max(filled), members))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _pack_varlen(rows: list[dict]) -> tuple[list[dict], list[tuple[int, list[int]]]]:
    """All sequences end to end in one row; variable-length attention needs no mask."""
    row = {"input_ids": [], "position_ids": [], "branch": [], "pair": []}
    places = []
    for i, pair in enumerate(rows):
        for side in ("chosen", "rejected"):
            ids = pair[f"{side}_input_ids"]
            start = len(row["input_ids"])
            row["input_ids"] += ids
            row["position_ids"] += range(len(ids))
            row["branch"] += [_CHOSEN if side == "chosen" else _REJECTED] * len(ids)
            row["pair"] += [2 * i + (side == "rejected")] * len(ids)
            places.append((0, [*range(start, start + len(ids))]))
    return [row], places


def _attention_mask(
    batch: dict[str, torch.Tensor], core: torch.nn.Module
) -> torch.Tensor | dict[str, torch.Tensor] | None:
    """(R, 1, W, W) mask: same pair, not later, and never across the two answers; one a kind of layer where they differ.

    A window counts positions, not places in the row: a rejected answer lies behind the chosen one there.
    """
    config = core.config.get_text_config()
    implementation = config._attn_implementation
    if implementation not in ("sdpa", "eager"):
        return None  # the kernel reads the boundaries from the restarting position ids
    pair, branch = batch["pair"], batch["branch"]
    same_pair = pair[:, :, None] == pair[:, None, :]
    same_branch = (branch[:, None, :] == _PREFIX) | (branch[:, :, None] == branch[:, None, :])
    width = pair.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=pair.device).tril()
    allowed = (same_pair & same_branch & causal)[:, None]  # padding sees padding: no empty rows
    kinds = layer_kinds(config)
    masks = {"full_attention": allowed}
    if (window := window_of(config)) is not None:
        position = batch["position_ids"]
        near = (position[:, :, None] - position[:, None, :] < window)[:, None]
        masks["sliding_attention"] = allowed & near
    if implementation == "eager":
        lowest = torch.finfo(core.dtype).min
        zeros = torch.zeros_like(allowed, dtype=core.dtype)
        masks = {kind: zeros.masked_fill(~mask, lowest) for kind, mask in masks.items()}
    return masks if len(kinds) > 1 else masks[kinds.pop()]
