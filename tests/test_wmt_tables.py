"""The tables of results/wmt that `python tools/wmt_tables.py` makes from filed scores."""

from __future__ import annotations

import pandas as pd
import pytest
from wmt_tables import COVERED, OFF_TARGET, coverage_frame, golden_frame, golden_table, published_bleu

from xalma.corpora.test_sets import directions_of
from xalma.evaluation.score_file import FILE_METRICS
from xalma.files import write_atomically, write_json
from xalma.paper.tables import write_marked
from xalma.runtime import REPOSITORY


def test_golden_table_keeps_printed_and_ours_in_rows_of_their_own():
    values = {("ALMA-13B-LoRA", "en-de"): 31.40, ("ALMA-13B-LoRA", "de-en"): 31.0, ("Other", "en-de"): 1.0,
              ("Other", "de-en"): 2.0}  # fmt: skip
    made = pd.DataFrame(
        [(*key, "bleu", value) for key, value in values.items()],
        columns=["system", "direction", "metric", "value"],
    )
    rows = {row[0]: [cell.text for cell in row[1:]] for row in golden_table(made, "c").rows}
    assert rows["ALMA-13B-LoRA, printed"][0] == published_bleu("ALMA-13B-LoRA", "en-de")[0] == "31.47"
    assert rows["ALMA-13B-LoRA, scored here"][0] == "31.40" and rows["difference"][0] == "-0.07"
    assert not any(name.startswith("Other") for name in rows)
    assert published_bleu("ALMA-13B-LoRA", "en-ja") is None


def test_the_committed_golden_table_is_that_of_its_scores(tmp_path):
    folder = REPOSITORY / "results" / "wmt" / "wmt22"
    table = pd.read_csv(folder / "intervals.csv")
    caption = "BLEU of released outputs on wmt22 beside the paper's"
    for path in write_marked(golden_table(table, caption), tmp_path / "golden"):
        assert path.read_bytes() == (folder / path.name).read_bytes()
    cells = golden_frame(table)
    gaps = (cells["ours"] - cells["printed"]).abs()
    assert gaps[cells["system"] == "ALMA-13B-LoRA"].max() < 0.13


def test_what_was_scored_and_why_not(tmp_path):
    """Two sets filed, on one of them COMET asked for without its model."""
    head = "system,direction,metric,value,low,high,half_width,n,signature\n"
    for (place, over), rows in {
        ("wmt/wmt24", "documents"): "a,en-de,bleu,1,0,2,1,3,s\nb,en-de,bleu,1,0,2,1,3,s\n"
        "a,en-de,comet22,,,,,3,not scored\n",
        ("apertium/ntrex", "segments"): "apertium,en-es,bleu,1,0,2,1,3,s\napertium,es-en,bleu,1,0,2,1,3,s\n",
        ("wmt/documents/ntrex", "documents"): "apertium,es-en,bleu,1,0,2,1,3,s\n",
    }.items():
        write_atomically(tmp_path / place / "intervals.csv", head + rows)
        write_json(tmp_path / place / "run.json", {"resample": over})
    checks = "system,direction,off-target %\na,en-de,0\nb,en-de,1\n"
    write_atomically(tmp_path / "wmt" / "wmt24" / "checks.csv", checks)
    found = coverage_frame(tmp_path)
    assert set(found["test set"]) == set(COVERED)
    columns = ["outputs scored", "in directions", "systems", "intervals over", "why not"]
    answers = {
        (row["test set"], metric): row[columns].tolist()
        for _, row in found.iterrows()
        for metric in row["metrics"].split("; ")
    }
    assert len(answers) == len(COVERED) * (len(FILE_METRICS) + 2), "each metric once per set"
    assert answers["wmt24", "BLEU"] == [2, 1, "a, b", "documents", ""]
    assert answers["wmt24", OFF_TARGET] == [2, 1, "a, b", "", ""]
    assert answers["ntrex", "BLEU"] == [2, 2, "apertium", "documents in es-en; segments", ""]
    assert answers["ntrex", OFF_TARGET] == [0, 0, "", "", "not asked for"]
    for testset in ("wmt24", "wmt23"):
        assert answers[testset, "COMET-22"] == [0, 0, "", "", "not scored: checkpoint not available"]
    assert answers["wmt24", "chrF"] == [0, 0, "", "", "not asked for"]


@pytest.mark.data
def test_the_sets_have_as_many_directions_as_the_table_says():
    assert {name: len(directions_of(name)) for name in COVERED} == COVERED
