"""docs/teaching: verdicts follow from intervals, and the pages are what the results say."""

from __future__ import annotations

import csv
import json
import re
import runpy

import pytest
from pages import ROOT

MADE = runpy.run_path(str(ROOT / "docs" / "teaching" / "measured.py"))
UP, DOWN, OPEN = (0.5, 0.1, 0.9), (-0.5, -0.9, -0.1), (0.1, -0.3, 0.5)
ONE_SEED = (3.0, None, None)


@pytest.mark.parametrize(
    "sign, found, word",
    [
        (1, [UP, UP], "reproduced"),
        (-1, [DOWN], "reproduced"),
        (0, [OPEN, OPEN], "reproduced"),
        (1, [DOWN, DOWN], "contradicted"),
        (-1, [UP], "contradicted"),
        (0, [UP], "contradicted"),
        (1, [UP, OPEN], "reproduced in part"),
        (1, [DOWN, OPEN], "contradicted in part"),
        (1, [UP, DOWN, OPEN], "mixed"),
        (1, [OPEN], "no difference shown"),
        (1, [ONE_SEED], "undecided"),
        (1, [], "not tested"),
    ],
)
def test_a_verdict_is_what_the_intervals_say(sign, found, word):
    assert MADE["verdict"](sign, [MADE["Measured"]("", *one) for one in found]) == word


@pytest.mark.usefixtures("committed_results")
def test_the_page_is_what_the_results_say():
    """`make readme` was run after the last change of results/."""
    assert MADE["PAGE"].read_text(encoding="utf-8") == MADE["page"]()
    syllabus = MADE["SYLLABUS"].read_text(encoding="utf-8")
    assert syllabus == MADE["with_minutes"](syllabus)


def test_minutes_of_study_are_words_and_exercises(tmp_path):
    """By hand: 2,000 words at 200 per minute, a formula that counts for nothing, 5 + 8 + 15 minutes of exercises."""
    exercises = [f"**Exercise {n} {level} · x**\n" for n, level in enumerate(("★", "★★", "★★★"), 1)]
    text = "word " * 2000 + "$$" + "x " * 900 + "$$\n" + "".join(exercises)
    cells = [{"cell_type": "markdown", "source": [text]}, {"cell_type": "code", "source": ["word " * 900]}]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    assert MADE["study_minutes"](tmp_path / "n.ipynb") == 40  # 38.1 + the words of the exercises' headings


def test_the_first_page_and_each_notebook_say_how_long_they_take():
    """Notebook 00's list has the syllabus' minutes of study; each first cell says the minutes of its run."""
    first = (ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8")
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        study = MADE["study_minutes"](notebook)
        if notebook.stem != "00_start_here":
            row = re.search(rf"\({notebook.name}\) \| [^|]* \| (\d):(\d\d) \|", first)
            assert row and abs(60 * int(row[1]) + int(row[2]) - study) <= 5, (
                f"{notebook.name}: {study} minutes"
            )
        head = "".join(json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"])
        assert re.search(r"cost\.\*\* .*?([Uu]nder a minute|[Aa]bout \w+ minutes?)", head), notebook.name


def test_a_number_of_the_page_is_that_of_its_file():
    """Read again by hand: one value of each kind of file."""
    page = MADE["page"]()
    with (ROOT / "results/tiny/ladder/tables/group6.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["direction"], row["system"]): row for row in csv.DictReader(file)}
    without = rows["en→xx", "without stage 3, pseudo-monolingual"]
    change, half = float(without["BLEU − all stages"]), float(without["± of it"])
    assert f"en→xx +{-change:.2f} (+{-change - half:.2f} to +{-change + half:.2f})" in page
    assert "26.5 → 27.8 / 32.1 → 32.2" in page, "Table 5's ARPO as printed"
    assert "at most 0.12 BLEU" in page, "the largest difference of golden.csv"
