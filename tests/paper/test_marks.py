"""Every table of scores or differences shows what people would not notice (°) and what is no independent score (‡)."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import xalma.paper
from xalma.evaluation.interference import MARK
from xalma.evaluation.records import Record, doubtful
from xalma.evaluation.thresholds import THRESHOLDS, UNNOTICED
from xalma.paper.figures.real_base import parsed
from xalma.paper.ladder_tables import direction_table, ladder_table
from xalma.paper.paper_tables import our_groups_table
from xalma.paper.real_base.tables import read_about, read_table
from xalma.paper.report import left_table
from xalma.paper.studies.ladder import sft_table
from xalma.paper.studies.long_form import grpo_table
from xalma.paper.studies.preference_tables import difference_table, preference_table, switch_table
from xalma.paper.studies.stage_ablation import gating_table
from xalma.paper.studies.study import Study, study_table
from xalma.paper.studies.style import style_table
from xalma.paper.tables import mark_unnoticed, with_marks, write_marked, write_table

NO_SYSTEMS = "no system's score is in it"
# file: function -> where its marks are tested, or why there are none
TABLES = {
    "ladder_tables": {
        "ladder_table": "here",
        "direction_table": "here",
        "text_bits_table": "bits have no threshold",
    },
    "language_similarity": {"group_table": NO_SYSTEMS},
    "memorisation": {"probe_table": "one system on two texts: Kocmi et al. asked of two systems on one"},
    "paper_tables": {
        **dict.fromkeys(
            (
                "alma_table",
                "mono_parallel_table",
                "groups_table",
                "xalma_table",
                "methods_table",
                "printed_tables",
            ),
            "as printed in the papers",
        ),
        "our_groups_table": "here",
    },
    "real_base.tables": {"read_table": "here, all tables of benchmarks/real_base as read"},
    "report": {"training_table": NO_SYSTEMS, "left_table": "here", "gate_table": NO_SYSTEMS},
    "score_tables": {
        "score_table": "tests/evaluation/test_thresholds.py and test_interference.py",
        "win_tie_loss_table": "it counts",
    },
    "studies.alma": {
        "bitext_table": NO_SYSTEMS,
        "gains_table": "by mark_unnoticed",
        **dict.fromkeys(
            ("quality_table", "amount_table", "weights_table"), "no differences and no preference pairs"
        ),
    },
    "studies.ladder": {
        "sft_table": "here",
        "budget_table": "by mark_unnoticed",
        "few_shot_table": "before any preference pair; no differences",
    },
    "studies.long_form": {"grpo_table": "here"},
    "studies.over_rejection": dict.fromkeys(("tau_table", "push_table"), NO_SYSTEMS),
    "studies.preference_tables": {
        "preference_table": "here",
        "drift_table": "by the code of preference_table",
        "difference_table": "here",
        "switch_table": "here",
    },
    "studies.stage_ablation": {"gating_table": "here", "ablation_table": "by study_table"},
    "studies.study": {"study_table": "here"},
    "studies.style": {"style_table": "here"},
    "tables": {"write_table": "here"},
}


def test_every_function_that_makes_a_table_is_listed():
    root, found = Path(xalma.paper.__file__).parent, {}
    for path in sorted(root.rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        made = {
            node.name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
            and node.name.endswith(("_table", "_tables"))
            and node.name != "_table"
            and not node.name.startswith(("write_", "_"))
        }
        if made:
            found[name] = made
    assert found == {name: set(rows) - {"write_table"} for name, rows in TABLES.items() if name != "tables"}


def records(values: dict[str, float], doubted=(), seeds=range(3)) -> list[Record]:
    """BLEU, chrF, content and bits of each system, alike in all directions, a tenth more per seed; some in doubt."""
    found = []
    for system, value in values.items():
        for metric in ("bleu", "chrf", "content", "bits_per_byte", "off_target", "empty", "length_ratio"):
            in_doubt = system in doubted and metric in ("bleu", "chrf")
            signature = f"x|{MARK} pairs chosen by chrf" if in_doubt else "x"
            for direction in ("en-fi", "fi-en", "en-et", "et-en"):
                for seed in seeds:
                    found.append(
                        Record("tiny", system, direction, metric, value + seed / 10, 9, signature, seed)
                    )
    return found


def marks(table: pd.DataFrame) -> dict[str, set]:
    """Column -> row labels with a mark, each with its mark."""
    found: dict[str, set] = {}
    for (row, column), mark in table.attrs.get("marks", {}).items():
        found.setdefault(column, set()).add((row, mark))
    return found


def test_doubt_is_read_from_the_signature():
    assert doubtful(records({"a": 1.0, "b": 2.0}, ["b"])) == {("b", "bleu"), ("b", "chrf")}


def test_a_difference_below_the_threshold_is_marked_and_one_at_it_is_not():
    limit = THRESHOLDS["bleu"]
    frame = pd.DataFrame({"x": [limit, -limit, limit - 0.01, -0.01, 0.0, float("nan")], "y": [0.0] * 6})
    found = marks(mark_unnoticed(frame, {"x": "bleu", "missing": "bleu"}))
    assert found == {"x": {(2, "°"), (3, "°")}}, "and no difference at all is none"
    assert mark_unnoticed(frame, {"x": "bits_per_byte"}).attrs == {}  # without a threshold nothing is said


def test_marks_stand_in_the_markdown_with_what_they_mean_and_not_in_the_numbers(tmp_path):
    plain = pd.DataFrame({"system": ["a", "b"], "gap": [0.5, 9.0]})
    marked = mark_unnoticed(plain, {"gap": "bleu"})
    marked = with_marks(marked, {(0, "gap"): MARK}, "why.")
    before = [path.read_bytes() for path in write_table(plain, tmp_path / "plain", "T", "note")]
    csv, md = write_table(marked, tmp_path / "marked", "T", "note")
    assert csv.read_bytes() == before[0], "numbers can be read as they are"
    assert md.read_text().startswith(
        before[1].decode().rstrip().removesuffix("note").replace("0.50", f"0.50{UNNOTICED}{MARK}")
    )
    assert "Kocmi" in md.read_text() and md.read_text().endswith("why.\n")
    assert (
        write_table(with_marks(plain, {}, "no"), tmp_path / "same", "T", "note")[1].read_bytes() == before[1]
    )
    assert "0.50°‡" in left_table(marked) and "9.00 |" in left_table(marked[marked["gap"] > 1])


SYSTEMS = {"stage4": 50.0, "sft": 52.0, "arpo": 53.0, "grpo": 54.0}
LABELS = {name: name.upper() for name in SYSTEMS}


def test_methods():
    found = records(SYSTEMS, ["grpo"])
    assert marks(preference_table(found, LABELS)) == {
        column: {(3, MARK), (7, MARK)} for column in ("our BLEU", "our chrF")
    }
    assert marks(grpo_table(found, LABELS)) == {column: {(3, MARK), (7, MARK)} for column in ("BLEU", "chrF")}
    assert marks(preference_table(records(SYSTEMS), LABELS)) == {}


def test_differences_of_methods():
    found = records({"stage4": 50.0, "dpo": 47.0, "cpo": 49.0, "arpo": 50.5, "sft": 51.0})
    table = difference_table(found, {name: name for name in ("stage4", "dpo", "cpo", "arpo", "sft")})
    unnoticed = set(table.index[table["ours"].abs() < 2.34])
    assert {row for row, _ in marks(table)["ours"]} == unnoticed and 0 < len(unnoticed) < len(table)
    pushes = pd.DataFrame({"method": ["A", "B"], "chosen change": [0.0, 1.0], "rejected change": [0.0, 1.0]})
    values = records({"arpo": 50.0, "arpo detached": 51.0, "stage4": 50.0})
    switches = switch_table(values, pushes, {"arpo": "A", "arpo detached": "B"})
    assert marks(switches) == {"BLEU en→xx": {(0, "°")}, "BLEU xx→en": {(0, "°")}}


def test_styles():
    found = records({"stage4": 50.0, "sft@0.001": 60.0, "arpo@0.001": 59.0}, ["arpo@0.001"])
    found = marks(style_table(found))
    assert found == {"− continued": {(2, "°"), (5, "°")}, "BLEU": {(2, MARK), (5, MARK)}}


def test_studies():
    systems = {"all": {"system": "All"}, "less": {"system": "Less"}}
    study = Study("x", "X", "all", systems, records({"all": 50.0, "less": 49.0}, ["less"]))
    found = marks(sft_table(study))
    assert found == {"BLEU": {(1, MARK), (3, MARK)}, "BLEU − all stages": {(1, "°"), (3, "°")}}
    assert marks(study_table(study)) == {column: {(1, MARK), (3, MARK)} for column in ("BLEU", "chrF")}
    assert marks(gating_table(study.records, ["all", "less"])) == marks(study_table(study))


def test_ladder():
    found = records({"stage4": 50.0, "stage5": 49.0}, ["stage5"], seeds=[0])
    assert marks(ladder_table(found)) == {"stage5": {(row, MARK) for row in range(4)}}
    assert marks(direction_table(found, "chrf")) == {"stage5": {(row, MARK) for row in range(4)}}
    assert marks(ladder_table(found, "bits_per_byte")) == {}


def test_our_groups(tmp_path):
    stages = {"stage4": "SFT", "stage5": "ARPO"}
    found = records({"stage4": 50.0, "stage5": 51.0}, ["stage5"], seeds=[0])
    table = our_groups_table(found, "en-xx", "bleu", stages)
    assert [row[1].mark for row in table.rows] == ["°", MARK] and MARK in table.notes[-1]
    plain = our_groups_table([replace(r, signature="x") for r in found], "en-xx", "bleu", stages)
    assert [row[1].mark for row in plain.rows] == ["°", ""]
    assert MARK in write_marked(table, tmp_path / "t")[1].read_text()


@pytest.mark.parametrize("name", ["steps", "sharing", "without"])
def test_differences_on_a_real_base_as_read(tmp_path, name):
    place = tmp_path / "tables" / f"12_{name}.csv"
    place.parent.mkdir()
    place.write_text(
        'group,bleu,chrf++\nall,"-2.33 [-3.00, -1.00]*","0.1 [0.0, 0.2]"\n'
        '6,"2.34 [1, 3]",not measured\n7,not measured,1\n'
    )
    cells = read_table(tmp_path, name)["bleu"].tolist()
    assert cells == ["-2.33 [-3.00, -1.00]*°", "2.34 [1, 3]", "not measured"]
    assert parsed(cells[0]) == (-2.33, -3.0, -1.0)


def test_methods_and_french_on_a_real_base_as_read(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "12_methods_group6.csv").write_text(
        'method,bleu en-xx,"bleu, less stage 4"\na,"1.0 [0, 2]","1.0 [0, 2]"\n'
    )
    table = read_table(tmp_path, "methods_group6")
    assert table.loc[0].tolist() == ["a", "1.0 [0, 2]", "1.0 [0, 2]°"], "a score is no difference"
    (tmp_path / "tables" / "12_french.csv").write_text(
        'metric,group 2 less 4\nbleu,"1.0 [0, 2]"\nchrf++,"1.0 [0, 2]"\n'
    )
    assert read_table(tmp_path, "french")["group 2 less 4"].tolist() == ["1.0 [0, 2]°", "1.0 [0, 2]"]
    assert "2.34" in read_about(tmp_path)[UNNOTICED][0]
