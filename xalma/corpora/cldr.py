"""The embedded CLDR phrasebook as a corpus: what the default run trains on, without a download (data_cards/cldr.md)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import ClassVar

from xalma.corpora.base import Corpus, Pair
from xalma.corpora.noise import noisy
from xalma.languages import ENGLISH
from xalma.phrasebook import Phrasebook
from xalma.profiles import Profile


class CldrCorpus(Corpus):
    """The embedded phrasebook: endless, parallel in all 50 languages, each split from its own draws."""

    NAME: ClassVar = "CLDR phrasebook"

    def __init__(self, p: Profile) -> None:
        super().__init__(p)
        self.book = Phrasebook(
            n_countries=p.phrasebook_countries,
            n_languages=p.phrasebook_languages,
            n_currencies=p.phrasebook_currencies,
            n_units=p.phrasebook_units,
            max_list=p.phrasebook_list,
            seed=p.seed,
        )

    def monolingual(self, lang: str) -> Iterator[str]:
        """Documents of two phrases, one of them said twice: text repeats itself, and copying is learned from that."""
        phrases = (row[0] for row in self.book.iterate((lang,), "monolingual"))
        for first, second in zip(phrases, phrases, strict=False):  # the same iterator twice: two phrases a turn
            yield f"{first}\n{second}\n{first}"

    def bitext(self, lang: str) -> Iterator[Pair]:
        return noisy(self.book.iterate((ENGLISH, lang), "bitext"), self.p)

    def sft(self, lang: str) -> list[Pair]:
        return self.book.pairs(lang, "sft", self.p.sft_pairs)

    def dev(self, lang: str) -> list[Pair]:
        return self.book.pairs(lang, "dev", self.p.dev_pairs)

    def test(self, lang: str) -> list[Pair]:
        return self.book.pairs(lang, "test", self.p.test_pairs)

    def fingerprint(self) -> str:
        return f"babel {version('babel')}"
