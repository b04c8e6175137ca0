"""Data cards as the Hugging Face writes them: `python -m xalma.paper.phrasebook_card` measures what it can.

The CLDR phrasebook's card is made whole; in the others the prose is written by hand (`corpus_cards`).

A card holds no date and no timing, so a test can compare the committed file with a fresh one.
"""

from __future__ import annotations

from itertools import combinations

import babel
import pandas as pd
from babel.core import get_cldr_version

from xalma.corpora.phrasebook.cldr import LOCALES, speaker
from xalma.corpora.phrasebook.draws import CANDIDATES, dropped_entries
from xalma.corpora.phrasebook.phrasebook import HELD_OUT, SCANNED, SPLITS, Phrasebook
from xalma.files import write_atomically
from xalma.languages import LANGUAGES
from xalma.paper.corpus_cards import MEASURED, card_path, refreshed_card, write_sizes
from xalma.paper.language_similarity import write_likeness
from xalma.runtime import data_root

_SAMPLE = 1_000  # bitext sentences of a language behind each measured mean
CHECKED = 500  # sentences of each training split compared with all held-out ones
SHOWN = ("de", "ru", "zh", "ja", "ko", "th", "hi", "ka", "el", "ar", "he", "mg")
TRAINING = tuple(split for split in SPLITS if split not in HELD_OUT)

_HEAD = """\
---
pretty_name: xalma CLDR phrasebook
language:
{languages}
license: other
license_name: unicode-3.0
license_link: https://www.unicode.org/license.txt
multilinguality:
- translation
task_categories:
- translation
source_datasets:
- original
tags:
- cldr
- synthetic
---

# The CLDR phrasebook

Short phrases in 50 languages, parallel in all of them, made on the fly by `xalma.corpora.phrasebook.phrasebook` from
the Unicode CLDR {cldr} as Babel {babel} ships it. It replaces the papers' corpora in the default
run, which downloads nothing. This file is written by `python -m xalma.paper.phrasebook_card`; every number in it is
measured, with the default sizes and seed 0.

**Not for** judging real translation quality: the phrases name dates, spans of time, countries,
languages, amounts and measures, and nothing else. There is no running text, no verb, no ambiguity
beyond the names.
"""

_METHOD = """\
## How a phrase is made

1. A *draw* is language-neutral, such as *5 days ago: Germany, France, Japan*. About 5 % are one
   part, 80 % two ("A: B", "A (B)"), 15 % three ("A: B (C)"). Numbers run from 1 to 999, spans to
   30, dates from 1950 to 2049. These choices and the shares of the splits are ours.
2. The language's own CLDR data say each part: full date, time, relative time, list pattern with its
   conjunction, unit, currency name, all in the plural form that the CLDR's rule asks for.
3. Joining two parts is our rule, not the CLDR's: a colon or parentheses, full-width in Chinese and
   Japanese, with a space before the colon in French. The comma inside a list is the CLDR's.

Everywhere: digits are Latin and the calendar Gregorian, also where the language's default differs
(Arabic, Persian, Marathi, Nepali digits; Thai and Persian calendars). Text is NFC; bidi marks are
stripped; no-break and narrow spaces are plain spaces; the zero-width joiner and non-joiner stay,
being spelling. Two rules that ICU applies and the patterns lack are added: Spanish *y* becomes *e*
before an *i* sound, Hebrew *ו* takes a hyphen before a digit.

**No fallbacks.** Where a language has no value of its own, Babel's formatting answers with a code
or a root value ("-5 d"). We read the locale's own files without `root` and drop the phrase type for
that language, or the item for all. Kept is what the CLDR itself inherits inside a language: the
short form of a unit without a long one (unless it is the international symbol), a currency's
"other" form and then its name, and root's bare punctuation ("{0}, {1}").
Locales: the two-letter code, except """


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
    found = measured["in training"].sum()
    english = {split: set(book.sentences("en", split, CHECKED)) for split in SPLITS}
    shared = sum(len(english[a] & english[b]) for a, b in combinations(SPLITS, 2))
    return (
        "\n".join(rows)
        + f"""

A hash of the draw's content chooses the split, so the splits' draws are disjoint, whatever languages
and seed are asked for; test and dev are what falls to them in the first {SCANNED:,}
draws. Training also leaves out each draw that would *sound* like a test or dev sentence of an asked
language. Test and dev repeat no sentence; training may.

Checked here: of all test and dev sentences of all 50 languages, {found} occur among the first
{CHECKED:,} sentences of each training split of that language; and any two of the {len(SPLITS)}
splits' first {CHECKED:,} English sentences have {shared} in common.
"""
    )


def _samples(book: Phrasebook) -> str:
    rows = book.parallel(("en", *(lang for lang in SHOWN if lang != "mg")), "bitext", 3)
    blocks = ["\n".join(f"- {lang}: {text}" for lang, text in row.items()) for row in rows]
    pairs = "\n".join(f"- {en} = {mg}" for en, mg in book.pairs("mg", "bitext", 3))
    return "\n\n".join(blocks) + "\n\nMalagasy, which can say fewer draws:\n\n" + pairs


def _gaps(measured: pd.DataFrame) -> str:
    shared = measured["names shared"]
    homonyms = ", ".join(f"{lang} {n}" for lang, n in shared[shared > 0].items())
    return f"""\
## Known gaps

- One word for a country and a language, capitals included: {homonyms}.
  Nothing in a short phrase decides between them, so a perfect score from these into English is out
  of reach.
- Phrases are joined, not inflected together: names stand in the nominative. A sentence starts with
  a small letter where its first word does.
- The CLDR has its own slips, and they are kept: Malagasy has one word, *Soisa*, for Switzerland
  and Swedish. Names with brackets or with letters of another script are dropped (see above).
- Kazakh and Japanese lists have a comma instead of a conjunction: so says the CLDR.
- "Country" follows the CLDR's territories, without any view on their status.

## What we do not know

- A missing plural form of a currency may be inherited on purpose or never have been collected;
  Babel's data don't tell. We read samples of every language, without speaking most of them.
- How often the CLDR's contributors vetted each value: Babel keeps no draft status.
- No native speaker has looked at the joined phrases.
- The order of the candidates (well-known first) is our judgement.
"""


def phrasebook_card() -> str:
    """The text of data_cards/cldr.md, measured on the default Phrasebook (some seconds)."""
    book = Phrasebook()
    measured = _measured(book)
    head = _HEAD.format(
        languages="\n".join(f"- '{lang}'" for lang in LANGUAGES),  # quoted: YAML's no is false
        cldr=get_cldr_version(),
        babel=babel.__version__,
    )
    method = _METHOD + ", ".join(f"{lang} = `{locale}`" for lang, locale in LOCALES.items()) + "."
    table = measured.drop(columns="in training").to_markdown(floatfmt=".1f")
    parts = [
        head,
        method,
        "## Inventories",
        _inventories(book),
        "## Coverage",
        _coverage(book),
        "## Splits",
        _splits(book, measured),
        "## Sizes",
        f"`distinct`, `characters`, `words` (between spaces): first {_SAMPLE:,} bitext sentences;\n"
        "`test` and `dev`: sentences; `names shared`: names that a country and a language share.",
        table,
        "## Samples",
        _samples(book),
        _gaps(measured),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def write_cards() -> None:
    """Writes data_cards/cldr.md, and, with text under XALMA_DATA, the measured part of its cards, and results/corpora.

    It takes three minutes.
    """
    print(write_atomically(card_path("cldr"), phrasebook_card()))
    for name, corpus in MEASURED.items() if data_root() else ():
        print(write_atomically(card_path(name), refreshed_card(card_path(name))), f"from {corpus}")
    for path in (*write_sizes(), *write_likeness()) if data_root() else ():
        print(path)


if __name__ == "__main__":
    write_cards()
