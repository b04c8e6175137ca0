"""The corpora behind the stages: one small class a source, all with the same five questions.

    monolingual(lang)  documents, for stages 1 and 2            -> iterator of text, may end
    bitext(lang)       web-quality pairs, for stage 3           -> iterator of (English, other), may end
    sft(lang)          high-quality pairs, for stages 4 and 5   -> list of (English, other)
    dev(lang)          held-out pairs for loss curves           -> list
    test(lang)         held-out pairs for scores                -> list

and `fingerprint()`, a hash of the text itself where it lies in files. No sentence of `test` occurs in what the
training methods return.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from typing import ClassVar, Protocol

import numpy as np

from xalma.evaluate import check_parallel, read_lines
from xalma.languages import ENGLISH, language
from xalma.phrasebook import Phrasebook, misalign
from xalma.profiles import Profile
from xalma.runtime import data_root

Pair = tuple[str, str]  # (English, other language)
NOISE_CHUNK = 500  # pairs among which misaligned targets are swapped


class Corpus(Protocol):
    """What a stage may ask of a source."""

    def monolingual(self, lang: str) -> Iterator[str]: ...
    def bitext(self, lang: str) -> Iterator[Pair]: ...
    def sft(self, lang: str) -> list[Pair]: ...
    def dev(self, lang: str) -> list[Pair]: ...
    def test(self, lang: str) -> list[Pair]: ...
    def fingerprint(self) -> str: ...


def open_corpus(p: Profile) -> Corpus:
    """The corpus the profile names. Raises FileNotFoundError where it needs XALMA_DATA and finds none."""
    return {"cldr": CldrCorpus, "ntrex": NtrexCorpus, "real": RealCorpus, "hub": HubCorpus}[p.corpus](p)


class CldrCorpus:
    """The embedded phrasebook: endless, parallel in all 50 languages, each split from its own draws."""

    def __init__(self, p: Profile) -> None:
        self.p = p
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
        for first, second in zip(phrases, phrases, strict=False):  # the same iterator twice: two phrases a turn
            yield f"{first}\n{second}\n{first}"

    def bitext(self, lang: str) -> Iterator[Pair]:
        rows = self.book.iterate((ENGLISH, lang), "bitext")
        while chunk := list(islice(rows, NOISE_CHUNK)):
            yield from misalign(chunk, self.p.bitext_noise, self.p.seed)

    def sft(self, lang: str) -> list[Pair]:
        return self.book.pairs(lang, "sft", self.p.sft_pairs)

    def dev(self, lang: str) -> list[Pair]:
        return self.book.pairs(lang, "dev", self.p.dev_pairs)

    def test(self, lang: str) -> list[Pair]:
        return self.book.pairs(lang, "test", self.p.test_pairs)

    def fingerprint(self) -> str:
        return f"babel {version('babel')}"


class NtrexCorpus:
    """NTREX-128 (1,997 news sentences in 50 languages) from XALMA_DATA, split by document.

    Monolingual text is each training document joined with line breaks; bitext and SFT pairs are its lines.
    """

    FOLDERS = ("ntrex",)
    SHARES: ClassVar = {"test": 0.10, "dev": 0.05}  # of the documents; our choice

    def __init__(self, p: Profile) -> None:
        self.p = p
        root = data_root()
        if root is None or not (root / "ntrex").is_dir():
            raise FileNotFoundError(
                "NTREX-128 is not here: set XALMA_DATA to the folder that holds ntrex/ (README, 'Real text')"
            )
        self.folder = root / "ntrex"

    @cached_property
    def documents(self) -> list[str]:
        return read_lines(self.folder / "DOCUMENT_IDS.tsv")

    @cached_property
    def split_of(self) -> dict[str, str]:
        names = list(dict.fromkeys(self.documents))
        order = np.random.default_rng(self.p.seed).permutation(len(names))
        split, done = dict.fromkeys(names, "train"), 0
        for part, share in self.SHARES.items():
            size = max(1, round(share * len(names)))
            split |= {names[i]: part for i in order[done : done + size]}
            done += size
        return split

    def _lines(self, lang: str) -> list[str]:
        path = self.folder / f"{language(lang).code}.txt"
        return check_parallel([self.folder / "DOCUMENT_IDS.tsv", path])[1]

    def _rows(self, split: str, *sides: list[str]) -> list[tuple[str, ...]]:
        """(document, line of each side) of a split; a training row that repeats a held-out line is left out."""
        rows = list(zip(self.documents, *sides, strict=True))
        if split != "train":
            return [row for row in rows if self.split_of[row[0]] == split]
        held_out = {text for document, *texts in rows if self.split_of[document] != "train" for text in texts}
        return [row for row in rows if self.split_of[row[0]] == "train" and held_out.isdisjoint(row[1:])]

    def _pairs(self, lang: str, split: str) -> list[Pair]:
        return [row[1:] for row in self._rows(split, self._lines(ENGLISH), self._lines(lang))]

    def monolingual(self, lang: str) -> Iterator[str]:
        texts: dict[str, list[str]] = {}
        for document, line in self._rows("train", self._lines(lang)):
            texts.setdefault(document, []).append(line)
        yield from ("\n".join(lines) for lines in texts.values())

    def bitext(self, lang: str) -> Iterator[Pair]:
        yield from self._pairs(lang, "train")

    def sft(self, lang: str) -> list[Pair]:
        return self._pairs(lang, "train")[: self.p.sft_pairs]

    def dev(self, lang: str) -> list[Pair]:
        return self._pairs(lang, "dev")[: self.p.dev_pairs]

    def test(self, lang: str) -> list[Pair]:
        return self._pairs(lang, "test")[: self.p.test_pairs]

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for folder in self.FOLDERS:
            for path in sorted((self.folder.parent / folder).glob("*")):
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()[:16]


class RealCorpus(NtrexCorpus):
    """All text under XALMA_DATA that may be trained on: NTREX, bibles and mozilla.org copy; tested on held-out NTREX.

    ALMA's human-written pairs stay out: their English side holds all of NTREX, and FLORES-200 stands at their end.
    """

    FOLDERS = ("ntrex", "bible", "mozilla")

    def _aligned(self, folder: str, suffix: str, lang: str) -> list[Pair]:
        sides = []
        for code in (ENGLISH, lang):
            path = self.folder.parent / folder / f"{code}{suffix}"
            if not path.exists():  # bibles exist for 23 languages, mozilla copy for 48
                return []
            text = (
                gzip.decompress(path.read_bytes()).decode("utf-8")
                if suffix.endswith(".gz")
                else path.read_text("utf-8")
            )
            sides.append(dict(line.split("\t", 1) for line in text.splitlines()))
        english, other = sides
        return [(english[key], other[key]) for key in english if key in other]

    @cached_property
    def _web(self) -> dict[str, list[Pair]]:
        return {}  # language -> pairs, filled as asked

    def _web_pairs(self, lang: str) -> list[Pair]:
        if lang not in self._web:
            held_out = {text for split in ("test", "dev") for pair in self._pairs(lang, split) for text in pair}
            pairs = self._aligned("bible", ".tsv.gz", lang) + self._aligned("mozilla", ".tsv", lang)
            order = np.random.default_rng(self.p.seed).permutation(len(pairs))
            self._web[lang] = [pairs[i] for i in order if held_out.isdisjoint(pairs[i])]
        return self._web[lang]

    def monolingual(self, lang: str) -> Iterator[str]:
        yield from super().monolingual(lang)
        partner = "de" if lang == ENGLISH else lang  # any language whose English side is complete
        yield from (pair[0 if lang == ENGLISH else 1] for pair in self._web_pairs(partner))

    def bitext(self, lang: str) -> Iterator[Pair]:
        yield from self._web_pairs(lang)
        yield from super().bitext(lang)


class HubCorpus:
    """The papers' own sources, read from the hub by their documented ids and columns; text is streamed.

    OSCAR-2301 is gated: accept its terms on the hub and log in first (`hf auth login`). SFT pairs that hold a test
    sentence, letter for letter, are left out.
    """

    def __init__(self, p: Profile) -> None:
        self.p = p

    @staticmethod
    def _stream(path: str, name: str | None, split: str) -> Iterator[dict]:
        from datasets import load_dataset

        try:
            yield from load_dataset(path, name, split=split, streaming=True)
        except Exception as error:  # the hub client has a dozen kinds; the user needs one sentence
            raise RuntimeError(
                f"can't read {path} ({name or 'default'}, {split}) from the hub: {type(error).__name__}: {error}. "
                f"Accept its terms if it is gated, log in with `hf auth login`, or use another corpus"
            ) from error

    def monolingual(self, lang: str) -> Iterator[str]:
        yield from (row["text"] for row in self._stream(self.p.monolingual_id, language(lang).oscar, "train"))

    def bitext(self, lang: str) -> Iterator[Pair]:
        if lang == "th":  # allenai/nllb has no English-Thai
            rows, english, other = self._stream(self.p.bitext_id_th, "en-th", "train"), ENGLISH, lang
        else:
            english, other = "eng_Latn", language(lang).flores
            rows = self._stream(self.p.bitext_id, "-".join(sorted((english, other))), "train")
        yield from ((row["translation"][english], row["translation"][other]) for row in rows)

    def sft(self, lang: str) -> list[Pair]:
        held_out = {text for pair in self._test(lang) for text in pair}
        rows = self._stream(self.p.sft_id, f"{lang}-en", "train")
        pairs = ((row["translation"][ENGLISH], row["translation"][lang]) for row in rows)
        kept = [pair for pair in pairs if held_out.isdisjoint(pair)]
        return kept[self.p.dev_pairs :][: self.p.sft_pairs]

    def dev(self, lang: str) -> list[Pair]:
        rows = islice(self._stream(self.p.sft_id, f"{lang}-en", "train"), self.p.dev_pairs)
        return [(row["translation"][ENGLISH], row["translation"][lang]) for row in rows]

    def test(self, lang: str) -> list[Pair]:
        return self._test(lang)[: self.p.test_pairs]

    def _test(self, lang: str) -> list[Pair]:
        column = f"en-{lang}"
        rows = self._stream(self.p.test_id, column, "test")
        return [(row[column][ENGLISH], row[column][lang]) for row in rows]

    def fingerprint(self) -> str:
        return "hub, newest revision of each id"


def tokenizer_sample(corpus: Corpus, languages: tuple[str, ...], n: int) -> Iterator[str]:
    """Up to n documents of each language, for training the small backbone's tokenizer."""
    for lang in languages:
        yield from islice(corpus.monolingual(lang), n)
