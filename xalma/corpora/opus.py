"""OPUS-100 (Helsinki-NLP/opus-100): English-centric bitext, up to 1 M pairs a language; X-ALMA takes Thai from it.

Parquet on the hub, configurations with the codes in alphabetical order ("de-en", "en-th"), one column `translation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from xalma.corpora.base import Corpus, Pair, Row, strict
from xalma.corpora.files import hub_rows
from xalma.languages import ENGLISH


class OpusCorpus(Corpus):
    NAME: ClassVar = "OPUS-100"

    def rows(self, kind: str, lang: str) -> Iterator[Row]:
        if kind != "bitext" or lang == ENGLISH:
            return
        config = "-".join(sorted((ENGLISH, lang)))
        for number, row in hub_rows(self.p.bitext_id_th, config, "train"):
            pair = tuple(row["translation"].get(code) for code in (ENGLISH, lang))
            yield f"{self.NAME} {config}:{number + 1}", pair if None not in pair else None

    def bitext(self, lang: str) -> Iterator[Pair]:
        return strict(self.rows("bitext", lang))

    def fingerprint(self) -> str:
        return f"{self.p.bitext_id_th}, as it was when read"
