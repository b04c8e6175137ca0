"""The papers' own sources as one corpus: OSCAR-2301, NLLB (Thai: OPUS-100), X-ALMA's parallel data, FLORES-200 devtest.

SFT pairs that hold a test sentence, letter for letter, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import ClassVar

import fsspec

from xalma.corpora.base import Corpus, Pair, Row, others, strict
from xalma.corpora.files import LOGIN, Unreadable, hub_rows, json_lines, text_lines
from xalma.corpora.flores import FloresCorpus
from xalma.languages import ENGLISH, language
from xalma.profiles import Profile


class HubCorpus(Corpus):
    NAME: ClassVar = "hub"

    def __init__(self, p: Profile) -> None:
        super().__init__(p)
        self.oscar = OscarCorpus(p)
        self.nllb = NllbCorpus(p)
        self.opus = OpusCorpus(p)
        self.parallel = XalmaParallel(p)
        self.flores = FloresCorpus(p)

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


class OscarCorpus(Corpus):
    NAME: ClassVar = "OSCAR-2301"

    def files(self, lang: str) -> list[str]:
        """The language's files, part 2 before part 10. Raises Unreadable, saying what to do, where there is none."""
        code, path = language(lang).oscar, self.p.monolingual_id
        try:
            if Path(path).is_dir():
                found = [str(file) for file in Path(path).glob(f"{code}_meta/*.jsonl.zst")]
            else:
                hub = fsspec.filesystem("hf")
                found = [f"hf://{file}" for file in hub.glob(f"datasets/{path}/{code}_meta/*.jsonl.zst")]
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise Unreadable(f"can't read {path} ({code}) from the hub: {reason}; {LOGIN}") from error
        if not found:
            raise Unreadable(f"can't read {path} ({code}): no {code}_meta/*.jsonl.zst is there; {LOGIN}")
        return sorted(found, key=_number)

    def rows(self, kind: str, lang: str) -> Iterator[Row]:
        for file in self.files(lang) if kind == "monolingual" else ():
            for number, row in json_lines(file):
                text = row.get("content") if row else None
                yield f"{file}:{number + 1}", text if isinstance(text, str) else None

    def monolingual(self, lang: str) -> Iterator[str]:
        return strict(self.rows("monolingual", lang))

    def fingerprint(self) -> str:
        return f"{self.p.monolingual_id}, as it was when read"


def _number(file: str) -> tuple[int, str]:
    found = re.search(r"_part_(\d+)\.", file)
    return (int(found[1]) if found else 0, file)


class XalmaParallel(Corpus):
    NAME: ClassVar = "X-ALMA-Parallel-Data"
    HUMAN: ClassVar = True

    def sets(self, lang: str) -> frozenset[str]:
        return frozenset({"flores200 dev", "ntrex", *(f"wmt{year}" for year in range(15, 23))})

    def _pairs(self, lang: str):
        for _, row in hub_rows(self.p.sft_id, f"{lang}-{ENGLISH}", "train"):
            yield row["translation"][ENGLISH], row["translation"][lang]

    def all_sft(self, lang: str) -> list[Pair]:
        """All pairs but the dev ones, some 4,000 per language."""
        return list(islice(self._pairs(lang), self.p.dev_pairs, None))

    def sft(self, lang: str) -> list[Pair]:
        return self.all_sft(lang)[: self.p.sft_pairs]

    def dev(self, lang: str) -> list[Pair]:
        return list(islice(self._pairs(lang), self.p.dev_pairs))

    def fingerprint(self) -> str:
        return f"{self.p.sft_id}, as it was when read"
