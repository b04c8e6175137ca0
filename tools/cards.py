"""The measured blocks of the data cards, and results/corpora: `make cards` fills them anew, in three minutes.

The prose of a card is written by hand in data_cards/; between `<!-- measured:start -->` and `<!-- measured:end -->`
(in cldr.md blocks of other names) stands what is measured here from the data at hand. Corpora that are not here have no
table. A card holds no date and no timing, so a test can compare the committed file with a fresh one.

Notebooks 01 and 02 read how much text each language has (`results/corpora/sizes.csv`) and how alike languages look in
the same news (`likeness.csv`), on a machine without the text too.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import babel
import pandas as pd
from babel.core import get_cldr_version

from xalma.corpora.base import Corpus, Row, data_folder
from xalma.corpora.phrasebook.cldr import LOCALES, speaker
from xalma.corpora.phrasebook.draws import CANDIDATES, dropped_entries
from xalma.corpora.phrasebook.phrasebook import HELD_OUT, SCANNED, SPLITS, Phrasebook
from xalma.corpora.registry import open_corpus
from xalma.data.cleaning import CleaningReport, Rules, clean
from xalma.files import write_atomically
from xalma.language_id import own_letters
from xalma.languages import ENGLISH, LANGUAGES, language
from xalma.paper.corpus_statistics import SIZES
from xalma.paper.language_similarity import LIKENESS, MEASURES, SENTENCES, similarity_matrix
from xalma.paper.tables import markdown_grid, write_table
from xalma.profiles import load_profile
from xalma.progress import progress
from xalma.runtime import REPOSITORY, data_root
from xalma.text_files import read_lines

COMPRESSED_LINES = 300  # sentences of each language the compressor reads; 30 s for all pairs
SAMPLE = 200  # rows per language that are checked
_ALL = 10**9  # no cut
# card -> corpus, where the text is under XALMA_DATA
MEASURED = {name: name for name in ("ntrex", "bibles", "mozilla", "udhr", "wmt", "wmt24", "wmt24pp")} | {
    "alma-human-parallel": "alma_as_released",
    "flores-200": "flores",
}
# corpora whose training text is measured; FLORES-200 and what is held out for tests are in none of them, and ALMA's
# pairs are in WMT
SIZED = ("ntrex", "bibles", "mozilla", "udhr", "wmt")
_WORDS = ("language", "group", "dropped")  # columns that are no sizes


def open_whole(name: str) -> Corpus:
    """The corpus, seed 0, none of its parts cut short."""
    return open_corpus(load_profile("full", corpus=name, sft_pairs=_ALL, dev_pairs=_ALL, test_pairs=_ALL))


def measured_row(corpus: Corpus, lang: str) -> dict[str, Any]:
    """Documents, characters and pairs of one language, and what hygiene drops of its first SAMPLE pairs."""
    texts = list(corpus.monolingual(lang))
    bitext = list(corpus.bitext(lang))
    parts = {"bitext": bitext, "sft": corpus.sft(lang), "dev": corpus.dev(lang), "test": corpus.test(lang)}
    report = CleaningReport()
    list(clean(_sample(parts, lang), lang, Rules(), report))
    dropped = ", ".join(f"{reason} {n}" for reason, n in report.as_dict()["dropped"].items()) or "none"
    return {
        "language": lang,
        "group": language(lang).group,
        "documents": len(texts),
        "characters": sum(map(len, texts)),
        **{f"{name} pairs": len(pairs) for name, pairs in parts.items()},
        "dropped": dropped,
    }


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
    texts = list(corpus.monolingual(lang))
    kind = "monolingual"
    if not texts:
        codes = corpus.languages() if lang == ENGLISH else (lang,)
        sides = [pair[lang != ENGLISH] for code in codes for pair in corpus.sft(code)]
        texts = list(dict.fromkeys(sides))
        kind = "side of SFT pairs"
    return {
        "corpus": name,
        "language": lang,
        "group": language(lang).group,
        "text": kind,
        "rows": sum(text.count("\n") + 1 for text in texts),
        "characters": sum(map(len, texts)),
        "bytes": sum(len(text.encode()) for text in texts),
    }


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
    made = "Made by `make cards` from the text under XALMA_DATA, seed 0"
    note = f"{made}. Fingerprints: {texts}."
    return write_table(measured_sizes(), SIZES, "Training text of each language, by corpus", note)


def card_path(name: str) -> Path:
    """Where a card lies."""
    return REPOSITORY / "data_cards" / f"{name}.md"


# --- the phrasebook's card ----------------------------------------------------------------------------

MEASURED_SENTENCES = 1_000  # bitext sentences of a language behind each measured mean
CHECKED = 500  # sentences of each training split compared with all held-out ones
SHOWN = ("de", "ru", "zh", "ja", "ko", "th", "hi", "ka", "el", "ar", "he", "mg")
TRAINING = tuple(split for split in SPLITS if split not in HELD_OUT)


def _measured(book: Phrasebook) -> pd.DataFrame:
    items = book.dice().items
    rows = {}
    for lang in LANGUAGES:
        sentences = book.sentences(lang, "bitext", MEASURED_SENTENCES)
        test, dev = (book.held_out(lang, split) for split in HELD_OUT)
        seen = {s for split in TRAINING for s in book.sentences(lang, split, CHECKED)}
        names = [{speaker(lang).say((k, (i,))) for i in items[k]} for k in ("countries", "languages")]
        rows[lang] = {
            "name": LANGUAGES[lang].name,
            "test": len(test),
            "dev": len(dev - test),
            "distinct": len(set(sentences)),
            "characters": sum(map(len, sentences)) / MEASURED_SENTENCES,
            "words": sum(len(text.split()) for text in sentences) / MEASURED_SENTENCES,
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
    text = card.read_text(encoding="utf-8")
    book = Phrasebook()
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
        "sizes": f"`distinct`, `characters`, `words` (between spaces): first {MEASURED_SENTENCES:,} bitext sentences;\n"
        "`test` and `dev`: sentences; `names shared`: names that a country and a language share.\n\n"
        + measured.drop(columns="in training").to_markdown(floatfmt=".1f"),
        "samples": _samples(book),
        "gaps": f"- One word for a country and a language, capitals included: {homonyms}.",
    }
    for name, block in blocks.items():
        before, after = around_block(card, text, name)
        text = f"{before}{block}\n{after}"
    return text


# --- how alike languages look -------------------------------------------------------------------------


def compression_matrix(texts: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """1 - normalised compression distance (Li et al. 2004) of each two languages, clipped to 0..1; 1 on the diagonal.

    NCD = (C(xy) - min(C(x), C(y))) / max(C(x), C(y)), C the bytes LZMA needs; the first COMPRESSED_LINES of each.
    """
    codes = [code for code in LANGUAGES if code in texts]
    data = {code: "\n".join(texts[code][:COMPRESSED_LINES]).encode() for code in codes}
    alone = {code: _compressed(text) for code, text in data.items()}
    matrix = pd.DataFrame(1.0, index=codes, columns=codes)
    with progress(len(codes) * (len(codes) - 1) // 2, "compression") as bar:
        for a, b in combinations(codes, 2):
            low, high = sorted((alone[a], alone[b]))
            distance = (_compressed(data[a] + data[b]) - low) / high
            matrix.loc[a, b] = matrix.loc[b, a] = min(1.0, max(0.0, 1 - distance))
            bar.update()
    return matrix


def _compressed(data: bytes) -> int:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]  # named, and without the container's checksum
    return len(lzma.compress(data, lzma.FORMAT_RAW, filters=filters))


def measured_likeness() -> pd.DataFrame:
    """Both measures of each two of the 49 languages on NTREX-128: columns a, b and one for each of MEASURES.

    Raises FileNotFoundError where XALMA_DATA has no ntrex/.
    """
    folder = data_folder("ntrex", "NTREX-128")
    texts = {code: _words(read_lines(folder / f"{code}.txt"), code) for code in LANGUAGES if code != ENGLISH}
    found = {"trigrams": similarity_matrix(texts), "compression": compression_matrix(texts)}
    pairs = pd.DataFrame(combinations(texts, 2), columns=["a", "b"])
    return pairs.assign(**{name: [m.loc[a, b] for a, b in pairs.to_numpy()] for name, m in found.items()})


def _words(lines: Iterable[str], code: str) -> list[str]:
    """The words of the language's own script: a Latin name in Thai news does not make Thai look like Italian."""
    return [" ".join(own_letters(line, code).split()) for line in lines]


def write_likeness() -> list[Path]:
    """Writes results/corpora/likeness.csv and .md."""
    note = (
        "Made by `make cards` from NTREX-128, letters of a language's own script. "
        "trigrams: "
        f"{MEASURES['trigrams']}, {SENTENCES:,} sentences; "
        f"compression: {MEASURES['compression']}, LZMA, the first {COMPRESSED_LINES}."
    )
    return write_table(
        measured_likeness(), LIKENESS, "How alike two languages look in the same news", note, decimals=4
    )


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
