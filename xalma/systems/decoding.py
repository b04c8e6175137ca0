"""Loading and decoding, the same for decoder-only and encoder-decoder systems.

Beside `xalma.models.generation`, which decodes our own models: other systems differ in what the tokenizer puts
around a prompt (BLOOM has no begin-of-text, NLLB a language token), in end tokens (LLaMA-3 has three) and in
decoding rules. A source is never cut: the released evaluation truncates prompts at 256 tokens, which drops their
last line, the one that asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from xalma.base_files import check_folder, naming_the_tokenizer
from xalma.models.generation import decode_batches
from xalma.runtime import usable_device, usable_dtype
from xalma.systems.table import Decoding

# prompt and new tokens of all beams of a batch: what one GPU of 80 GB holds of a 13B model
BATCH_TOKENS = 32_768


def open_model(
    path: str,
    *,
    seq2seq: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    checked: bool = False,
) -> PreTrainedModel:
    """The model in evaluation mode from a folder or hub id; no remote code.

    device: None for the GPU where there is one, or "auto" for one model over all GPUs. dtype: None for bfloat16 on a
    GPU and float32 on a CPU. checked: `check_folder` was called.
    Raises ValueError for a device or dtype that is none; OSError, from transformers, where the hub can't be reached or
    the folder holds no model.
    """
    device = device if device == "auto" else usable_device(device)
    dtype = usable_dtype(dtype, device)
    kind = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    options = {"device_map": "auto"} if device == "auto" else {}
    if not checked:
        check_folder(path)
    model = kind.from_pretrained(path, dtype=getattr(torch, dtype), trust_remote_code=False, **options)
    return (model if device == "auto" else model.to(device)).eval()


def open_tokenizer(path: str, kind: str = "auto", *, checked: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer, with a padding token; `kind` "llama" for LLaMA-1 repositories that name a class long gone."""
    if not checked:
        check_folder(path)
    with naming_the_tokenizer(path):
        opened = LlamaTokenizer if kind == "llama" else AutoTokenizer
        tokenizer = opened.from_pretrained(path, trust_remote_code=False)
    if tokenizer.pad_token is None:  # masks come from lengths, so any token will do
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def generation_config(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, decoding: Decoding, **extra: Any
) -> GenerationConfig:
    """Greedy or beam decoding; end tokens are the tokenizer's and all that the model's own configuration names."""
    own = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    start = model.generation_config.decoder_start_token_id
    if start is None and model.config.is_encoder_decoder:
        start = model.config.decoder_start_token_id
    return GenerationConfig(
        num_beams=decoding.num_beams,
        max_new_tokens=decoding.max_new_tokens,
        do_sample=False,
        use_cache=True,
        no_repeat_ngram_size=decoding.no_repeat_ngram_size,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=start,
        **extra,
    )


def batches(lengths: Sequence[int], decoding: Decoding, budget: int = BATCH_TOKENS) -> list[list[int]]:
    """Indices in batches, longest first; beams × (longest + new tokens) × rows stay within `budget`."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    out: list[list[int]] = []
    while order:
        each = decoding.num_beams * (lengths[order[0]] + decoding.max_new_tokens)
        size = max(1, budget // each)
        out.append(order[:size])
        order = order[size:]
    return out


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    show_progress: bool = True,
    label: str = "translate",
    budget: int = BATCH_TOKENS,
    counts: Counter[str] | None = None,
    **extra: Any,
) -> list[str]:
    """What the model writes after (decoder-only) or for (encoder-decoder) each row of token ids, in the order given.

    counts: `cut` is raised by the answers that max_new_tokens ended.
    extra: further fields of GenerationConfig, as `forced_bos_token_id`.
    """
    config = generation_config(model, tokenizer, decoding, **extra)

    def written(batch: dict[str, torch.Tensor], _index: list[int]) -> torch.Tensor:
        return model.generate(**batch, generation_config=config, use_model_defaults=False)

    return decode_batches(
        written,
        tokenizer,
        ids,
        batches([len(row) for row in ids], decoding, budget),
        config,
        model.device,
        seq2seq=model.config.is_encoder_decoder,
        label=label,
        show_progress=show_progress,
        counts=counts,
    )
