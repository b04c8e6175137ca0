"""Records survive the file, tables are worked by hand, and equal inputs give equal bytes."""

from __future__ import annotations

import json
import math
import random

import pandas as pd
import pytest

from xalma.evaluation.metrics import Score
from xalma.evaluation.records import (
    Record,
    footnote,
    off_target_label,
    read_records,
    records_of,
    write_records,
    write_run,
)
from xalma.paper.ladder_tables import direction_table, ladder_table
from xalma.paper.tables import save_figure, write_table


def record(stage: str, direction: str, value: float, **changes) -> Record:
    fields = {
        "profile": "tiny",
        "metric": "bleu",
        "n": 10,
        "signature": "tok:13a|version:2",
        "seed": 0,
    }
    return Record(stage=stage, direction=direction, value=value, **(fields | changes))


LADDER = [
    record("base", "en-de", 0),
    record("base", "de-en", 2),
    record("base", "en-zh", 1),
    record("base", "en-ja", 3),
    record("stage4", "en-de", 30),
    record("stage4", "de-en", 40),
    record("stage4", "en-zh", 20),
    record("stage4", "en-ja", 10),
    record("stage5", "en-de", 31),
    record("stage5", "en-zh", 21),  # en-ja not scored: no mean of group 6, nor of all
]


def test_records_survive_the_file_sorted(tmp_path):
    path = tmp_path / "deep" / "scores.jsonl"
    shuffled = random.Random(1).sample(LADDER, len(LADDER))
    write_records(path, shuffled)
    first = path.read_bytes()
    assert sorted(read_records(path), key=lambda r: r.key) == sorted(LADDER, key=lambda r: r.key)
    write_records(path, LADDER)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["scores.jsonl"]


def test_records_of_rounds_scores():
    (found,) = records_of([Score("bleu", 12.3456, "sig", 7)], "tiny", "base", "en-de", seed=3)
    assert found == Record("tiny", "base", "en-de", "bleu", 12.35, 7, "sig", 3)


def test_one_measurement_is_written_once(tmp_path):
    with pytest.raises(ValueError, match=r"two records for \('tiny', 'base', 'en-de', 'bleu', 0\)"):
        write_records(tmp_path / "scores.jsonl", [LADDER[0], record("base", "en-de", 5)])
    assert not (tmp_path / "scores.jsonl").exists()


@pytest.mark.parametrize("line", ['{"stage": "base"}', "not json", '{"colour": 1}', "7"])
def test_a_bad_record_is_named(tmp_path, line):
    path = write_records(tmp_path / "scores.jsonl", LADDER[:1])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"scores\.jsonl, line 2 is no record"):
        read_records(path)


def test_no_records(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no records at .*run `xalma run`"):
        read_records(tmp_path / "scores.jsonl")


def test_ladder_table():
    table = ladder_table(LADDER)
    assert list(table.columns) == ["group", "direction", "n", "base", "stage4", "stage5"]
    rows = [["" if x != x else x for x in row] for row in table.itertuples(index=False)]
    assert rows == [
        ["1 Germanic", "en-xx", 1, 0.0, 30.0, 31.0],
        ["1 Germanic", "xx-en", 1, 2.0, 40.0, ""],
        ["6 Eurasian mix", "en-xx", 2, 2.0, 15.0, ""],
        ["all", "en-xx", 3, pytest.approx(4 / 3), 20.0, ""],
        ["all", "xx-en", 1, 2.0, 40.0, ""],
    ]


def test_ladder_table_averages_seeds():
    table = ladder_table([record("base", "en-de", 4), record("base", "en-de", 8, seed=1)])
    assert table["base"].tolist() == [6.0, 6.0]
    assert table["n"].tolist() == [1, 1]


def test_methods_are_columns_when_named():
    records = [record("cpo", "en-de", 4), record("arpo", "en-de", 8)]
    table = ladder_table(records, stages=("sft", "arpo", "cpo"))
    assert list(table.columns) == ["group", "direction", "n", "arpo", "cpo"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "there are records of none"),
        ([record("base", "en-de", 1, metric="chrf")], "there are records of chrf"),
        ([record("stage44", "en-de", 1)], "'stage44', which is no column .*near: stage4"),
        (
            [record("base", "en-de", 1), record("base", "en-de", 1, profile="alma-tiny")],
            r"several profiles \(alma-tiny, tiny\)",
        ),
    ],
)
@pytest.mark.parametrize("table", [ladder_table, direction_table])
def test_tables_refuse(table, records, message):
    with pytest.raises(ValueError, match=message):
        table(records, "bleu")


def test_direction_table():
    table = direction_table(LADDER)
    assert table["direction"].tolist() == ["en-de", "en-ja", "en-zh", "de-en"]
    assert table["group"].tolist() == [1, 6, 6, 1]
    assert table["n"].tolist() == [10] * 4
    assert table["stage4"].tolist() == [30, 10, 20, 40]
    assert math.isnan(table["stage5"].iloc[1])
    with pytest.raises(ValueError, match="en-de was scored on different numbers"):
        direction_table([*LADDER[:4], record("stage4", "en-de", 1, n=11)])


def test_footnote_names_each_signature():
    records = [
        *LADDER[:2],
        record("base", "en-fr", 1),
        record("base", "en-zh", 1, signature="tok:zh"),
    ]
    assert footnote(records, "bleu", "make reproduce") == (
        "Made by `make reproduce`; n = 10 segments per direction; seed 0; "
        "`tok:13a|version:2` (all other targets); `tok:zh` (zh)"
    )


FRAME = pd.DataFrame({"system": ["A|B", "C_1"], "n": [3, 12], "en→xx": [1.005, math.nan]})


def test_an_off_target_column_says_what_was_checked():
    of = {
        text: record("stage4", "en-zh", 0.0, metric="off_target", signature=text)
        for text in (
            "script of letters, percent of segments",  # as runs before 2026-11 have it
            "script of letters|py3langid:0.2.2|of 50 languages|or no letters, percent of segments",
            "script of letters only|or no letters, percent of segments",
        )
    }
    old, new, scripts = of.values()
    assert off_target_label([old]) == "off-target % (script alone)"
    assert off_target_label([new, scripts]) == "off-target % (language, script or no letters)"
    assert off_target_label([old, new]) == "off-target % (language, script or no letters / script alone)"
    assert off_target_label([record("stage4", "en-zh", 1.0)]) == "off-target % (not measured)"


def test_write_table(tmp_path):
    paths = write_table(FRAME, tmp_path / "t.ladder", "Means, 100 %", "a note")
    assert [path.name for path in paths] == ["t.ladder.csv", "t.ladder.md"]
    csv, markdown = (path.read_text() for path in paths)
    assert csv == "system,n,en→xx\nA|B,3,1.00\nC_1,12,\n"
    assert markdown == (
        "**Means, 100 %**\n\n"
        "| system | n | en→xx |\n| --- | ---: | ---: |\n| A\\|B | 3 | 1.00 |\n| C_1 | 12 |  |\n\n"
        "a note\n"
    )


def test_equal_tables_are_equal_bytes(tmp_path):
    made = []
    for name, records in (("one", LADDER), ("two", LADDER[::-1])):
        table = ladder_table(records)
        made.append([p.read_bytes() for p in write_table(table, tmp_path / name, "Ladder")])
    assert made[0] == made[1]


def test_a_rounded_loss_has_no_minus_zero(tmp_path):
    csv, _ = write_table(pd.DataFrame({"gain": [-0.001]}), tmp_path / "t", "Gain")
    assert csv.read_text() == "gain\n0.00\n"


@pytest.mark.parametrize(
    ("suffix", "head", "software"), [("png", b"\x89PNG", b"tEXt"), ("pdf", b"%PDF", b"/CreationDate")]
)
def test_figures_are_equal_bytes_without_software(tmp_path, suffix, head, software):
    from matplotlib.figure import Figure

    def draw() -> Figure:
        figure = Figure(figsize=(2, 2))
        figure.subplots().plot([0, 1], [1, 3])
        return figure

    first, second = (save_figure(draw(), tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
    assert first == second
    assert first.startswith(head)
    assert software not in first
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{suffix}", f"b.{suffix}"]


def test_a_figure_is_named_as_what_it_is(tmp_path):
    with pytest.raises(ValueError, match=r"call it c\.png"):
        save_figure(None, tmp_path / "c.svg")


def test_run_file_says_how(tmp_path):
    run = json.loads(write_run(tmp_path / "run.json", "make reproduce", seconds=1.5).read_text())
    assert run["command"] == "make reproduce"
    assert run["seconds"] == 1.5
    assert {"commit", "versions", "hardware"} <= set(run)
