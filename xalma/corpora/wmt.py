"""WMT'15 to '22 as SFT pairs and WMT'23 as test set, as X-ALMA uses them; WMT'22, ALMA's test set; later test sets.

    XALMA_DATA/wmt/wmt<year>/<lang>.tsv.gz         origin, reference, text, English text: pairs of both directions
    XALMA_DATA/wmt/wmt<year>/<direction>/{src,ref}.txt   the test sets themselves (`xalma.corpora.test_sets`)

Of a table only rows with reference 1 count: the others translate the same sentences again. Where a year has no table,
its test sets stand in. Pairs are in an order drawn by the seed, so that a part of them has all years. Where documents
end is not known: monolingual text is a line at a time. Scores by direction are made with `xalma.corpora.test_sets`
itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from xalma.corpora.base import Corpus, Pair, data_folder, hash_files, others, shuffled
from xalma.corpora.test_sets import WMT24PP, directions_of, load, read_rows
from xalma.languages import ENGLISH


class WmtCorpus(Corpus):
    NAME: ClassVar = "WMT"
    HUMAN: ClassVar = True
    AS_BITEXT: ClassVar = True
    YEARS: ClassVar = tuple(f"wmt{year}" for year in range(15, 23))
    TEST: ClassVar = "wmt23"

    @property
    def folder(self) -> Path:
        return data_folder("wmt", self.NAME)

    def languages(self) -> tuple[str, ...]:
        return tuple(code for code in others() if self.sets(code) or self._test(code))

    def sets(self, lang: str) -> frozenset[str]:
        return frozenset(year for year in self.YEARS if self._year(year, lang))

    def sft(self, lang: str) -> list[Pair]:
        return self._train(lang)[: self.p.sft_pairs]

    def bitext(self, lang: str) -> Iterator[Pair]:
        return iter(self._train(lang))

    def monolingual(self, lang: str) -> Iterator[str]:
        codes = self.languages() if lang == ENGLISH else (lang,)
        lines = dict.fromkeys(pair[lang != ENGLISH] for code in codes for pair in self._train(code))
        return iter(lines)

    def test(self, lang: str) -> list[Pair]:
        return self._test(lang)[: self.p.test_pairs]

    def tests(self, lang: str) -> list[Pair]:
        return self._test(lang)

    def _train(self, lang: str) -> list[Pair]:
        held_out = self.held_out(lang)
        pairs = dict.fromkeys(pair for year in self.YEARS for pair in self._year(year, lang))
        return list(shuffled([pair for pair in pairs if held_out.isdisjoint(pair)], self.p.seed))

    def _year(self, year: str, lang: str) -> tuple[Pair, ...]:
        for suffix in (".tsv.gz", ".tsv"):
            if (path := self.folder / year / f"{lang}{suffix}").is_file():
                return table_pairs(path)
        return () if any((self.folder / year).glob("*.tsv*")) else _directions(self.folder / year, lang)

    def _test(self, lang: str) -> list[Pair]:
        return list(_directions(self.folder / self.TEST, lang))

    def _held_pairs(self, lang: str) -> list[Pair]:
        return self._test(lang)

    def fingerprint(self) -> str:
        names = [
            f"{year}/{files}" for year in (*self.YEARS, self.TEST) for files in ("*.tsv*", "*/[sr]*.txt")
        ]
        return hash_files(path for name in names for path in self.folder.glob(name))


class Wmt22Corpus(WmtCorpus):
    """WMT'22 (Icelandic: WMT'21), the test set of ALMA, in both directions; nothing to train on."""

    NAME: ClassVar = "WMT'22"
    YEARS: ClassVar = ()
    TEST: ClassVar = "wmt22"


class Wmt24Corpus(Wmt22Corpus):
    """WMT'24 without its canary, from English alone: a test set after X-ALMA's time."""

    NAME: ClassVar = "WMT'24"
    TEST: ClassVar = "wmt24"


class Wmt24ppCorpus(Wmt22Corpus):
    """WMT24++: WMT'24's texts in 38 of our languages, without its 38 bad sources."""

    NAME: ClassVar = "WMT24++"

    def _test(self, lang: str) -> list[Pair]:
        direction = f"{ENGLISH}-{lang}"
        if direction not in directions_of(WMT24PP):
            return []
        one = load(WMT24PP, direction)
        return list(zip(one.sources, one.references, strict=True))

    def fingerprint(self) -> str:
        return hash_files(data_folder(WMT24PP, self.NAME).glob("*.tsv*"))


@lru_cache(maxsize=64)
def table_pairs(path: Path) -> tuple[Pair, ...]:
    """(English, other) pairs of a table's rows with reference 1. Raises ValueError, naming the line, for a bad row."""
    rows = read_rows(path, ("origin", "reference", "text", "English text"))
    return tuple((english, other) for _, reference, other, english in rows if reference == "1")


@lru_cache(maxsize=64)
def _directions(folder: Path, lang: str) -> tuple[Pair, ...]:
    """The pairs of both directions of a test set, each once."""
    found: list[Pair] = []
    if not any(folder.glob("*/ref.txt")):
        return ()
    for direction in sorted({f"{ENGLISH}-{lang}", f"{lang}-{ENGLISH}"} & set(directions_of(str(folder)))):
        one = load(str(folder), direction)
        sides = (
            (one.sources, one.references) if direction.startswith(ENGLISH) else (one.references, one.sources)
        )
        found += zip(*sides, strict=True)
    return tuple(dict.fromkeys(found))
