"""Batched decoding: texts in, translations out, in the same order.

The papers' evaluation decodes with beam 5 and at most 256 new tokens; greedy (beams=1) is the tiny profile's choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from xalma.collate import PadCollator
from xalma.graphs import replayed
from xalma.languages import other_side
from xalma.prompts import extract_translation, translation_prompt
from xalma.runtime import progress


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
) -> list[str]:
    """The continuation of each prompt (special tokens removed), in the order given.

    Prompts are sorted by length, so that a batch holds little padding, longest first, so that memory fails early.
    share: (k, n) takes every n-th batch from the k-th on, and leaves "" for the prompts of the others.
    """
    encoded = tokenizer(list(prompts), add_special_tokens=False)["input_ids"] if prompts else []
    rows = [{"input_ids": [tokenizer.bos_token_id, *ids]} for ids in encoded]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"]))
    collate = PadCollator(tokenizer.pad_token_id, left=True)
    config = GenerationConfig(
        num_beams=beams, do_sample=False, max_new_tokens=max_new_tokens, use_cache=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    was_training = model.training
    model.eval()
    outputs = [""] * len(rows)
    parts = [order[start : start + batch_size] for start in range(0, len(rows), batch_size)][share[0] :: share[1]]
    with progress(sum(map(len, parts)), "translate") if share[0] == 0 else nullcontext() as bar:  # one speaks for all
        for index in parts:
            batch = {k: v.to(model.device) for k, v in collate([rows[i] for i in index]).items()}
            with replayed(model, batch | {"generation_config": config}) as options:
                ids = model.generate(**options)[:, batch["input_ids"].shape[1] :]
            texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
            for i, text in zip(index, texts, strict=True):
                outputs[i] = text
            if bar:
                bar.update(len(index))
    model.train(was_training)
    return outputs


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
) -> list[str]:
    """Translations of `texts` from language `src` to `tgt`, in order; a model with modules is gated first.

    Raises ValueError for an unknown language, a direction without English, or a module that is not loaded.
    """
    from peft import PeftModel

    from xalma.modules import gate

    other = other_side(src, tgt)
    if isinstance(model, PeftModel):
        gate(model, other)
    prompts = [translation_prompt(text, src, tgt, prompt_style) for text in texts]
    outputs = generate(
        model, tokenizer, prompts, beams=beams, max_new_tokens=max_new_tokens, batch_size=batch_size
    )  # fmt: skip
    return [extract_translation(output) for output in outputs]
