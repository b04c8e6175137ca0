"""NTREX-128: 1,997 news sentences in 50 languages (data README, ntrex/); part of X-ALMA's SFT data.

Departure: X-ALMA trains on all of it and tests elsewhere. `ntrex` keeps a tenth of its documents as test set, so that a
run on nothing but NTREX can be scored; `ntrex_whole` is for runs with another test set. Both keep a twentieth as dev.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import numpy as np

from xalma.corpora.base import Corpus, Pair, data_folder, hash_files
from xalma.languages import ENGLISH, language
from xalma.profiles import Profile
from xalma.text_files import check_parallel, read_lines


class NtrexCorpus(Corpus):
    """NTREX-128 (1,997 news sentences in 50 languages) from XALMA_DATA, split by document.

    Monolingual text is each training document joined with line breaks; bitext and SFT pairs are its lines.
    """

    NAME: ClassVar = "NTREX-128"
    HUMAN: ClassVar = True
    SHARES: ClassVar[dict[str, float]] = {"test": 0.10, "dev": 0.05}  # of the documents; our choice

    def __init__(self, p: Profile) -> None:
        super().__init__(p)
        self.folder = data_folder("ntrex", self.NAME)

    @cached_property
    def documents(self) -> list[str]:
        return read_lines(self.folder / "DOCUMENT_IDS.tsv")

    @cached_property
    def split_of(self) -> dict[str, str]:
        names = list(dict.fromkeys(self.documents))
        order = np.random.default_rng(self.p.seed).permutation(len(names))
        split = dict.fromkeys(names, "train")
        done = 0
        for part, share in self.SHARES.items():
            size = max(1, round(share * len(names)))
            split |= {names[i]: part for i in order[done : done + size]}
            done += size
        return split

    def sets(self, lang: str) -> frozenset[str]:
        return frozenset({"ntrex"})

    def _lines(self, lang: str) -> list[str]:
        path = self.folder / f"{language(lang).code}.txt"
        return check_parallel([self.folder / "DOCUMENT_IDS.tsv", path])[1]

    def _rows(self, split: str, *sides: list[str]) -> list[tuple[str, ...]]:
        """(document, line of each side) of a split; a training row that repeats a held-out line is left out."""
        rows = list(zip(self.documents, *sides, strict=True))
        if split != "train":
            return [row for row in rows if self.split_of[row[0]] == split]
        held_out = {text for document, *texts in rows if self.split_of[document] != "train" for text in texts}
        return [row for row in rows if self.split_of[row[0]] == "train" and held_out.isdisjoint(row[1:])]

    def _pairs(self, lang: str, split: str) -> list[Pair]:
        return [row[1:] for row in self._rows(split, self._lines(ENGLISH), self._lines(lang))]

    def monolingual(self, lang: str) -> Iterator[str]:
        texts: dict[str, list[str]] = {}
        for document, line in self._rows("train", self._lines(lang)):
            texts.setdefault(document, []).append(line)
        yield from ("\n".join(lines) for lines in texts.values())

    def bitext(self, lang: str) -> Iterator[Pair]:
        yield from self._pairs(lang, "train")

    def sft(self, lang: str) -> list[Pair]:
        return self._pairs(lang, "train")[: self.p.sft_pairs]

    def dev(self, lang: str) -> list[Pair]:
        return self._pairs(lang, "dev")[: self.p.dev_pairs]

    def test(self, lang: str) -> list[Pair]:
        return self.tests(lang)[: self.p.test_pairs]

    def tests(self, lang: str) -> list[Pair]:
        return self._pairs(lang, "test")

    def held_out(self, lang: str) -> set[str]:
        side = [row[1] for split in self.SHARES for row in self._rows(split, self._lines(lang))]
        return set(side) | (set() if lang == ENGLISH else self.held_out(ENGLISH))

    def fingerprint(self) -> str:
        return hash_files(self.folder.glob("*"))


class NtrexWhole(NtrexCorpus):
    """All of NTREX-128 but the dev documents is training text; it has no test set."""

    AS_BITEXT: ClassVar = True
    SHARES: ClassVar[dict[str, float]] = {"dev": 0.05}
