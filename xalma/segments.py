"""What every way to translate does with its segments: checked, and blank ones kept from the model."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any


def check_segments(texts: Sequence[str]) -> list[str]:
    """The segments as a list. Raises ValueError for one bare string, whose letters would be translated, or no text."""
    if isinstance(texts, str | bytes):
        raise ValueError("give a list of texts, one string a segment: this is a single string")
    texts = list(texts)
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise ValueError(f"segment {number} is {type(text).__name__}, not text: give strings, '' for an empty one")
    return texts


def is_blank(text: str) -> bool:
    """Whether a segment has nothing to translate: only blanks, controls and characters without width."""
    return all(unicodedata.category(char)[0] in "ZC" for char in text)


def without_blank(texts: Sequence[str], translate: Callable[[list[int]], Sequence[str]]) -> list[str]:
    """A translation of each segment, in order: "" for a blank one, of which the model is not asked.

    translate: numbers of segments (from 0) -> their translations. Not called where all are blank.
    Raises ValueError as `check_segments`.
    """
    asked = [i for i, text in enumerate(check_segments(texts)) if not is_blank(text)]
    outputs = [""] * len(texts)
    for i, output in zip(asked, translate(asked) if asked else (), strict=True):
        outputs[i] = output
    return outputs


def blank_lines_kept(method: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """A system's `translate(texts, src, tgt, …)` that is not asked for blank segments."""

    @wraps(method)
    def translate(self: Any, texts: Sequence[str], *args: Any, **options: Any) -> list[str]:
        if not check_segments(texts):
            return method(self, [], *args, **options)  # checks the direction
        row = getattr(self, "row", None)
        if row is not None and all(map(is_blank, texts)):
            row.check(*args[:2])
        return without_blank(texts, lambda asked: method(self, [texts[i] for i in asked], *args, **options))

    return translate
