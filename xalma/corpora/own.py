"""Text of your own: a folder (`corpus_path`) with a sub-folder for each thing a stage asks for.

    monolingual/<lang>.<form>                    documents
    bitext/  sft/  dev/  test/  <lang>-en.<form>  pairs, with English

Forms: txt (a document per line; pairs: two files, <lang>-en.<lang>.txt and <lang>-en.en.txt, line for line), tsv (first
line names the columns), jsonl and parquet. Text is in the column `text`; pairs in the columns `en` and the language's
code, or in one column `translation` that holds both. All but Parquet may be packed: .gz, .zst. What is not there is
empty; SFT and preference training need sft, scores need test.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, ClassVar

from xalma.corpora.base import Corpus, Pair, Row, hash_files, others, strict
from xalma.corpora.files import json_lines, parquet_rows, text_lines
from xalma.languages import ENGLISH, language
from xalma.profiles import Profile

FORMS = ("txt", "tsv", "jsonl", "parquet")


PARTS = ("monolingual", "bitext", "sft", "dev", "test")


class OwnCorpus(Corpus):
    NAME: ClassVar = "own text"

    def __init__(self, p: Profile) -> None:
        super().__init__(p)
        self.dropped: Counter[tuple[str, str]] = Counter()  # (kind, language) -> pairs with an empty side

    @cached_property
    def folder(self) -> Path:
        path = Path(self.p.corpus_path).expanduser()
        if not self.p.corpus_path or not path.is_dir():
            raise FileNotFoundError(
                f"corpus own needs a folder of yours, and corpus_path is {self.p.corpus_path!r}: "
                f"--set corpus_path=FOLDER, laid out as data_cards/own.md says"
            )
        if not any((path / kind).is_dir() for kind in PARTS):
            raise FileNotFoundError(
                f"{path} has none of the folders {', '.join(PARTS)}, but {_listed(path)}: lay it out as "
                f"data_cards/own.md says"
            )
        return path

    def languages(self) -> tuple[str, ...]:
        return tuple(code for code in others() if any(self.folder.glob(f"*/{code}[.-]*")))

    def rows(self, kind: str, lang: str) -> Iterator[Row]:
        """Rows of any sub-folder.

        Raises ValueError for two files for one thing, sides that differ in length, and files of the language under
        names that are not read.
        """
        stem = language(lang).code if kind == "monolingual" else f"{lang}-{ENGLISH}"
        sides = [self._file(kind, f"{stem}.{code}") for code in (ENGLISH, lang)]
        if kind != "monolingual" and all(sides):
            return _two_files(*map(str, sides))
        file = self._file(kind, stem)
        if file is None:
            self._check_ignored(kind, lang, stem)
            return iter(())
        return _table(file, kind == "monolingual", lang)

    def _file(self, kind: str, stem: str) -> Path | None:
        found = [path for name in _names(stem) if (path := self.folder / kind / name).is_file()]
        if len(found) > 1:
            raise ValueError(
                f"{self.folder / kind} has {found[0].name} and {found[1].name}: keep one of them"
            )
        return found[0] if found else None

    def _check_ignored(self, kind: str, lang: str, stem: str) -> None:
        """Raises ValueError where files lie there that look like the language's, or none that is read."""
        files = self._files_like(kind)
        mine = [path for path in files if lang in re.split("[^a-z]+", path.name.lower())]
        if mine or (files and not any(self._is_read(kind, path.name) for path in files)):
            other = "" if kind == "monolingual" else f", or {stem}.{ENGLISH}.txt and {stem}.{lang}.txt"
            names = ", ".join(str(path.relative_to(self.folder)) for path in (mine or files)[:5])
            forms = ", ".join(FORMS if kind == "monolingual" else FORMS[1:])
            raise ValueError(
                f"{self.folder / kind} has nothing to read for {lang}: {stem}.<form> is looked for (forms {forms}, "
                f"also packed as .gz or .zst){other}; ignored: {names}. Rename or convert them (data_cards/own.md)"
            )

    def _files_like(self, kind: str) -> list[Path]:
        """Files of the folder, and of folders whose name differs in capitals alone."""
        folders = [path for path in self.folder.iterdir() if path.is_dir() and path.name.lower() == kind]
        return sorted(
            path for folder in folders for path in folder.iterdir() if path.is_file() and path.name[0] != "."
        )

    def _is_read(self, kind: str, name: str) -> bool:
        """Whether a file of that name is read for any language."""
        codes = (ENGLISH, *others()) if kind == "monolingual" else others()
        code = re.split("[.-]", name)[0]
        stem = code if kind == "monolingual" else f"{code}-{ENGLISH}"
        stems = [stem, *(() if kind == "monolingual" else (f"{stem}.{side}" for side in (ENGLISH, code)))]
        return (
            code in codes and (self.folder / kind / name).is_file() and any(name in _names(s) for s in stems)
        )

    def monolingual(self, lang: str) -> Iterator[str]:
        return (text for text in strict(self.rows("monolingual", lang)) if text.strip())

    def bitext(self, lang: str) -> Iterator[Pair]:
        return self._pairs("bitext", lang)

    def sft(self, lang: str) -> list[Pair]:
        return list(islice(self._pairs("sft", lang), self.p.sft_pairs))

    def dev(self, lang: str) -> list[Pair]:
        return list(islice(self._pairs("dev", lang), self.p.dev_pairs))

    def test(self, lang: str) -> list[Pair]:
        return list(islice(self._pairs("test", lang), self.p.test_pairs))

    def notes(self, lang: str) -> list[str]:
        for kind in ("sft", "dev", "test"):
            sum(1 for _ in self._pairs(kind, lang))
        dropped = {kind: self.dropped[kind, lang] for kind in PARTS if self.dropped[kind, lang]}
        return [f"{self.NAME}: {n} pairs of {kind}/ left out, a side is empty" for kind, n in dropped.items()]

    def _pairs(self, kind: str, lang: str) -> Iterator[Pair]:
        """The pairs that have both sides; those that have not are counted."""
        self.dropped[kind, lang] = 0
        for pair in strict(self.rows(kind, lang)):
            if all(text.strip() for text in pair):
                yield pair
            else:
                self.dropped[kind, lang] += 1

    def _held_pairs(self, lang: str) -> list[Pair]:
        return [pair for kind in ("dev", "test") for pair in self._pairs(kind, lang)]

    def tests(self, lang: str) -> list[Pair]:
        return list(self._pairs("test", lang))

    def fingerprint(self) -> str:
        return hash_files(path for path in self.folder.rglob("*.*") if path.is_file())


def _names(stem: str) -> list[str]:
    return [f"{stem}.{form}{packed}" for form in FORMS for packed in ("", ".gz", ".zst")]


def _listed(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"


def _two_files(english: str, other: str) -> Iterator[Row]:
    for first, second in zip_longest(text_lines(english), text_lines(other)):
        if first is None or second is None:
            short = english if first is None else other
            raise ValueError(
                f"{short} has fewer lines than its other side: line n of one must translate the other's"
            )
        yield f"{other}:{second[0] + 1}", (first[1], second[1])


def _table(file: Path, monolingual: bool, lang: str) -> Iterator[Row]:
    form = file.suffixes[-2] if file.suffix in (".gz", ".zst") else file.suffix
    if form == ".txt":
        if not monolingual:
            raise ValueError(
                f"{file} holds one side only: name the two files as data_cards/own.md says, or use .tsv"
            )
        yield from ((f"{file}:{n + 1}", line) for n, line in text_lines(str(file)))
        return
    read = {".tsv": _tsv, ".jsonl": json_lines, ".parquet": parquet_rows}[form]
    for i, (n, row) in enumerate(read(str(file))):
        content = _text(row) if monolingual else _pair(row, lang)
        if content is None and i == 0:
            wanted = "text" if monolingual else f"{ENGLISH} and {lang}, or translation"
            raise ValueError(f"{file}, first row: no such columns; it needs {wanted}, and strings in them")
        yield f"{file}:{n + 1}", content


def _tsv(url: str) -> Iterator[tuple[int, dict[str, str] | None]]:
    names: list[str] = []
    for n, line in text_lines(url):
        cells = line.split("\t")
        if n == 0:
            names = cells
        elif line.strip():
            yield n - 1, dict(zip(names, cells, strict=True)) if len(cells) == len(names) else None


def _text(row: Any) -> str | None:
    text = row.get("text") if isinstance(row, dict) else None
    return text if isinstance(text, str) else None


def _pair(row: Any, lang: str) -> Pair | None:
    texts = (row.get("translation") or row) if isinstance(row, dict) else None
    pair = tuple(texts.get(code) for code in (ENGLISH, lang)) if isinstance(texts, dict) else (None,)
    return pair if all(isinstance(text, str) for text in pair) else None
