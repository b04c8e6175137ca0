"""Where the sentences of test sets stand in text: exactly, changed by copying, inside longer text, or nearly.

Sentences are compared by their letters and digits (`xalma.data.folding`). A test sentence is found

  exact       as a line, equal but for blanks at the ends
  normalised  as a line, in another case, Unicode form, width, punctuation, mark-up, …
  contained   inside a longer line, or over several lines of a text: behind a number, joined with the next sentence
  split       over two texts that follow one another
  near        changed in places: at least NEAR_SHARE of its windows of WINDOW letters stand in one line

A hit is confirmed letter by letter, so that no false alarm comes from a hash. Sentences of fewer than MIN_LETTERS
letters say nothing ("Thank you.") and are left out; what is inside or split needs MIN_CONTAINED, unless it is most of
its line. Not found: translations and paraphrases of a test sentence. Shares found, form by form, and false alarms are
in results/benchmarks/contamination_forms.md.

Memory is that of the index and of BATCH_CHARACTERS characters, however long a line is.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from xalma.data.folding import codes, fold, key, without_markup

# Letters below which a sentence may well stand in two texts by chance. Chosen on NTREX, WMT and ALMA's files, where
# repeated lines of different documents are names, dates, bylines.
MIN_LETTERS = 20
MIN_CONTAINED = 25  # the same for a sentence inside a longer text
MOST = 0.8  # share of a line's letters from which a shorter one inside counts too
# letters of a window, and between the starts of a test sentence's windows; fewer between
WINDOW, STRIDE = 16, 16
LEAST_WINDOWS = 8  # those of a sentence so short that it would have less than about so many
NEAR_SHARE, NEAR_LEAST = 0.35, 3  # of a sentence's windows, and of windows
BATCH_CHARACTERS = 1 << 18  # compared at once
# the plainest first; all but the last stop a run
KINDS = "exact", "normalised", "contained", "split", "near"
# Scripts that part no words: Thai and Lao, Burmese, Khmer and all from there on (ideographs, kana).
_NO_BLANKS = (range(0xE00, 0xF00), range(0x1000, 0x10A0), range(0x1780, 0x110000))


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
        self._lowest = np.searchsorted(prefixes, np.arange(len(self._may_be), dtype=np.uint32)).astype(
            np.int32
        )
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
        enough = counts >= np.maximum(NEAR_LEAST, NEAR_SHARE * self._n_windows[pairs // batch.n_lines])
        for pair in pairs[enough].tolist():
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
                batch = _tail(batch, overlap)
                size = 0
                is_new = False
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
            # none: an entity's break
            line = piece.split("\n")[first - int(np.searchsorted(self._owners, owner)) :][:1]
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
        return digits[0] != digits[1] or any(code in block for code in pair for block in _NO_BLANKS)
