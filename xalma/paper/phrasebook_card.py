"""The measured blocks of data_cards/cldr.md: `python -m xalma.paper.phrasebook_card`, which fills all cards anew.

A card holds no date and no timing, so a test can compare the committed file with a fresh one.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import babel
import pandas as pd
from babel.core import get_cldr_version

from xalma.corpora.phrasebook.cldr import LOCALES, speaker
from xalma.corpora.phrasebook.draws import CANDIDATES, dropped_entries
from xalma.corpora.phrasebook.phrasebook import HELD_OUT, SCANNED, SPLITS, Phrasebook
from xalma.files import write_atomically
from xalma.languages import LANGUAGES
from xalma.paper.corpus_cards import MEASURED, around_block, card_path, refreshed_card, write_sizes
from xalma.paper.language_similarity import write_likeness
from xalma.runtime import data_root

_SAMPLE = 1_000  # bitext sentences of a language behind each measured mean
CHECKED = 500  # sentences of each training split compared with all held-out ones
SHOWN = ("de", "ru", "zh", "ja", "ko", "th", "hi", "ka", "el", "ar", "he", "mg")
TRAINING = tuple(split for split in SPLITS if split not in HELD_OUT)


def _measured(book: Phrasebook) -> pd.DataFrame:
    items = book.dice().items
    rows = {}
    for lang in LANGUAGES:
        sentences = book.sentences(lang, "bitext", _SAMPLE)
        test, dev = (book.held_out(lang, split) for split in HELD_OUT)
        seen = {s for split in TRAINING for s in book.sentences(lang, split, CHECKED)}
        names = [{speaker(lang).say((k, (i,))) for i in items[k]} for k in ("countries", "languages")]
        rows[lang] = {
            "name": LANGUAGES[lang].name,
            "test": len(test),
            "dev": len(dev - test),
            "distinct": len(set(sentences)),
            "characters": sum(map(len, sentences)) / _SAMPLE,
            "words": sum(len(text.split()) for text in sentences) / _SAMPLE,
            "in training": len((test | dev) & seen),
            "names shared": len(names[0] & names[1]),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("language")


def _inventories(book: Phrasebook) -> str:
    lines = ["| inventory | used | available | candidates | dropped |", "|---|---|---|---|---|"]
    for kind, used in book.dice().items.items():
        gone = dropped_entries(kind)
        why = "; ".join(f"{item} ({reason})" for item, reason in gone.items()) or "none"
        total = len(CANDIDATES[kind])
        lines.append(f"| {kind} | {len(used)} | {total - len(gone)} | {total} | {why} |")
    used = "\n".join(f"- {kind}: {' '.join(items)}" for kind, items in book.dice().items.items())
    return "\n".join(lines) + "\n\nUsed, in this order:\n\n" + used


def _coverage(book: Phrasebook) -> str:
    table = book.coverage()
    types = [column for column in table if column != "missing"]
    full = [lang for lang, row in table.iterrows() if all(row[types])]
    marks = table[types].map(lambda can: "yes" if can else "–")
    partial = "\n".join(f"- **{lang}**: {why}" for lang, why in table["missing"].items() if why)
    return (
        f"{len(full)} of {len(table)} languages can say every type; the others:\n\n{partial}\n\n"
        f"<details><summary>the whole matrix</summary>\n\n{marks.to_markdown()}\n\n</details>"
    )


def _splits(book: Phrasebook, measured: pd.DataFrame) -> str:
    rows = ["| split | share of draws | size |", "|---|---|---|"]
    for split, share in SPLITS.items():
        held_out = split in HELD_OUT and f"{measured[split].min():,} to {measured[split].max():,}"
        rows.append(f"| {split} | {share:.0%} | {held_out or 'endless'} |")
    english = {split: set(book.sentences("en", split, CHECKED)) for split in SPLITS}
    shared = sum(len(english[a] & english[b]) for a, b in combinations(SPLITS, 2))
    seen = measured["in training"].sum()
    checked = (
        f"Test and dev are what falls to them in the first {SCANNED:,} draws. Of all test and dev sentences of all 50 "
        f"languages, {seen} occur among the first {CHECKED:,} sentences of each training split of that language; any "
        f"two of the {len(SPLITS)} splits' first {CHECKED:,} English sentences have {shared} in common."
    )
    return "\n".join([*rows, "", checked])


def _samples(book: Phrasebook) -> str:
    rows = book.parallel(("en", *(lang for lang in SHOWN if lang != "mg")), "bitext", 3)
    blocks = ["\n".join(f"- {lang}: {text}" for lang, text in row.items()) for row in rows]
    pairs = "\n".join(f"- {en} = {mg}" for en, mg in book.pairs("mg", "bitext", 3))
    return "\n\n".join(blocks) + "\n\nMalagasy, which can say fewer draws:\n\n" + pairs


def phrasebook_card(card: Path) -> str:
    """The card's text with its blocks filled anew, measured on the default Phrasebook (some seconds)."""
    text, book = card.read_text(encoding="utf-8"), Phrasebook()
    measured = _measured(book)
    locales = ", ".join(f"{lang} = `{locale}`" for lang, locale in LOCALES.items())
    shared = measured["names shared"]
    homonyms = ", ".join(f"{lang} {n}" for lang, n in shared[shared > 0].items())
    blocks = {
        "source": f"Unicode CLDR {get_cldr_version()} as Babel {babel.__version__} ships it.",
        "locales": f"Locales: the two-letter code, except {locales}.",
        "inventories": _inventories(book),
        "coverage": _coverage(book),
        "splits": _splits(book, measured),
        "sizes": f"`distinct`, `characters`, `words` (between spaces): first {_SAMPLE:,} bitext sentences;\n"
        "`test` and `dev`: sentences; `names shared`: names that a country and a language share.\n\n"
        + measured.drop(columns="in training").to_markdown(floatfmt=".1f"),
        "samples": _samples(book),
        "gaps": f"- One word for a country and a language, capitals included: {homonyms}.",
    }
    for name, block in blocks.items():
        before, after = around_block(card, text, name)
        text = f"{before}{block}\n{after}"
    return text


def write_cards() -> None:
    """Fills data_cards/cldr.md, and, with text under XALMA_DATA, the measured part of its cards, and results/corpora.

    It takes three minutes.
    """
    card = card_path("cldr")
    print(write_atomically(card, phrasebook_card(card)))
    for name, corpus in MEASURED.items() if data_root() else ():
        print(write_atomically(card_path(name), refreshed_card(card_path(name))), f"from {corpus}")
    for path in (*write_sizes(), *write_likeness()) if data_root() else ():
        print(path)


if __name__ == "__main__":
    write_cards()
