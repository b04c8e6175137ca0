"""The papers' own sources as one corpus: OSCAR-2301, NLLB (Thai: OPUS-100), X-ALMA's parallel data, FLORES-200 devtest.

SFT pairs that hold a test sentence, letter for letter, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from xalma.corpora.base import Corpus, Pair, Row
from xalma.corpora.flores import FloresCorpus
from xalma.corpora.nllb import NllbCorpus
from xalma.corpora.opus import OpusCorpus
from xalma.corpora.oscar import OscarCorpus
from xalma.corpora.xalma_release import XalmaParallel
from xalma.profiles import Profile


class HubCorpus(Corpus):
    NAME: ClassVar = "hub"

    def __init__(self, p: Profile) -> None:
        super().__init__(p)
        self.oscar, self.nllb, self.opus = OscarCorpus(p), NllbCorpus(p), OpusCorpus(p)
        self.parallel, self.flores = XalmaParallel(p), FloresCorpus(p)

    def _web(self, lang: str) -> Corpus:
        return self.opus if lang == "th" else self.nllb  # allenai/nllb has no English-Thai

    def monolingual(self, lang: str) -> Iterator[str]:
        return self.oscar.monolingual(lang)

    def bitext(self, lang: str) -> Iterator[Pair]:
        return self._web(lang).bitext(lang)

    def rows(self, kind: str, lang: str) -> Iterator[Row]:
        return (self.oscar if kind == "monolingual" else self._web(lang)).rows(kind, lang)

    def sft(self, lang: str) -> list[Pair]:
        held_out = self.held_out(lang)
        return [pair for pair in self.parallel.all_sft(lang) if held_out.isdisjoint(pair)][: self.p.sft_pairs]

    def sets(self, lang: str) -> frozenset[str]:
        return self.parallel.sets(lang)

    def dev(self, lang: str) -> list[Pair]:
        return self.parallel.dev(lang)

    def test(self, lang: str) -> list[Pair]:
        return self.flores.test(lang)

    def held_out(self, lang: str) -> set[str]:
        return self.flores.held_out(lang)

    def fingerprint(self) -> str:
        return "hub, newest revision of each id"
