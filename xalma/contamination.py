"""Is a test sentence in the training text? Asked of every row before a stage may learn from it.

Sentences are compared by their letters and digits (`xalma.folding`). A test sentence is found

  exact       as a line, equal but for blanks at the ends
  normalised  as a line, in another case, Unicode form, width, punctuation, mark-up, …
  contained   inside a longer line, or over several lines of a text: behind a number, joined with the next sentence
  split       over two texts that follow one another
  near        changed in places: at least NEAR_SHARE of its windows of WINDOW letters stand in one line

Near-duplicates are counted and reported; the other kinds stop a run or are dropped. Every side of every direction of
the test set is looked for on every side of a row, so a leak that crosses directions is found: the English reference of
is-en in a German-English pair (FLORES-200, NTREX and WMT share their English side). A hit is confirmed letter by
letter, so that no false alarm comes from a hash. Sentences of fewer than MIN_LETTERS letters say nothing
("Thank you.") and are left out; what is inside or split needs MIN_CONTAINED, unless it is most of its line.
Not found: translations and paraphrases of a test sentence.

Memory is that of the index and of BATCH_CHARACTERS characters, however long a line is.

X-ALMA and ALMA train on test sets of earlier years by design (WMT'15-'22, NTREX, FLORES-200 dev); neither says how
overlaps with what they test on were looked for. This guard is ours.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from xalma.data import Corpus, open_corpus
from xalma.folding import codes, fold, key, letters, without_markup
from xalma.profiles import Profile
from xalma.runtime import data_root

__all__ = ["Guard", "GuardedCorpus", "Hit", "TestIndex", "guard_report", "guard_rows", "guarded_corpus", "key",
           "letters", "test_index"]  # fmt: skip

# Letters below which a sentence may well stand in two texts by chance. Chosen on NTREX, WMT and ALMA's files, where
# repeated lines of different documents are names, dates, bylines.
MIN_LETTERS = 20
MIN_CONTAINED = 23  # the same for a sentence inside a longer text
MOST = 0.8  # share of a line's letters from which a shorter one inside counts too
WINDOW, STRIDE = 16, 12  # letters of a window, and between the starts of a test sentence's windows; fewer between
LEAST_WINDOWS = 8  # those of a sentence so short that it would have less than about so many
NEAR_SHARE, NEAR_LEAST = 0.35, 3  # of a sentence's windows, and of windows
CHUNK = 256  # rows a guard reads ahead; at a thousand and more the arrays fall out of the cache
BATCH_CHARACTERS = 1 << 18  # compared at once
ACTIONS = ("stop", "drop", "allow")
KINDS = ("exact", "normalised", "contained", "split", "near")  # the plainest first; all but the last stop a run


@dataclass(frozen=True)
class Hit:
    """A test sentence in the `text`-th text; `places` are (side of the test set, line from 1)."""

    text: int
    kind: str  # one of KINDS
    places: tuple[tuple[str, int], ...]


class TestIndex:
    """All sentences of a test set's sides, for finding them in training text."""

    __test__ = False  # no test, whatever pytest thinks of the name

    def __init__(self, sides: Mapping[str, Sequence[str]], min_letters: int = MIN_LETTERS) -> None:
        """sides: name of a side, such as "wmt22 en-de source", to its sentences."""
        self.n_long: Counter[str] = Counter()  # side -> its sentences that are long enough
        places: dict[str, list[tuple[str, int]]] = {}  # key -> where it stands
        self._texts: list[set[str]] = []  # of each key, as they are written
        numbers: dict[str, int] = {}
        for name, sentences in sides.items():
            for number, sentence in enumerate(sentences, 1):
                k = key(sentence)
                if len(k) >= max(min_letters, WINDOW):
                    self.n_long[name] += 1
                    places.setdefault(k, []).append((name, number))
                    if numbers.setdefault(k, len(numbers)) == len(self._texts):
                        self._texts.append(set())
                    self._texts[numbers[k]].add(sentence.strip())
        self.n_keys = len(numbers)
        self._places = [tuple(found) for found in places.values()]
        self._letters = codes("".join(numbers))  # (K,)
        self._ends = np.cumsum([0, *map(len, numbers)])  # (n_keys + 1,)
        self._longest = int(np.diff(self._ends).max(initial=0))
        self._index_windows()

    def _index_windows(self) -> None:
        """Every STRIDE-th window of each sentence; its rarest is the anchor by which the whole sentence is found."""
        room = np.diff(self._ends) - WINDOW  # (n_keys,)
        strides = np.clip(room // LEAST_WINDOWS, 1, STRIDE)
        self._n_windows = room // strides + 1
        owners = np.repeat(np.arange(self.n_keys), self._n_windows)
        first = np.cumsum(self._n_windows) - self._n_windows
        offsets = (np.arange(len(owners)) - first[owners]) * strides[owners]
        hashes = window_hashes(self._letters)
        hashes = hashes[self._ends[owners] + offsets] if len(owners) else np.zeros(0, np.uint32)
        last = first + self._n_windows - 1
        self._first_hashes, self._last_hashes, self._last_offsets = hashes[first], hashes[last], offsets[last]
        order = np.argsort(hashes, kind="stable")
        self._owners, self._offsets = owners[order], offsets[order]
        self._hashes, begins = np.unique(hashes[order], return_index=True)
        self._begins = np.append(begins, len(order))
        rarity = np.repeat(np.diff(self._begins), np.diff(self._begins))  # of each entry
        best = np.lexsort((rarity, self._owners))
        self._is_anchor = np.zeros(len(order), bool)
        self._is_anchor[best[first]] = True
        self._shift = np.uint32(32 - min(max(12, len(self._hashes).bit_length() + 5), 24))
        self._may_be = np.zeros(1 << (32 - int(self._shift)), bool)  # by a hash's first bits
        prefixes = self._hashes >> self._shift
        self._may_be[prefixes] = True
        # of each prefix the first hash, so that a few steps find the right one: a binary search is ten times slower
        self._lowest = np.searchsorted(prefixes, np.arange(len(self._may_be), dtype=np.uint32)).astype(np.int32)
        self._steps = int(np.unique(prefixes, return_counts=True)[1].max(initial=1)) - 1

    def find(self, texts: Iterable[str], near: bool = False) -> list[Hit]:
        """Every hit, in the order of the texts, at most one a text and sentence; near-duplicates only if asked for.

        Texts are looked through line by line, across lines, and across two texts that follow one another.
        """
        hits: dict[tuple[int, int], str] = {}  # (text, sentence) -> kind
        for batch in _batches(texts, 4 * self._longest) if self.n_keys else ():
            self._search(_Folded(batch), hits, near)
        return [
            Hit(text, kind, self._places[sentence])
            for (text, sentence), kind in sorted(hits.items(), key=lambda hit: hit[0][0])
        ]

    def _search(self, batch: _Folded, hits: dict[tuple[int, int], str], near: bool) -> None:
        hashes = window_hashes(batch.letters)
        entries, spots = self._windows_in(hashes)
        anchors = np.flatnonzero(self._is_anchor[entries])
        sentences = self._owners[entries[anchors]]
        starts = spots[anchors] - self._offsets[entries[anchors]]
        lasts = starts + self._last_offsets[sentences]
        likely = (starts >= 0) & (lasts < len(hashes))
        for spots_of, expected in ((starts, self._first_hashes), (lasts, self._last_hashes)):
            likely[likely] = hashes[spots_of[likely]] == expected[sentences[likely]]
        for sentence, start in zip(sentences[likely].tolist(), starts[likely].tolist(), strict=True):
            begin, end = self._ends[sentence], self._ends[sentence + 1]
            stop = start + int(end - begin)
            if not np.array_equal(batch.letters[start:stop], self._letters[begin:end]):
                continue
            for text, kind in batch.kinds(start, stop, self._texts[sentence]):
                hits[text, sentence] = min(kind, hits.get((text, sentence), kind), key=KINDS.index)
        if near and len(entries):
            self._search_near(batch, entries, spots, hits)

    def _windows_in(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(entries of the index, places in `hashes`), paired: the windows that are a test sentence's."""
        spots = np.flatnonzero(self._may_be.take(hashes >> self._shift))
        hashes = hashes[spots]
        found = self._lowest[hashes >> self._shift]
        for _ in range(self._steps):
            found += (self._hashes[found] < hashes) & (found < len(self._hashes) - 1)
        same = self._hashes[found] == hashes
        found, spots = found[same], spots[same]
        counts = self._begins[found + 1] - self._begins[found]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(self._begins[found], counts) + within, np.repeat(spots, counts)

    def _search_near(
        self, batch: _Folded, entries: np.ndarray, spots: np.ndarray, hits: dict[tuple[int, int], str]
    ) -> None:
        """Sentences of which a line holds NEAR_SHARE of the windows, and NEAR_LEAST of them."""
        pairs = self._owners[entries] * batch.n_lines + batch.lines_at(spots)
        most = int(self._last_offsets.max()) + 1
        once = np.unique(pairs * most + self._offsets[entries])  # a window said twice in a line counts once
        pairs, counts = np.unique(once // most, return_counts=True)
        for pair in pairs[counts >= np.maximum(NEAR_LEAST, NEAR_SHARE * self._n_windows[pairs // batch.n_lines])].tolist():
            sentence, line = divmod(pair, batch.n_lines)
            hits.setdefault((batch.owner_of(line), sentence), "near")


def window_hashes(letters: np.ndarray) -> np.ndarray:
    """(K - WINDOW + 1,) uint32 of (K,) letters: Σ mix(letter) · odd constants, by doubling the window's length."""
    if len(letters) < WINDOW:
        return np.zeros(0, np.uint32)
    hashes = letters * np.uint32(0x9E3779B1)
    hashes ^= hashes >> np.uint32(15)
    length = 1
    for factor in (0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1):
        longer = hashes[:-length] * np.uint32(factor)
        longer += hashes[length:]
        hashes, length = longer, 2 * length
    return hashes


Pieces = list[tuple[int, str]]  # (number of the text, what is read of it)


def _batches(texts: Iterable[str], overlap: int) -> Iterator[Pieces]:
    """Runs of pieces of about BATCH_CHARACTERS; each begins with the last `overlap` characters of the one before."""
    if isinstance(texts, Sequence) and sum(map(len, texts)) < BATCH_CHARACTERS:
        yield from [list(enumerate(texts))] if texts else []
        return
    batch: Pieces = []
    size, is_new = 0, False
    for number, text in enumerate(texts):
        for start in range(0, max(1, len(text)), BATCH_CHARACTERS):
            piece = text[start : start + BATCH_CHARACTERS]
            if batch and batch[-1][0] == number:
                batch[-1] = (number, batch[-1][1] + piece)
            else:
                batch.append((number, piece))
            size, is_new = size + len(piece), True
            if size >= BATCH_CHARACTERS:
                yield batch
                batch, size, is_new = _tail(batch, overlap), 0, False
    if is_new:
        yield batch


def _tail(batch: Pieces, overlap: int) -> Pieces:
    kept: Pieces = []
    for number, piece in reversed(batch):
        if overlap > 0:
            kept.append((number, piece[-overlap:]))
            overlap -= len(piece)
    return kept[::-1]


class _Folded:
    """A batch as one run of letters, and where its texts and lines begin.

    Attributes: letters (K,) uint32; n_lines.
    """

    def __init__(self, batch: Pieces) -> None:
        self.batch = batch
        blob = "\0".join([piece for _, piece in batch])
        if blob.count("\0") != len(batch) - 1:
            blob = "\0".join([piece.replace("\0", " ") for _, piece in batch])
        self._points = codes(without_markup(blob))
        self.letters, self._places = fold(self._points)

    @cached_property
    def _borders(self) -> np.ndarray:
        """(n_lines + 1,): the letter at which each line begins, and the end."""
        ends = np.searchsorted(self._places, self._line_ends)
        return np.concatenate([[0], ends, [len(self.letters)]])

    @cached_property
    def _line_ends(self) -> np.ndarray:
        return np.flatnonzero((self._points == 10) | (self._points == 0))

    @cached_property
    def _owners(self) -> np.ndarray:
        """(n_lines,): which of the batch's texts each line is of."""
        return np.concatenate([[0], np.cumsum(self._points[self._line_ends] == 0)])

    @property
    def n_lines(self) -> int:
        return len(self._owners)

    def owner_of(self, line: int) -> int:
        """The number of the text a line is of."""
        return self.batch[self._owners[line]][0]

    def lines_at(self, spots: np.ndarray) -> np.ndarray:
        """The line of each letter."""
        return np.searchsorted(self._borders, spots, side="right") - 1

    def kinds(self, start: int, stop: int, written: set[str]) -> list[tuple[int, str]]:
        """(text, kind) of a test sentence whose letters stand at start:stop; empty where they say nothing."""
        first, last = self.lines_at(np.array([start, stop - 1])).tolist()
        around = int(self._borders[last + 1] - self._borders[first])  # letters of its lines
        if first == last and around == stop - start:
            owner = self._owners[first]
            text, piece = self.batch[owner]
            line = piece.split("\n")[first - int(np.searchsorted(self._owners, owner)) :][:1]  # none: an entity's break
            return [(text, "exact" if line and line[0].strip() in written else "normalised")]
        is_long = stop - start >= MIN_CONTAINED or (first == last and stop - start >= MOST * around)
        if not is_long or not self._parted(start) or not self._parted(stop):
            return []
        lines = [line for line in range(first, last + 1) if self._borders[line] < self._borders[line + 1]]
        texts = {self.owner_of(line) for line in lines}
        return [(text, "contained" if len(texts) == 1 else "split") for text in sorted(texts)]

    def _parted(self, i: int) -> bool:
        """Whether a word may end before the i-th letter: at a blank or sign, or where the script writes none."""
        if i == 0 or i == len(self.letters):
            return True
        between = self._points[self._places[i - 1] + 1 : self._places[i]].tolist()
        if any(unicodedata.category(chr(code))[0] != "M" for code in between):
            return True
        pair = self.letters[i - 1 : i + 1].tolist()
        digits = [48 <= code < 58 for code in pair]
        return digits[0] != digits[1] or any(0xE00 <= code < 0xF00 or 0x1000 <= code < 0x10A0 or code >= 0x1780 for code in pair)


class Guard:
    """Watches rows on their way into training; `counts`: rows seen, and rows with a match of each of KINDS.

    action: "stop" raises at the first match, "drop" leaves matching rows out, "allow" only counts them. Rows that are
    near-duplicates are counted and kept.
    """

    def __init__(self, index: TestIndex, action: str = "stop") -> None:
        if action not in ACTIONS:
            raise ValueError(f"unknown action {action!r} against test sentences: choose {', '.join(ACTIONS)}")
        self.index, self.action, self.counts = index, action, Counter()

    def watch(self, rows: Iterable[Any], where: str) -> Iterator[Any]:
        """The rows (texts, or tuples of texts) that may be trained on, in order; `where` names them in the error.

        Raises ValueError, naming the first match and how many rows of its chunk match, if the action is "stop".
        """
        rows, held, hits, done, ended = iter(rows), [], {}, 0, False
        while not ended:
            chunk = list(islice(rows, CHUNK))
            block, ended = held + chunk, len(chunk) < CHUNK
            for row, hit in self._hits(block if chunk else []).items():
                hits[row] = min(hit, hits.get(row, hit), key=_plainness)
            n = len(block) if ended else len(block) - 1  # the last waits: a sentence may go on in the next row
            leaks = {row: hit for row, hit in hits.items() if row < n and hit.kind != "near"}
            self.counts.update({"rows": n, **Counter(hit.kind for row, hit in hits.items() if row < n)})
            if leaks and self.action == "stop":
                raise ValueError(_stop_message(leaks, done, n, where))
            yield from (row for i, row in enumerate(block[:n]) if i not in leaks or self.action == "allow")
            held, hits = block[n:], {row - n: hit for row, hit in hits.items() if row >= n}
            done += n

    def _hits(self, rows: Sequence[Any]) -> dict[int, Hit]:
        """Row number -> its plainest hit. The first sides of all rows follow one another, then the second sides."""
        rows = [(row,) if isinstance(row, str) else row for row in rows]
        hits: dict[int, Hit] = {}
        for side in range(max(map(len, rows), default=0)):
            numbers = [number for number, row in enumerate(rows) if side < len(row)]
            for hit in self.index.find([rows[number][side] for number in numbers], near=True):
                row = numbers[hit.text]
                hits[row] = min(hits.get(row, hit), hit, key=_plainness)
        return hits

    def report(self) -> dict[str, Any]:
        """For run.json: what was looked for, and what was found."""
        found = {kind: self.counts[kind] for kind in ("rows", *KINDS)}
        return {"action": self.action, "test_sentences": self.index.n_keys, **found}


def left_out(report: Mapping[str, Any]) -> int:
    """Rows with a leak, of a `Guard.report`; older ones know exact and normalised only."""
    return sum(report.get(kind, 0) for kind in KINDS[:-1])


def _plainness(hit: Hit) -> int:
    return KINDS.index(hit.kind)


def _stop_message(hits: Mapping[int, Hit], done: int, size: int, where: str) -> str:
    row = min(hits)
    side, line = hits[row].places[0]
    what = {"contained": "holds", "split": "holds part of"}.get(hits[row].kind, "is")
    return (
        f"{where}, row {done + row + 1}, {what} a test sentence ({hits[row].kind}: line {line} of {side}), and so do "
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
