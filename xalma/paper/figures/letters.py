"""Words of any script in a figure: in a font that has their letters, else as code points, and a sentence says so.

matplotlib's own font has Latin, Greek, Cyrillic, Georgian, Hebrew and Arabic letters. It has no Indic, Thai or CJK
letters; where a font of the system has them it is used, so that no figure shows an empty box.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from matplotlib import font_manager

OWN = "DejaVu Sans"  # comes with matplotlib
INSTALL = "Debian's fonts-noto-core and fonts-noto-cjk have them."


class Drawable(NamedTuple):
    """Texts as they can be drawn, the font families that draw them, and a sentence on letters without a font."""

    texts: list[str]
    families: list[str]
    note: str


def drawable(texts: Iterable[str]) -> Drawable:
    """Each text as it is where fonts have its letters; a letter that none has is written ⟨65E5⟩, its code point."""
    texts = list(texts)
    families, missing = _families({char for char in "".join(texts) if char.isprintable()})
    shown = ["".join(f"⟨{ord(char):X}⟩" if char in missing else char for char in text) for text in texts]
    return Drawable(shown, families, _note(sorted(missing)))


def _families(letters: set[str]) -> tuple[list[str], set[str]]:
    """(matplotlib's own font and as few of the system's as have the letters, the letters that none has)."""
    families, missing = [OWN], letters - _has(font_manager.findfont(OWN), letters)
    regular = [
        font
        for font in font_manager.fontManager.ttflist
        if font.style == "normal"
        and not getattr(font, "index", 0)
        and not font.name.startswith("Last Resort")
    ]  # the last resort has a box for every letter; a collection's first font stands for it
    for font in sorted(
        regular, key=lambda font: (not font.name.startswith("Noto Sans"), font.name, font.weight)
    ):
        if not missing:
            break
        if font.name not in families and (found := _has(font.fname, missing)):
            families.append(font.name)
            missing -= found
    return families, missing


def _has(path: str, letters: set[str]) -> set[str]:
    known = font_manager.get_font(path).get_charmap()
    return {char for char in letters if ord(char) in known}


def _note(missing: Sequence[str]) -> str:
    if not missing:
        return ""
    named = [
        char for char in missing if char.isalpha()
    ] or missing  # marks and commas only where there is no letter
    scripts = dict.fromkeys(unicodedata.name(char, "other").split()[0] for char in named)
    names = ", ".join(name if name == "CJK" else name.capitalize() for name in scripts)
    example = f"⟨{ord(missing[0]):X}⟩ is U+{ord(missing[0]):04X}"
    return f"No installed font has these letters ({names}), so they are code points: {example}. {INSTALL}"
