"""Batched decoding: texts in, translations out, in the same order.

The papers' evaluation decodes with beam 5 and at most 256 new tokens; greedy (beams=1) is the tiny profile's choice.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from xalma.data.collate import PadCollator
from xalma.data.literal import token_ids
from xalma.languages import other_side
from xalma.models.cuda_graphs import replayed
from xalma.progress import progress
from xalma.prompts import extract_translation, translation_prompt


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    beams: int = 1,
    max_new_tokens: int = 256,
    batch_size: int = 32,
    share: tuple[int, int] = (0, 1),
    counts: Counter[str] | None = None,
) -> list[str]:
    """The continuation of each prompt (special tokens removed), in the order given.

    Prompts are sorted by length, so that a batch holds little padding, longest first, so that memory fails early.
    share: (k, n) takes every n-th batch from the k-th on, and leaves "" for the prompts of the others.
    counts: `cut` is raised by the answers that max_new_tokens ended.
    """
    rows = prompt_rows(tokenizer, prompts)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    config = decoding_config(tokenizer, beams, max_new_tokens)

    def continued(batch: dict[str, torch.Tensor], _index: list[int]) -> torch.Tensor:
        with replayed(model, batch | {"generation_config": config}) as options:
            return model.generate(**options)

    was_training = model.training
    model.eval()
    outputs = decode_batches(
        continued,
        tokenizer,
        rows,
        cut_in_batches(order, batch_size)[share[0] :: share[1]],
        config,
        model.device,
        show_progress=share[0] == 0,
        counts=counts,
    )
    model.train(was_training)
    return outputs


def decode_batches(
    ask: Callable[[dict[str, torch.Tensor], list[int]], torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Sequence[int]],
    batches: Sequence[list[int]],
    config: GenerationConfig,
    device: torch.device | str,
    *,
    seq2seq: bool = False,
    label: str = "translate",
    show_progress: bool = True,
    counts: Counter[str] | None = None,
) -> list[str]:
    """What a model writes after (decoder-only) or for (seq2seq) each row of token ids, in the order of `rows`.

    ask: (input_ids and attention_mask, (B, T) each, the rows' indices) -> ids (B, T'), the prompt first if not seq2seq.
    batches: indices of rows; a row that is in none gets "".
    counts: `cut` is raised by the answers that max_new_tokens of `config` ended.
    """
    collate = PadCollator(tokenizer.pad_token_id, left=not seq2seq)
    outputs = [""] * len(rows)
    with progress(sum(map(len, batches)), label) if show_progress else nullcontext() as bar:
        for index in batches:
            batch = collate([{"input_ids": list(rows[i])} for i in index])
            ids = ask({name: tensor.to(device) for name, tensor in batch.items()}, index)
            if not seq2seq:
                ids = ids[:, batch["input_ids"].shape[1] :]
            if counts is not None:
                counts["cut"] += n_cut(ids, config.eos_token_id, config.max_new_tokens)
            for i, text in zip(index, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
                outputs[i] = text
            if bar:
                bar.update(len(index))
    return outputs


def prompt_rows(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt after the begin-of-text token."""
    return [[tokenizer.bos_token_id, *ids] for ids in token_ids(tokenizer, prompts)]


def cut_in_batches(order: Sequence[int], batch_size: int) -> list[list[int]]:
    """`order` in batches of `batch_size`, the last with what is left."""
    return [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]


def decoding_config(tokenizer: PreTrainedTokenizerBase, beams: int, max_new_tokens: int) -> GenerationConfig:
    """Greedy or beam decoding as the papers evaluate, with the tokenizer's special tokens."""
    return GenerationConfig(
        num_beams=beams,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def translate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    src: str,
    tgt: str,
    *,
    prompt_style: str = "xalma",
    beams: int = 1,
    max_new_tokens: int = 256,
    batch_size: int = 32,
    counts: Counter[str] | None = None,
) -> list[str]:
    """Translations of `texts` from language `src` to `tgt`, in order; a model with modules is gated first.

    A blank text is "", of which the model is not asked. counts: as in `generate`.
    Raises ValueError for an unknown language, a direction without English, a module that is not loaded, or no text.
    """
    texts = check_segments(texts)
    from peft import PeftModel

    from xalma.models.adapters import gate

    other = other_side(src, tgt)
    if isinstance(model, PeftModel):
        gate(model, other)

    def ask(numbers: list[int]) -> list[str]:
        prompts = [translation_prompt(texts[i], src, tgt, prompt_style) for i in numbers]
        outputs = generate(
            model,
            tokenizer,
            prompts,
            beams=beams,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            counts=counts,
        )
        return [extract_translation(output) for output in outputs]

    return without_blank(texts, ask)


def n_cut(ids: torch.Tensor, ends: int | Sequence[int], max_new_tokens: int) -> int:
    """How many of the answers (N, T) ran into max_new_tokens: no token of `ends` in them."""
    if ids.shape[1] < max_new_tokens:
        return 0
    return int((~torch.isin(ids, torch.tensor(ends, device=ids.device)).any(1)).sum())


def check_segments(texts: Sequence[str]) -> list[str]:
    """The segments as a list. Raises ValueError for one bare string, whose letters would be translated, or no text."""
    if isinstance(texts, str | bytes):
        raise ValueError("give a list of texts, one string a segment: this is a single string")
    texts = list(texts)
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise ValueError(
                f"segment {number} is {type(text).__name__}, not text: give strings, '' for an empty one"
            )
    return texts


def is_blank(text: str) -> bool:
    """Whether a segment has nothing to translate: only blanks, controls and characters without width."""
    return all(unicodedata.category(char)[0] in "ZC" for char in text)


def without_blank(texts: Sequence[str], translate: Callable[[list[int]], Sequence[str]]) -> list[str]:
    """A translation of each segment, in order: "" for a blank one, of which the model is not asked.

    translate: numbers of segments (from 0) -> their translations. Not called where all are blank.
    Raises ValueError as `check_segments`.
    """
    asked = [i for i, text in enumerate(check_segments(texts)) if not is_blank(text)]
    outputs = [""] * len(texts)
    for i, output in zip(asked, translate(asked) if asked else (), strict=True):
        outputs[i] = output
    return outputs


def blank_lines_kept(method: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """A system's `translate(texts, src, tgt, …)` that is not asked for blank segments."""

    @wraps(method)
    def translate(self: Any, texts: Sequence[str], *args: Any, **options: Any) -> list[str]:
        if not check_segments(texts):
            return method(self, [], *args, **options)  # checks the direction
        row = getattr(self, "row", None)
        if row is not None and all(map(is_blank, texts)):
            row.check(*args[:2])
        return without_blank(texts, lambda asked: method(self, [texts[i] for i in asked], *args, **options))

    return translate
