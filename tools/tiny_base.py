"""`make tiny-base`: the small pretrained base that the default run starts from, made anew.

Both papers begin from LLaMA-2, which has read much English and little of other languages. Profile `tiny-base` makes
such a base of the phrasebook: a tokenizer and a LLaMA of 2.5 M parameters (stage 0), text as the web has it, tokenised
once, and one training of all weights. What came out is in the package, with its card: `base=tiny-base` opens it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.base_files import SHIPPED
from xalma.corpora.phrasebook.phrasebook import Phrasebook
from xalma.corpora.registry import open_corpus
from xalma.data.blocks import prepared_blocks
from xalma.data.cleaning import Rules
from xalma.data.mixing import parse_shares
from xalma.data.prepare import prepare
from xalma.data.prepare_workers import processes
from xalma.evaluation.metrics import bits_per_byte
from xalma.files import new_directory, write_atomically, write_json
from xalma.languages import ENGLISH, language
from xalma.models.backbone import load_base, save_base
from xalma.profiles import Profile, load_profile
from xalma.runtime import home, provenance
from xalma.training.ladder import reference_nats
from xalma.training.stages import stage0_backbone, train_blocks

UNIQUE = 0.25  # tokens prepared for each token that is read: a language's text is read about four times
LEAST = 60_000  # tokens of a language
_HELD_OUT = 100  # dev phrases of each language that the card's bits per byte are measured on


def write_text(p: Profile, tokenizer: PreTrainedTokenizerBase, folder: Path, workers: int = 2) -> None:
    """Token files of English and all languages of `p` under `folder`, as much of each as its share of the budget needs.

    No rule reads meaning or languages here: a document in two languages is what it should be.
    """
    shares = parse_shares(p.mixing_shares)
    rules = Rules(language=None, near=False)
    for code in (ENGLISH, *p.languages):
        tokens = max(LEAST, round(UNIQUE * p.stage1_tokens * shares[code] / sum(shares.values())))
        prepare(
            open_corpus(p),
            folder,
            tokenizer,
            (code,),
            "monolingual",
            p.block_tokens,
            partial(processes, workers),
            rules=rules,
            seed=p.seed,
            limit=tokens,
        )


def train_base(
    p: Profile, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: Path, out: Path
) -> dict[str, Any]:
    """Train all weights of `model` on token files in `text`; returns steps, tokens of each language and the log."""
    steps = p.stage1_tokens // (p.stage1_batch_size * p.block_tokens)
    drawn = p.but(mixing_blocks=str(text)), tokenizer, 1, (ENGLISH, *p.languages), steps * p.stage1_batch_size
    return train_blocks(model, prepared_blocks(*drawn), tokenizer, p, 1, "tiny base", out)


def held_out_bits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, book: Phrasebook, codes: Sequence[str]
) -> dict[str, float]:
    """Bits per UTF-8 byte of held-out phrases of each language, from BOS on, their end not counted."""
    texts = {code: [row[0] for row in islice(book.iterate((code,), "dev"), _HELD_OUT)] for code in codes}
    nats = {
        code: reference_nats(model, tokenizer, [("", text) for text in own]) for code, own in texts.items()
    }
    return {code: bits_per_byte(nats[code], own) for code, own in texts.items()}


def ship(
    p: Profile,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    made: Mapping[str, Any],
    folder: Path,
) -> None:
    """Weights in bfloat16, tokenizer and card (README.md, card.json) into `folder`, whole or not at all."""
    with new_directory(folder) as out:
        save_base(model.to("cpu", torch.bfloat16), tokenizer, out)
        model, tokenizer = load_base(out)
        bits = held_out_bits(model, tokenizer, open_corpus(p).book, (ENGLISH, *p.languages))
        details = {key: made[key] for key in ("steps", "tokens_seen", "tokens_by_language", "seconds")}
        card = details | {
            "parameters": model.num_parameters(),
            "bits_per_byte": {c: round(b, 3) for c, b in bits.items()},
        }
        card |= {"profile": p.values(), "provenance": made.get("provenance") or provenance()}
        write_json(out / "card.json", card)
        write_atomically(out / "README.md", card_text(card))


def card_text(card: Mapping[str, Any]) -> str:
    """The card in words, from card.json."""
    made = card["provenance"]
    machine = made["hardware"]["gpu"] or f"{made['hardware']['cores']} cores ({made['hardware']['cpu']})"
    rows = [
        f"| {language(code).name} | {card['tokens_by_language'].get(code, 0):,} | {bits:.3f} |"
        for code, bits in card["bits_per_byte"].items()
    ]
    lines = (
        "# A tiny pretrained base",
        "",
        f"A LLaMA of {card['parameters']:,} parameters in bfloat16, made by the functions of `make tiny-base` "
        f"(profile `tiny-base`): "
        f"{card['steps']:,} updates on {card['tokens_seen']:,} tokens, {card['seconds'] / 60:.1f} minutes on "
        f"{machine}, seed {card['profile']['seed']}, torch {made['versions']['torch']}, commit {made['commit'][:10]}.",
        "",
        "It has read phrases of the Unicode CLDR (`data_cards/cldr.md`; Unicode licence) in 50 languages, most of them "
        "English, with a small share of documents in two languages (`xalma/corpora/phrasebook/corpus.py`, "
        "`WebCorpus`). It stands "
        "in for LLaMA-2, from which both papers begin, and knows nothing but such phrases.",
        "",
        f"Bits per byte of {_HELD_OUT} held-out phrases of each language:",
        "",
        "| language | tokens read | bits per byte |",
        "| --- | ---: | ---: |",
        *rows,
    )
    return "\n".join(lines) + "\n"


def make_tiny_base() -> None:
    """`make tiny-base`: everything anew, into the package's own folder."""
    p = load_profile("tiny-base")
    model, tokenizer = load_base(stage0_backbone(p))
    text = home() / p.run_dir / p.name / "text"
    write_text(p, tokenizer, text)
    made = train_base(p, model, tokenizer, text, home() / p.run_dir / p.name / "training")
    ship(p, model, tokenizer, made | {"seconds": made["log"][-1]["seconds"]}, SHIPPED)


if __name__ == "__main__":
    make_tiny_base()
