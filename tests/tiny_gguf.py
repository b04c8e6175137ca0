"""GGUF files of tiny random models, written as llama.cpp's converter does, with a tokenizer trained on a few lines."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from gguf import MODEL_ARCH_NAMES, GGUFWriter, get_tensor_name_map
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from xalma.models.backbone import train_tokenizer

LINES = [
    "The book is on the table, and 12 children read it.",
    "Das Buch liegt auf dem Tisch; 2 Kinder lesen es, öfter als früher.",
    "本が机の上にあります。",
    "Книга лежит на столе, а дети её читают.",
] * 3
KINDS = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "gemma3": ("gemma3_text", {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}),
}
UNDERSTOOD = {"num_key_value_heads": 2, "num_attention_heads": 4, "rope_theta": 70_000.0}


def trained_sentencepiece(**options) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece BPE with bytes, like LLaMA's and Gemma's: no normalising, blanks kept."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=out,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        pad_id=3,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        minloglevel=2,
        **{"add_dummy_prefix": False, "user_defined_symbols": ["▁▁", "<b>"]} | options,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


def tiny_model(kind: str, vocab_size: int) -> PreTrainedModel:
    """A random model of an architecture that is read: three layers, heads of eight."""
    model_type, more = KINDS[kind]
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        max_position_embeddings=128,
        **UNDERSTOOD,
        **more,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():  # norms too: all ones would hide that they are read
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def write_gguf(
    file: Path, kind: str = "gemma3", tokenizer=None, split: str = "smollm", drop: str = "", **settings
) -> PreTrainedModel:
    """Writes a file and returns its model. tokenizer: a SentencePiece processor or a byte-level `Tokenizer`.

    drop: a tensor left out. settings: more of them, dots as double underscores; None leaves one out.
    """
    tokenizer = tokenizer or trained_sentencepiece()
    spm = isinstance(tokenizer, sentencepiece.SentencePieceProcessor)
    model = tiny_model(kind, len(tokenizer) if spm else tokenizer.get_vocab_size())
    writer = GGUFWriter(file, kind)
    config = model.config
    for name, value in {
        "context_length": 128,
        "embedding_length": 32,
        "block_count": 3,
        "feed_forward_length": 48,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 8,
        "attention.value_length": 8,
    }.items():
        writer.add_uint32(f"{kind}.{name}", value)
    writer.add_float32(f"{kind}.rope.freq_base", UNDERSTOOD["rope_theta"])
    writer.add_float32(f"{kind}.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    if kind == "gemma3":
        writer.add_uint32("gemma3.attention.sliding_window", config.sliding_window)
    for name, value in settings.items():
        name = name.replace("__", ".").replace("KIND", kind)
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(name, value)
    (_add_sentencepiece if spm else _add_byte_level)(writer, tokenizer, split)
    _add_tensors(writer, model, kind, drop)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _add_sentencepiece(writer: GGUFWriter, sp: sentencepiece.SentencePieceProcessor, _split: str) -> None:
    proto = sentencepiece_model_pb2.ModelProto.FromString(sp.serialized_model_proto())
    # llama.cpp writes blanks of user-defined pieces as blanks, and for Gemma even <unk> as a control token
    texts = [p.piece.replace("▁", " ") if p.type == 4 else p.piece for p in proto.pieces]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text.encode() for text in texts])
    writer.add_token_scores([-1000.0 if p.type in (2, 3, 4) else p.score for p in proto.pieces])
    writer.add_token_types([3 if p.type == 2 else p.type for p in proto.pieces])
    for name in ("bos", "eos", "pad", "unk"):
        getattr(writer, f"add_{name}_token_id")(getattr(sp, f"{name}_id")())
    writer.add_add_space_prefix(proto.normalizer_spec.add_dummy_prefix)


def _add_byte_level(writer: GGUFWriter, tokenizer: Tokenizer, split: str) -> None:
    import json

    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list([token.encode() for token in tokens])
    writer.add_token_types([3 if number < 3 else 1 for number in range(len(tokens))])
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    for name, number in (("pad", 0), ("bos", 1), ("eos", 2)):
        getattr(writer, f"add_{name}_token_id")(number)


def _add_tensors(writer: GGUFWriter, model: PreTrainedModel, kind: str, drop: str) -> None:
    arch = next(key for key, value in MODEL_ARCH_NAMES.items() if value == kind)
    names = get_tensor_name_map(arch, model.config.num_hidden_layers)
    for name, weight in model.named_parameters():
        array = weight.detach().numpy()
        if kind == "llama" and (heads := {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])):
            array = array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        if kind == "gemma3" and "norm" in name:
            array = array + 1
        stem, suffix = name.rsplit(".", 1)
        if name != drop:
            writer.add_tensor(f"{names.get_name(stem)}.{suffix}", np.ascontiguousarray(array))


def byte_level() -> Tokenizer:
    """Byte-level BPE, each digit alone: what llama.cpp calls smollm."""
    return train_tokenizer(LINES, 400).backend_tokenizer
