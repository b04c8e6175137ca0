"""`make tiny-base`: the small pretrained base that the default run starts from, made anew.

Both papers begin from LLaMA-2, which has read much English and little of other languages. Profile `tiny-base` makes
such a base of the phrasebook: a tokenizer and a LLaMA of 2.5 M parameters (stage 0), text as the web has it, tokenised
once, and one training of all weights.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.data import open_corpus
from xalma.engines import processes
from xalma.hygiene import Rules
from xalma.languages import ENGLISH
from xalma.mixing import parse_shares
from xalma.packing import prepare
from xalma.profiles import Profile
from xalma.stages import train_blocks
from xalma.streams import MixedBlocks, prepared_blocks

UNIQUE = 0.25  # tokens prepared for each token that is read: a language's text is read about four times
LEAST = 60_000  # tokens of a language


def write_text(p: Profile, tokenizer: PreTrainedTokenizerBase, folder: Path, workers: int = 2) -> None:
    """Token files of English and all languages of `p` under `folder`, as much of each as its share of the budget needs.

    No rule reads meaning or languages here: a document in two languages is what it should be.
    """
    shares, rules = parse_shares(p.mixing_shares), Rules(language=None, near=False)
    for code in (ENGLISH, *p.languages):
        tokens = max(LEAST, round(UNIQUE * p.stage1_tokens * shares[code] / sum(shares.values())))
        prepare(
            open_corpus(p), folder, tokenizer, (code,), "monolingual", p.block_tokens, partial(processes, workers),
            rules=rules, seed=p.seed, limit=tokens,
        )  # fmt: skip


def text_blocks(p: Profile, tokenizer: PreTrainedTokenizerBase, folder: Path) -> MixedBlocks:
    """The blocks of one training, drawn from the token files with the profile's shares."""
    steps = p.stage1_tokens // (p.stage1_batch_size * p.block_tokens)
    languages = (ENGLISH, *p.languages)
    return prepared_blocks(p.but(mixing_blocks=str(folder)), tokenizer, 1, languages, steps * p.stage1_batch_size)


def train_base(
    p: Profile, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: Path, out: Path
) -> dict[str, Any]:
    """Train all weights of `model` on the text in `text`; returns steps, tokens of each language and the log."""
    return train_blocks(model, text_blocks(p, tokenizer, text), tokenizer, p, 1, "tiny base", out)
