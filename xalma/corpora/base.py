"""What a stage may ask of a source, and several sources as one.

    monolingual(lang)  documents, for stages 1 and 2            -> iterator of text, may end
    bitext(lang)       web-quality pairs, for stage 3           -> iterator of (English, other), may end
    sft(lang)          high-quality pairs, for stages 4 and 5   -> list of (English, other)
    dev(lang)          held-out pairs for loss curves           -> list
    test(lang)         held-out pairs for scores                -> list

and `fingerprint()`, a hash of the text itself where it lies in files. No sentence of `test` occurs in what the
training methods return. For preparation at scale (`xalma.data.prepare`) there is

    rows(kind, lang)   ("file:row", text or pair, None where the row can't be parsed), nothing checked

with bytes that are not UTF-8 kept as surrogates, so that hygiene can count them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from xalma.languages import ENGLISH, known_languages
from xalma.profiles import Profile
from xalma.runtime import data_root

Pair = tuple[str, str]  # (English, other language)
Row = tuple[str, str | Pair | None]  # (where it stands, what stands there)


class Corpus:
    """A source. A family overrides what it has; the rest is empty."""

    NAME: ClassVar[str] = ""
    # its pairs were translated for a test set or by order: SFT pairs, not web bitext
    HUMAN: ClassVar[bool] = False
    # human-written, yet bitext beside web pairs too: where there is little of these
    AS_BITEXT: ClassVar[bool] = False
    SMALL: ClassVar[bool] = False  # its text is read whole in a second

    def __init__(self, p: Profile) -> None:
        self.p = p

    @property
    def endless(self) -> bool:
        """Whether its text never ends: made, not read."""
        return False

    def languages(self) -> tuple[str, ...]:
        """The languages beside English that it may have."""
        return others()

    def monolingual(self, lang: str) -> Iterator[str]:
        return iter(())

    def bitext(self, lang: str) -> Iterator[Pair]:
        return iter(())

    def sft(self, lang: str) -> list[Pair]:
        return []

    def dev(self, lang: str) -> list[Pair]:
        return []

    def test(self, lang: str) -> list[Pair]:
        return []

    def tests(self, lang: str) -> list[Pair]:
        """All pairs that scores may be made on, those of every test set it has: what the guard looks for."""
        return self.test(lang)

    def sets(self, lang: str) -> frozenset[str]:
        """Published test sets that its SFT pairs of a language are, by name, so that `Together` counts none twice."""
        return frozenset()

    def notes(self, lang: str) -> list[str]:
        """What a reader of results should know of its SFT pairs of a language: a part of a set, pairs left out."""
        return []

    def characters(self, kind: str, lang: str) -> int | None:
        """Characters of "monolingual" or "bitext" text; None where counting would take a download, or for ever."""
        if not (self.SMALL or self.HUMAN):  # human-written pairs are few
            return None
        return sum(map(len, _texts(self.monolingual(lang) if kind == "monolingual" else self.bitext(lang))))

    def held_out(self, lang: str) -> set[str]:
        """All held-out sentences of a language (English: of all), both sides, whatever number is asked of `test`."""
        codes = self.languages() if lang == ENGLISH else (lang,)
        return {text for code in codes for pair in self._held_pairs(code) for text in pair}

    def _held_pairs(self, lang: str) -> list[Pair]:
        return [*self.test(lang), *self.dev(lang)]

    def rows(self, kind: str, lang: str) -> Iterator[Row]:
        """Rows of "monolingual" or "bitext" text with their places, for hygiene."""
        source = self.monolingual if kind == "monolingual" else self.bitext
        return ((f"{self.NAME} {lang}:{n}", content) for n, content in enumerate(source(lang), 1))

    def fingerprint(self) -> str:
        raise NotImplementedError


_PREPARE = "run `xalma prepare`, which lists such rows of monolingual text and bitext and goes on"


def strict(rows: Iterable[Row]) -> Iterator:
    """The contents of rows. Raises ValueError at one that can't be parsed or is not UTF-8."""
    for place, content in rows:
        texts = content if isinstance(content, tuple) else (content,)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{place} is no readable row: mend it, or {_PREPARE}")
        if not all(map(is_utf8, texts)):
            raise ValueError(
                f"{place} is no readable row, for it is not UTF-8: convert the file, for example with "
                f"`iconv -f latin1 -t utf-8`, or {_PREPARE}"
            )
        yield content


def others() -> tuple[str, ...]:
    """Codes of the languages beside English, added ones too."""
    return tuple(code for code in known_languages() if code != ENGLISH)


def is_utf8(text: str) -> bool:
    """False for text that was decoded with surrogates in place of bad bytes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def data_folder(name: str, what: str) -> Path:
    """A folder of XALMA_DATA. Raises FileNotFoundError, saying what to do, where it is not."""
    root = data_root()
    if root is None or not (root / name).is_dir():
        raise FileNotFoundError(
            f"{what} is not here: set XALMA_DATA to the folder that holds {name}/ (docs/data.md)"
        )
    return root / name


def has_data(name: str) -> bool:
    """Whether XALMA_DATA holds the folder."""
    root = data_root()
    return root is not None and (root / name).is_dir()


def hash_files(paths: Iterable[Path]) -> str:
    """16 hex digits over names and bytes of the files, a MiB at a time."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return digest.hexdigest()[:16]


def shuffled(items: Sequence, seed: int) -> Iterator:
    """The items in an order that follows the seed."""
    return (items[i] for i in np.random.default_rng(seed).permutation(len(items)))


class Together(Corpus):
    """Several sources as one: all their training text, the held-out pairs of the first that has some.

    Which source gives the next row is drawn with equal chances until all have ended. A training row that holds a
    held-out sentence of any of them, as a whole line, is left out. Human-written pairs are SFT pairs, as in X-ALMA;
    they serve as bitext only in a language for which no source has any other, or where the source says so
    (`AS_BITEXT`: WMT and whole NTREX, for profiles whose web pairs are bibles and web copy). A set that two sources
    have, such as WMT'17 to '20, which is all of ALMA's pairs but FLORES-200, is trained on once (`sets`); `notes`
    counts what is left out.
    """

    def __init__(self, p: Profile, parts: Sequence[Corpus]) -> None:
        super().__init__(p)
        self.parts = parts
        self._held: dict[str, set[str]] = {}

    @property
    def endless(self) -> bool:
        return any(part.endless for part in self.parts)

    def languages(self) -> tuple[str, ...]:
        return tuple(code for code in others() if any(code in part.languages() for part in self.parts))

    def held_out(self, lang: str) -> set[str]:
        if lang not in self._held:
            self._held[lang] = {text for part in self.parts for text in part.held_out(lang)}
        return self._held[lang]

    def _drawn(self, streams: Sequence[Iterator], lang: str, what: str) -> Iterator:
        live = list(streams)
        rng = np.random.default_rng(self.p.seed)
        n = 0
        held_out = self.held_out(lang)
        while live:
            stream = live[rng.integers(len(live))]
            if (content := next(stream, None)) is None:
                live.remove(stream)
                continue
            n += 1
            if held_out.isdisjoint(_lines(content)):
                yield content
        if not n:
            raise ValueError(
                f"no {what} for {lang} in corpus {self.p.corpus!r}: join a corpus that has some, with +"
            )

    def monolingual(self, lang: str) -> Iterator[str]:
        return self._drawn([part.monolingual(lang) for part in self.parts], lang, "monolingual text")

    def bitext(self, lang: str) -> Iterator[Pair]:
        return self._drawn([part.bitext(lang) for part in self._parts("bitext", lang)], lang, "bitext")

    def _parts(self, kind: str, lang: str) -> Sequence[Corpus]:
        if kind == "monolingual":
            return self.parts
        some = [part for part in self.parts if not part.HUMAN or part.AS_BITEXT]
        return [part for part in some if next(iter(part.bitext(lang)), None) is not None] or self.parts

    def sft(self, lang: str) -> list[Pair]:
        return self._sft(lang)[0][: self.p.sft_pairs]

    def notes(self, lang: str) -> list[str]:
        return [*(note for part in self.parts for note in part.notes(lang)), *self._sft(lang)[1]]

    def _sft(self, lang: str) -> tuple[list[Pair], list[str]]:
        """SFT pairs of all parts, and a sentence for each part of which some are left out."""
        held_out = self.held_out(lang)
        pairs = []
        notes = []
        have = set()
        once = self._counted_once(lang)
        for part in self.parts:
            own = part.sft(lang)
            sets = part.sets(lang)
            if part not in once:
                notes += _left_out(
                    part, len(own), f"are of {', '.join(sorted(sets))}, which another corpus has"
                )
                continue
            found = [pair for pair in own if held_out.isdisjoint(_lines(pair))]
            doubles = set(pairs).intersection(found) if have & sets else set()
            pairs += [pair for pair in found if pair not in doubles]
            have |= sets
            notes += _left_out(part, len(own) - len(found), "hold a held-out sentence")
            notes += _left_out(part, len(doubles), "stand in another corpus too")
        return pairs, notes

    def _counted_once(self, lang: str) -> list[Corpus]:
        """The parts without those whose sets are all among the sets of the others."""
        kept = list(self.parts)
        for part in self.parts:
            others = frozenset().union(*(other.sets(lang) for other in kept if other is not part))
            if part.sets(lang) and part.sets(lang) <= others:
                kept.remove(part)
        return kept

    def dev(self, lang: str) -> list[Pair]:
        return next((pairs for part in self.parts if (pairs := part.dev(lang))), [])

    def test(self, lang: str) -> list[Pair]:
        return next((pairs for part in self.parts if (pairs := part.test(lang))), [])

    def tests(self, lang: str) -> list[Pair]:
        return [pair for part in self.parts for pair in part.tests(lang)]

    def rows(self, kind: str, lang: str) -> Iterator[Row]:
        return (row for part in self._parts(kind, lang) for row in part.rows(kind, lang))

    def characters(self, kind: str, lang: str) -> int | None:
        counts = [part.characters(kind, lang) for part in self._parts(kind, lang)]
        return None if None in counts else sum(counts)

    def fingerprint(self) -> str:
        return "+".join(part.fingerprint() for part in self.parts)


def _left_out(part: Corpus, n: int, why: str) -> list[str]:
    return [f"{part.NAME}: {n} pairs left out, they {why}"] if n else []


def _texts(contents: Iterable[str | Pair]) -> Iterator[str]:
    for content in contents:
        yield from content if isinstance(content, tuple) else (content,)


def _lines(content: str | Pair) -> Iterator[str]:
    for text in _texts([content]):
        yield from text.split("\n")
