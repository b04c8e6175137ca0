"""WMT'15 to WMT'23 test sets: the last one at hand is the test, the earlier ones are SFT pairs, as X-ALMA uses them.

From XALMA_DATA/wmt/ (WMT'22 and '23 in five languages), through `xalma.testsets`, which can read more years and places.
A pair stands here once, whichever side was the original; scores by direction are made with `xalma.testsets` itself.
"""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from xalma.corpora.base import Corpus, Pair, data_folder, hash_files
from xalma.languages import ENGLISH
from xalma.testsets import directions_of, load


class WmtCorpus(Corpus):
    NAME: ClassVar = "WMT"
    HUMAN: ClassVar = True
    SETS: ClassVar = ("wmt22", "wmt23")  # on disk; the others are part of X-ALMA's released parallel data

    def languages(self) -> tuple[str, ...]:
        return tuple(code for code in super().languages() if any(_pairs(name, code) for name in self.SETS))

    def sft(self, lang: str) -> list[Pair]:
        held_out = self.held_out(lang)
        earlier = [pair for name in self._sets(lang)[:-1] for pair in _pairs(name, lang)]
        return [pair for pair in dict.fromkeys(earlier) if held_out.isdisjoint(pair)][: self.p.sft_pairs]

    def test(self, lang: str) -> list[Pair]:
        sets = self._sets(lang)
        return list(_pairs(sets[-1], lang))[: self.p.test_pairs] if sets else []

    def _held_pairs(self, lang: str) -> list[Pair]:
        return [pair for name in self._sets(lang)[-1:] for pair in _pairs(name, lang)]

    def _sets(self, lang: str) -> list[str]:
        return [name for name in self.SETS if _pairs(name, lang)]

    def fingerprint(self) -> str:
        return hash_files(data_folder("wmt", self.NAME).glob("wmt*/*/[sr]*.txt"))


@cache
def _pairs(name: str, lang: str) -> tuple[Pair, ...]:
    found = []
    for direction in sorted({f"{ENGLISH}-{lang}", f"{lang}-{ENGLISH}"} & set(directions_of(name))):
        one = load(name, direction)
        sides = (one.sources, one.references) if direction.startswith(ENGLISH) else (one.references, one.sources)
        found += zip(*sides, strict=True)
    return tuple(dict.fromkeys(found))
