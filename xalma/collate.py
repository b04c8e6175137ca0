"""From prompt and completion to token ids with the loss on the completion only, and from rows to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

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
    prompts = tokenizer([row["prompt"] for row in rows], add_special_tokens=False)["input_ids"]
    whole = tokenizer([row["prompt"] + row["completion"] for row in rows], add_special_tokens=False)["input_ids"]
    kept = []
    for prompt, ids in zip(prompts, whole, strict=True):
        # a merge across the border moves it: the common prefix is what the model is given
        n_prompt = next((i for i, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), len(prompt))
        input_ids = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
        if len(input_ids) <= max_length:
            kept.append({"input_ids": input_ids, "labels": [IGNORE] * (n_prompt + 1) + input_ids[n_prompt + 1 :]})
    if not kept:
        raise ValueError(f"all {len(rows)} rows are longer than max_length={max_length} tokens: raise max_length")
    return kept, len(rows) - len(kept)


class PadCollator:
    """Pads {"input_ids", "labels"} rows to the longest of the batch; all outputs are (B, T)."""

    def __init__(self, pad_token_id: int, *, left: bool = False) -> None:
        self.pad_token_id, self.left = pad_token_id, left

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        fills = {"input_ids": self.pad_token_id, "labels": IGNORE, "attention_mask": 0}
        rows = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
        longest = max(len(row["input_ids"]) for row in rows)
        batch = {}
        for key in (key for key in fills if key in rows[0]):
            padded = []
            for row in rows:
                values, gap = list(row[key]), [fills[key]] * (longest - len(row[key]))
                padded.append(gap + values if self.left else values + gap)
            batch[key] = torch.tensor(padded)
        return batch
