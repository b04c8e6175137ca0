"""FLORES-200: devtest is X-ALMA's main test set, dev is part of its SFT data. 2,009 sentences in all languages.

From disk: XALMA_DATA/flores200/{dev,devtest}/<code>.{dev,devtest}; a language without a whole dev has
flores200/dev-subset/<code>.dev instead, where that is (`notes` says which). From the hub: haoranxu/FLORES-200, devtest
only; its dev lines come with X-ALMA's own parallel data there.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from xalma.corpora.base import Corpus, Pair, data_folder, has_data, hash_files, others
from xalma.corpora.files import hub_rows
from xalma.corpora.test_sets import FLORES_LINES
from xalma.languages import ENGLISH, language
from xalma.text_files import check_parallel


class FloresCorpus(Corpus):
    NAME: ClassVar = "FLORES-200"
    HUMAN: ClassVar = True

    def languages(self) -> tuple[str, ...]:
        if has_data("flores200"):
            return tuple(code for code in others() if self._files(code, "devtest") or self._dev_files(code))
        return others()

    def sets(self, lang: str) -> frozenset[str]:
        return frozenset({"flores200 dev"} if lang in self.languages() else ())

    def _files(self, lang: str, folder: str) -> list[Path]:
        """English and the language's file in a folder of flores200/; none where one of them is not there."""
        suffix = "devtest" if folder == "devtest" else "dev"
        names = [f"{language(code).flores}.{suffix}" for code in (ENGLISH, lang)]
        files = [data_folder("flores200", self.NAME) / folder / name for name in names]
        return files if all(file.is_file() for file in files) else []

    def _dev_files(self, lang: str) -> list[Path]:
        return self._files(lang, "dev") or self._files(lang, "dev-subset")

    def _split(self, lang: str, split: str) -> list[Pair]:
        if lang not in self.languages():
            return []
        if has_data("flores200"):
            files = self._dev_files(lang) if split == "dev" else self._files(lang, split)
            return list(zip(*check_parallel(files), strict=True)) if files else []
        if split == "dev":
            return []
        column = f"{ENGLISH}-{lang}"
        rows = (row[column] for _, row in hub_rows(self.p.test_id, column, "test"))
        return [(row[ENGLISH], row[lang]) for row in rows]

    def sft(self, lang: str) -> list[Pair]:
        return self._split(lang, "dev")[: self.p.sft_pairs]

    def test(self, lang: str) -> list[Pair]:
        return self.tests(lang)[: self.p.test_pairs]

    def tests(self, lang: str) -> list[Pair]:
        return self._split(lang, "devtest")

    def notes(self, lang: str) -> list[str]:
        n = len(self._split(lang, "dev"))
        whole = FLORES_LINES["dev"]
        return [f"FLORES-200 dev: {'all' if n == whole else n} of its {whole} lines"] if n else []

    def held_out(self, lang: str) -> set[str]:
        codes = self.languages()[:1] if lang == ENGLISH else (lang,)  # one English side for all
        return {text for code in codes for pair in self.tests(code) for text in pair}

    def fingerprint(self) -> str:
        if not has_data("flores200"):
            return f"{self.p.test_id}, as it was when read"
        files = data_folder("flores200", self.NAME).rglob("*.*")
        return hash_files(path for path in files if path.is_file())
