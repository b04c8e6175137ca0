"""Scores of a metric that had a say in a system's training are marked: from the pairs' files to the printed tables."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from test_released import OWN

from xalma.cli.main import main
from xalma.cli.score import METRIC_NAMES
from xalma.evaluation import interference, scoring
from xalma.evaluation.comet import NEURAL_METRICS
from xalma.evaluation.interference import (
    KINDRED,
    MARK,
    UNKNOWN,
    chosen_by_of,
    interferes,
    mark_explained,
    parse_chosen_by,
)
from xalma.evaluation.records import Record, footnote
from xalma.evaluation.score_file import FILE_METRICS
from xalma.evaluation.scoring import Scores
from xalma.files import write_atomically, write_json
from xalma.paper.score_tables import score_table
from xalma.preference.released import read_preference
from xalma.systems.outputs import metrics_behind, output_settings
from xalma.systems.table import SYSTEMS
from xalma.training.ladder import signed


def test_every_metric_has_one_family():
    named = [metric for metrics in KINDRED.values() for metric in metrics]
    assert len(named) == len(set(named))
    assert {*FILE_METRICS, *NEURAL_METRICS, *METRIC_NAMES} <= set(named)
    assert {metric for row in SYSTEMS.values() for metric in row.chosen_by} <= {*named, UNKNOWN}


@pytest.mark.parametrize(
    ("metric", "chosen_by", "expected"),
    [
        ("xcomet-xl", ["xcomet-xxl"], True),
        ("comet22", ["cometkiwi-xxl", "bleu"], True),
        ("metricx24", ["cometkiwi"], True),  # both are regressions on WMT's human scores
        ("chrf++", ["xcomet-xxl"], False),
        ("chrf++", ["chrf"], True),
        ("gemba-esa", ["metricx24-qe"], False),
        ("gemba-esa", ["automqm"], True),
        ("comet22", [], False),
        ("comet22", [UNKNOWN], False),
        ("off_target", ["chrf"], False),
    ],
)
def test_kin_interfere(metric, chosen_by, expected):
    assert interferes(metric, chosen_by) is expected


TRIPLE = {
    "en": "five days ago",
    "de": "vor fünf Tagen",
    "gpt4_de": "vor 5 Tagen",
    "alma_de": "5 Tage zuvor",
    "gpt4_en": "5 days ago",
    "alma_en": "before five days",
    "required_directions": "en-de",
    **{f"{name}_de_kiwi_xcomet": value for name, value in (("gpt4", 0.9), ("alma", 0.7), ("ref", 0.8))},
}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (OWN, [UNKNOWN]),
        (OWN | {"chosen_by": ""}, []),
        (OWN | {"chosen_by": "comet22+bleu"}, ["bleu", "comet22"]),
        ({"source": "a", "chosen": "b", "reject": "c", "directions": "en-de"}, []),
        ({"translation": TRIPLE | {"Delta": 0.0}}, ["cometkiwi-xxl", "xcomet-xxl"]),
        ({"translation": TRIPLE | {"Delta": 1.0}}, []),  # people chose
    ],
)
def test_the_pairs_say_what_chose_them(record, expected, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(record))
    assert read_preference(path)[1]["chosen_by"] == expected


def test_an_unknown_metric_of_pairs_is_named(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(OWN | {"chosen_by": "kiwi"}))
    with pytest.raises(ValueError, match=r"pairs.jsonl, row 1: unknown metric 'kiwi': choose bleu, chrf"):
        read_preference(path)


def stage(folder: Path, previous: Path | None, **facts) -> Path:
    run = {
        "number": 5,
        "group": 6,
        "inputs": {},
        "fingerprint": "f",
        "previous": previous and str(previous),
        **facts,
    }
    write_json(folder / "run.json", run)
    return folder


def test_a_stage_knows_the_metrics_of_its_chain_and_its_records_say_so(tmp_path):
    first = stage(tmp_path / "a", None, pairs={"considered": 2, "chosen_by": ["xcomet-xxl"]})
    last = stage(tmp_path / "b", first, pairs={"considered": 2})
    assert chosen_by_of(last) == ["xcomet-xxl"] and chosen_by_of(stage(tmp_path / "c", None)) == []
    records = [Record("tiny", "stage5", "en-de", metric, 80.0, 2, "s") for metric in ("bleu", "comet22")]
    plain, marked = signed(records, chosen_by_of(last))
    assert plain == records[0] and marked.signature == f"s|{MARK} pairs chosen by xcomet-xxl"
    assert marked.signature in footnote([marked], "comet22", "xalma run")
    assert signed(records, []) == records
    assert all(MARK in record.signature for record in signed(records, [UNKNOWN]))

    row = SYSTEMS["xalma-modules"]
    settings = output_settings(row, {"adapter": str(last)})
    assert settings["chosen_by"] == ["xcomet-xxl"] and "chosen_by" not in output_settings(
        row, {"path": "a hub id"}
    )
    write_json(tmp_path / "out" / "run.json", {"settings": settings, "directions": {}})
    assert metrics_behind("any name", [tmp_path / "out" / "en-de.txt"]) == ["xcomet-xxl"]
    assert metrics_behind("ALMA-13B-R") == ["cometkiwi-xxl", "xcomet-xxl"] == metrics_behind("alma-13b-r")
    assert metrics_behind("GPT-4") == []


def test_tables_mark_scores_that_are_not_independent():
    rows = [(s, "en-de", m, 80.0, 79.0, 81.0, 1.0, 9, "sig") for m in ("comet22", "bleu") for s in ("A", "B")]
    columns = ["system", "direction", "metric", "value", "low", "high", "half_width", "n", "signature"]
    made = Scores(pd.DataFrame(rows, columns=columns), {}, {"A": ["xcomet-xxl"], "C": [UNKNOWN]})
    table = score_table(made, "comet22", "caption", None)
    assert [[cell.mark for cell in row[1:]] for row in table.rows] == [[MARK, MARK], ["", ""]]
    assert "A by xcomet-xxl." in table.notes[-1] and "Not known by which metric" in table.notes[-1]
    assert [[cell.mark for cell in row[1:]] for row in score_table(made, "bleu", "", None).rows] == [
        ["", ""]
    ] * 2
    assert mark_explained("bleu", {"A": ["xcomet-xxl"]}) == ""


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_the_command_marks_what_it_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "home", lambda: tmp_path)
    lines = ["Das Haus ist sehr klein.", "Wir gehen heute nach Hause."]
    for name in ("set/en-de/src.txt", "set/en-de/ref.txt", "systems/one/en-de.txt", "systems/two/en-de.txt"):
        write_atomically(tmp_path / name, "\n".join(lines) + "\n")
    score = ("score", "--system-outputs", tmp_path / "systems", "--testset", tmp_path / "set", "--workers", 1)
    assert run(*score, "--chosen-by", "one=chrf", "--results", tmp_path) == 0
    out = capsys.readouterr().out
    assert f"{MARK}: no independent score" in out and f"100.00 ± 0.00{MARK}  100.00 ± 0.00\n" in out
    assert f"| one | **[100.00](run.json)**{MARK} |" in (tmp_path / "set" / "bleu.md").read_text()
    assert json.loads((tmp_path / "set" / "run.json").read_text())["chosen_by"] == {"one": ["chrf"]}
    two = tmp_path / "systems" / "two"
    assert (
        run(
            "compare",
            tmp_path / "systems" / "one",
            two,
            "--testset",
            tmp_path / "set",
            "--workers",
            1,
            "--metric",
            "bleu",
            "--chosen-by",
            "two=bleu",
        )
        == 0
    )
    assert "two by bleu" in capsys.readouterr().out
    assert run(*score, "--chosen-by", "three=bleu") == 2
    assert "--chosen-by names three: there are one, two" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"), [("A", "'A' is no SYSTEM=METRIC"), ("A=kiwi", "unknown metric 'kiwi'")]
)
def test_bad_values_are_named(text, said):
    with pytest.raises(ValueError, match=said):
        parse_chosen_by(text)
    assert interference.parse_chosen_by("A=B=bleu+chrf, C=comet22") == {
        "A=B": ("bleu", "chrf"),
        "C": ("comet22",),
    }
