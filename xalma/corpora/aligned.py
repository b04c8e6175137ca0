"""Texts in many languages whose lines carry a common id ("Gen.1.1<TAB>In the beginning …"): join two on the id."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from xalma.corpora.base import Corpus, Pair, data_folder, hash_files, others, shuffled
from xalma.corpora.noise import noisy
from xalma.languages import ENGLISH, language
from xalma.text_files import read_lines


class KeyedCorpus(Corpus):
    """One file per language under FOLDER of XALMA_DATA; monolingual documents are lines of one `document` of ids."""

    SMALL: ClassVar = True
    FOLDER: ClassVar[str]
    SUFFIX: ClassVar = ".tsv"

    @cached_property
    def folder(self) -> Path:
        return data_folder(self.FOLDER, self.NAME)

    def languages(self) -> tuple[str, ...]:
        return tuple(code for code in others() if (self.folder / f"{code}{self.SUFFIX}").exists())

    def texts(self, lang: str) -> dict[str, str]:
        """Id -> text, in the file's order; empty for a language without a file. Raises ValueError for a bad line."""
        path = self.folder / f"{language(lang).code}{self.SUFFIX}"
        if not path.exists():
            return {}
        lines = read_lines(path)
        found = dict(line.split("\t", 1) for line in lines if "\t" in line)
        if len(found) < len(lines):
            lost = len(lines) - len(found)
            raise ValueError(f"{path} has {lost} lines without an id of their own: write id<TAB>text")
        return found

    def document(self, key: str) -> str:
        """The document a line is part of."""
        return key

    def monolingual(self, lang: str) -> Iterator[str]:
        documents: dict[str, list[str]] = {}
        for key, text in self.texts(lang).items():
            documents.setdefault(self.document(key), []).append(text)
        return shuffled(["\n".join(lines) for lines in documents.values()], self.p.seed)

    def bitext(self, lang: str) -> Iterator[Pair]:
        english = self.texts(ENGLISH)
        other = self.texts(lang)
        pairs = shuffled([(english[key], text) for key, text in other.items() if key in english], self.p.seed)
        return noisy(pairs, self.p)

    def fingerprint(self) -> str:
        return hash_files(self.folder.glob(f"*{self.SUFFIX}"))


class BibleCorpus(KeyedCorpus):
    NAME: ClassVar = "bibles"
    FOLDER: ClassVar = "bible"
    SUFFIX: ClassVar = ".tsv.gz"

    def document(self, key: str) -> str:
        return key.rpartition(".")[0]  # Gen.1.1: book, chapter, verse


class MozillaCorpus(KeyedCorpus):
    NAME: ClassVar = "mozilla.org copy"
    FOLDER: ClassVar = "mozilla"

    def document(self, key: str) -> str:
        return key.partition(":")[0]  # file:message-id


class UdhrCorpus(KeyedCorpus):
    NAME: ClassVar = "UDHR"
    FOLDER: ClassVar = "udhr"

    def document(self, key: str) -> str:
        return key.partition(".")[0]  # section.paragraph
