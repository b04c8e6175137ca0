"""What X-ALMA's authors released: parallel data (SFT, post-training stage 1) and preference pairs (stage 2).

haoranxu/X-ALMA-Parallel-Data: 49 configurations "xx-en", split train, one column `translation`; FLORES-200 dev, NTREX
and WMT'15-'22. haoranxu/X-ALMA-Preference is read by `xalma.preferences.read_xalma_preference`, which checks each pair.
Which rows are dev is our choice: the first `dev_pairs`, which are then not trained on.
"""

from __future__ import annotations

from itertools import islice
from typing import ClassVar

from xalma.corpora.base import Corpus, Pair
from xalma.corpora.files import hub_rows
from xalma.languages import ENGLISH
from xalma.preferences import read_xalma_preference


class XalmaParallel(Corpus):
    NAME: ClassVar = "X-ALMA-Parallel-Data"
    HUMAN: ClassVar = True

    def sets(self, lang: str) -> frozenset[str]:
        return frozenset({"flores200 dev", "ntrex", *(f"wmt{year}" for year in range(15, 23))})

    def _pairs(self, lang: str):
        for _, row in hub_rows(self.p.sft_id, f"{lang}-{ENGLISH}", "train"):
            yield row["translation"][ENGLISH], row["translation"][lang]

    def all_sft(self, lang: str) -> list[Pair]:
        """All pairs but the dev ones, some 4,000 a language."""
        return list(islice(self._pairs(lang), self.p.dev_pairs, None))

    def sft(self, lang: str) -> list[Pair]:
        return self.all_sft(lang)[: self.p.sft_pairs]

    def dev(self, lang: str) -> list[Pair]:
        return list(islice(self._pairs(lang), self.p.dev_pairs))

    def preferences(self, directions: list[str] | None = None):
        """Rows of prompt, chosen, rejected and the counts of dropped ones, from the released preference data."""
        return read_xalma_preference(self.p.preference_id, directions=directions, prompt_style=self.p.prompt_style)

    def fingerprint(self) -> str:
        return f"{self.p.sft_id}, as it was when read"
