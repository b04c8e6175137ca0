"""The letters and digits of a text, by which sentences are compared whatever copying did to it.

Set aside are case, accents, vowel points and other marks that combine (Unicode's combining class is not 0), width,
blanks, punctuation, symbols, controls, HTML entities and tags. Digits of all scripts count as ASCII's, and letters with
a Persian, an Urdu and an Arabic form as one. Each code point is folded by itself, from its compatibility decomposition
(NFKD), and marks whose order could change are dropped: so all normal forms of a text fold alike, in every script.

An ideograph holds what three Latin letters hold, a kana what two do: fillers follow them, so that lengths compare.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import cache

import numpy as np

_FILLERS = (0xF0001, 0xF0002)  # private use: no letter of any text
_MANY = 1 << 24  # table entries from here on point into the list of longer foldings
# Looked at one by one; what is left out are ideographs, Hangul syllables, planes without letters.
_BLOCKS = (
    range(0x3400),
    range(0xA000, 0xAC00),
    range(0xD7A4, 0x20000),
    range(0x2F800, 0x2FA20),
    range(0xE0000, 0xE01F0),
)
_KANA = (range(0x3041, 0x3100), range(0x31F0, 0x3200))
_IDEOGRAPHS = (range(0x3400, 0xA000), range(0x20000, 0x2F800), range(0x30000, 0x32400))
_SYLLABLES = range(0xAC00, 0xD7A4)
_SELECTORS = (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))  # marks of class 0
_DROPPED = {0x34F, 0x640}  # grapheme joiner; tatweel, which only stretches
_ALIKE = dict(zip("ıłđøکیىےہھەۃٱ", "ildoكيييهههةا", strict=True)) | {"æ": "ae", "œ": "oe"}
_TAG = re.compile(r"<(?:/?[A-Za-z]|!--|\?)[^<>\n\0]{0,1000}>")


def without_markup(text: str) -> str:
    """The text with HTML entities decoded (twice, where they were escaped twice) and tags taken out."""
    for _ in range(2):
        if "&" in text:
            text = html.unescape(text)
    return _TAG.sub("", text) if "<" in text else text


def codes(text: str) -> np.ndarray:
    """(C,) uint32 code points."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def fold(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(letters, places) of (C,) code points: (K,) uint32, and (K,) the character each of them comes from."""
    table, longer, begins = _tables()
    letters = table.take(points)
    places = np.flatnonzero(letters)
    letters = letters[places]
    if len(letters) and letters.max() >= _MANY:
        many = letters >= _MANY
        which = letters[many] - _MANY
        counts = np.ones(len(letters), dtype=np.int64)
        counts[many] = begins[which + 1] - begins[which]
        first = np.cumsum(counts) - counts
        places = np.repeat(places, counts)
        letters = np.repeat(letters, counts)
        spots = np.arange(len(letters)) - np.repeat(first, counts)
        many = letters >= _MANY
        letters[many] = longer[begins[letters[many] - _MANY] + spots[many]]
    return letters, places


def key(text: str) -> str:
    """The letters and digits of `text` by which sentences are compared."""
    return fold(codes(without_markup(text)))[0].tobytes().decode("utf-32-le")


def letters(text: str) -> int:
    """How many letters a text's key has: an ideograph counts three, a kana two, a Hangul syllable its letters."""
    return len(key(text))


@cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(table, longer, begins): a letter for each code point, 0 for none, or _MANY + number of a longer folding."""
    table = np.arange(0x110000, dtype=np.uint32)
    table[0xE000:0xF900], table[0xF0000:] = 0, 0  # private use
    longer, begins = [], [0]

    def enter(code: int, folded: tuple[int, ...]) -> None:
        if len(folded) < 2:
            table[code] = folded[0] if folded else 0
        else:
            table[code] = _MANY + len(begins) - 1
            longer.extend(folded)
            begins.append(len(longer))

    for code in (code for block in (*_BLOCKS, _SYLLABLES) for code in block):
        enter(code, tuple(_folded(chr(code))))
    for code in (code for block in _IDEOGRAPHS for code in block):
        enter(code, (code, *_FILLERS))
    return table, np.array(longer, dtype=np.uint32), np.array(begins)


def _folded(char: str) -> list[int]:
    """What a character counts as. It depends on its decomposition alone, so that normal forms fold alike."""
    found: list[int] = []
    for part in unicodedata.normalize("NFKD", char):
        for small in (
            unicodedata.normalize("NFKD", part.casefold()) if _counts(part) or part == "\u0345" else ""
        ):
            if _counts(small):
                found += _alike(small)
    return found


def _counts(char: str) -> bool:
    code = ord(char)
    kind = unicodedata.category(char)
    if kind[0] in "PZSC" or kind == "Me" or unicodedata.combining(char) or code in _DROPPED:
        return False
    if kind == "Lm" and 0x2B0 <= code < 0x300:
        return False  # apostrophes of Uzbek and others, which are written in many ways
    return not any(code in block for block in _SELECTORS)


def _alike(char: str) -> list[int]:
    if (digit := unicodedata.digit(char, None)) is not None:
        return [ord("0") + digit]
    code = ord(char)
    if any(code in block for block in _KANA):
        return [code, _FILLERS[0]]
    return (
        [code, *_FILLERS]
        if any(code in block for block in _IDEOGRAPHS)
        else [*map(ord, _ALIKE.get(char, char))]
    )
