"""NLLB's mined bitext as allenai/nllb gives it: X-ALMA's pseudo-monolingual stage (pre-training stage 3).

The hub repository holds no text but a loading script, which datasets 5 refuses; the script points to gzipped TSV files
in two places, and those are read here. Which pair lies where is the script's own list, nllb_lang_pairs.py (NLLB_PAIRS,
CCMATRIX_PAIRS, CCMATRIX_MAPPING; read in thammegowda/mtdata, commit 898cebbd): all our 48 pairs with English.

    AllenAI's bucket   <a>-<b>.gz, codes as eng_Latn: sentence a, sentence b, LASER score, two LID scores, and of each
                       side its source and address ("_" where there is none); no header
    CCMatrix           <a>-<b>.bitextf.tsv.gz, two-letter codes in alphabetical order: score, sentence a, sentence b

English-Thai is in neither list: the released run_llmmt.py takes it from OPUS-100, and so does `hub`. Public code that
reads CCMatrix says its files are sorted by falling score, so a stream that stops early has the better pairs. Nothing
was downloaded here: whether both hosts still serve the files is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from xalma.corpora.base import Corpus, Pair, Row, others, strict
from xalma.corpora.files import text_lines
from xalma.languages import ENGLISH, language

BUCKET = "https://storage.googleapis.com/allennlp-data-bucket/nllb"
CCMATRIX = "https://data.statmt.org/cc-matrix"
IN_BUCKET = ("af", "az", "gu", "hi", "ka", "kk", "ky", "mg", "mr", "ms", "ne", "ur", "uz")


class NllbCorpus(Corpus):
    NAME: ClassVar = "NLLB"

    def languages(self) -> tuple[str, ...]:
        return tuple(code for code in others() if code != "th")

    def source(self, lang: str) -> tuple[str, int, bool]:
        """(address of the language's file, its first text column, whether English comes first there)."""
        local = Path(self.p.bitext_id)
        if lang in IN_BUCKET:
            a, b = sorted((language(ENGLISH).flores, language(lang).flores))
            folder = str(local) if local.is_dir() else BUCKET
            return f"{folder}/{a}-{b}.gz", 0, a == language(ENGLISH).flores
        a, b = sorted((ENGLISH, lang))
        folder = str(local / "cc-matrix") if local.is_dir() else CCMATRIX
        return f"{folder}/{a}-{b}.bitextf.tsv.gz", 1, a == ENGLISH

    def rows(self, kind: str, lang: str) -> Iterator[Row]:
        if kind != "bitext" or lang not in self.languages():
            return
        url, column, english_first = self.source(lang)
        for number, line in text_lines(url):
            cells = line.split("\t")[column : column + 2]
            pair = tuple(cells if english_first else cells[::-1]) if len(cells) == 2 else None
            yield f"{url}:{number + 1}", pair

    def bitext(self, lang: str) -> Iterator[Pair]:
        return strict(self.rows("bitext", lang))

    def fingerprint(self) -> str:
        return f"{self.p.bitext_id}, as it was when read"
