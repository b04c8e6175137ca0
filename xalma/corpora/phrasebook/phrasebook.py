"""The embedded corpus: phrases drawn once, without a language, then said in each of the 50.

It takes the place of the papers' corpora (X-ALMA: OSCAR-2301, NLLB and OPUS, FLORES-200, NTREX and
WMT), none of which can be embedded. It is endless, parallel in all languages at once, vetted by
the CLDR's contributors and deterministic; but it is no running text, only short phrases
(`xalma.corpora.phrasebook.draws`) in the CLDR's words (`xalma.corpora.phrasebook.cldr`). Coverage and gaps:
`data_cards/cldr.md`.

Splits: a hash of a draw's content chooses its split, whatever seed and languages are asked for: what a base has read
with one seed holds no test sentence of another.
"test" and "dev" are finite: their draws among the first SCANNED. The other splits are endless and
leave out whatever sounds, in an asked language, like a test or dev sentence of that language;
different draws can sound alike (Thai has one word for Thailand and Thai).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice

import pandas as pd

from xalma.corpora.phrasebook.cldr import Gap, Part, speaker
from xalma.corpora.phrasebook.draws import LAST_SPAN, SPANS, Dice, Draw, say
from xalma.languages import LANGUAGES, language

# Shares of all draws and the size of the scan are our choice: room for about 5,000 test sentences.
SPLITS = {"test": 0.05, "dev": 0.03, "sft": 0.12, "bitext": 0.40, "monolingual": 0.40}
HELD_OUT = ("test", "dev")
SCANNED = 100_000  # draws


@dataclass(frozen=True)
class Phrasebook:
    """The corpus for given inventory sizes, longest list and seed.

    Raises ValueError for a size that not all 50 languages can name.
    """

    n_countries: int = 40
    n_languages: int = 30
    n_currencies: int = 10
    n_units: int = 12
    max_list: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        self.dice()  # checks the sizes

    def dice(self) -> Dice:
        """A fresh stream of this phrasebook's draws."""
        sizes = {
            "countries": self.n_countries,
            "languages": self.n_languages,
            "currencies": self.n_currencies,
            "units": self.n_units,
        }
        return Dice(sizes, self.max_list, self.seed)

    @property
    def _pool(self) -> _Pool:
        return _pool(self)

    def pairs(self, lang: str, split: str, n: int) -> list[tuple[str, str]]:
        """The first `n` (English, `lang`) pairs of `split`.

        Raises ValueError as `parallel`.
        """
        if lang == "en":
            raise ValueError("English has no pair with itself: pass one of the other 49 languages")
        return self._rows(("en", lang), split, n)

    def sentences(self, lang: str, split: str, n: int) -> list[str]:
        """The first `n` sentences of `split` in one language.

        Raises ValueError as `parallel`.
        """
        return [row[0] for row in self._rows((lang,), split, n)]

    def parallel(self, langs: Sequence[str], split: str, n: int) -> list[dict[str, str]]:
        """The first `n` sentences of `split` in all of `langs`: the draws that each of them can say.

        Raises ValueError for an unknown language or split, a negative number, and for more test or
        dev sentences than there are.
        """
        rows = self._rows(tuple(langs), split, n)
        return [dict(zip(langs, row, strict=True)) for row in rows]

    def held_out(self, lang: str, split: str) -> frozenset[str]:
        """Every sentence of `lang` in "test" or "dev": what no training split says in `lang`.

        Raises ValueError for an unknown language and for an endless split.
        """
        if split not in HELD_OUT:
            raise ValueError(f"{split!r} isn't held out: only {' and '.join(HELD_OUT)} are")
        return self._pool.sounds(language(lang).code, split)

    def iterate(
        self, langs: tuple[str, ...], split: str, styles: Sequence[str] = ("full",)
    ) -> Iterator[tuple[str, ...]]:
        """Sentences in all of `langs`, a row at a time, in the order of `parallel`; endless for training splits.

        styles: names of CLDR styles ("full", "long", …; `xalma.corpora.phrasebook.cldr`), taken in turn, one per row.
        """
        yield from self._pool.rows(langs, split, styles)

    def drawn(self, langs: tuple[str, ...], split: str) -> Iterator[tuple[Draw, tuple[str, ...]]]:
        """The rows of `iterate` in full style, each with what it is about, so that it can be said in other styles."""
        yield from self._pool.drawn(langs, split)

    def _rows(self, langs: tuple[str, ...], split: str, n: int) -> list[tuple]:
        for lang in langs:
            language(lang)
        if not langs:
            raise ValueError("no language asked for: pass at least one of the 50 codes")
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
        if n < 0:
            raise ValueError(f"n={n} counts sentences and can't be negative")
        rows = list(islice(self._pool.rows(langs, split), n))
        if len(rows) < n:
            exist = sum(1 for _ in self._pool.rows(langs, split))
            raise ValueError(f"{n} {split} sentences asked for in {', '.join(langs)}: only {exist} exist")
        return rows

    def coverage(self) -> pd.DataFrame:
        """Language by phrase type: can it be said; and in `missing`, the first reason why not."""
        table = {}
        for lang in LANGUAGES:
            row: dict[str, object] = {}
            gaps = []
            for phrase_type, parts in self._probes(lang).items():
                try:
                    row[phrase_type] = all(speaker(lang).say(part) for part in parts)
                except Gap as gap:
                    row[phrase_type] = False
                    gaps.append(f"{phrase_type}: {gap}")
            table[lang] = row | {"missing": "; ".join(gaps)}
        return pd.DataFrame.from_dict(table, orient="index").rename_axis("language")

    def _probes(self, lang: str) -> dict[str, list[Part]]:
        """Parts of each phrase type that use every word and plural form the type can need."""
        items, numbers = self.dice().items, speaker(lang).examples
        spans = [s * n for n in range(1, LAST_SPAN + 1) for s in (-1, 1)]
        return {
            "date": [("date", (2024, 1 + n % 12, 1 + n)) for n in range(24)],
            "date and time": [("datetime", (2024, 1, 1, hour, 30)) for hour in range(24)],
            "relative time": [("relative", (unit, n)) for unit in SPANS for n in spans],
            "country": [("countries", (code,)) for code in items["countries"]],
            "language": [("languages", (code,)) for code in items["languages"]],
            "list": [("countries", items["countries"][:size]) for size in (2, 3)],
            "amount": [("amount", (code, n)) for code in items["currencies"] for n in numbers],
            "measure": [("measure", (unit, n)) for unit in items["units"] for n in numbers],
        }


class _Pool:
    """The draws of one phrasebook, sorted into splits; grows on demand."""

    def __init__(self, book: Phrasebook) -> None:
        self.dice = book.dice()
        self.draws: dict[str, list[Draw]] = {split: [] for split in SPLITS}
        self.avoid: dict[tuple[str, str], frozenset[str]] = {}  # (language, held-out split)
        self.grow(SCANNED)
        self.held_out = {split: tuple(self.draws[split]) for split in HELD_OUT}

    def grow(self, n: int) -> None:
        """Throw `n` more draws and sort them into splits."""
        for _ in range(n):
            draw = self.dice.draw()
            self.draws[self.split_of(draw)].append(draw)

    def split_of(self, draw: Draw) -> str:
        """The split that the content of `draw` chooses: the same for all seeds."""
        digest = hashlib.blake2b(repr((0, draw)).encode(), digest_size=8).digest()
        throw = int.from_bytes(digest, "big") / 2**64
        for split, share in SPLITS.items():
            throw -= share
            if throw < 0:
                return split
        return split  # rounding of the shares' sum

    def stream(self, split: str) -> Iterator[Draw]:
        """The draws of `split` in their fixed order, without end unless held out."""
        if split in HELD_OUT:
            yield from self.held_out[split]
            return
        index = 0
        while True:
            while index == len(self.draws[split]):
                self.grow(10_000)
            yield self.draws[split][index]
            index += 1

    def rows(
        self, langs: tuple[str, ...], split: str, styles: Sequence[str] = ("full",)
    ) -> Iterator[tuple[str, ...]]:
        """Sentences in `langs`, row by row, none of them held out; no repeats in test and dev."""
        return (row for _, row in self.drawn(langs, split, styles))

    def drawn(
        self, langs: tuple[str, ...], split: str, styles: Sequence[str] = ("full",)
    ) -> Iterator[tuple[Draw, tuple[str, ...]]]:
        """`rows`, each with the draw that it says."""
        above = {"test": (), "dev": ("test",)}.get(split, HELD_OUT)
        taken = [set().union(*(self.sounds(lang, s) for s in above)) for lang in langs]
        for draw, style in zip(self.stream(split), cycle(styles)):
            try:
                row = tuple(say(draw, lang, style) for lang in langs)
            except Gap:
                continue
            if any(text in seen for text, seen in zip(row, taken, strict=True)):
                continue
            if split in HELD_OUT:
                for text, seen in zip(row, taken, strict=True):
                    seen.add(text)
            yield draw, row

    def sounds(self, lang: str, split: str) -> frozenset[str]:
        """Every sentence of `lang` in a held-out split, whichever pairs it ends up in."""
        if (lang, split) not in self.avoid:
            self.avoid[lang, split] = frozenset(self._sentences_of(lang, split))
        return self.avoid[lang, split]

    def _sentences_of(self, lang: str, split: str) -> Iterator[str]:
        for draw in self.held_out[split]:
            try:
                yield say(draw, lang)
            except Gap:
                continue


@cache
def _pool(book: Phrasebook) -> _Pool:
    return _Pool(book)  # equal phrasebooks of one process share their draws
