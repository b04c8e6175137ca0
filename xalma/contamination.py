"""Is a test sentence in the training text? Asked of every row before a stage may learn from it.

Two sentences are *exactly* alike when they are equal but for blanks at the ends, and alike *normalised* when they have
the same key: their letters and digits, with case, accents, width, spaces, punctuation and symbols set aside. Every side
of every direction of the test set is looked for on every side of a row, so a leak that crosses directions is found: the
English reference of is-en in a German-English pair (FLORES-200, NTREX and WMT share their English side).

A key is 64 bits, made for a whole batch of lines at once with numpy; a hit is confirmed on the text itself, so that no
false alarm comes from the hash. Sentences of fewer than MIN_LETTERS letters say nothing ("Thank you.") and are left
out. Not found: a test sentence inside a longer line, near-duplicates with other words, translations of it.

X-ALMA and ALMA train on test sets of earlier years by design (WMT'15-'22, NTREX, FLORES-200 dev); neither says how
overlaps with what they test on were looked for. This guard is ours.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from xalma.data import Corpus, open_corpus
from xalma.profiles import Profile
from xalma.runtime import data_root

# Letters below which a sentence may well stand in two texts by chance; an ideograph or syllable counts for three or two
# letters. Chosen on NTREX, WMT and ALMA's files, where repeated lines of different documents are names, dates, bylines.
MIN_LETTERS = 20
CHUNK = 256  # rows a guard reads ahead; at a thousand and more the arrays fall out of the cache
BATCH_CHARACTERS = 1 << 18  # hashed at once
ACTIONS = ("stop", "drop", "allow")

_MULTIPLIER, _MIXER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_MARKS = range(0x300, 0x370)  # accents of Latin, Greek and Cyrillic
# Blocks whose characters are looked at one by one; all others (ideographs, Hangul, rare scripts) are kept as they are.
_BLOCKS = (range(0x3400), range(0xA000, 0xAC00), range(0xD800, 0x12000), range(0x1D400, 0x1D800),
           range(0x1F000, 0x1FB00))  # fmt: skip


@dataclass(frozen=True)
class Hit:
    """A test sentence in the `text`-th text; `places` are (side of the test set, line from 1)."""

    text: int
    kind: str  # "exact" or "normalised"
    places: tuple[tuple[str, int], ...]


@cache
def _fold() -> np.ndarray:
    """(0x110000,) uint32: the character a character counts as, 0 for one that doesn't count."""
    table = np.arange(0x110000, dtype=np.uint32)
    for code in (code for block in _BLOCKS for code in block):
        table[code] = _folded(chr(code))
    return table


def _folded(char: str) -> int:
    if unicodedata.category(char)[0] in "PZSC" or ord(char) in _MARKS:
        return 0
    if char == "ı":  # the capital of Turkish ı is I, whose small letter is i
        return ord("i")
    bare = [c for c in unicodedata.normalize("NFKD", char.casefold()) if ord(c) not in _MARKS]
    return ord(bare[0].casefold()) if len(bare) == 1 and len(bare[0].casefold()) == 1 else ord(char)


def key(text: str) -> str:
    """The letters and digits of `text` by which sentences are compared."""
    folded = _fold()[_codes(_spelled_out(text))]
    return folded[folded != 0].tobytes().decode("utf-32-le", "surrogatepass")


def letters(text: str) -> int:
    """How many letters a key has: an ideograph or kana counts three, a Hangul syllable two."""
    codes = _codes(text)
    ideographs = np.count_nonzero((codes >= 0x3040) & (codes < 0xA000))
    syllables = np.count_nonzero((codes >= 0xAC00) & (codes < 0xD7A4))
    return len(codes) + 2 * ideographs + syllables


def _codes(text: str) -> np.ndarray:
    """(C,) uint32 code points."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _spelled_out(text: str) -> str:
    return text.replace("ß", "ss").replace("ẞ", "ss")  # the capital of ß is SS


def line_hashes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(hashes, owners): a uint64 for each line of all texts, 0 for one without letters, and the text it is a line of.

    Σ mix(letter at position i) · m^i modulo 2^64. Equal keys give equal hashes.
    """
    blob = _spelled_out("\0".join(texts))
    if blob.count("\0") != len(texts) - 1:
        blob = _spelled_out("\0".join(text.replace("\0", " ") for text in texts))
    codes = _codes(blob)  # (C,)
    ends = np.flatnonzero((codes == 10) | (codes == 0))  # (L - 1,): the ends of all lines but the last
    owners = np.concatenate([[0], np.cumsum(codes[ends] == 0)])  # (L,)
    folded = _fold()[codes]
    kept = folded != 0
    upto = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])  # letters before each character
    borders = np.concatenate([[0], upto[ends], [upto[-1]]])
    counts, starts = np.diff(borders), borders[:-1]  # (L,) letters of each line, and where they begin
    mixed = folded[kept] * _MIXER  # (K,) uint64
    mixed ^= mixed >> np.uint64(29)
    if len(mixed):
        mixed *= _powers(int(counts.max()))[np.arange(len(mixed)) - np.repeat(starts, counts)]
    hashes = np.zeros(len(counts), dtype=np.uint64)
    if len(mixed):
        hashes[counts > 0] = np.add.reduceat(mixed, starts[counts > 0])
    return hashes, owners


def _powers(n: int) -> np.ndarray:
    """(at least n,) uint64 powers of the multiplier; kept, and grown by doubling."""
    return _power_table(1 << max(10, (n - 1).bit_length()))


@cache
def _power_table(n: int) -> np.ndarray:
    factors = np.full(n, _MULTIPLIER)
    factors[0] = 1
    return np.multiply.accumulate(factors)


class TestIndex:
    """The keys of all sentences of a test set's sides, for looking up lines of training text."""

    __test__ = False  # no test, whatever pytest thinks of the name

    def __init__(self, sides: Mapping[str, Sequence[str]], min_letters: int = MIN_LETTERS) -> None:
        """sides: name of a side, such as "wmt22 en-de source", to its sentences."""
        self.n_long: Counter[str] = Counter()  # side -> its sentences that are long enough
        self._places: dict[str, list[tuple[str, int]]] = {}  # key -> where it stands
        self._texts: dict[str, set[str]] = {}
        for name, sentences in sides.items():
            for number, sentence in enumerate(sentences, 1):
                k = key(sentence)
                if letters(k) >= min_letters:
                    self.n_long[name] += 1
                    self._places.setdefault(k, []).append((name, number))
                    self._texts.setdefault(k, set()).add(sentence.strip())
        one_of_each = [min(texts).replace("\n", " ") for texts in self._texts.values()]
        hashes = line_hashes(one_of_each)[0] if one_of_each else np.zeros(0, dtype=np.uint64)
        self._hashes = np.unique(hashes)
        self.n_keys = len(one_of_each)

    def find(self, texts: Sequence[str]) -> list[Hit]:
        """Every hit, in the order of the texts; a text of several lines is looked through line by line."""
        hits: list[Hit] = []
        for start, batch in _batches(texts):
            hashes, owners = line_hashes(batch)
            spots = np.searchsorted(self._hashes, hashes)
            spots[spots == len(self._hashes)] = 0
            found = np.flatnonzero(self._hashes[spots] == hashes) if len(self._hashes) else ()
            first_line = np.searchsorted(owners, np.arange(len(batch))) if len(found) else ()
            for line in found:
                owner = int(owners[line])
                sentence = batch[owner].split("\n")[line - first_line[owner]]
                if places := self._places.get(k := key(sentence)):
                    kind = "exact" if sentence.strip() in self._texts[k] else "normalised"
                    hits.append(Hit(start + owner, kind, tuple(places)))
        return hits


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """(index of the first, texts) runs of about BATCH_CHARACTERS characters."""
    start = size = 0
    for i, text in enumerate(texts):
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield start, texts[start : i + 1]
            start, size = i + 1, 0
    if start < len(texts):
        yield start, texts[start:]


class Guard:
    """Watches rows on their way into training; `counts`: rows seen, and rows with an exact or a normalised match.

    action: "stop" raises at the first match, "drop" leaves matching rows out, "allow" only counts them.
    """

    def __init__(self, index: TestIndex, action: str = "stop") -> None:
        if action not in ACTIONS:
            raise ValueError(f"unknown action {action!r} against test sentences: choose {', '.join(ACTIONS)}")
        self.index, self.action, self.counts = index, action, Counter()

    def watch(self, rows: Iterable[Any], where: str) -> Iterator[Any]:
        """The rows (texts, or tuples of texts) that may be trained on, in order; `where` names them in the error.

        Raises ValueError, naming the first match and how many rows of its chunk match, if the action is "stop".
        """
        rows = iter(rows)
        done = 0
        while chunk := list(islice(rows, CHUNK)):
            hits = self._hits(chunk)
            kinds = Counter(hit.kind for hit in hits.values())
            self.counts.update({"rows": len(chunk), **kinds})
            if hits and self.action == "stop":
                raise ValueError(_stop_message(hits, done, len(chunk), where))
            yield from chunk if self.action == "allow" else (row for i, row in enumerate(chunk) if i not in hits)
            done += len(chunk)

    def _hits(self, chunk: Sequence[Any]) -> dict[int, Hit]:
        """Row number in the chunk -> its first hit, an exact one before others."""
        sides = [(i, text) for i, row in enumerate(chunk) for text in ((row,) if isinstance(row, str) else row)]
        hits: dict[int, Hit] = {}
        for hit in sorted(self.index.find([text for _, text in sides]), key=lambda hit: hit.kind):
            hits.setdefault(sides[hit.text][0], hit)
        return hits

    def report(self) -> dict[str, Any]:
        """For run.json: what was looked for, and what was found."""
        found = {kind: self.counts[kind] for kind in ("rows", "exact", "normalised")}
        return {"action": self.action, "test_sentences": self.index.n_keys, **found}


def _stop_message(hits: Mapping[int, Hit], done: int, size: int, where: str) -> str:
    row = min(hits)
    side, line = hits[row].places[0]
    return (
        f"{where}, row {done + row + 1}, is a test sentence ({hits[row].kind}: line {line} of {side}), and so are "
        f"{len(hits)} of the {size} rows from row {done + 1} on. Leave them out with --set contamination=drop, or "
        f"train on them all the same with --set contamination=allow"
    )


def guard_rows(rows: Iterable[Any], index: TestIndex, where: str = "the training text", action: str = "stop") -> list:
    """The rows that may be trained on. Raises ValueError as `Guard.watch` does."""
    return list(Guard(index, action).watch(rows, where))


class GuardedCorpus:
    """A corpus whose training text passes a guard; dev, test and all else are the corpus's own.

    Pickled and copied as its profile alone, and equal ones of a process are one and the same: `datasets` copies what it
    streams from, and counts on a copy would be lost.
    """

    def __init__(self, p: Profile, languages: tuple[str, ...], root: Path | None) -> None:
        self.made_from, self.corpus = (p, languages, root), open_corpus(p)
        self.guard = Guard(test_index(self.corpus, languages), p.contamination)

    def __getattr__(self, name: str) -> Any:
        """What is not guarded is the corpus's own."""
        return getattr(self.__dict__["corpus"], name)

    def __reduce__(self) -> tuple:
        return _guarded, self.made_from

    def monolingual(self, lang: str) -> Iterator[str]:
        yield from self.guard.watch(self.corpus.monolingual(lang), f"monolingual text, {lang}")

    def bitext(self, lang: str) -> Iterator[tuple[str, str]]:
        yield from self.guard.watch(self.corpus.bitext(lang), f"bitext, en-{lang}")

    def sft(self, lang: str) -> list[tuple[str, str]]:
        return list(self.guard.watch(self.corpus.sft(lang), f"SFT pairs, en-{lang}"))


def guarded_corpus(p: Profile, languages: tuple[str, ...]) -> GuardedCorpus:
    """The profile's corpus behind a guard that knows the test sentences of `languages`, those the stage trains.

    Its counts start at 0. Raises FileNotFoundError as `open_corpus`.
    """
    corpus = _guarded(p, languages, data_root())
    corpus.guard.counts.clear()
    return corpus


def guard_report(p: Profile, languages: tuple[str, ...]) -> dict[str, Any]:
    """What the guard has seen since `guarded_corpus` was called with the same arguments: see `Guard.report`."""
    return _guarded(p, languages, data_root()).guard.report()


@lru_cache(maxsize=8)
def _guarded(p: Profile, languages: tuple[str, ...], root: Path | None) -> GuardedCorpus:
    return GuardedCorpus(p, languages, root)


def test_index(corpus: Corpus, languages: Iterable[str]) -> TestIndex:
    """The index of both sides of the corpus's test pairs in each language."""
    sides = {}
    for code in languages:
        pairs = corpus.tests(code)
        for i, lang in enumerate(("en", code)):
            sides[f"the test set, en-{code}, {lang}"] = [pair[i] for pair in pairs]
    return TestIndex(sides)


test_index.__test__ = False  # no test, whatever pytest thinks of the name
