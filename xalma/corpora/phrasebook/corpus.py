"""The embedded CLDR phrasebook as a corpus: what the default run trains on, without a download (data_cards/cldr.md)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from importlib.metadata import version
from typing import ClassVar

from xalma.corpora.base import Corpus, Pair
from xalma.corpora.noise import noisy
from xalma.corpora.phrasebook.phrasebook import Phrasebook
from xalma.languages import ENGLISH
from xalma.profiles import Profile


class CldrCorpus(Corpus):
    """The embedded phrasebook: endless, parallel in all 50 languages, each split from its own draws."""

    NAME: ClassVar = "CLDR phrasebook"
    endless: ClassVar = True

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
        for first, second in zip(
            phrases, phrases, strict=False
        ):  # the same iterator twice: two phrases a turn
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


class WebCorpus(CldrCorpus):
    """What a base has read before X-ALMA begins, in the place of LLaMA-2's web text.

    Documents in all styles of the CLDR. A small share of the English ones says each phrase in another language too, as
    pages on the web do by accident: `BILINGUAL` are the languages that have such pages. Which languages, which share
    and how often each style occurs are our choice.
    """

    NAME: ClassVar = "CLDR phrasebook, as web text"
    STYLES: ClassVar = ("full", "full", "long", "long", "medium", "full", "full", "medium", "short", "full")
    BILINGUAL: ClassVar = (
        "de",
        "fr",
        "es",
        "it",
        "pt",
        "nl",
        "pl",
        "sv",
        "cs",
        "tr",
        "ru",
        "zh",
        "ja",
        "ar",
        "id",
    )
    SHARE: ClassVar = 0.05  # of the English documents

    def monolingual(self, lang: str) -> Iterator[str]:
        phrases = (row[0] for row in self.book.iterate((lang,), "monolingual", self.STYLES))
        documents = (f"{a}\n{b}\n{a}" for a, b in zip(phrases, phrases, strict=False))
        return self._with_pairs(documents) if lang == ENGLISH else documents

    def _with_pairs(self, documents: Iterator[str]) -> Iterator[str]:
        rng = random.Random(self.p.seed)
        pairs = {code: self.book.iterate((ENGLISH, code), "bitext", self.STYLES) for code in self.BILINGUAL}
        for document in documents:
            yield document
            if rng.random() < self.SHARE:
                pair = list(next(pairs[rng.choice(self.BILINGUAL)]))
                rng.shuffle(pair)
                yield rng.choice((" ", "\n")).join(pair)
