"""Words that differ in tables of translations: marked as a person would mark them, and in every notebook."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from IPython.core.formatters import format_display_data
from pages import ROOT

from xalma.paper import report
from xalma.paper.differences import bold_differences, compared, differences_notes

MISSING = "<b>[…]</b>"


@pytest.mark.parametrize(
    ("text", "against", "shown"),
    [
        ("in 23 minutes: Russia", "in 23 minutes: Russia", "in 23 minutes: Russia"),
        ("in 23 hours: Russia", "in 23 minutes: Russia", "in 23 <b>hours</b>: Russia"),
        ("May 6, 1984 22:40", "May 6, 1984 10:40", "May 6, 1984 <b>22:40</b>"),
        ("Jean-Luc paid 3,500", "Jean-Marc paid 3,500", "<b>Jean-Luc</b> paid 3,500"),
        # inserted: neighbours share one tag
        (
            "in 15 years: Spanish and Russian",
            "in 15 years: Spanish",
            "in 15 years: Spanish <b>and Russian</b>",
        ),
        # left out: at the end, at the beginning, inside, before punctuation
        ("in 15", "in 15 years", f"in 15 {MISSING}"),
        ("15 years", "in 15 years", f"{MISSING} 15 years"),
        ("2 yen", "2 Japanese yen", f"2 {MISSING} yen"),
        ("Russia: 2", "Russia and Italy: 2", f"Russia {MISSING} : 2"),
        # nothing on one side, or on both
        ("", "in 15 years", MISSING),
        ("in 15 years", "", "<b>in 15 years</b>"),
        ("", "", ""),
        # case counts, spaces do not
        ("may  6", "May 6", "<b>may</b> 6"),
        ("3\u202fkm", "3 km", "3\u202fkm"),
        # Japanese, Chinese and Thai: by characters; a vowel above stays on its consonant
        ("8年前：3米ドル", "8年後：3米ドル", "8年<b>前</b>：3米ドル"),
        ("德国和法国：20美元", "巴西和法国：20美元", "<b>德国</b>和法国：20美元"),
        ("2024年5月1日", "2024年5月11日", "2024年5月<b>1</b>日"),
        ("กี่วัน", "กินวัน", "<b>กี่</b>วัน"),
        # Hindi: a vowel sign does not end a word
        ("की ने", "का ने", "<b>की</b> ने"),
        ("2018년 5월", "2018년 6월", "2018년 <b>5월</b>"),
    ],
)
def test_words_that_differ_are_bold(text, against, shown):
    assert bold_differences(text, against) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>a</b> & b", "&lt;b&gt;a&lt;/b&gt; &amp; b"),
        ("a|b **c** _d_ `e`", "a&#124;b &#42;&#42;c&#42;&#42; &#95;d&#95; &#96;e&#96;"),
        ("[a](b) \\n &amp;", "&#91;a&#93;(b) &#92;n &amp;amp;"),
        ("a\nb", "a b"),
    ],
)
def test_html_and_markdown_of_an_output_are_text(text, shown):
    assert bold_differences(text, text) == shown
    words = re.sub("</?b>", "", bold_differences(text, "something else"))
    assert words.replace("[…]", "").replace(" ", "") == shown.replace(" ", "")


def test_a_shown_table_has_bold_words_and_says_what_bold_means(monkeypatch):
    frame = pd.DataFrame(
        {"direction": ["en-fi"], "reference": ["a <i> c"], "before": ["a|b c"], "after": ["a <i> c"]}
    )
    table = report.left_table(compared(frame, "reference", "before", "after", "not in the frame"))
    assert table.splitlines()[2] == "| en→fi | a &lt;i> c | <b>a&#124;b</b> c | a &lt;i&gt; c |"
    assert differences_notes(frame) == [] and "<b>" not in report.left_table(frame)
    (note,) = differences_notes(compared(frame, "reference", "before", "after"))
    assert "*reference*" in note and "Bold" in note
    assert differences_notes(compared(frame, "reference", "before")[["direction", "before"]]) == []
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda one: shown.append(one))
    report.show(compared(frame, "reference", "before"))
    assert "<b>" in shown[0].data and shown[0].data.endswith(note)
    assert "text/markdown" in format_display_data(shown[0])[0]


def test_outputs_that_a_file_has_as_empty_are_empty():
    frame = pd.DataFrame({"reference": ["a b", "c"], "translation": [float("nan"), "c"]})
    assert MISSING in report.left_table(compared(frame, "reference", "translation")).splitlines()[2]


def test_tables_of_translations_in_the_notebooks_are_compared():
    found = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
            assert "left_table(" not in text, f"{path.name} {cell['id']}: show() says what bold means"
            made = re.findall(r"\b(examples|continuations|translations)\(p", text)
            made += re.findall(r"\b(continuations)\(rows", text)
            if made:
                assert "show(" in text, f"{path.name} {cell['id']}"
            shown = re.findall(r'show\(.*"(?:reference|rejected|output|translation)"\]', text)
            assert len(shown) == text.count("show(compared("), f"{path.name} {cell['id']}: use compared()"
            found += [(path.name[:2], what) for what in (*made, *("compared" for _ in shown))]
    assert found == [
        ("00", "translations"),
        ("05", "continuations"),
        ("06", "examples"),
        ("07", "compared"),
        ("07", "examples"),
        ("08", "compared"),
    ]
