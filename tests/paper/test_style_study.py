"""Preference methods on the style set: rows of the table from records, and one small run."""

from __future__ import annotations

import pytest

from xalma.evaluation.records import Record, read_records
from xalma.paper.studies.seeds import SFT
from xalma.paper.studies.style import (
    file_styles,
    name_of,
    score_style,
    style_study,
    style_table,
    styles_folder,
)

METRICS = ("bleu", "content", "length_ratio")


def records() -> list[Record]:
    bleu = {
        (SFT, 0): 30,
        **{("sft@0.001", s): 40 + s for s in range(3)},
        **{("arpo@0.001", s): 43 + s for s in range(3)},
    }
    return [Record("tiny", name, direction, metric, value, 9, "s", seed) for (name, seed), value in bleu.items()
            for metric in METRICS for direction in ("en-fi", "fi-en")]  # fmt: skip


def test_gains_are_against_the_start_and_against_continued_sft():
    table = style_table(records())
    assert list(table["method"])[:3] == ["SFT, the start", "SFT (continued)", "ARPO"]
    arpo = table[table["method"] == "ARPO"].iloc[0]
    assert (arpo["BLEU"], arpo["− SFT"], arpo["− continued"], arpo["± − continued"]) == (44, 14, 3, 0)
    assert arpo["± − SFT"] == pytest.approx(4.3027 / 3**0.5, rel=1e-3)  # 13, 14, 15
    assert table["− SFT"].isna().sum() == 2


def test_content_counts_right_answers_in_any_style(micro):
    rows = [{"direction": "en-fi", "reference": "13 km", "output": output, "renderings": ["13 km", "13 kilometriä"]}
            for output in ("13 km", "13 kilometriä", "14 km", "13")]  # fmt: skip
    values = {record.metric: record.value for record in score_style(rows, micro, "x", 0)}
    assert values["content"] == 50
    assert values["length_ratio"] == 125


@pytest.mark.slow
def test_each_method_is_trained_once_and_filed(micro, finished, tmp_path):
    p = micro.but(results_dir=str(tmp_path), only_languages="", comparison_pairs=2, stage5_batch_size=2)
    found = style_study(p, 6, ("sft", "arpo"), (1e-3,), steps=2)
    assert {record.stage for record in found} == {SFT, name_of("sft", 1e-3), name_of("arpo", 1e-3)}
    table = file_styles(p, found, steps=2)
    assert len(table) == 6
    assert len(read_records(styles_folder(p) / "scores.jsonl")) == len(found)
    assert style_study(p, 6, ("sft", "arpo"), (1e-3,), steps=2) == found
