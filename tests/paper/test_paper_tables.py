"""Printed tables hold what was printed; ours have marks and runs; figures draw the numbers, twice the same."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from xalma.evaluation.records import Record
from xalma.evaluation.scoring import COLUMNS, Scores
from xalma.files import write_json
from xalma.paper import paper_tables
from xalma.paper.figures import published as paper
from xalma.paper.paper_tables import (
    our_groups_table,
    printed_tables,
    stage_tests,
    write_run_file,
    write_tables,
)
from xalma.paper.score_tables import score_table
from xalma.paper.tables import Cell, save_figure
from xalma.profiles import load_profile
from xalma.published import published
from xalma.training.ladder import outputs_file

TABLES = printed_tables()
SOURCES = {"paper_alma_en_xx": "a", "paper_alma_xx_en": "b", "paper_alma_mono_parallel": "c", "paper_xalma_en_xx": "e",
           "paper_xalma_xx_en": "f", "paper_methods": "g"}  # fmt: skip


@pytest.mark.parametrize(("name", "source"), SOURCES.items())
def test_every_printed_cell_is_in_its_table_as_shown(name, source):
    shown = sorted(
        cell.text for row in TABLES[name].rows for cell in row if isinstance(cell, Cell) and cell.text
    )
    assert shown == sorted(text for text in published(source)["shown"] if text)
    assert not any(cell.run for row in TABLES[name].rows for cell in row if isinstance(cell, Cell))


def test_an_unsure_cell_is_shown_and_never_best():
    rows = {row[0]: row[1:] for row in TABLES["paper_methods"].rows}
    assert rows["+DPO"][4] == Cell("79.2?") and rows["+DPO"][3] == Cell("")
    assert all(cell.best for cell in rows["+ARPO (Final X-ALMA)"])
    assert not any(cell.best for row in TABLES["paper_ablation_sft_data"].rows for cell in row[1:])
    assert [cell.text for cell in TABLES["paper_ablation_stages"].rows[0][1:]] == ["", ""]


RECORDS = [
    Record("tiny", stage, direction, "bleu", value, 7, "sig")
    for stage, scores in {
        "stage4": {"en-ja": 30, "en-zh": 40, "en-et": 20, "en-ru": 10, "en-bg": 30},
        "stage5": {"en-ja": 32, "en-zh": 38, "en-et": 26, "en-ru": 12, "en-bg": 28},
    }.items()
    for direction, value in scores.items()
]
STAGES = {"stage4": "SFT", "stage5": "ARPO"}


def test_our_groups_have_the_papers_shape_with_marks_and_runs():
    tests = pd.DataFrame(
        [(6, "All", "en-xx", 2.0, 0.2, 0.4, "how"), (6, "High", "en-xx", 0.0, 0.01, 0.02, "how")],
        columns=["group", "subset", "direction", "delta", "p_value", "p_adjusted", "how"],
    )
    table = our_groups_table(RECORDS, "en-xx", "bleu", STAGES, tests)
    assert table.columns == ["after", "3 All", "3 High", "6 All", "6 High"]
    texts = {row[0]: [cell.text + cell.mark for cell in row[1:]] for row in table.rows}
    # Estonian is in All alone, Bulgarian too; † where the best of the column is not significantly better, ° where
    # people would not notice that it is
    assert texts == {
        "SFT": ["20.00", "10.00°", "30.00†°", "35.00"],
        "ARPO": ["20.00", "12.00", "32.00", "35.00"],
    }
    assert {cell.run for row in table.rows for cell in row[1:]} == {"../run.json"}
    assert [cell.best for cell in table.rows[1][1:]] == [True, True, True, True]


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A profile of group 6 with outputs of two stages beside them, and stage 5 better in one direction."""
    p = load_profile(
        "tiny", groups="6", run_dir=str(tmp_path / "runs"), results_dir=str(tmp_path / "results")
    )
    monkeypatch.setattr("xalma.runs.home", lambda: tmp_path)
    lines = [f"this is the sentence with number {i} of all" for i in range(40)]
    for stage, name, bad in (("stage4", "sft", 30), ("stage5", "arpo", 3)):
        folder = tmp_path / "runs" / "tiny" / "ladder" / f"{stage}_{name}" / "group6"
        rows = [
            {"direction": d, "reference": line, "output": "nothing" if d == "zh-en" and i < bad else line}
            for d in ("zh-en", "en-et")
            for i, line in enumerate(lines)
        ]
        write_json(folder / "run.json", {"fingerprint": name, "commit": "c", "steps": 3, "seconds": 1.5})
        write_json(outputs_file(p, folder, 6), rows)
    return p


def test_stages_are_tested_on_their_outputs_and_read_back_without_them(profile, tmp_path):
    by_direction, by_group = stage_tests(profile, "stage4", "stage5", "chrf")
    verdicts = dict(zip(by_direction["direction"], by_direction["verdict"], strict=True))
    assert verdicts == {"zh-en": "win", "en-et": "tie"}
    assert "significantly better in 1, worse in 0 of 2 directions" in paper_tables.tests_sentence(
        by_direction, "stage4", "stage5"
    )
    assert set(by_group[by_group["p_adjusted"] < 0.05]["direction"]) == {"xx-en"}
    (tmp_path / "runs").rename(tmp_path / "gone")
    again, _ = stage_tests(profile, "stage4", "stage5", "chrf")
    assert again.equals(by_direction)
    with pytest.raises(FileNotFoundError, match="no outputs of stage3 and stage4 in profile tiny"):
        stage_tests(profile, "stage3", "stage4", "chrf")


def test_the_outputs_tested_are_those_of_the_current_values(profile, tmp_path):
    """Not the newest: a run with other values leaves its own outputs beside them."""
    before, _ = stage_tests(profile, "stage4", "stage5", "chrf")
    for name in ("stage4_sft", "stage5_arpo"):
        folder = tmp_path / "runs" / "tiny" / "ladder" / name / "group6"
        rows = [
            {"direction": d, "reference": f"line {i}", "output": ""}
            for d in ("zh-en", "en-et")
            for i in range(9)
        ]
        write_json(outputs_file(profile.but(max_new_tokens=5), folder, 6), rows)
    assert stage_tests(profile, "stage4", "stage5", "chrf")[0].equals(before)
    (folder / outputs_file(profile, folder, 6).name).unlink()
    assert paper_tables._kept_statistics(profile, "stage5", "chrf") == {}


def test_run_file_has_no_durations_and_survives_without_the_stages(profile, tmp_path):
    path = write_run_file(profile, "xalma run")
    run = json.loads(path.read_text())
    assert run["stages"]["stage4/group6"] == {
        "fingerprint": "sft",
        "commit": "c",
        "steps": 3,
        "contamination": None,
    }
    assert run["seed"] == 0 and "seconds" not in path.read_text() and str(tmp_path) not in path.read_text()
    (tmp_path / "runs").rename(tmp_path / "gone")
    assert json.loads(write_run_file(profile, "another").read_text()) == run


def test_all_tables_are_written(profile):
    more = [
        Record("tiny", stage, direction, metric, 1, 7, "sig")
        for stage in STAGES
        for direction, metric in (("zh-en", "bleu"), ("zh-en", "chrf"), ("en-zh", "chrf"))
    ]
    paths = write_tables(profile, RECORDS + more, {})
    assert len(paths) == 3 * (9 + 4)
    assert {path.suffix for path in paths} == {".csv", ".md", ".tex"}


# --- scores of systems -------------------------------------------------------------------------------


def scores(values: dict[tuple[str, str], float]) -> Scores:
    rows = [(s, d, "bleu", v, v - 1, v + 1, 1.0, 9, "sig") for (s, d), v in values.items()]
    return Scores(pd.DataFrame(rows, columns=list(COLUMNS)), {"bleu": {}})


def test_score_table_marks_the_best_and_what_is_not_worse():
    made = scores({("A", "en-de"): 30.0, ("B", "en-de"): 31.0, ("C", "en-de"): 20.0})
    tests = pd.DataFrame(
        [("en-de", "A", "B", -1, 0.5, 0.5, False), ("en-de", "C", "B", -11, 0.0, 0.0, True)],
        columns=["direction", "system", "best", "delta", "p_value", "p_adjusted", "worse"],
    )
    tests.attrs["how"] = "how"
    table = score_table(made, "bleu", "caption", tests)
    assert [(cell.text, cell.best, cell.mark) for cell in (row[1] for row in table.rows)] == [
        ("30.00", False, "†°"),
        ("31.00", True, ""),
        ("20.00", False, ""),
    ]
    assert [row[2].mark for row in table.rows] == ["°", "", ""], "the mean too"
    assert (
        table.notes[-1].startswith("°: a difference below 2.34, at which") and "2401.06760" in table.notes[-1]
    )


# --- figures ----------------------------------------------------------------------------------------


def points(ax) -> list[tuple[float, bool]]:
    """(value, whether it is open) of each dot of an axes."""
    return [
        (line.get_ydata()[0], line.get_markerfacecolor() == "white")
        for line in ax.lines
        if line.get_marker() == "o"
    ]


def test_stage_dots_are_the_printed_numbers_and_missing_ones_say_so():
    (ax,) = paper.stages_figure().axes
    cells = published("h")
    cells = cells[cells["table"] == "h_ablation_stages"]
    assert sorted(value for value, _ in points(ax)) == sorted(v for v in cells["value"] if not math.isnan(v))
    notes = [text.get_text() for text in ax.texts]
    assert notes.count("not readable") == cells["value"].isna().sum() == 4
    assert sum(is_open for _, is_open in points(ax)) == 3  # unsure digits


def test_ours_have_a_panel_of_their_own():
    ours = pd.DataFrame({"system": ["none (LLaMA-2)"], "direction": ["en-xx"], "value": [5.0]})
    first, second = paper.stages_figure(ours).axes
    assert (5.0, False) not in points(first)
    assert points(second) == [(5.0, False)]


def test_figures_are_equal_bytes(tmp_path):
    names = [[tmp_path / f"{name}{kind}" for kind in (".png", ".pdf")] for name in ("one", "two")]
    made = [[save_figure(paper.stages_figure(), path) for path in pair] for pair in names]
    assert [path.read_bytes() for path in made[0]] == [path.read_bytes() for path in made[1]]
    assert b"CreationDate" not in made[0][1].read_bytes()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".pdf", ".pdf", ".png", ".png"]


@pytest.mark.parametrize(
    ("deltas", "said"),
    [
        (
            (-2.4, 2.6),
            "significantly better in group 6 xx→en (+2.60, p 0.024) "
            "and worse in group 3 xx→en (-2.40, p 0.024)",
        ),
        (
            (2.0, 0.1),
            "significantly better in group 3 xx→en (+2.00, p 0.024); "
            "no significant difference in 1 of 2 means",
        ),
        ((0.1, -0.2), "no significant difference in 2 of 2 means"),
    ],
)
def test_what_the_tests_of_groups_say(deltas, said):
    """High-resource rows are another question; the order is that of the table."""
    rows = [
        (g, subset, "xx-en", d if subset == "All" else 9.0, 0.024 if abs(d) > 1 else 0.6)
        for g, d in zip((3, 6), deltas, strict=True)
        for subset in ("All", "High")
    ]
    frame = pd.DataFrame(rows, columns=["group", "subset", "direction", "delta", "p_adjusted"]).assign(
        how="a test"
    )
    found = paper_tables.groups_sentence(frame, "SFT", "ARPO")
    assert found == f"ARPO against SFT, mean BLEU of a group's directions: {said} (a test)."
