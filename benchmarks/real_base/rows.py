"""Rows of token ids from a pack: blocks of running text, prompts in both forms, test segments, limits of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from real_base.context import Run
from real_base.pack import SHOTS
from xalma.data.collate import IGNORE
from xalma.languages import ENGLISH

Rows = list[dict[str, Any]]


def stream(run: Run, kind: str, code: str) -> np.ndarray:
    """(n_blocks, block_tokens) of a language's "mono" or "bitext", documents as BOS + text + EOS."""
    bos, eos = [run.pack.index["bos"]], [run.pack.index["eos"]]
    if kind == "mono":
        texts = [[bos, row, eos] for row in run.pack.rows(f"mono.{code}")]
    else:
        order = np.random.default_rng(run.p.seed).random(len(run.pack.rows(f"bitext.{code}.en"))) < 0.5
        sides = zip(
            run.pack.rows(f"bitext.{code}.en"), run.pack.rows(f"bitext.{code}.xx"), order, strict=True
        )
        texts = [[bos, *((a, b) if first else (b, a)), eos] for a, b, first in sides]
    flat = np.concatenate([np.asarray(part) for text in texts for part in text])
    size = run.p.block_tokens
    if len(flat) < size:
        flat = np.tile(flat, -(-size // len(flat)))
    return flat[: len(flat) // size * size].reshape(-1, size)


def blocks(run: Run, kind: str, codes: Sequence[str], tokens: int, skip: int = 0) -> Rows:
    """Packed rows for `tokens`, each language the same share, from its block `skip` on; a short text comes again."""
    rows = []
    each = max(1, round(tokens / run.p.block_tokens / len(codes)))
    for code in codes:
        found = stream(run, kind, code)
        for i in range(skip, skip + each):
            ids = torch.from_numpy(found[i % len(found)])
            rows.append({"input_ids": ids, "labels": ids})
    return rows


def prompt(run: Run, direction: str, source: np.ndarray) -> list[int]:
    src, tgt = direction.split("-")
    frames = run.pack.frames(tgt if src == ENGLISH else src)
    before, after = frames[:2] if src == ENGLISH else frames[2:4]
    return [run.pack.index["bos"], *before, *source.tolist(), *after]


def with_shots(run: Run, direction: str, source: np.ndarray) -> list[int]:
    """Examples and the sentence, each side after its language's name."""
    src, tgt = direction.split("-")
    code = tgt if src == ENGLISH else src
    *_, other, english, blank, line = run.pack.frames(code)
    first, second = (english, other) if src == ENGLISH else (other, english)
    sides = ("en", "xx") if src == ENGLISH else ("xx", "en")
    shots = zip(*(run.pack.rows(f"shots.{code}.{side}")[:SHOTS] for side in sides), strict=True)
    ids = [run.pack.index["bos"]]
    for a, b in shots:
        ids += [*first, *a.tolist(), *line, *second, *b.tolist(), *blank]
    return [*ids, *first, *source.tolist(), *line, *second]


def both_ways(codes: Sequence[str]) -> list[str]:
    return [one for code in codes for one in (f"{ENGLISH}-{code}", f"{code}-{ENGLISH}")]


def sft_pairs(run: Run, code: str, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(run.pack.rows(f"sft.{code}.en")[:n], run.pack.rows(f"sft.{code}.xx")[:n], strict=True))


def prompted_rows(run: Run, codes: Sequence[str], n: int) -> Rows:
    """Prompted rows of `n` pairs of each language, both directions; those over max_length are left out."""
    rows, eos = [], run.pack.index["eos"]
    for code in codes:
        for a, b in sft_pairs(run, code, n):
            for direction, source, target in ((f"en-{code}", a, b), (f"{code}-en", b, a)):
                asked = prompt(run, direction, source)
                answer = [*target.tolist(), eos]
                if len(asked) + len(answer) <= run.p.max_length:
                    rows.append({"input_ids": asked + answer, "labels": [IGNORE] * len(asked) + answer})
    return rows


def test_segments(
    run: Run, name: str, direction: str, start: int, n: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(source, reference) of `n` segments of a test set from `start` on."""
    if name == "flores":
        sides = [run.pack.rows(f"flores.{code}") for code in direction.split("-")]
    else:
        sides = [run.pack.rows(f"{name}.{direction}.{side}") for side in ("src", "ref")]
    return list(zip(*sides, strict=True))[start : start + n]


def limit(run: Run, direction: str, source: np.ndarray) -> int:
    """Most new tokens of an answer: by how many the language takes for English, from SFT pairs, and half more."""
    src, tgt = direction.split("-")
    pairs = sft_pairs(run, tgt if src == ENGLISH else src, 200)
    english, other = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    ratio = other / english if src == ENGLISH else english / other
    return min(run.p.max_new_tokens, int(1.6 * ratio * len(source)) + 12)
