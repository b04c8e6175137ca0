"""Preference methods on the style set: rows of the table from records, and one small run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from xalma.evaluation.records import Record, read_records
from xalma.paper.figures import rate_curves
from xalma.paper.studies.seeds import SFT, by_seed, paired
from xalma.paper.studies.style import (
    content_records,
    file_styles,
    name_of,
    read_styles,
    score_style,
    style_findings,
    style_probes,
    style_study,
    style_table,
    table5,
    with_renderings,
)
from xalma.training.ladder import test_rows as sentences_of

METRICS = ("bleu", "content", "length_ratio")


def records() -> list[Record]:
    bleu = {
        (SFT, 0): 30,
        **{("sft@0.001", s): 40 + s for s in range(3)},
        **{("arpo@0.001", s): 43 + s for s in range(3)},
    }
    return [
        Record("tiny", name, direction, metric, value, 9, "s", seed)
        for (name, seed), value in bleu.items()
        for metric in METRICS
        for direction in ("en-fi", "fi-en")
    ]


def test_gains_are_against_the_start_and_against_continued_sft():
    table = style_table(records())
    assert list(table["method"])[:3] == ["SFT, the start", "SFT (continued)", "ARPO"]
    arpo = table[table["method"] == "ARPO"].iloc[0]
    assert (arpo["BLEU"], arpo["− SFT"], arpo["− continued"], arpo["± − continued"]) == (44, 14, 3, 0)
    assert arpo["± − SFT"] == pytest.approx(4.3027 / 3**0.5, rel=1e-3)  # 13, 14, 15
    assert table["− SFT"].isna().sum() == 2


def test_content_counts_right_answers_in_any_style(micro):
    rows = [
        {
            "direction": "en-fi",
            "reference": "13 km",
            "output": output,
            "renderings": ["13 km", "13 kilometriä"],
        }
        for output in ("13 km", "13 kilometriä", "14 km", "13")
    ]
    values = {record.metric: record.value for record in score_style(rows, micro, "x", 0)}
    assert values["content"] == 50
    assert values["length_ratio"] == 125


def test_the_renderings_of_a_test_sentence_hold_its_reference_and_its_other_styles(micro):
    rows = with_renderings(micro, [row | {"output": row["reference"]} for row in sentences_of(micro, 6)])
    assert {row["direction"] for row in rows} >= {"en-fi", "fi-en"}
    assert all(record.value == 100 for record in content_records(rows, micro, "x", 0))
    assert any(len(row["renderings"]) > 1 for row in rows)


@pytest.mark.data
def test_a_corpus_without_styles_is_refused(micro):
    with pytest.raises(ValueError, match="corpus=ntrex has no styles"):
        with_renderings(micro.but(corpus="ntrex"), [])


@pytest.mark.slow
def test_each_method_is_trained_once_and_filed(micro, finished, tmp_path):
    p = micro.but(results_dir=str(tmp_path), only_languages="", comparison_pairs=2, stage5_batch_size=2)
    p = p.but(comparison_steps=2)
    found = style_study(p, 6, ("sft", "arpo"), (1e-3,))
    assert {record.stage for record in found} == {SFT, name_of("sft", 1e-3), name_of("arpo", 1e-3)}
    table = file_styles(p, found, style_probes(p, 6, found))
    assert len(table) == 6 and (table["log p rejected"] < 0).all()
    run, records, probes = read_styles(p)
    assert set(records) == set(found) and set(probes["system"]) == {"sft@0.001", "arpo@0.001"}
    assert "dpo@0.0001, seed 0" in run["not_run"] and "arpo@0.001, seed 0" not in run["not_run"]
    assert style_study(p, 6, ("sft", "arpo"), (1e-3,)) == found
    rate_curves(found, probes, "t")


def test_a_seed_that_one_method_lacks_is_left_out_of_the_difference():
    kept = [record for record in records() if (record.stage, record.seed) != ("sft@0.001", 2)]
    table = style_table(kept)
    row = table[table["method"] == "ARPO"].iloc[0]
    assert row["− continued"] == 3 and row["seeds"] == 3


def test_sentences_name_who_fell_and_what_seeds_allow():
    fallen = [record for record in records()]
    fallen += [
        replace(record, stage="dpo@0.001", value=10.0) for record in fallen if record.stage == "arpo@0.001"
    ]
    first, gain, rest, *_ = style_findings(fallen)
    assert first == (
        "en→xx, learning rate 0.001: SFT 30.0 BLEU; SFT (continued) 41.0, DPO 10.0, ARPO 44.0; "
        "below half of SFT's: DPO."
    )
    assert (
        gain
        == "en→xx, learning rate 0.001: ARPO − SFT, the start: +14.0 ± 2.5 BLEU, significant over the seeds."
    )
    assert rest.endswith("ARPO − SFT (continued): +3.0 ± 0.0 BLEU, significant over the seeds.")


def test_table_5_has_columns_of_its_own():
    cells = table5().set_index("method")["paper BLEU en→xx"]
    assert dict(cells[["SFT, the start", "DPO", "SimPO"]]) == {
        "SFT, the start": "26.5",
        "DPO": "0.7",
        "SimPO": "0.0",
    }


FILED = Path(__file__).parents[2] / "results" / "tiny" / "styles" / "scores.jsonl"


RATES = ("0.0001", "0.0002", "0.0005", "0.001")


@pytest.fixture(scope="module")
def filed():
    """BLEU, content and length by system, direction class, metric and seed."""
    return by_seed(read_records(FILED)).sort_index()


def test_every_cell_was_run(filed):
    run = json.loads((FILED.parent / "run.json").read_text(encoding="utf-8"))
    assert run["not_run"] == [] and run["seeds"] == [0, 1, 2] and len(run["rates"]) >= 4
    for rate in RATES:
        for method in ("sft", "dpo", "simpo", "cpo", "arpo"):
            assert len(filed[f"{method}@{rate}", "en-xx", "bleu"]) == 3


@pytest.mark.parametrize("direction", ["en-xx", "xx-en"])
def test_dpo_and_simpo_collapse_at_a_rate_where_arpo_holds(filed, direction):
    """Below half of SFT's BLEU at 1e-3, SimPO at 5e-4 too; ARPO, CPO and continued SFT never, and at 1e-4 nobody."""
    half = filed[SFT, direction, "bleu"].iloc[0] / 2
    fallen = {("dpo", "0.001"), ("simpo", "0.001"), ("simpo", "0.0005")}
    for rate in RATES:
        for method in ("sft", "dpo", "simpo", "cpo", "arpo"):
            bleu = filed[f"{method}@{rate}", direction, "bleu"]
            if (method, rate) in fallen:
                assert bleu.max() < half, (method, rate)
            else:
                assert bleu.min() > half, (method, rate)
    for method in ("dpo", "simpo"):
        assert filed[f"{method}@0.001", direction, "content"].max() == 0
        assert filed[f"{method}@0.001", direction, "length_ratio"].max() < 50


def test_rejecting_hard_loses_the_style_first_and_then_the_facts(filed):
    """DPO against continued SFT, xx→en: at 2e-4 BLEU falls and content does not; at 5e-4 both fall, en→xx too."""
    gap, half = paired(filed, "dpo@0.0002", "sft@0.0002", "xx-en")
    assert gap < -half
    gap, half = paired(filed, "dpo@0.0002", "sft@0.0002", "xx-en", "content")
    assert abs(gap) < half
    for direction in ("en-xx", "xx-en"):
        for metric in ("bleu", "content"):
            gap, half = paired(filed, "dpo@0.0005", "sft@0.0005", direction, metric)
            assert gap < -half, (direction, metric)


def test_arpo_holds_more_than_cpo_and_less_than_continued_sft(filed):
    """At 5e-4: facts above CPO's both ways, BLEU xx→en; xx→en below SFT and continued SFT. Nowhere is ARPO above it."""
    for direction in ("en-xx", "xx-en"):
        gap, half = paired(filed, "arpo@0.0005", "cpo@0.0005", direction, "content")
        assert gap > half
        for rate in RATES:
            gap, half = paired(filed, f"arpo@{rate}", f"sft@{rate}", direction)
            assert gap < half, (rate, direction)
        content = [filed[f"sft@{rate}", direction, "content"].mean() for rate in RATES]
        assert content == sorted(
            content, reverse=True
        )  # even without rejecting, the new style takes facts with it
    gap, half = paired(filed, "arpo@0.0005", "cpo@0.0005", "xx-en")
    assert gap > half
    for other in (SFT, "sft@0.0005"):
        gap, half = paired(filed, "arpo@0.0005", other, "xx-en")
        assert gap < -half
    gap, half = paired(filed, "arpo@0.001", "sft@0.001", "xx-en")
    assert gap < -half
