"""The base model: a hub or local LLaMA-like model, or a small LLaMA built here with its own tokenizer.

The small one keeps LLaMA-2's shape (RMSNorm, SwiGLU, rotary positions) and its digit rule (each digit a token).
Input and output embeddings are tied in it, unlike LLaMA-2-13B: at this size they are a third of the weights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from xalma.base_files import check_folder, find_base, load_tokenizer
from xalma.models.layouts import plain_config
from xalma.runtime import all_finite, usable_dtype

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer (no unknown characters, each digit its own token) with BOS, EOS and PAD."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def build_llama(
    tokenizer: PreTrainedTokenizerBase,
    *,
    hidden_size: int,
    layers: int,
    heads: int,
    max_positions: int,
    seed: int,
) -> LlamaForCausalLM:
    """A randomly initialised small LLaMA (float32) for `tokenizer`'s vocabulary."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=-(-hidden_size * 8 // 3 // 32) * 32,  # LLaMA's 8/3, rounded up to a multiple of 32
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=max_positions,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def load_base(
    path_or_id: str | Path, dtype: str = "float32", besides: Collection[str] = ()
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(model, tokenizer) from a folder, a hub id or a name under runs/bases (`xalma.models.bases.fetch`), in torch
    dtype `dtype`; safetensors only, no remote code.

    besides: names of tensors in its files that are no part of the base, as modules in an all-modules checkpoint.
    Raises ValueError, naming the tensor, for weights that are missing, of another shape, not the model's, or not
    finite, and for a dtype, folder or tokenizer that does not do; OSError, from transformers, where the hub can't be
    reached or the folder holds no model.
    """
    tokenizer = load_tokenizer(path_or_id)
    model = load_weights(path_or_id, dtype, besides)
    check_vocabulary(model, tokenizer)
    return model, tokenizer


def load_weights(
    path_or_id: str | Path, dtype: str = "float32", besides: Collection[str] = ()
) -> PreTrainedModel:
    """The model without its tokenizer. besides, raises: as `load_base`."""
    path_or_id = find_base(path_or_id)
    check_folder(path_or_id)
    if Path(path_or_id).is_dir():
        plain_config(Path(path_or_id))
    # On a CPU torch's fused attention has a slow backward for short rows: a third of a small model's step.
    attention = "sdpa" if torch.cuda.is_available() else "eager"
    model, report = AutoModelForCausalLM.from_pretrained(
        path_or_id,
        dtype=getattr(torch, usable_dtype(dtype, "cpu")),
        use_safetensors=True,
        attn_implementation=attention,
        trust_remote_code=False,
        output_loading_info=True,
    )
    for kind, fault in (
        ("missing_keys", "lacks"),
        ("mismatched_keys", "has another shape of"),
        ("unexpected_keys", "holds a tensor that its config.json has no place for:"),
    ):
        # transformers only warns, and draws what is missing at random
        if names := sorted({*map(str, report[kind])} - {*besides}):
            raise ValueError(f"the base in {path_or_id} {fault} {names[0]}: copy or download it again")
    for name, tensor in model.state_dict().items():
        if not all_finite(tensor):
            raise ValueError(
                f"the base in {path_or_id} holds {name}, which is not finite: copy or download it again"
            )
    own = model.generation_config  # transformers lets a base's sampling and penalties into a greedy request
    model.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    return model


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ValueError for a tokenizer with ids that the model has no rows for: torch would only name an index."""
    rows = model.get_input_embeddings().num_embeddings
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path} has ids up to {largest:,}, {model.name_or_path} has {rows:,} "
            f"rows of embeddings: take the tokenizer that the model was trained with"
        )


def save_base(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Weights as safetensors, configuration and tokenizer into the folder `out`."""
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
