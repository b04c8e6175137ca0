"""A real base and its texts as one small folder of token ids: what an experiment on a lent GPU needs, and no more.

    ids.npz      arrays of token ids, a flat one and the ends of its texts for each name
    index.json   languages, prompts, counts, where the text is from, and what the guard dropped
    kept.npy     the base's token id of each id here: the vocabulary is cut to what these texts use
    config.json  the base's configuration with the cut vocabulary
    base.safetensors   the base's weights, as a GGUF file has them where one is given (a third of bfloat16's bytes)

Logits of kept tokens are those of the whole base; their probabilities are over the kept tokens alone. Where a smaller
vocabulary is asked for, `token_ratio` in index.json has each language's test tokens over the whole base's: text that is
split into other tokens than a base was trained on costs BLEU (benchmarks/cut_vocabulary.py). A tokenizer is needed to
write the folder and to read what a run wrote (`scores`), not by the run itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xalma.files import TO, fingerprint, new_directory, read_json, write_json
from xalma.languages import ENGLISH, language
from xalma.models.bases.vocabulary import count_tokens, kept_tokens, trim_tokenizer, used_ids
from xalma.profiles import Profile
from xalma.runtime import provenance

_Pair = tuple[str, str]  # (English, other language)
SHOTS = 4  # examples before a sentence in the few-shot form
SHOT_CHARACTERS = (40, 80)  # of both sides of an example: short, since each costs its length in every prompt
# kept of a language at most; a run reads them again if it needs more
MONO_TOKENS, BITEXT_TOKENS = 120_000, 60_000
WMT_SETS = "wmt23"
GEMMA_NAMES = {  # GGUF's name of a layer's matrix -> transformers'
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
EMBEDDING = "model.embed_tokens.weight"


def pack(
    p: Profile, base: Path, folder: Path, gguf: Path | None = None, vocabulary: int = 0
) -> dict[str, Any]:
    """Writes `folder` for the profile's languages; returns the index.

    base: a checkpoint's folder with its fast tokenizer. gguf: the file that the checkpoint was converted from.
    vocabulary: most tokens to keep, rarer ones are written as the pieces they are made of; 0: all that the texts use.
    Raises ValueError where the GGUF file does not hold the checkpoint's matrices, bit for bit.
    """
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    texts, index = _texts(p)
    every = [text for part in texts.values() for text in part]
    kept = np.array(kept_tokens(tokenizer, count_tokens(tokenizer, every), vocabulary))
    small = trim_tokenizer(tokenizer, kept.tolist())
    kind = np.uint16 if len(kept) <= 2**16 else np.uint32
    here = {token: i for i, token in enumerate(kept.tolist())}
    arrays, token_ratio = {}, {}
    for name, part in texts.items():
        rows = used_ids(small, part)
        if name.startswith("flores."):
            token_ratio[name.split(".")[1]] = round(_size(rows) / _size(used_ids(tokenizer, part)), 4)
        arrays[name] = np.array([token for row in rows for token in row], kind)
        arrays[f"{name}|ends"] = np.cumsum([len(row) for row in rows]).astype(np.uint32)
    pieces = tokenizer.convert_ids_to_tokens(kept.tolist())
    index |= {
        "profile": p.name,
        "vocabulary": len(kept),
        "of": len(tokenizer),
        "base": p.base,
        "token_ratio": token_ratio,
        "tokens": {name: len(a) for name, a in arrays.items() if "|" not in name},
        **{key: here[getattr(tokenizer, f"{key}_token_id")] for key in ("bos", "eos", "pad")},
        "line_ends": [i for i, piece in enumerate(pieces) if "\n" in piece or piece == "<0x0A>"],
    }
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    config.vocab_size = len(kept)
    for key in ("bos", "eos", "pad"):
        setattr(config, f"{key}_token_id", index[key])
    with new_directory(folder, TO) as out:
        np.savez_compressed(out / "ids.npz", **arrays)
        np.save(out / "kept.npy", kept.astype(np.int32))
        config.save_pretrained(out)
        _save_weights(base, kept, out / "base.safetensors", gguf)
        write_json(out / "index.json", index | {"fingerprint": fingerprint(index)} | provenance())
    return index


def _texts(p: Profile) -> tuple[dict[str, Sequence[str]], dict[str, Any]]:
    """Texts by name, every sentence with one blank before it; what is said of them."""
    from xalma.corpora.registry import open_corpus
    from xalma.corpora.test_sets import directions_of, load
    from xalma.data.contamination import guard_report, guarded_corpus

    corpus = guarded_corpus(_wide(p), p.languages)
    flores = open_corpus(p.but(corpus="flores"))
    texts: dict[str, Sequence[str]] = {}
    english = None
    for code in (ENGLISH, *p.languages):
        texts[f"mono.{code}"] = _some(corpus.monolingual(code), MONO_TOKENS * 5)
    rng = np.random.default_rng(p.seed)
    n_sft, notes, shots = {}, {}, {}
    for code in p.languages:
        pairs = _some(corpus.bitext(code), BITEXT_TOKENS * 4)
        _add(texts, f"bitext.{code}", pairs)
        all_pairs = corpus.sft(code)
        some = [all_pairs[i] for i in rng.permutation(len(all_pairs))[: p.sft_pairs]]
        _add(texts, f"sft.{code}", some)
        n_sft[code] = (len(some), len(all_pairs))
        notes[code] = corpus.notes(code)
        tests = flores.tests(code)
        english = english or [a for a, _ in tests]
        texts[f"flores.{code}"] = [f" {b}" for _, b in tests]
        shots[code] = _shots(flores.sft(code), p.seed)
        _add(texts, f"shots.{code}", shots[code])
        name = language(code).name
        texts[f"frame.{code}"] = [
            f"Translate this from English to {name}:\nEnglish:", f"\n{name}:",
            f"Translate this from {name} to English:\n{name}:", "\nEnglish:",
            f"{name}:", "English:", "\n\n", "\n",
        ]  # fmt: skip
    texts[f"flores.{ENGLISH}"] = [f" {a}" for a in english or ()]
    n_wmt = {}
    for direction in directions_of(WMT_SETS):
        if not set(direction.split("-")) <= {ENGLISH, *p.languages}:
            continue
        one = load(WMT_SETS, direction)
        n_wmt[direction] = len(one.sources)
        for side, lines in (("src", one.sources), ("ref", one.references)):
            texts[f"{WMT_SETS}.{direction}.{side}"] = [f" {line}" for line in lines]
    index = {
        "languages": list(p.languages),
        "sft_pairs": n_sft,
        "sft_notes": notes,
        "wmt": n_wmt,
        "guard": guard_report(_wide(p), p.languages),
        "corpus": p.corpus,
        "text": corpus.fingerprint(),
        "seed": p.seed,
    }
    return texts, index


def _wide(p: Profile) -> Profile:
    """The profile with X-ALMA's cap of SFT pairs: the pack draws its own from all of those."""
    return p.but(sft_pairs=4000)


def _some(rows: Iterable[Any], size: int) -> list[Any]:
    """The first texts or pairs, until they have `size` bytes."""
    found, n = [], 0
    for row in rows:
        found.append(row)
        n += sum(len(text.encode()) for text in ((row,) if isinstance(row, str) else row))
        if n >= size:
            break
    return found


def _add(texts: dict[str, Sequence[str]], name: str, pairs: Iterable[_Pair]) -> None:
    pairs = list(pairs)
    texts[f"{name}.en"] = [f" {english}" for english, _ in pairs]
    texts[f"{name}.xx"] = [f" {other}" for _, other in pairs]


def _shots(pairs: Sequence[_Pair], seed: int) -> list[_Pair]:
    """The examples of a language: short pairs of FLORES-200 dev, drawn by the seed."""
    short = [
        pair for pair in pairs if all(SHOT_CHARACTERS[0] <= len(text) <= SHOT_CHARACTERS[1] for text in pair)
    ]
    by_length = sorted(pairs, key=lambda pair: max(map(len, pair)))
    pool = short if len(short) >= SHOTS else by_length[: 4 * SHOTS]
    order = np.random.default_rng(seed).permutation(len(pool))[:SHOTS]
    return [pool[i] for i in order]


def _size(rows: Iterable[Sequence[int]]) -> int:
    return sum(map(len, rows))


def _save_weights(base: Path, kept: np.ndarray, out: Path, gguf: Path | None) -> None:
    """The checkpoint's tensors with the kept rows of its embedding; matrices as the GGUF file's own bytes."""
    from safetensors.torch import load_file, save_file

    tensors = {name: x for file in sorted(base.glob("*.safetensors")) for name, x in load_file(file).items()}
    tensors.pop("lm_head.weight", None)  # tied to the embedding in every base that this takes
    rows = torch.from_numpy(kept.astype(np.int64))
    raw: dict[str, Any] = {}
    if gguf is not None:
        from gguf import GGUFReader

        for one in GGUFReader(gguf).tensors:
            name = _name(one.name)
            if name not in tensors or tensors[name].ndim < 2:
                continue
            data = torch.from_numpy(np.array(one.data))
            data = data[rows] if name == EMBEDDING else data
            whole = tensors.pop(name)
            whole = whole[rows] if name == EMBEDDING else whole
            if not torch.equal(dequantised(data, one.tensor_type.name), whole):
                raise ValueError(
                    f"{gguf}: {one.name} is not what {base} holds: give the file it was made from"
                )
            raw[f"{name}|{one.tensor_type.name}"] = data.contiguous()
    if EMBEDDING in tensors:
        tensors[EMBEDDING] = tensors[EMBEDDING][rows]
    save_file({name: x.contiguous() for name, x in (tensors | raw).items()}, out)


def _name(gguf_name: str) -> str:
    if gguf_name == "token_embd.weight":
        return EMBEDDING
    parts = gguf_name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in GEMMA_NAMES:
        return f"model.layers.{parts[1]}.{GEMMA_NAMES[parts[2]]}.weight"
    return ""


def dequantised(data: torch.Tensor, kind: str) -> torch.Tensor:
    """The matrix in bfloat16, as the conversion of the base rounds it."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    return torch.from_numpy(dequantize(data.numpy(), GGMLQuantizationType[kind])).to(torch.bfloat16)


def open_pack_model(folder: Path, dtype: torch.dtype = torch.bfloat16):
    """The packed base, on the CPU, in `dtype`."""
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config.tie_word_embeddings = True
    attention = "sdpa" if torch.cuda.is_available() else "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=attention)
    found = {}
    for name, x in load_file(folder / "base.safetensors").items():
        name, _, kind = name.partition("|")
        found[name] = dequantised(x, kind) if kind else x
    missing, unexpected = model.load_state_dict(found, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"{folder}: weights do not fit its configuration: {[*missing, *unexpected][:3]}")
    model.tie_weights()
    return model.to(dtype)


class Pack:
    """The folder, read: `rows(name)` lists arrays of token ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.index = read_json(self.folder / "index.json", "write the pack again")
        self.arrays = np.load(self.folder / "ids.npz", allow_pickle=False)
        self._rows: dict[str, list[np.ndarray]] = {}

    def rows(self, name: str) -> list[np.ndarray]:
        """Token ids, one int64 array per text."""
        if name not in self._rows:
            ends = self.arrays[f"{name}|ends"].astype(np.int64)
            self._rows[name] = np.split(self.arrays[name].astype(np.int64), ends[:-1]) if len(ends) else []
        return self._rows[name]

    def frames(self, code: str) -> list[list[int]]:
        """Ids of the fixed parts of the prompts of a language."""
        return [row.tolist() for row in self.rows(f"frame.{code}")]
