"""A merged LLaMA model as a GGUF file, the form that llama.cpp and Ollama read: tensors as they are, nothing quantised.

Rotary weights go from transformers' order (halves) to llama.cpp's (pairs).
Source: convert_hf_to_gguf.py and docs/gguf.md of ggml-org/llama.cpp.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from xalma.models.bases.gguf_tokenizers import (
    BYTE,
    CONTROL,
    NORMAL,
    PIECE_SPLITS,
    UNKNOWN,
    USER_DEFINED,
    Vocabulary,
    build_tokenizer,
)
from xalma.models.bases.vocabulary import bpe_state

# Texts that the splitting rules cut differently: numbers, capital contractions, blanks, line breaks, marks, letters.
PROBES = (
    "Good morning.\n\n",
    " 12  days\n\tof 12345, ISN'T it, isn't?",
    "Ü日本語 العربية ไทย 🙂!?",
    "  b \r\n ",
)
UNSCORED = -1e6  # of a single character: nothing is merged into it


def write_gguf(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, file: str | Path) -> Path:
    """Writes both to `file`, weights in their dtype. Raises ValueError, before it writes, for a model that is no plain
    LLaMA and for a tokenizer that a GGUF file can't describe; ImportError without the package `gguf`.
    """
    try:
        import gguf
    except ImportError as error:
        raise ImportError("GGUF files are written by the package gguf: pip install 'xalma[gguf]'") from error
    c = model.config
    v = describable(model.config, tokenizer)
    writer = gguf.GGUFWriter(file, "llama")
    heads = {"q": c.num_attention_heads, "k": c.num_key_value_heads}
    for name, value in {
        "context_length": c.max_position_embeddings,
        "embedding_length": c.hidden_size,
        "vocab_size": c.vocab_size,
        "block_count": c.num_hidden_layers,
        "feed_forward_length": c.intermediate_size,
        "head_count": heads["q"],
        "head_count_kv": heads["k"],
        "key_length": c.head_dim,
        "value_length": c.head_dim,
        "rope_dimension_count": c.head_dim,
        "rope_freq_base": c.rope_theta,
        "layer_norm_rms_eps": c.rms_norm_eps,
        "tokenizer_model": v.kind,
        "token_list": list(v.tokens),
        "token_types": list(v.types),
        "add_bos_token": True,
        "token_scores": list(v.scores),
        "token_merges": list(v.merges),
        "tokenizer_pre": v.split,
        "bos_token_id": v.bos,
        "eos_token_id": v.eos,
        "unk_token_id": v.unk,
        "pad_token_id": v.pad,
        "chat_template": v.chat_template,
    }.items():
        if value not in (None, "", []):
            getattr(writer, f"add_{name}")(value)
    if v.kind == "llama":
        writer.add_add_space_prefix(v.add_prefix)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    kinds = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    for name, weight in model.named_parameters():  # tied weights once
        stem = name.removesuffix(".weight")
        weight = weight.detach().cpu()
        if n := heads.get(stem.rsplit(".", 1)[-1].removesuffix("_proj")):
            weight = weight.view(n, 2, -1, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)
        weight = weight.float() if weight.dim() == 1 else weight  # llama.cpp takes norms in float32 only
        bits = weight.view(torch.uint8) if weight.dtype == torch.bfloat16 else weight
        kind = gguf.GGMLQuantizationType[kinds[weight.dtype]]
        writer.add_tensor(f"{names.get_name(stem)}.weight", bits.numpy(), raw_dtype=kind)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return Path(file)


def describable(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """The tokenizer for a file of such a model. Raises ValueError where a file could not say what they are."""
    scaled = (getattr(config, "rope_scaling", None) or {}).get("rope_type", "default") != "default"
    if config.model_type != "llama" or config.attention_bias or config.mlp_bias or scaled:
        kind = f"a {config.model_type} model of this kind"
        raise ValueError(f"{kind} is not written as GGUF: only a LLaMA without bias and scaled positions is")
    return vocabulary_of(tokenizer)


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """A tokenizer as a GGUF file describes it: rebuilt, it cuts texts as this one does. Raises ValueError for none."""
    state = bpe_state(tokenizer)["model"]
    ids = tokenizer.get_vocab()
    pieces = sorted(ids, key=ids.__getitem__)
    added = tokenizer.added_tokens_decoder
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state.get("merges", ())]
    types = [NORMAL] * len(pieces)
    for i, piece in enumerate(pieces):
        if i in added:
            special = UNKNOWN if piece == tokenizer.unk_token else CONTROL
            types[i] = special if added[i].special else USER_DEFINED
        elif state.get("byte_fallback") and len(piece) == 6 and piece.startswith("<0x"):
            types[i] = BYTE
    rank = {merge.replace(" ", ""): -float(i) for i, merge in reversed([*enumerate(merges)])}
    scores = [rank.get(piece, UNSCORED) for piece in pieces]
    ways = [{"kind": "llama", "scores": scores, "add_prefix": prefix} for prefix in (True, False)]
    if not state.get("byte_fallback"):
        ways = [{"kind": "gpt2", "merges": merges, "split": split} for split in PIECE_SPLITS]
    for way in ways:
        found = Vocabulary(
            tokens=pieces,
            types=types,
            bos=tokenizer.bos_token_id,
            eos=tokenizer.eos_token_id,
            add_bos=True,
            unk=tokenizer.unk_token_id,
            pad=tokenizer.pad_token_id,
            chat_template=tokenizer.chat_template,
            **way,
        )
        if sorted(ids.values()) == [*range(len(ids))] and _cuts(build_tokenizer(found)) == _cuts(tokenizer):
            return found
    raise ValueError(
        f"{tokenizer.name_or_path}: a GGUF file can't describe this tokenizer, try llama.cpp's converter"
    )


def _cuts(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    """How the probes are split, before any merge, and their token ids."""
    rule = tokenizer.backend_tokenizer.pre_tokenizer
    splits = [[piece for piece, _ in rule.pre_tokenize_str(text)] if rule else [] for text in PROBES]
    return [splits, *(tokenizer(text, add_special_tokens=False)["input_ids"] for text in PROBES)]
