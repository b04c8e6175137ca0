"""The measured part of a corpus's data card: what each language has, and what hygiene says of a sample of it.

The prose of a card is written by hand in data_cards/; between `<!-- measured:start -->` and `<!-- measured:end -->`
(in cldr.md blocks of other names) stands what `python -m xalma.paper.phrasebook_card` makes from the data at hand.
Corpora that are not here have no table.

The same command measures how much text each language has, in all corpora (`results/corpora/sizes.csv`): notebook 01
shows from it what sampling rules do, on a machine without the text too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.corpora.base import Corpus, Row
from xalma.corpora.registry import open_corpus
from xalma.data.cleaning import CleaningReport, Rules, clean
from xalma.languages import ENGLISH, language
from xalma.paper.tables import markdown_grid, write_table
from xalma.profiles import load_profile
from xalma.progress import progress
from xalma.runtime import REPOSITORY

SAMPLE = 200  # rows per language that are checked
_ALL = 10**9  # no cut
# card -> corpus, where the text is under XALMA_DATA
MEASURED = {name: name for name in ("ntrex", "bibles", "mozilla", "udhr", "wmt", "wmt24", "wmt24pp")} | {
    "alma-human-parallel": "alma_as_released", "flores-200": "flores"
}  # fmt: skip
# corpora whose training text is measured; FLORES-200 and what is held out for tests are in none of them, and ALMA's
# pairs are in WMT
SIZED = ("ntrex", "bibles", "mozilla", "udhr", "wmt")
SIZES = REPOSITORY / "results" / "corpora" / "sizes"
_WORDS = ("language", "group", "dropped")  # columns that are no sizes


def open_whole(name: str) -> Corpus:
    """The corpus, seed 0, none of its parts cut short."""
    return open_corpus(load_profile("full", corpus=name, sft_pairs=_ALL, dev_pairs=_ALL, test_pairs=_ALL))


def measured_row(corpus: Corpus, lang: str) -> dict[str, Any]:
    """Documents, characters and pairs of one language, and what hygiene drops of its first SAMPLE pairs."""
    texts, bitext = list(corpus.monolingual(lang)), list(corpus.bitext(lang))
    parts = {"bitext": bitext, "sft": corpus.sft(lang), "dev": corpus.dev(lang), "test": corpus.test(lang)}
    report = CleaningReport()
    list(clean(_sample(parts, lang), lang, Rules(), report))
    dropped = ", ".join(f"{reason} {n}" for reason, n in report.as_dict()["dropped"].items()) or "none"
    return {
        "language": lang, "group": language(lang).group, "documents": len(texts), "characters": sum(map(len, texts)),
        **{f"{name} pairs": len(pairs) for name, pairs in parts.items()}, "dropped": dropped,
    }  # fmt: skip


def _sample(parts: dict[str, list], lang: str) -> Iterator[Row]:
    pairs = next((pairs for pairs in parts.values() if pairs), [])
    return ((f"{lang}:{n}", pair) for n, pair in enumerate(islice(pairs, SAMPLE), 1))


def measured_block(name: str) -> str:
    """The table of a corpus as Markdown: a row per language; columns of nothing but zeros are left out."""
    corpus = open_whole(name)
    rows = [measured_row(corpus, lang) for lang in corpus.languages()]
    return as_lines(rows)


def as_lines(rows: list[dict[str, Any]]) -> str:
    """Markdown of measured rows, one line per language."""
    sizes = [name for name in rows[0] if name not in _WORDS and any(row[name] for row in rows)]
    names = ["language", "group", *sizes, f"dropped of {SAMPLE}"]
    cells = [
        [row["language"], str(row["group"]), *(f"{row[name]:,}" for name in sizes), row["dropped"]]
        for row in rows
    ]
    return markdown_grid((names, ["---"] * len(names), *cells))


def refreshed_card(card: Path) -> str:
    """The card's text with its measured block filled anew. Raises ValueError where the markers are missing."""
    text = card.read_text(encoding="utf-8")
    before, after = around_block(card, text, "measured")
    return f"{before}{measured_block(MEASURED[card.stem])}\n{after}"


def around_block(card: Path, text: str, name: str) -> tuple[str, str]:
    """What stands before and after a card's block, markers included. Raises ValueError where these are missing."""
    start, end = f"<!-- {name}:start -->\n", f"<!-- {name}:end -->"
    before, starts, rest = text.partition(start)
    _, ends, after = rest.partition(end)
    if not (starts and ends):
        raise ValueError(f"{card} has no {name} block: put {start.strip()} and {end} in it")
    return before + start, end + after


def size_row(corpus: Corpus, name: str, lang: str) -> dict[str, Any]:
    """Lines, characters and UTF-8 bytes of a language's training text in a corpus: running text, or a side of pairs."""
    texts, kind = list(corpus.monolingual(lang)), "monolingual"
    if not texts:
        codes = corpus.languages() if lang == ENGLISH else (lang,)
        sides = [pair[lang != ENGLISH] for code in codes for pair in corpus.sft(code)]
        texts, kind = list(dict.fromkeys(sides)), "side of SFT pairs"
    return {
        "corpus": name, "language": lang, "group": language(lang).group, "text": kind,
        "rows": sum(text.count("\n") + 1 for text in texts), "characters": sum(map(len, texts)),
        "bytes": sum(len(text.encode()) for text in texts),
    }  # fmt: skip


def measured_sizes() -> pd.DataFrame:
    """`size_row` of every language with text, in every corpus of SIZED."""
    corpora = {name: open_whole(name) for name in SIZED}
    wanted = [(name, lang) for name, corpus in corpora.items() for lang in (ENGLISH, *corpus.languages())]
    rows = []
    with progress(len(wanted), "sizes") as bar:
        for name, lang in wanted:
            rows.append(size_row(corpora[name], name, lang))
            bar.update(1, f"{name} {lang}")
    return pd.DataFrame([row for row in rows if row["rows"]])


def write_sizes() -> list[Path]:
    """Writes results/corpora/sizes.csv and .md, with the command and the texts' fingerprints."""
    texts = ", ".join(f"{name} `{open_whole(name).fingerprint()}`" for name in SIZED)
    made = "Made by `python -m xalma.paper.phrasebook_card` from the text under XALMA_DATA, seed 0"
    note = f"{made}. Fingerprints: {texts}."
    return write_table(measured_sizes(), SIZES, "Training text of each language, by corpus", note)


def card_path(name: str) -> Path:
    """Where a card lies."""
    return REPOSITORY / "data_cards" / f"{name}.md"
