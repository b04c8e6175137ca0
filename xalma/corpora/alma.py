"""ALMA's human-written bitext (haoranxu/ALMA-Human-Parallel): WMT'17 to '20 test sets, and FLORES-200 at the end.

From XALMA_DATA/alma-human/ where it is, else from the hub, whose Parquet files have the same pairs by name: `xx-en`,
splits train and validation, one column `translation` (agreement checked for cs and is only, data README).

The last 2,009 pairs of each language are FLORES-200 dev and devtest (data README, warning 1), and devtest is X-ALMA's
test set. `alma` therefore leaves them out, known by their English side, which is all of Icelandic's file;
`alma_as_released` keeps them, as ALMA itself did, and is to be tested on WMT alone.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from xalma.corpora.base import Corpus, Pair, data_folder, has_data, hash_files
from xalma.corpora.files import hub_rows
from xalma.languages import ALMA_LANGUAGES, ENGLISH
from xalma.text_files import check_parallel

_HUB_ID = "haoranxu/ALMA-Human-Parallel"


def train_pairs(lang: str) -> list[Pair]:
    """All training pairs of a language, in the released order."""
    return list(_pairs(_HUB_ID, lang, "train", str(_folder())))


class AlmaCorpus(Corpus):
    NAME: ClassVar = "ALMA-Human-Parallel"
    HUMAN: ClassVar = True
    FLORES: ClassVar = False  # whether the lines of FLORES-200 are trained on

    def languages(self) -> tuple[str, ...]:
        return ALMA_LANGUAGES

    def sft(self, lang: str) -> list[Pair]:
        if lang not in ALMA_LANGUAGES:
            return []
        pairs = train_pairs(lang)
        if not self.FLORES:
            flores = {english for english, _ in train_pairs("is")}
            pairs = [pair for pair in pairs if pair[0] not in flores]
        return pairs[: self.p.sft_pairs]

    def sets(self, lang: str) -> frozenset[str]:
        """Every line but FLORES-200's is of WMT'17 to '20 (data README, warning 5)."""
        years = {f"wmt{year}" for year in range(17, 21)} if lang != "is" else set()
        flores = {"flores200 dev", "flores200 devtest"} if self.FLORES else set()
        return frozenset(years | flores) if lang in ALMA_LANGUAGES else frozenset()

    def dev(self, lang: str) -> list[Pair]:
        return self._validation(lang)[: self.p.dev_pairs]

    def _validation(self, lang: str) -> list[Pair]:
        if lang not in ALMA_LANGUAGES or lang == "is":  # upstream has no validation pairs for Icelandic
            return []
        return list(_pairs(_HUB_ID, lang, "validation", str(_folder())))

    def _held_pairs(self, lang: str) -> list[Pair]:
        return self._validation(lang)

    def fingerprint(self) -> str:
        return hash_files(Path(_folder()).glob("*/*.txt")) if _folder() else f"{_HUB_ID}, as it was when read"


class AlmaAsReleased(AlmaCorpus):
    FLORES: ClassVar = True


def _folder() -> Path | str:
    return data_folder("alma-human", AlmaCorpus.NAME) if has_data("alma-human") else ""


@lru_cache(maxsize=16)
def _pairs(hub_id: str, lang: str, split: str, folder: str) -> tuple[Pair, ...]:
    if folder:
        stem = {"train": "train", "validation": "valid"}[split]
        sides = check_parallel([f"{folder}/{lang}-en/{stem}.{code}.txt" for code in (ENGLISH, lang)])
        return tuple(zip(*sides, strict=True))
    rows = (row["translation"] for _, row in hub_rows(hub_id, f"{lang}-en", split))
    return tuple((row[ENGLISH], row[lang]) for row in rows)
