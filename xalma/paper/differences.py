"""Which words of a translation differ from those of another: bold in the tables of the notebooks.

pandas' Styler has no part of a cell, and Markdown's own ** fails beside Japanese punctuation: so the tag <b>, with all
else of the cell as plain text.
"""

from __future__ import annotations

import html
import re
import unicodedata
from difflib import SequenceMatcher

import pandas as pd

from xalma.paper.tables import one_line

# Thai, Lao; Burmese; Khmer; kana and Chinese characters: written without spaces, so each character counts as a word
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
_MISSING = "[…]"
_COMPARED = "compared"  # key of a frame's attrs: column -> the column that it is compared with


def _kind(char: str) -> str:
    """s: a space, m: a mark on the letter before, c: a word by itself, p: punctuation, w: a part of a word."""
    category = unicodedata.category(char)
    if char.isspace():
        return "s"
    if category[0] == "M" or category == "Cf":
        return "m"
    if _WITHOUT_SPACES.match(char):
        return "c"
    return "p" if category[0] in "PS" else "w"


def _words(text: str) -> list[tuple[int, int]]:
    """(begin, end) of each word; a comma inside a number or a hyphen inside a word does not end it."""
    kinds = "".join(map(_kind, text))
    return [found.span() for found in re.finditer("w[wm]*(?:p+w[wm]*)*|[cpm]m*", kinds)]


def bold_differences(text: str, against: str) -> str:
    """`text` as a cell of a Markdown table, with the words in bold that `against` does not have there.

    A bold […] stands where `against` has words and `text` has none. Spaces are not compared; a character of a script
    without spaces is a word. The words are aligned by difflib. Markdown and HTML in `text` are shown as they are.
    """
    text = one_line(text)
    mine = _words(text)
    others = _words(against)
    words, other_words = [text[i:j] for i, j in mine], [against[i:j] for i, j in others]
    shown, at = "", 0
    for tag, i, j, *_ in SequenceMatcher(None, words, other_words, autojunk=False).get_opcodes():
        begin = mine[i][0] if i < len(mine) else len(text)
        end = mine[j - 1][1] if i < j else begin
        part = f"<b>{_plain(text[begin:end])}</b>" if i < j else f" <b>{_MISSING}</b> "
        shown += _plain(text[at:begin]) + (_plain(text[begin:end]) if tag == "equal" else part)
        at = end
    return re.sub(" {2,}", " ", shown + _plain(text[at:])).strip()


def _plain(text: str) -> str:
    """Text that Markdown and HTML leave alone."""
    return re.sub(r"[\\`*_~|\[\]]", lambda char: f"&#{ord(char[0])};", html.escape(text, quote=False))


def compared(frame: pd.DataFrame, against: str, *columns: str) -> pd.DataFrame:
    """`frame`, of whose `columns` `show` sets the words in bold that differ from the column `against`."""
    found = frame.copy()
    found.attrs = frame.attrs | {_COMPARED: frame.attrs.get(_COMPARED, {}) | dict.fromkeys(columns, against)}
    return found


def comparisons(frame: pd.DataFrame) -> dict[str, str]:
    """Column -> the column that it is compared with, of those that are in the frame."""
    found = frame.attrs.get(_COMPARED, {}).items()
    return {column: against for column, against in found if {column, against} <= set(frame)}


def differences_notes(frame: pd.DataFrame) -> list[str]:
    """What bold means in a frame; nothing where no columns are compared."""
    return [
        f"**Bold** words differ from the column *{against}*; at **{_MISSING}** some of its words are missing. In "
        "scripts without spaces each character counts as a word."
        for against in dict.fromkeys(comparisons(frame).values())
    ]
