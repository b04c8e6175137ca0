"""From a GGUF file of a LLaMA-like or Gemma-3 model to a checkpoint with the tokenizer that the file means.

transformers maps the tensors and the `gguf` package de-quantises them. What transformers passes over without a word is
refused here: an unknown setting (scaled positions), a tensor without a place, a weight without a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from xalma.files import TO, check_new, file_hash, new_directory, write_json
from xalma.models.bases.gguf_tokenizers import Vocabulary, build_tokenizer, sentencepiece_model
from xalma.runtime import provenance

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PretrainedConfig, PreTrainedModel

RECORD = "base.json"  # beside the weights: where they come from, and what was checked
# general.architecture -> its settings that this package understands. llama.cpp calls Mistral llama, too.
_COMMON = (
    "context_length", "block_count", "feed_forward_length", "embedding_length", "vocab_size", "rope.freq_base",
    "rope.dimension_count", "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "attention.layer_norm_rms_epsilon",
)  # fmt: skip
SETTINGS = {
    "llama": _COMMON,
    "qwen2": _COMMON,
    "qwen3": _COMMON,
    "gemma3": (*_COMMON, "attention.sliding_window"),
}
# all one size in these models
_HEAD_SIZES = "rope.dimension_count", "attention.key_length", "attention.value_length"


def convert_gguf(
    file: str | Path, out: str | Path, dtype: str = "bfloat16", *, check: bool = True, **record: Any
) -> Path:
    """Writes the model of a GGUF file and its tokenizer to the new folder `out`, in torch dtype `dtype`; returns that.

    The folder's base.json has the file's hash, the licence it names, `record`, and what `check_base` measured.
    check: False for a file whose hash says that it was converted and checked before.
    Raises ValueError for a file that is truncated, not understood, or whose model fails the checks, OSError for a
    folder that is there, ImportError without the package `gguf`; nothing is written then.
    """
    from xalma.models.backbone import save_base

    file = Path(file)
    out = check_new(out)
    reader = open_gguf(file)
    vocabulary = read_vocabulary(reader)
    tokenizer = build_tokenizer(vocabulary)
    model = read_model(file, reader, dtype)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.config, name, getattr(tokenizer, name))
        setattr(model.generation_config, name, getattr(tokenizer, name))
    bounds = record.pop("bounds", None)
    if check:
        record["checks"] = _checks(model, tokenizer, vocabulary, bounds)
    record |= {"file": file.name, "bytes": file.stat().st_size, "sha256": file_hash(file), "dtype": dtype}
    record |= {
        "licence": field(reader, "general.license") or "not stated",
        "name": field(reader, "general.name"),
    }
    with new_directory(out, TO) as folder:
        save_base(model, tokenizer, folder)
        write_json(folder / RECORD, record | provenance())
    return out


def _checks(model, tokenizer, vocabulary: Vocabulary, bounds: Mapping[str, float] | None) -> dict[str, Any]:
    from xalma.models.bases.checks import BOUNDS, check_base

    second = sentencepiece_model(vocabulary) if vocabulary.kind == "llama" else None
    return check_base(model, tokenizer, BOUNDS if bounds is None else bounds, second)


def open_gguf(file: str | Path) -> GGUFReader:
    """A GGUF file of one of the architectures that are read. Raises as `convert_gguf`."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ImportError("GGUF files are read by the package gguf: pip install 'xalma[gguf]'") from error
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}: give a GGUF file")
    try:
        reader = GGUFReader(file)
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{file} is truncated or no GGUF file ({why}): copy or download it again") from error
    architecture = field(reader, "general.architecture")
    if architecture not in SETTINGS:
        raise ValueError(f"{file} holds a model of kind {architecture!r}: {', '.join(SETTINGS)} are read")
    known = {f"{architecture}.{name}" for name in SETTINGS[architecture]}
    unknown = [name for name in reader.fields if name.startswith(f"{architecture}.") and name not in known]
    if unknown or (field(reader, "split.count") or 1) > 1:
        raise ValueError(
            f"{file} has settings that are not understood here: {', '.join(unknown) or 'split.count'}"
        )
    return reader


def field(reader: GGUFReader, name: str) -> Any:
    """The value of a setting; None where the file has none."""
    return reader.fields[name].contents() if name in reader.fields else None


def read_vocabulary(reader: GGUFReader) -> Vocabulary:
    """What the file says of its tokenizer, with the defaults of llama.cpp."""
    value = lambda name: field(reader, f"tokenizer.ggml.{name}")  # noqa: E731
    kind = value("model")
    tokens = value("tokens")
    flag = lambda name, default: default if value(name) is None else value(name)  # noqa: E731
    return Vocabulary(
        kind=kind,
        tokens=tokens,
        types=value("token_type") or [1] * len(tokens),
        scores=value("scores") or (),
        merges=value("merges") or (),
        split=value("pre") or "",
        bos=value("bos_token_id"),
        eos=value("eos_token_id"),
        unk=value("unknown_token_id"),
        pad=value("padding_token_id"),
        add_bos=flag("add_bos_token", kind == "llama"),
        add_eos=flag("add_eos_token", False),
        add_prefix=flag("add_space_prefix", kind == "llama"),
        chat_template=field(reader, "tokenizer.chat_template"),
    )


def read_model(file: Path, reader: GGUFReader, dtype: str) -> PreTrainedModel:
    """The model with its weights. Raises ValueError where a tensor or a weight is left over."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    _complete(file, reader, config)
    config.architectures = None
    with torch.device("meta"):
        shell = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    tensors = load_gguf_checkpoint(file, return_tensors=True, model_to_load=shell)["tensors"]
    wanted = {name: weight.shape for name, weight in shell.named_parameters()}  # tied weights once
    if len(reader.tensors) != len(tensors) or {name: t.shape for name, t in tensors.items()} != wanted:
        odd = sorted(tensors.keys() ^ wanted.keys()) or [
            t.name for t in reader.tensors if "blk." not in t.name
        ]
        raise ValueError(
            f"{file} and a {config.model_type} model do not have the same tensors: see {', '.join(odd)}"
        )
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.load_state_dict(tensors, strict=False)
    return model.eval()


def _complete(file: Path, reader: GGUFReader, config: PretrainedConfig) -> None:
    """Sets what transformers does not read: the size of the heads, and Gemma's scale of the attention by it.

    Raises ValueError where the file's own sizes differ from one another.
    """
    architecture = field(reader, "general.architecture")
    sizes = {name: field(reader, f"{architecture}.{name}") for name in _HEAD_SIZES}
    if hasattr(config, "head_dim") and (own := sizes["attention.key_length"]):
        config.head_dim = own
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    if odd := [f"{name} {own}" for name, own in sizes.items() if own not in (None, size)]:
        raise ValueError(f"{file} has {', '.join(odd)} beside heads of {size}: such a model is not read")
    if architecture == "gemma3":  # llama.cpp's rule: the 27B model, which has 62 layers, is the exception
        config.query_pre_attn_scalar = config.hidden_size // heads if config.num_hidden_layers == 62 else size
