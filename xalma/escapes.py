"""Text that others named (systems, test sets, folders) for a table's format: one function per format.

A name may hold anything a file's name can: none of it becomes markup, a command, a formula or another row.
"""

from __future__ import annotations

import re
import unicodedata

import pandas as pd

_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
          "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "→": r"$\rightarrow$",
          "†": r"$^{\dagger}$", "°": r"$^{\circ}$",
          "×": r"$\times$", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$"}  # fmt: skip
# What a spreadsheet can read as a formula does no harm where it is letters, digits, brackets and signs, as "+DPO".
_HARMLESS = re.compile(r"[+-](?:[\d.,]+(?:e[+-]?\d+)?|[\w +().-]*)")


def one_line(text: str) -> str:
    """`text` without line breaks and other control characters: each becomes a blank."""
    return "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") else char for char in text)


def markdown_prose(text: str) -> str:
    """A caption or note, whose Markdown is ours: names in it bring no HTML and no line break."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", one_line(text))


def markdown(text: str) -> str:
    """A cell of a Markdown table: no HTML, no link, no other column."""
    plain = one_line(text).replace("&", "&amp;") if re.search(r"&#?\w+;", text) else one_line(text)
    plain = plain.replace("\\", "\\\\").replace("|", "\\|").replace("](", "]\\(")
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", plain)


def latex(text: str) -> str:
    """`text` for LaTeX; Markdown's links and code marks are taken off."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", one_line(text)).replace("`", "").replace("**", "")
    return "".join(_LATEX.get(char, char) for char in plain)


def csv(text: str) -> str:
    """A cell of a CSV file, before it is quoted: one line, and no formula of a spreadsheet."""
    plain = one_line(text)
    is_formula = plain.lstrip().startswith(("=", "@", "+", "-")) and not _HARMLESS.fullmatch(plain.strip())
    return f"'{plain}" if is_formula else plain


def frame_csv(frame: pd.DataFrame, float_format: str | None = "%.6g") -> str:
    """A data frame as CSV without its index, its text by `csv`."""
    safe = frame.map(lambda cell: csv(cell) if isinstance(cell, str) else cell)
    safe.columns = [csv(str(name)) for name in frame.columns]
    return safe.to_csv(index=False, float_format=float_format, lineterminator="\n")
