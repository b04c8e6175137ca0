"""The scaling benchmark: it runs, at a twentieth of its size, and its table, sentence and figure say what it found."""

from __future__ import annotations

import json
import subprocess
import sys

import cost_tables as scaling
import pytest
from cost_tables import (
    AXES,
    exponent,
    scaling_figure,
    scaling_sentence,
    scaling_table,
)

from xalma.runtime import REPOSITORY

COMMITTED = REPOSITORY / "results" / "benchmarks" / "scaling.json"
# seconds of a size: with a fixed cost that hides the growth at first, quadratic, and none at all
GROWTH = {
    ("training", "data"): lambda n: 0.5 * n,
    ("tokenizer", "languages"): lambda n: 0.01 * n**2,
    ("served batch", "groups"): lambda n: 3.0,
}


@pytest.fixture
def record():
    rows = [
        {"step": step, "axis": axis, "size": n, "seconds": seconds(n)}
        for (step, axis), seconds in GROWTH.items()
        for n in AXES[axis]
    ]
    options = {"repeats": 3, "threads": 1, "scale": 1.0}
    hardware = {"gpu": None, "cpu": "a CPU"}
    return {"rows": rows, "options": options, "hardware": hardware, "commit": "0" * 40, "text": "NTREX-128"}


def test_the_exponent_is_of_the_three_upper_points():
    assert exponent([1, 2, 4, 8], [5.0, 1.0, 2.0, 4.0]) == pytest.approx(1.0)
    assert exponent([5, 10, 20, 49], [9.0, 100.0, 400.0, 2401.0]) == pytest.approx(2.0)


def test_table_and_claims(record):
    table = scaling_table(record).set_index(["step", "grows"])
    assert table["exponent"].tolist() == pytest.approx([1.0, 2.0, 0.0], abs=1e-9)
    assert table["claim"].tolist() == [
        "linear or better",
        "worse, because: not looked into",
        "linear or better",
    ]
    assert table.loc[("tokenizer", "languages"), "times the seconds"] == pytest.approx((49 / 5) ** 2)


def test_sentence_and_note(record):
    assert scaling_sentence(record) == (
        "2 of 3 costs grow linearly or slower (exponent at most 1.1 over the three upper points). Growing faster: "
        "tokenizer with languages, exponent 2.00. The flattest is served batch with groups: 8 times as many take "
        "1.00 times the seconds."
    )
    note = scaling.scaling_note(record)
    assert note.startswith(
        "Text: NTREX-128; the fastest of 3 runs per point; a CPU, 1 thread; commit 0000000000;"
    )
    assert "amounts times 0.05" in scaling.scaling_note(
        record | {"options": record["options"] | {"scale": 0.05}}
    )


def test_figure_has_a_line_and_its_linear_guide_for_each_cost(record):
    fig = scaling_figure(record)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["Training", "Tokenizer", "Served batch"]
    for ax, (_, axis) in zip(fig.axes, GROWTH, strict=True):
        line, guide = ax.lines
        factors = [n / AXES[axis][0] for n in AXES[axis]]
        assert line.get_xdata().tolist() == guide.get_xdata().tolist() == factors
        assert guide.get_ydata().tolist() == pytest.approx(
            [line.get_ydata()[0] * factor for factor in factors]
        )
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


@pytest.mark.skipif(not COMMITTED.exists(), reason="not measured yet")
def test_the_committed_benchmark_is_whole_and_every_worse_cost_is_explained():
    record = json.loads(COMMITTED.read_text(encoding="utf-8"))
    table = scaling_table(record)
    assert len(table) == 17 and not table["claim"].str.contains("not looked into").any()
    assert record["options"]["scale"] == 1.0 and all(row["seconds"] > 0 for row in record["rows"])


@pytest.mark.data
@pytest.mark.long
def test_the_benchmark_runs(tmp_path):
    out = tmp_path / "scaling.json"
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "scaling.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(out.read_text())
    found = {}
    for row in record["rows"]:
        assert row["seconds"] == min(row["seconds_of_runs"]) > 0
        found.setdefault((row["step"], row["axis"]), []).append(row["size"])
    assert len(found) == 17 and {axis for _, axis in found} == set(AXES)
    assert all(tuple(sizes) == AXES[axis] for (_, axis), sizes in found.items())
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".csv", ".md", ".png"}
    assert record["amounts"]["updates"] == 2 and record["commit"]
