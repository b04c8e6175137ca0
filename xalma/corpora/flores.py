"""FLORES-200: devtest is X-ALMA's main test set, dev is part of its SFT data. 2,009 sentences in all languages.

From disk: XALMA_DATA/flores200/{dev,devtest}/<code>.{dev,devtest}, else, for five languages, the end of ALMA's training
files (data README, warning 1). From the hub: haoranxu/FLORES-200, devtest only; its dev lines come with X-ALMA's own
parallel data there.
"""

from __future__ import annotations

from typing import ClassVar

from xalma.corpora.alma import FLORES_LINES, train_pairs
from xalma.corpora.base import OTHERS, Corpus, Pair, data_folder, has_data, hash_files
from xalma.corpora.files import hub_rows
from xalma.evaluate import check_parallel
from xalma.languages import ENGLISH, language


class FloresCorpus(Corpus):
    NAME: ClassVar = "FLORES-200"
    HUMAN: ClassVar = True
    ALMA: ClassVar = ("cs", "de", "is", "ru", "zh")

    def languages(self) -> tuple[str, ...]:
        return self.ALMA if has_data("alma-human") and not has_data("flores200") else OTHERS

    def _split(self, lang: str, split: str) -> list[Pair]:
        if lang not in self.languages():
            return []
        if has_data("flores200"):
            folder = data_folder("flores200", self.NAME) / split
            sides = check_parallel([folder / f"{language(code).flores}.{split}" for code in (ENGLISH, lang)])
            return list(zip(*sides, strict=True))
        if has_data("alma-human"):
            lines = train_pairs(lang)[-sum(FLORES_LINES.values()) :]
            return lines[: FLORES_LINES["dev"]] if split == "dev" else lines[-FLORES_LINES["devtest"] :]
        if split == "dev":
            return []
        column = f"{ENGLISH}-{lang}"
        rows = (row[column] for _, row in hub_rows(self.p.test_id, column, "test"))
        return [(row[ENGLISH], row[lang]) for row in rows]

    def sft(self, lang: str) -> list[Pair]:
        return self._split(lang, "dev")[: self.p.sft_pairs]

    def test(self, lang: str) -> list[Pair]:
        return self._split(lang, "devtest")[: self.p.test_pairs]

    def held_out(self, lang: str) -> set[str]:
        codes = self.languages()[:1] if lang == ENGLISH else (lang,)  # one English side for all
        return {text for code in codes for pair in self._split(code, "devtest") for text in pair}

    def fingerprint(self) -> str:
        for name in ("flores200", "alma-human"):
            if has_data(name):
                files = data_folder(name, self.NAME).rglob("*.*")
                return hash_files(path for path in files if path.is_file())
        return f"{self.p.test_id}, as it was when read"
