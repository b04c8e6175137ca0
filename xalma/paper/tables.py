"""Tables whose cells say more than a number: best of a column, significance, and the run a number comes from.

One table, three files: CSV with the plain text (and the runs in columns of their own), Markdown (best in bold, the
number a link to its run.json), LaTeX with booktabs (best in bold, a letter at a number leads to its run below).
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from csv import writer
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd
from pandas.api.types import is_float, is_numeric_dtype

from xalma.evaluation.interference import DOUBT, MARK
from xalma.evaluation.records import Record, doubtful
from xalma.evaluation.thresholds import UNNOTICED, explained, is_noticed
from xalma.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_WORSE = "†"  # the best of its column is not significantly better


@dataclass(frozen=True)
class Cell:
    """`text` as shown ("" for no number), the number behind it for choosing the best, and what is known of it."""

    text: str
    value: float | None = None
    best: bool = False
    mark: str = ""
    run: str = ""  # path of the run.json behind the number, relative to the table's folder


@dataclass(frozen=True)
class Table:
    """Columns, rows of cells or plain text, a caption above, and notes below."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str
    notes: Sequence[str] = ()
    right: Sequence[bool] | None = None  # columns set to the right; None for those that hold numbers

    def with_best(self, columns: Iterable[int]) -> Table:
        """The table with the highest number of each given column marked best, equal ones all."""
        cells = [list(row) for row in self.rows]
        for column in columns:
            numbered = [
                row for row in cells if isinstance(row[column], Cell) and row[column].value is not None
            ]
            top = max((row[column].value for row in numbered), default=None)
            for row in numbered:
                row[column] = replace(row[column], best=row[column].value == top)
        return replace(self, rows=cells)


def number(value: float | None, decimals: int = 2, run: str = "", mark: str = "") -> Cell:
    """A cell of a measured number; empty for None or NaN."""
    if value is None or value != value:
        return Cell("")
    return Cell(f"{value:.{decimals}f}", float(value), mark=mark, run=run)


def printed(shown: str, value: float) -> Cell:
    """A cell of a published table as printed; a number we could not read with certainty can't be the best."""
    return Cell(shown, None if value != value or shown.endswith("?") else float(value))


def write_marked(
    table: Table, stem: str | Path, formats: Sequence[str] = (".csv", ".md", ".tex")
) -> list[Path]:
    """Write <stem>.csv, .md and .tex, or some of them; returns the paths.

    Raises ValueError for a row of another length.
    """
    for row in table.rows:
        if len(row) != len(table.columns):
            raise ValueError(
                f"a row of {len(row)} cells in a table of {len(table.columns)} columns: {list(row)[:3]} …"
            )
    stem = Path(stem)
    makers = {".csv": _csv, ".md": _markdown, ".tex": _latex}
    return [write_atomically(stem.parent / (stem.name + suffix), makers[suffix](table)) for suffix in formats]


def _cells(table: Table) -> list[list[Cell]]:
    return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in table.rows]


def _runs(rows: Sequence[Sequence[Cell]]) -> list[str]:
    """The runs of a table in order of appearance."""
    return list(dict.fromkeys(cell.run for row in rows for cell in row if cell.run))


def _csv(table: Table) -> str:
    rows = _cells(table)
    out = io.StringIO()
    runs = bool(_runs(rows))
    lines = writer(out, lineterminator="\n")
    lines.writerow([*map(csv, table.columns), *(["run"] if runs else [])])
    for row in rows:
        lines.writerow([*(csv(cell.text) for cell in row), *([csv(" ".join(_runs([row])))] if runs else [])])
    return out.getvalue()


def _right(table: Table, rows: Sequence[Sequence[Cell]]) -> list[bool]:
    """Whether a column is set to the right."""
    if table.right is not None:
        return list(table.right)
    return [any(row[i].value is not None for row in rows) for i in range(len(table.columns))]


def _markdown(table: Table) -> str:
    rows = _cells(table)
    lines = [
        list(map(markdown, table.columns)),
        ["---:" if right else "---" for right in _right(table, rows)],
    ]
    lines += [[_markdown_cell(cell) for cell in row] for row in rows]
    return (
        "\n\n".join([f"**{_caption(table)}**", markdown_grid(lines), *map(markdown_prose, table.notes)])
        + "\n"
    )


def markdown_grid(lines: Iterable[Iterable[str]]) -> str:
    """Lines of cells that are Markdown already (heads, alignments, rows) as a table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _caption(table: Table) -> str:
    # a name may stand in it, a link of ours does not
    return markdown_prose(table.caption).replace("](", "]\\(")


def _markdown_cell(cell: Cell) -> str:
    text = markdown(cell.text)
    text = f"[{text}]({quote(one_line(cell.run), safe='/.')})" if cell.run and text else text
    return (f"**{text}**" if cell.best else text) + cell.mark


def _latex(table: Table) -> str:
    rows = _cells(table)
    letters = {run: _letter(i) for i, run in enumerate(_runs(rows))}
    align = "".join("r" if right else "l" for right in _right(table, rows))
    body = [" & ".join(_latex_cell(cell, letters) for cell in row) + r" \\" for row in rows]
    notes = [
        *map(latex, table.notes),
        *(rf"\textsuperscript{{{a}}} \texttt{{{latex(r)}}}" for r, a in letters.items()),
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(table.caption)}}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            " & ".join(map(latex, table.columns)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {note}" for note in notes),
            r"\end{table}",
            "",
        ]
    )


def _letter(i: int) -> str:
    """a to z, then aa, ab, …"""
    return (_letter(i // 26 - 1) if i >= 26 else "") + chr(ord("a") + i % 26)


def _latex_cell(cell: Cell, letters: dict[str, str]) -> str:
    text = rf"\textbf{{{latex(cell.text)}}}" if cell.best else latex(cell.text)
    run = rf"\textsuperscript{{{letters[cell.run]}}}" if cell.run and cell.text else ""
    return text + latex(cell.mark) + run


_MARKS, _NOTES = "marks", "notes"  # keys of a frame's attrs, which pandas hands on to a part of it


def with_marks(table: pd.DataFrame, marks: Mapping[tuple[Any, str], str], note: str) -> pd.DataFrame:
    """`table` with more marks, (row label, column) -> mark, and what they mean; itself if there are none."""
    if not marks:
        return table
    before = table.attrs.get(_MARKS, {})
    both = before | {cell: before.get(cell, "") + mark for cell, mark in marks.items()}
    found = table.copy()
    found.attrs = table.attrs | {
        _MARKS: both,
        _NOTES: table.attrs.get(_NOTES, {}) | {note: next(iter(marks.values()))},
    }
    return found


def notes_of(table: pd.DataFrame) -> list[str]:
    """What the marks mean that the cells of `table` have; a part of a table has fewer than the whole."""
    marks = table.attrs.get(_MARKS, {}).items()
    shown = "".join(mark for (label, column), mark in marks if label in table.index and column in table)
    return [note for note, mark in table.attrs.get(_NOTES, {}).items() if mark in shown]


def mark_at(table: pd.DataFrame, label: Any, column: str) -> str:
    """The mark of a cell, "" for none."""
    return table.attrs.get(_MARKS, {}).get((label, column), "")


def mark_unnoticed(table: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """° at each difference of two systems' scores that people would not notice. columns: column -> metric."""
    for column, metric in columns.items():
        if column not in table:  # of an empty table
            continue
        gaps = table[column].dropna().items()  # a system's difference from itself is none
        unnoticed = [row for row, gap in gaps if gap and is_noticed(metric, gap) is False]
        table = with_marks(table, {(row, column): UNNOTICED for row in unnoticed}, f"{explained(metric)}.")
    return table


def mark_doubtful(
    table: pd.DataFrame, records: Iterable[Record], cells: Mapping[tuple[Any, str], tuple[str, str]]
) -> pd.DataFrame:
    """‡ at each score that is no independent one. cells: (row label, column) -> (stage or system, metric)."""
    found = doubtful(records)
    marks = {cell: MARK for cell, measured in cells.items() if measured in found}
    return with_marks(table, marks, f"{MARK}: {DOUBT}.")


def write_table(
    df: pd.DataFrame, path_stem: str | Path, caption: str, note: str = "", *, decimals: int = 2
) -> list[Path]:
    """Write `df` as <stem>.csv and <stem>.md, and return the paths.

    Floats get `decimals` places, NaN is an empty cell, the index is left out; caption, note, marks and what they mean
    (`with_marks`) are in .md.
    """
    text = df.apply(lambda column: column.map(lambda cell: shown_cell(cell, decimals))).astype(str)
    numeric = [is_numeric_dtype(df.iloc[:, i]) for i in range(df.shape[1])]
    cells = zip(df.index, text.itertuples(index=False, name=None), strict=True)
    rows = [
        [Cell(shown, mark=mark_at(df, label, name)) for name, shown in zip(df, row, strict=True)]
        for label, row in cells
    ]
    notes = [*filter(None, [note]), *notes_of(df)]
    table = Table(list(map(str, df.columns)), rows, caption, notes, numeric)
    return write_marked(table, path_stem, (".csv", ".md"))


# what of a file's metadata would differ between two equal figures
_PLAIN = {".png": ("Software",), ".pdf": ("CreationDate", "Creator", "Producer")}


def save_figure(fig: Figure, path: str | Path) -> Path:
    """Write `fig` as a PNG or PDF without date or software version: the same figure, the same bytes."""
    path = Path(path)
    if path.suffix not in _PLAIN:
        raise ValueError(f"figure {path.name!r} is not named as a PNG: call it {path.stem}.png")
    image = io.BytesIO()
    options = {"dpi": 200} if path.suffix == ".png" else {}
    plain = dict.fromkeys(_PLAIN[path.suffix])
    fig.savefig(image, format=path.suffix[1:], bbox_inches="tight", metadata=plain, **options)
    return write_atomically(path, image.getvalue())


def shown_cell(cell: Any, decimals: int) -> str:
    """A cell as text: floats with `decimals` places, empty for no value."""
    if pd.isna(cell):
        return ""
    # + 0.0 turns the -0.0 of a rounded small loss into 0.0
    return f"{round(cell, decimals) + 0.0:.{decimals}f}" if is_float(cell) else str(cell)


_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
          "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "→": r"$\rightarrow$",
          "†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$", "°": r"$^{\circ}$",
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


def write_csv(path: str | Path, frame: pd.DataFrame) -> Path:
    """Write a data frame as CSV without its index, its text by `csv`; returns the path."""
    safe = frame.map(lambda cell: csv(cell) if isinstance(cell, str) else cell)
    safe.columns = [csv(str(name)) for name in frame.columns]
    return write_atomically(path, safe.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
