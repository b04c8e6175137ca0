"""A base with a smaller vocabulary: the rows of the embeddings that a set of texts uses, and the way back.

For Gemma-3-270M the embeddings are most of the weights, and its logits most of the work. What is kept keeps its row, so
that the hidden states of these texts are the same, and so are the logits of kept tokens. Kept are: the tokens of the
texts; the tokens out of which BPE merges them, so that the texts are cut as before; all bytes and special tokens.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from xalma.base_files import find_base
from xalma.files import TO, check_new, new_directory, read_json, write_json
from xalma.models.backbone import load_base, save_base
from xalma.models.bases.gguf_files import RECORD
from xalma.runtime import provenance

BATCH = 2000  # texts tokenised at once
PLACEHOLDER = re.compile(r"<unused\d+>")  # special tokens that stand for nothing


def trim_base(base: str | Path, texts: Iterable[str], out: str | Path, limit: int = 0) -> Path:
    """Writes the base with the vocabulary of `texts` to the new folder `out`, in its own dtype, and returns that.

    texts: read twice (a list, or what starts anew at each `iter`). limit: at most about this many tokens, the most
    frequent ones; the rarer ones are then cut into smaller ones. base.json says how many tokens and texts that changes;
    0 keeps all, and changes none. Raises ValueError for a tokenizer that is no BPE, and where a text would be cut
    otherwise without a limit; OSError for a folder that is there.
    """
    out = check_new(out)
    source = Path(find_base(base))
    model, tokenizer = load_base(base, own_dtype(base))
    kept = kept_tokens(tokenizer, count_tokens(tokenizer, texts), limit)
    small = trim_tokenizer(tokenizer, kept)
    n_texts, changed = compare_cuts(tokenizer, small, kept, texts)
    if changed and not limit:
        raise ValueError(
            f"{changed} of {n_texts} texts would be cut otherwise: this tokenizer can't be trimmed"
        )
    before = model.get_input_embeddings().num_embeddings
    trim_model(model, kept, small)
    filed = source / RECORD
    record = read_json(filed, "convert the base again") if filed.is_file() else {"base": str(base)}
    record["trimmed"] = {"tokens": len(kept), "of": before, "texts": n_texts, "texts_cut_otherwise": changed}
    with new_directory(out, TO) as folder:
        save_base(model, small, folder)
        write_json(folder / RECORD, record | provenance())
    return out


def own_dtype(base: str | Path) -> str:
    """The dtype a base's weights are kept in, float32 where its configuration names none."""
    config = AutoConfig.from_pretrained(find_base(base), trust_remote_code=False)
    return str(config.dtype or torch.float32).removeprefix("torch.")


@dataclass(frozen=True)
class TextFiles:
    """The lines of UTF-8 files, plain or .gz, each time anew."""

    files: Sequence[str | Path]

    def __iter__(self) -> Iterator[str]:
        for file in map(Path, self.files):
            opened = gzip.open if file.suffix == ".gz" else open
            try:
                with opened(file, "rt", encoding="utf-8") as lines:
                    yield from (line.rstrip("\n") for line in lines)
            except UnicodeDecodeError as error:
                raise ValueError(f"{file} is not UTF-8 ({error}): give text, one per line") from error


def batches_of(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of at most `BATCH` texts."""
    texts = iter(texts)
    while batch := list(islice(texts, BATCH)):
        yield batch


def used_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, no special tokens added."""
    return [
        e.ids for e in tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    ]


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> np.ndarray:
    """(V,): how often each token id is in `texts`."""
    counts = np.zeros(len(tokenizer), np.int64)
    for batch in batches_of(texts):
        ids = np.concatenate([np.asarray(ids, np.int64) for ids in used_ids(tokenizer, batch)])
        counts += np.bincount(ids, minlength=len(counts))
    return counts


def kept_tokens(tokenizer: PreTrainedTokenizerBase, counts: np.ndarray, limit: int = 0) -> list[int]:
    """Ids to keep, ascending: what is used, most frequent first up to `limit`, and what it is merged from.

    Raises ValueError for a tokenizer that is no BPE, and for a limit that bytes and special tokens alone exceed.
    """
    state = bpe_state(tokenizer)
    vocab = state["model"]["vocab"]
    parts = Parts(state)
    kept = {token["id"] for token in state["added_tokens"] if not PLACEHOLDER.fullmatch(token["content"])}
    kept |= {vocab[byte] for byte in (f"<0x{n:02X}>" for n in range(256)) if byte in vocab}
    if '"ByteLevel"' in json.dumps(state["pre_tokenizer"]):
        kept |= {vocab[letter] for letter in pre_tokenizers.ByteLevel.alphabet() if letter in vocab}
    if limit and len(kept) >= limit:
        raise ValueError(
            f"a vocabulary of {limit} can't hold the {len(kept)} bytes and special tokens: raise the limit"
        )
    names = {number: piece for piece, number in vocab.items()}
    order = np.argsort(-counts, kind="stable")
    for number in order[: np.count_nonzero(counts)].tolist():
        if number not in kept:
            pieces = parts.of(names[number]) if number in names else ()
            more = {vocab[piece] for piece in pieces} | {number}
            if limit and len(kept | more) > limit:
                break
            kept |= more
    return sorted(kept)


def bpe_state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The tokenizer's own JSON. Raises ValueError for any kind but BPE."""
    state = (
        json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"model": {"type": None}}
    )
    if state["model"]["type"] != "BPE":
        raise ValueError("only the vocabulary of a fast BPE tokenizer can be trimmed")
    state["model"]["merges"] = [
        tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in state["model"]["merges"]
    ]
    return state


class Parts:
    """Of which pieces BPE merges a piece. Inside a token its merges are those that the token alone would go through,
    as no merge crosses its borders; so a text of kept tokens is cut as before.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self.ranks = {pair: rank for rank, pair in enumerate(state["model"]["merges"])}
        self.vocab = state["model"]["vocab"]

    def of(self, piece: str) -> set[str]:
        """Every piece of the vocabulary on the way to `piece`, its characters included."""
        now = list(piece)
        seen = set(now)
        while len(now) > 1:
            pairs = [(self.ranks.get(pair), at) for at, pair in enumerate(pairwise(now))]
            rank, at = min((pair for pair in pairs if pair[0] is not None), default=(None, 0))
            if rank is None:
                break
            now[at : at + 2] = [now[at] + now[at + 1]]
            seen.add(now[at])
        return {part for part in seen if part in self.vocab}


def trim_tokenizer(tokenizer: PreTrainedTokenizerBase, kept: Sequence[int]) -> PreTrainedTokenizerBase:
    """The same tokenizer with the tokens `kept` alone, numbered in that order."""
    state = bpe_state(tokenizer)
    new = {old: number for number, old in enumerate(kept)}
    model = state["model"]
    model["vocab"] = {piece: new[old] for piece, old in model["vocab"].items() if old in new}
    model["merges"] = [
        list(pair)
        for pair in model["merges"]
        if pair[0] in model["vocab"] and pair[1] in model["vocab"] and "".join(pair) in model["vocab"]
    ]
    added = [token | {"id": new[token["id"]]} for token in state["added_tokens"] if token["id"] in new]
    state["added_tokens"] = sorted(added, key=lambda token: token["id"])
    _renumber_frame(state["post_processor"], new)
    options = {
        name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")
    }
    small = type(tokenizer)(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        clean_up_tokenization_spaces=False,
        model_input_names=tokenizer.model_input_names,
        **{name: value for name, value in options.items() if value},
    )
    small.chat_template = tokenizer.chat_template
    if len(small) != len(kept):
        raise ValueError(
            f"the trimmed tokenizer has {len(small)} tokens, not {len(kept)}: it can't be trimmed"
        )
    return small


def _renumber_frame(processor: Any, new: dict[int, int]) -> None:
    """Puts new ids into a post-processor's special tokens, in place."""
    if isinstance(processor, dict):
        for token in (
            (processor.get("special_tokens") or {}).values() if processor.get("type") != "Sequence" else ()
        ):
            token["ids"] = [new[old] for old in token["ids"]]
        for inner in processor.get("processors") or ():
            _renumber_frame(inner, new)


def compare_cuts(
    tokenizer: PreTrainedTokenizerBase,
    small: PreTrainedTokenizerBase,
    kept: Sequence[int],
    texts: Iterable[str],
) -> tuple[int, int]:
    """(number of texts, how many of them the trimmed tokenizer cuts otherwise).

    Raises ValueError for a text that it does not give back as the whole one does.
    """
    old = list(kept)
    n = 0
    changed = 0
    for batch in batches_of(texts):
        for text, ids, own in zip(batch, used_ids(tokenizer, batch), used_ids(small, batch), strict=True):
            n += 1
            if ids != [old[i] for i in own]:
                changed += 1
                if small.decode(own) != tokenizer.decode(ids):
                    raise ValueError(f"the trimmed tokenizer loses a part of {text!r}: it can't be trimmed")
    return n, changed


@torch.no_grad()
def trim_model(model: PreTrainedModel, kept: Sequence[int], small: PreTrainedTokenizerBase) -> None:
    """Leaves the embedding rows `kept` in `model`, in place; small: its tokenizer from now on."""
    rows = torch.tensor(kept)
    inputs = model.get_input_embeddings()
    outputs = model.get_output_embeddings()
    tied = outputs.weight is inputs.weight
    set_rows(inputs, inputs.weight[rows])
    set_rows(outputs, inputs.weight if tied else outputs.weight[rows])
    describe_vocabulary(model, small)


def set_rows(module: torch.nn.Module, weight: torch.Tensor) -> None:
    """Makes `weight` (V, D) the weight of an embedding or a linear layer."""
    module.weight = weight if isinstance(weight, torch.nn.Parameter) else torch.nn.Parameter(weight)
    name = "num_embeddings" if hasattr(module, "num_embeddings") else "out_features"
    setattr(module, name, len(weight))


def describe_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Brings sizes and special ids of the model's configurations to those of `tokenizer`."""
    model.config.vocab_size = model.get_input_embeddings().num_embeddings
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        for config in (model.config, model.generation_config):
            setattr(config, name, getattr(tokenizer, name))


@torch.no_grad()
def restore_base(trimmed: str | Path, base: str | Path, out: str | Path) -> Path:
    """The way back: the model in `trimmed` with the whole vocabulary of `base`, in the new folder `out`.

    A token that both have gets the trimmed model's row, which may have been trained; the others keep the base's.
    Raises ValueError where `trimmed` has a token that `base` has not, OSError for a folder that is there.
    """
    out = check_new(out)
    model, small = load_base(trimmed, own_dtype(trimmed))
    whole, tokenizer = load_base(base, own_dtype(trimmed))
    vocab = tokenizer.get_vocab()
    if missing := [piece for piece in small.get_vocab() if piece not in vocab]:
        raise ValueError(
            f"{base} has no token {missing[0]!r}, which {trimmed} has: name the base it was trimmed from"
        )
    pairs = sorted((number, vocab[piece]) for piece, number in small.get_vocab().items())
    own, old = (torch.tensor(side) for side in zip(*pairs, strict=True))
    sides = [(model.get_input_embeddings(), whole.get_input_embeddings())]
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    sides += [] if tied else [(model.get_output_embeddings(), whole.get_output_embeddings())]
    for mine, theirs in sides:
        rows = theirs.weight.clone()
        rows[old] = mine.weight[own]
        set_rows(mine, rows)
    if tied:
        set_rows(model.get_output_embeddings(), model.get_input_embeddings().weight)
    describe_vocabulary(model, tokenizer)
    with new_directory(out, TO) as folder:
        save_base(model, tokenizer, folder)
    return out
