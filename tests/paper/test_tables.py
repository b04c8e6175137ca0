"""One table, three files: what is best, what is not significantly worse, and where a number comes from."""

from __future__ import annotations

import csv
import io
import math
from html.parser import HTMLParser

import pandas as pd
import pytest

from xalma.paper.tables import (
    NOT_WORSE,
    Cell,
    Table,
    latex,
    notes_of,
    number,
    printed,
    with_marks,
    write_csv,
    write_marked,
)

TABLE = Table(
    ["system", "en-de", "note"],
    [
        ["A_1", number(30.004, run="../run.json"), "x|y"],
        ["B", number(31.5, run="../run.json"), ""],
        ["C", number(31.49, run="b/run.json", mark=NOT_WORSE), Cell("")],
        ["D", number(math.nan), ""],
    ],
    "Means, 100 %",
    ["A note with a [link](x.md) and `code`."],
).with_best([1])


def test_files(tmp_path):
    paths = write_marked(TABLE, tmp_path / "t.x")
    assert [path.name for path in paths] == ["t.x.csv", "t.x.md", "t.x.tex"]
    sheet, markdown, tex = (path.read_text() for path in paths)
    assert sheet == (
        "system,en-de,note,run\nA_1,30.00,x|y,../run.json\nB,31.50,,../run.json\nC,31.49,,b/run.json\nD,,,\n"
    )
    assert markdown == (
        "**Means, 100 %**\n\n| system | en-de | note |\n| --- | ---: | --- |\n"
        "| A_1 | [30.00](../run.json) | x\\|y |\n| B | **[31.50](../run.json)** |  |\n"
        "| C | [31.49](b/run.json)† |  |\n| D |  |  |\n\nA note with a [link](x.md) and `code`.\n"
    )
    for part in (
        r"\begin{tabular}{lrl}",
        r"\toprule",
        r"\bottomrule",
        r"A\_1 & 30.00\textsuperscript{a} & x|y \\",
        r"\textbf{31.50}\textsuperscript{a}",
        r"31.49$^{\dagger}$\textsuperscript{b}",
        r"Means, 100 \%",
        r"\textsuperscript{b} \texttt{b/run.json}",
        "A note with a link and code.",
    ):
        assert part in tex
    assert tex.count("{") == tex.count("}")


def test_equal_tables_are_equal_bytes(tmp_path):
    one, two = (write_marked(TABLE, tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


@pytest.mark.parametrize(
    ("cells", "best"),
    [
        ([number(1.0), number(2.0), number(2.0)], [1, 2]),  # equal ones are all best
        ([printed("79.2?", 79.2), printed("70.1", 70.1)], [1]),  # an unsure digit can't be best
        ([Cell(""), Cell("")], []),
        ([number(-1.0), Cell("")], [0]),
    ],
)
def test_best(cells, best):
    table = Table(["x"], [[cell] for cell in cells], "").with_best([0])
    assert [i for i, (cell,) in enumerate(table.rows) if cell.best] == best


def test_a_row_of_another_length():
    with pytest.raises(ValueError, match="a row of 1 cells in a table of 2 columns"):
        write_marked(Table(["a", "b"], [["x"]], ""), "nowhere")


def test_latex_escapes():
    assert latex("50 % & en→xx_1 {x} ~ ^ # $") == (
        r"50 \% \& en$\rightarrow$xx\_1 \{x\} \textasciitilde{} \textasciicircum{} \# \$"
    )


NAMES = [
    "a|b", "a\\|b", "a\\", "$x$", "\\input{secret}", "<script>alert(1)</script>", "a\nb", "a\r\nb", "a\u2028b",
    "a\n\nb", "=1+1", '=HYPERLINK("http://x","y")', "+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1",
    " =1",
    "[x](javascript:alert(1))", "![x](http://x/y.png)", "<!-- ", "&lt;b&gt;", "a & b", "a`b", "%", "{", "}", "~^", "#1",
    "\x00", "a\x1bb", '"', "a,b",
]  # fmt: skip
KEPT = [
    "+DPO",
    "+ARPO (Final X-ALMA)",
    "-0.5",
    "+1.20",
    "-",
    "–",
    "1e-5",
    "-1e-05",
    "ALMA-13B-LoRA",
    "a_b",
    "§ 3 <5",
]


def columns_of(row: str) -> int:
    """Columns of a Markdown table's row, by GitHub's rule: a bar after a backslash is no border."""
    return sum(row[i] == "|" and row[i - 1] != "\\" for i in range(1, len(row)))


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        self.found.append(tag)

    def handle_comment(self, data) -> None:
        self.found.append(data)


@pytest.mark.parametrize("name", NAMES)
def test_no_name_breaks_a_table(tmp_path, name):
    """As a system, a column, a run's folder, in the caption and in a note."""
    rows = [[name, number(1.0, run=f"{name}/run.json")], ["b", ""]]
    made = Table(["system", name], rows, f"On {name}", [f"n {name}"])
    sheet, markdown, tex = (path.read_bytes().decode() for path in write_marked(made, tmp_path / "t"))
    rows = list(csv.reader(io.StringIO(sheet)))
    assert [len(row) for row in rows] == [3, 3, 3] and sheet.count("\n") == 3
    assert not any(cell.lstrip().startswith(("=", "@", "+", "-")) for row in rows for cell in row)
    lines = markdown.split("\n")
    assert [columns_of(line) for line in lines[2:6]] == [2, 2, 2, 2]
    assert len(lines) == 9 and not Tags(markdown).found
    assert "](javascript" not in "".join(lines[:6])
    assert tex.count("\\\\") == 3 and "\n\n" not in tex and "\\input" not in tex
    free = tex.replace("\\{", "").replace("\\}", "").replace("\\$", "").replace("\\%", "")
    assert free.count("{") == free.count("}") and "%" not in free and free.count("$") % 2 == 0


@pytest.mark.parametrize("name", KEPT)
def test_plain_names_and_numbers_are_kept(tmp_path, name):
    sheet, markdown, _ = (
        path.read_text() for path in write_marked(Table(["x"], [[name]], "t"), tmp_path / "t")
    )
    assert sheet == f"x\n{name}\n" and f"| {name} |" in markdown


@pytest.mark.parametrize("name", NAMES)
def test_no_name_breaks_a_frame(tmp_path, name):
    frame = pd.DataFrame({"system": [name, "b"], "value": [-0.5, 1.0]})
    text = write_csv(tmp_path / "frame.csv", frame).read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text)))
    assert [len(row) for row in rows] == [2, 2, 2] and rows[1][1] == "-0.5"
    assert not rows[1][0].lstrip().startswith(("=", "@", "+", "-"))


def test_more_runs_than_letters(tmp_path):
    made = Table(["x"], [[number(1.0, run=f"{i}/run.json")] for i in range(60)], "t")
    tex = write_marked(made, tmp_path / "t")[2].read_text()
    assert r"1.00\textsuperscript{ba}" in tex and "{{}" not in tex and tex.count("{") == tex.count("}")


def test_a_part_of_a_table_has_the_notes_of_its_own_marks():
    """A page that shows some columns does not explain a mark that stands in another."""
    table = pd.DataFrame({"system": ["a", "b"], "gap": [0.1, 9.0], "score": [1.0, 2.0]})
    marked = with_marks(table, {(0, "gap"): "°"}, "°: small")
    marked = with_marks(marked, {(1, "score"): "‡"}, "‡: doubtful")
    assert notes_of(marked) == ["°: small", "‡: doubtful"]
    assert notes_of(marked[["system", "score"]]) == ["‡: doubtful"]
    assert notes_of(marked[["system"]]) == notes_of(marked[["system", "gap"]].tail(1)) == []
