"""From prompt and completion to token ids with the loss on the completion only, and from rows to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from xalma.data.literal import token_ids
from xalma.prompts import translation_prompt

IGNORE = -100  # torch.nn.functional.cross_entropy's ignore_index


def completion(text: str) -> str:
    """A translation as it follows the prompt: one blank before it, which LLaMA-like tokenizers expect."""
    return f" {text}"


def sft_rows(pairs: Sequence[tuple[str, str]], lang: str, style: str) -> list[dict[str, str]]:
    """Both directions of each (English, other) pair as {"prompt", "completion", "src", "tgt"} rows."""
    rows = []
    for english, other in pairs:
        for src, tgt, source, target in (("en", lang, english, other), (lang, "en", other, english)):
            prompt = translation_prompt(source, src, tgt, style)
            rows.append({"prompt": prompt, "completion": completion(target), "src": src, "tgt": tgt})
    return rows


def tokenize_rows(
    rows: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[dict[str, list[int]]], int]:
    """(rows of {"input_ids", "labels"}, how many were dropped as longer than max_length tokens).

    input_ids: BOS + prompt + completion + EOS; labels: the same with IGNORE over BOS and prompt
    (X-ALMA: loss on the answer only). Raises ValueError if there is no row, or none fits.
    """
    if not rows:
        raise ValueError("there are no sentence pairs to train or measure on: give at least one")
    prompts = token_ids(tokenizer, asked := [row["prompt"] for row in rows])
    whole = token_ids(tokenizer, asked, [row["completion"] for row in rows])
    kept = []
    for prompt, ids in zip(prompts, whole, strict=True):
        # a merge across the border moves it: the common prefix is what the model is given
        n_prompt = next((i for i, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), len(prompt))
        input_ids = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
        if len(input_ids) <= max_length:
            kept.append(
                {"input_ids": input_ids, "labels": [IGNORE] * (n_prompt + 1) + input_ids[n_prompt + 1 :]}
            )
    if not kept:
        raise ValueError(
            f"all {len(rows)} rows are longer than max_length={max_length} tokens: raise max_length"
        )
    return kept, len(rows) - len(kept)


class PadCollator:
    """Pads {"input_ids", "labels"} rows to the longest of the batch; all outputs are (B, T)."""

    def __init__(self, pad_token_id: int, *, left: bool = False) -> None:
        self.pad_token_id, self.left = pad_token_id, left

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        fills = {"input_ids": self.pad_token_id, "labels": IGNORE, "attention_mask": 0}
        lengths = [len(row["input_ids"]) for row in rows]
        longest = max(lengths)
        if (
            isinstance(rows[0]["input_ids"], torch.Tensor) and min(lengths) == longest
        ):  # packed blocks: nothing to pad
            return {key: torch.stack([row[key] for row in rows]) for key in ("input_ids", "labels")}
        rows = [{**row, "attention_mask": [1] * n} for row, n in zip(rows, lengths, strict=True)]
        batch = {}
        for key in (key for key in fills if key in rows[0]):
            padded = []
            for row in rows:
                values = list(row[key])
                gap = [fills[key]] * (longest - len(row[key]))
                padded.append(gap + values if self.left else values + gap)
            batch[key] = torch.tensor(padded)
        return batch


class IsolatedDocuments:
    """Collates packed blocks so that no token sees another document, and none is predicted from another one.

    Adds position_ids (B, T), 0 again at each document's first token: transformers masks attention across such borders.
    A document starts at BOS after EOS, and at the start of a block, where the rest of a cut document stands alone.
    """

    def __init__(self, bos_token_id: int, eos_token_id: int) -> None:
        self.bos_token_id, self.eos_token_id = bos_token_id, eos_token_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids, labels = (torch.stack([row[key] for row in rows]) for key in ("input_ids", "labels"))
        starts = torch.ones_like(ids, dtype=torch.bool)
        # in Qwen both are one
        starts[:, 1:] = (ids[:, 1:] == self.bos_token_id) & (ids[:, :-1] == self.eos_token_id)
        at = torch.arange(ids.shape[1]).expand_as(ids)
        positions = at - torch.where(starts, at, 0).cummax(dim=1).values
        return {"input_ids": ids, "labels": labels.masked_fill(starts, IGNORE), "position_ids": positions}
