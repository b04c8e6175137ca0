"""Prepared text in training order: blocks drawn from each language's token files, a plan before, exact resume after.

The text was tokenised and packed before (`xalma.data.prepare`), so a place in the stream is a few numbers, whatever
the size of the corpus, and going on from it reads nothing twice. Languages are drawn block by block: a share is a
share of tokens, where the released code draws documents (`xalma.data.mixing.mixture`).

Inside a language the blocks come in strides: block (offset + i * stride) mod n, with a stride that shares no factor
with n, so each comes once an epoch, in an order that follows the seed, and no list of 40 million numbers is kept.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import IterableDataset
from transformers import PreTrainedTokenizerBase

from xalma.corpora.registry import open_corpus
from xalma.data.collate import IGNORE
from xalma.data.literal import token_ids
from xalma.data.mixing import ENCODE_DOCUMENTS, profile_shares
from xalma.data.token_files import STAGE_TEXT, TokenFiles
from xalma.files import fingerprint
from xalma.profiles import Profile


class MixedBlocks(torch.utils.data.IterableDataset):
    """`n_blocks` blocks {"input_ids", "labels"}, each (T,), as `PackedBlocks` gives them, from prepared text.

    files: the prepared text of each language; probabilities: chance that the next block is of a language. exhausted:
    "repeat" (a language that ran out begins again, in a new order) or "stop" (it gives no more, the others go on).
    `tokens` counts those of each language; `state_dict()` between two blocks and `load_state_dict` go on mid-stream.
    Raises ValueError for files of unequal block sizes, or when all languages have stopped before n_blocks.
    """

    def __init__(
        self,
        files: Mapping[str, TokenFiles],
        probabilities: Mapping[str, float],
        n_blocks: int,
        seed: int,
        exhausted: str = "repeat",
    ) -> None:
        sizes = {code: one.block_tokens for code, one in files.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(
                f"prepared text of unequal blocks: {sizes} tokens; prepare all with one block_tokens"
            )
        self.files = files
        self.probabilities = dict(probabilities)
        self.n_blocks, self.seed, self.exhausted = n_blocks, seed, exhausted
        self.block_tokens = next(iter(sizes.values()))
        self._reset()

    def _reset(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._n_done = 0
        self._drawn = Counter()
        self._resumed = False

    @property
    def tokens(self) -> Counter[str]:
        """Tokens of each language in the blocks so far."""
        return Counter({code: n * self.block_tokens for code, n in self._drawn.items()})

    def __len__(self) -> int:
        return self.n_blocks

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        if not self._resumed:
            self._reset()
        self._resumed = False
        while self._n_done < self.n_blocks:
            code = self._draw()
            block = self.files[code][self._place(code)]
            self._drawn[code] += 1
            self._n_done += 1
            ids = torch.from_numpy(block.astype(np.int64))  # (T,)
            labels = ids.clone()
            labels[0] = IGNORE  # nothing stands before it, as in PackedBlocks
            yield {"input_ids": ids, "labels": labels}

    def _draw(self) -> str:
        live = [
            code
            for code in self.probabilities
            if self.exhausted == "repeat" or self._drawn[code] < len(self.files[code])
        ]
        if not live:
            raise ValueError(
                f"the prepared text ended after {self._n_done} of {self.n_blocks} blocks of {self.block_tokens} "
                f"tokens: prepare more, take a smaller token budget, or mixing_exhausted=repeat"
            )
        ends = np.cumsum([self.probabilities[code] for code in live])
        return live[
            min(int(np.searchsorted(ends, self._rng.random() * ends[-1], side="right")), len(live) - 1)
        ]

    def _place(self, code: str) -> int:
        n = len(self.files[code])
        epoch, i = divmod(self._drawn[code], n)
        rng = np.random.default_rng([self.seed, epoch, int.from_bytes(code.encode(), "big")])
        offset = int(rng.integers(n))
        stride = int(rng.integers(1, n + 1))
        while math.gcd(stride, n) != 1:
            stride += 1
        return (offset + i * stride) % n

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self._rng.bit_generator.state, "drawn": dict(self._drawn), "n_done": self._n_done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._reset()
        self._rng.bit_generator.state = state["rng"]
        self._drawn = Counter(state["drawn"])
        self._n_done = state["n_done"]
        self._resumed = True


def mixing_plan(
    sizes: Mapping[str, float], probabilities: Mapping[str, float], budget: float, exhausted: str = "repeat"
) -> pd.DataFrame:
    """What a budget takes from each language: rows `share`, `tokens`, `available`, `epochs`, before anything runs.

    sizes: tokens each language has. With exhausted="stop" a language gives at most what it has and the others fill in.
    """
    tokens = {code: share * budget for code, share in probabilities.items()}
    if exhausted == "stop":
        tokens = _filled(sizes, probabilities, budget)
    rows = {
        code: {
            "share": tokens[code] / sum(tokens.values()),
            "tokens": tokens[code],
            "available": sizes[code],
            "epochs": tokens[code] / sizes[code],
        }
        for code in probabilities
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("language")


def _filled(
    sizes: Mapping[str, float], probabilities: Mapping[str, float], budget: float
) -> dict[str, float]:
    """Water filling: what a stopped language leaves goes to the others by their chances."""
    tokens = dict.fromkeys(probabilities, 0.0)
    live = dict(probabilities)
    left = budget
    while live and left > 1e-9 * budget:
        total = sum(live.values())
        step = min(left, *((sizes[code] - tokens[code]) * total / share for code, share in live.items()))
        for code, share in live.items():
            tokens[code] += step * share / total
        left -= step
        live = {
            code: share for code, share in live.items() if sizes[code] - tokens[code] > 1e-9 * sizes[code]
        }
    return tokens


def mixing_text(plan: pd.DataFrame) -> str:
    """The plan in one line: "20 B tokens: is repeats 41×, cs 1.2×; part of de 34 %, …"."""
    parts = [f"{plan['tokens'].sum() / 1e9:.3g} B tokens"]
    repeated = plan[plan["epochs"] > 1].sort_values("epochs", ascending=False)
    cut = plan[plan["epochs"] <= 1].sort_values("epochs")
    if len(repeated):
        parts.append(
            "repeated: " + ", ".join(f"{code} {row.epochs:.3g}×" for code, row in repeated.iterrows())
        )
    if len(cut):
        parts.append("read in part: " + ", ".join(f"{code} {row.epochs:.0%}" for code, row in cut.iterrows()))
    return "; ".join(parts)


def prepared_files(p: Profile, kind: str, codes: tuple[str, ...]) -> dict[str, TokenFiles]:
    """The prepared text of the languages. Raises FileNotFoundError, saying what makes it, where one is not there."""
    return {code: TokenFiles(Path(p.mixing_blocks).expanduser() / kind / code) for code in codes}


def prepared_blocks(p: Profile, tokenizer, number: int, codes: tuple[str, ...], n_blocks: int) -> MixedBlocks:
    """The blocks of stage `number` from the folder `mixing_blocks`; the plan is printed first.

    Raises ValueError where the text was packed for another block size or with another tokenizer, where a file has
    changed since, and, unless `contamination` is "allow", where the corpus's held-out sentences were not left out.
    """
    files = prepared_files(p, STAGE_TEXT[number], codes)
    budget = n_blocks * p.block_tokens
    for code, one in files.items():
        one.check(tokenizer, p.block_tokens)
        one.verify()
        if p.contamination != "allow" and not leaves_out(one, p, code):
            raise ValueError(
                f"{one.folder} was prepared without leaving out the held-out sentences of corpus={p.corpus} in {code}: "
                f"prepare it again with this profile, or train on it all the same with --set contamination=allow"
            )
    sizes = {code: len(one) * p.block_tokens for code, one in files.items()}
    shares = profile_shares(p, codes, sizes, budget)
    print(f"stage {number}: {mixing_text(mixing_plan(sizes, shares, budget, p.mixing_exhausted))}")
    return MixedBlocks(files, shares, n_blocks, p.seed + number, p.mixing_exhausted)


def leaves_out(files: TokenFiles, p: Profile, code: str) -> bool:
    """Whether prepared text was made without the held-out sentences of the profile's corpus, and there are some."""
    corpus = open_corpus(p)
    index = files.index
    if "left_out" not in index:  # of a version that filed no hash of them: the same text holds out the same
        return (
            index.get("source") == corpus.fingerprint()
            and index.get("rules", {}).get("test_sentences", 0) > 0
        )
    held_out = sorted(corpus.held_out(code))
    return bool(held_out) and index["left_out"] == fingerprint(held_out)


def guard_records(files: Mapping[str, TokenFiles]) -> dict[str, Any]:
    """What the guard files of prepared text: it was looked through when it was prepared, and matches were left out."""
    rows = [one.index.get("rows", {}) for one in files.values()]
    left_out = sum(row.get("dropped", {}).get("test_sentence", 0) for row in rows)
    return {"when": "prepared", "rows": sum(row.get("read", 0) for row in rows), "left_out": left_out}


def prepared_fingerprint(p: Profile) -> str:
    """A hash over all prepared text under `mixing_blocks`; "" where there is none to use."""
    if not p.mixing_blocks:
        return ""
    digest = hashlib.sha256()
    for path in sorted(Path(p.mixing_blocks).expanduser().glob("*/*/index.json")):
        digest.update(f"{path.parent.parent.name}/{path.parent.name}".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class PackedBlocks(torch.utils.data.IterableDataset):
    """Blocks of `block_tokens` token ids cut from a stream of documents; {"input_ids", "labels"}, each (T,).

    After iterating, `tokens` holds how many tokens of each language went into the blocks: their sum is exactly
    n_blocks * block_tokens. `state_dict()` between two blocks and `load_state_dict` continue mid-stream.
    Raises ValueError when the stream ends before n_blocks are full.
    """

    def __init__(
        self, documents: IterableDataset, tokenizer: PreTrainedTokenizerBase, block_tokens: int, n_blocks: int
    ) -> None:
        self.documents, self.tokenizer = documents, tokenizer
        self.block_tokens, self.n_blocks = block_tokens, n_blocks
        self._reset()

    def _reset(self) -> None:
        self.tokens: Counter[str] = Counter()
        self._n_done = 0
        self._ids: list[int] = []
        self._langs: list[str] = []
        self._place: dict[str, Any] | None = None  # of `documents`, after the last batch taken from it
        self._resumed = False

    def __len__(self) -> int:
        return self.n_blocks

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        if not self._resumed:
            self._reset()
        self._resumed = False
        stream = iter(self.documents.iter(batch_size=ENCODE_DOCUMENTS))
        while self._n_done < self.n_blocks:
            while len(self._ids) < self.block_tokens:
                self._take(next(stream, None))
            yield self._cut()

    def _take(self, rows: dict[str, list[str]] | None) -> None:
        if rows is None:
            raise ValueError(
                f"the text ended after {self._n_done} of {self.n_blocks} blocks of {self.block_tokens} tokens: "
                f"give more text or a smaller token budget"
            )
        encoded = token_ids(self.tokenizer, rows["text"])
        for ids, code in zip(encoded, rows["lang"], strict=True):
            document = [self.tokenizer.bos_token_id, *ids, self.tokenizer.eos_token_id]
            self._ids += document
            self._langs += [code] * len(document)
        # later it may be asked for before a resumed stream has begun
        self._place = self.documents.state_dict()

    def _cut(self) -> dict[str, torch.Tensor]:
        size = self.block_tokens
        block = torch.tensor(self._ids[:size])  # (T,)
        self.tokens.update(self._langs[:size])
        del self._ids[:size], self._langs[:size]
        self._n_done += 1
        labels = block.clone()
        labels[0] = IGNORE  # nothing stands before it; Trainer would count it in the mean's divisor
        return {"input_ids": block, "labels": labels}

    def state_dict(self) -> dict[str, Any]:
        return {
            "documents": self._place,
            "ids": list(self._ids),
            "langs": list(self._langs),
            "n_done": self._n_done,
            "tokens": dict(self.tokens),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._place = state["documents"]
        if self._place is not None:
            self.documents.load_state_dict(self._place)
        self._ids = list(state["ids"])
        self._langs = list(state["langs"])
        self._n_done = state["n_done"]
        self.tokens = Counter(state["tokens"])
        self._resumed = True
