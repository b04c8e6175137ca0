"""The loss of stages 1 to 4, cross-entropy on labelled tokens, with logits made only where there is a label; and what
a model pays for texts it is shown.

In SFT that is about a third of the positions. Large vocabularies are done in chunks, made again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from xalma.data.collate import IGNORE, PadCollator
from xalma.models.architectures import rescaled_head, takes_causal_mask
from xalma.runtime import on_device

LOGITS = 2**27  # at once, half a GiB in float32


def labelled_loss(
    model: torch.nn.Module, batch: dict[str, torch.Tensor], n_tokens: Any = None, bf16: bool = False
) -> torch.Tensor:
    """Mean cross-entropy in nats over labelled tokens; equals `model(**batch).loss`, without the other logits.

    batch: input_ids and labels, each (B, T), padded on the right: a causal model needs no mask then, as no token that
    counts sees padding. position_ids (B, T), if given, start anew where a document does, and no token sees another
    document. n_tokens: the divisor when a batch is accumulated in parts; None for this batch's own count.
    bf16: matrix products in bfloat16, the loss in float32.
    Raises ValueError for a model whose logits are not its output layer's product alone.
    """
    plain = plain_model(model)
    with torch.autocast(batch["labels"].device.type, dtype=torch.bfloat16, enabled=bf16):
        hidden, targets = labelled_states(plain, batch)
        total = chunked_nats(plain.get_output_embeddings(), hidden, targets)
    return total / (len(targets) if n_tokens is None else n_tokens)


def labelled_states(
    plain: PreTrainedModel, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(hidden states that predict a labelled token, (N, D); these tokens, (N,)), row after row."""
    inputs = {key: batch[key] for key in ("input_ids", "position_ids") if key in batch}
    targets = batch["labels"][:, 1:]
    keep = targets != IGNORE
    attention = plain.config._attn_implementation
    config = plain.config.get_text_config()
    if scaled := rescaled_head(config):
        raise ValueError(f"a {config.model_type} model with {scaled} is no base here: its logits are scaled")
    if attention == "flash_attention_2" and "position_ids" in inputs:
        inputs = {key: value.view(1, -1) for key, value in inputs.items()}  # its varlen kernel takes one row
    elif (
        attention == "eager" and "position_ids" not in inputs and takes_causal_mask(config, keep.shape[1] + 1)
    ):
        bf16 = torch.is_autocast_enabled(targets.device.type)
        inputs["attention_mask"] = causal_mask(keep.shape[1] + 1, targets.device, bf16)
    hidden = plain.get_decoder()(**inputs, use_cache=False).last_hidden_state  # (B, T, D)
    return hidden.view(*batch["labels"].shape, -1)[:, :-1][keep], targets[keep]


@lru_cache(maxsize=64)
def causal_mask(n: int, device: torch.device, bf16: bool) -> torch.Tensor:
    """(1, 1, n, n) to add to attention's scores: transformers makes one per call, a tenth of a small model's update."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    with torch.inference_mode(False):  # it is kept, and training may be next to take it
        return torch.full((n, n), torch.finfo(dtype).min, dtype=dtype, device=device).triu(1)[None, None]


def chunked_nats(
    head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, reduction: str = "sum"
) -> torch.Tensor:
    """Cross-entropies in nats: their sum, (), or each, (N,), with reduction "none". hidden: (N, D), targets: (N,).

    At most `LOGITS` logits are held at a time: where there are more, chunks are made again in the backward pass.
    """

    def nats(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = head(hidden.to(head.weight.dtype))  # autocast may leave them apart
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return cross_entropy(logits, targets, reduction=reduction)

    n = max(1, LOGITS // head.weight.shape[0])
    if len(targets) <= n:
        return nats(hidden, targets)
    chunks = zip(hidden.split(n), targets.split(n), strict=True)
    parts = [checkpoint(nats, *chunk, use_reentrant=False) for chunk in chunks]
    return torch.cat(parts) if reduction == "none" else torch.stack(parts).sum()


def plain_model(model: torch.nn.Module) -> PreTrainedModel:
    """The transformers model inside a peft model, or `model` itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@torch.inference_mode()
def evaluate_loss(
    model: PreTrainedModel, rows: Sequence[dict[str, Any]], pad_token_id: int, batch_size: int = 64
) -> float:
    """Mean loss in nats a labelled token over all `rows` of {"input_ids", "labels"}."""
    collate = PadCollator(pad_token_id)
    was_training = model.training
    on_device(model).eval()
    total, count = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = {k: v.to(model.device) for k, v in collate(rows[start : start + batch_size]).items()}
        n = int((batch["labels"][:, 1:] != IGNORE).sum())
        total += float(labelled_loss(model, batch)) * n
        count += n
    model.train(was_training)
    return total / count


@torch.inference_mode()
def answer_nats(
    model: PreTrainedModel, rows: Sequence[dict[str, Any]], pad_token_id: int, batch_size: int = 64
) -> list[float]:
    """Summed loss in nats over the labelled tokens of each row of {"input_ids", "labels"}, in order."""
    plain = on_device(plain_model(model)).eval()
    collate = PadCollator(pad_token_id)
    found = [0.0] * len(rows)
    # rows of like length waste no padding
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    for start in range(0, len(rows), batch_size):
        index = order[start : start + batch_size]
        batch = {k: v.to(plain.device) for k, v in collate([rows[i] for i in index]).items()}
        hidden, targets = labelled_states(plain, batch)
        counts = (batch["labels"][:, 1:] != IGNORE).sum(1).tolist()
        for i, states, tokens in zip(index, hidden.split(counts), targets.split(counts), strict=True):
            found[i] = float(chunked_nats(plain.get_output_embeddings(), states, tokens))
    return found
