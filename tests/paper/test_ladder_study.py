"""The ladder over seeds: which stages each system has, and tables from records."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from xalma.evaluation.records import Record, read_records
from xalma.paper.studies import ladder as room
from xalma.paper.studies.ladder import (
    BEFORE_SFT,
    RANDOM,
    SFT_SYSTEMS,
    budget_table,
    few_shot_table,
    file_ladder,
    ladder_folder,
    ladder_study,
    sft_table,
)
from xalma.paper.studies.seeds import by_seed, paired
from xalma.paper.studies.stage_ablation import FULL_CHAIN
from xalma.paper.studies.study import Study, read_study
from xalma.profiles import load_profile
from xalma.runs import lineage
from xalma.training.ladder import test_rows as sentences_of


def records(values: dict[tuple[str, int], float], metrics: tuple[str, ...]) -> list[Record]:
    return [
        Record("tiny", name, direction, metric, value, 9, "s", seed)
        for (name, seed), value in values.items()
        for metric in metrics
        for direction in ("en-fi", "fi-en")
    ]


def test_differences_are_taken_seed_by_seed():
    values = {(FULL_CHAIN, 0): 50, (FULL_CHAIN, 1): 54, (FULL_CHAIN, 2): 52, ("no-stage1", 0): 40, ("no-stage1", 1): 43,
              ("no-stage1", 2): 43}  # fmt: skip
    found = records(values, ("bleu", "content", "chrf", "bits_per_byte", "off_target", "empty"))
    study = Study(
        "ladder",
        "t",
        FULL_CHAIN,
        {name: {"system": SFT_SYSTEMS[name]} for name in (FULL_CHAIN, "no-stage1")},
        found,
    )
    table = sft_table(study)
    row = table[(table["system"] == SFT_SYSTEMS["no-stage1"]) & (table["direction"] == "en→xx")].iloc[0]
    assert row["BLEU"] == 42 and row["range over seeds"] == 3
    assert row["BLEU − all stages"] == pytest.approx(-10)
    assert row["± of it"] == pytest.approx(
        4.3027 * 1 / 3**0.5, rel=1e-3
    )  # t of 2 degrees; differences -10, -11, -9
    full = table[table["system"] == SFT_SYSTEMS[FULL_CHAIN]].iloc[0]
    assert full["BLEU"] == 52 and full["BLEU − all stages"] == 0


def test_the_full_chain_is_measured_before_sft():
    values = {(stage, seed): i + seed for i, stage in enumerate(BEFORE_SFT) for seed in range(3)}
    table = few_shot_table(records(values, ("bleu", "content", "text_bits", "partner_gain")))
    assert list(table["after"]) == [*BEFORE_SFT, *BEFORE_SFT]
    assert list(table["partner gain"])[:4] == [1, 2, 3, 4]


def test_a_measure_that_no_record_has_is_no_column():
    """One run's own stages, as notebook 05 shows them: nobody counts their facts."""
    values = {(stage, 0): i for i, stage in enumerate(BEFORE_SFT)}
    table = few_shot_table(records(values, ("bleu", "text_bits", "partner_gain")))
    assert "content %" not in table and list(table["one-shot BLEU"])[:4] == [0, 1, 2, 3]


@pytest.mark.parametrize("score, kept", [("_score", "translate_test"), ("_continue", "continue_test")])
def test_all_seeds_are_asked_the_same_sentences(score, kept, micro, monkeypatch):
    """The models differ by seed; the sentences, with what states their facts, are those of the profile's seed."""
    row = sentences_of(micro, 6)[0]
    row |= {"output": row["reference"], "nats": 1.0, "other_nats": 2.0, "text_nats": 1.5}
    asked = []
    monkeypatch.setattr(room, "_folder", lambda p, group, seed, system: Path(f"{system}{seed}"))
    monkeypatch.setattr(room, "full_folder", lambda p, group, seed, number: Path(f"stage{number}{seed}"))
    monkeypatch.setattr(room, kept, lambda p, folder, group: asked.append((p.seed, folder.name)) or [row])
    found = [getattr(room, score)(micro, 6, seed, FULL_CHAIN if score == "_score" else 3) for seed in (0, 7)]
    assert {seed for seed, _ in asked} == {micro.seed} and len({name for _, name in asked}) == 2
    assert [{record.seed for record in records} for records in found] == [{0}, {7}]
    assert all({"bleu", "content"} <= {record.metric for record in records} for records in found)


@pytest.mark.slow
def test_each_system_has_its_stages_and_the_same_sft(micro, ladder, tmp_path):
    shutil.copytree(micro.run_dir, tmp_path / "runs")
    p = micro.but(
        results_dir=str(tmp_path),
        run_dir=str(tmp_path / "runs"),  # the tests share micro's own: its base would be made anew
        only_languages="fi",
        module_languages="6:fi",
        ablation_share=0.5,
    )
    study, few_shot = ladder_study(p, 6)
    numbers = {
        name: [run["number"] for _, run in lineage(room._folder(p.but(ablation_share=1.0), 6, p.seed, name))][
            ::-1
        ]
        for name in SFT_SYSTEMS
    }
    assert numbers == {
        FULL_CHAIN: [0, 1, 2, 3, 4],
        "no-stage1": [0, 2, 3, 4],
        "no-stage3": [0, 1, 2, 4],
        RANDOM: [0, 4],
    }
    file_ladder(p, study, few_shot)
    assert read_study(ladder_folder(p), "group6").systems == study.systems
    assert {path.name for path in (ladder_folder(p) / "tables").iterdir()} >= {
        "group6.csv",
        "group6_few_shot.md",
    }


def test_what_notebook_07_says_of_the_style_set():
    """At 1e-3: ARPO above SFT by more than its interval en→xx, within it xx→en; above continued SFT in neither."""
    table = pd.read_csv(FILED.parent / "styles" / "tables" / "styles.csv")
    arpo = table[(table["method"] == "ARPO") & (table["learning rate"] == 1e-3)].set_index("direction")
    assert arpo.loc["en→xx", "− SFT"] > arpo.loc["en→xx", "± − SFT"]
    assert abs(arpo.loc["xx→en", "− SFT"]) < arpo.loc["xx→en", "± − SFT"]
    assert (arpo["− continued"] < 0).all()


FILED = Path(__file__).parents[2] / "results" / "tiny" / "ladder"


def filed(folder: Path) -> tuple[pd.Series, pd.Series]:
    """(scores after SFT, scores before it) of a filed ladder, by system, direction, metric and seed."""
    before = by_seed(read_records(folder / "group6_few_shot.jsonl")).sort_index()
    return by_seed(read_study(folder, "group6").records).sort_index(), before


def test_the_filed_study_shows_what_the_papers_claim():
    """Five seeds, differences seed by seed against their intervals."""
    assert load_profile("tiny").sft_pairs <= 300
    values, before = filed(FILED)
    for direction in ("en-xx", "xx-en"):
        assert len(before["stage3", direction, "bleu"]) == 5
        assert before["stage3", direction, "bleu"].min() >= 20
        after_sft = values[FULL_CHAIN, direction, "bleu"]
        assert after_sft.min() >= 45 and after_sft.max() - after_sft.min() <= 5
        gain, half = paired(before, "stage3", "stage2", direction, "partner_gain")
        assert gain > half
        for system, metric in product(("no-stage1", "no-stage3", RANDOM), ("bleu", "content")):
            gap, half = paired(values, system, FULL_CHAIN, direction, metric)
            assert gap < -half, (system, direction, metric)
    change, half = paired(before, "stage2", "stage1", "xx-en", "text_bits")
    assert change < -half


def test_what_the_filed_study_does_not_show():
    """Continuations after stage 3 state all facts in far fewer than half of the cases; SFT's answers in about half."""
    values, before = filed(FILED)
    for direction in ("en-xx", "xx-en"):
        assert before["stage2", direction, "content"].max() == 0
        assert 10 < before["stage3", direction, "content"].mean() < 25
        assert values[FULL_CHAIN, direction, "content"].mean() > 50
    change, half = paired(before, "stage2", "stage1", "en-xx", "text_bits")
    assert abs(change) < half


def test_with_more_text_half_of_the_continuations_are_right():
    """Three seeds with four times stage 2's text and three times stage 3's."""
    values, before = filed(FILED / "large")
    for direction in ("en-xx", "xx-en"):
        assert len(before["stage3", direction, "content"]) == 3
        assert before["stage3", direction, "content"].mean() >= 50
        assert before["stage3", direction, "bleu"].min() >= 20
        gap, half = paired(values, "no-stage3", FULL_CHAIN, direction)
        assert gap < -half
    change, half = paired(before, "stage2", "stage1", "en-xx", "text_bits")
    assert change < -half


def test_more_bitext_makes_stage_1_less_needed():
    table = budget_table(load_profile("tiny"), 6)
    assert list(table["tokens of stage 3"]) == ["400,000", "1,200,000"] * 2
    for _, rows in table.groupby("direction"):
        small, large = rows.to_dict("records")
        assert small["without stage 1"] < -small["± of it"]
        assert abs(large["without stage 1"]) < large["± of it"]
        assert large["BLEU after SFT"] > small["BLEU after SFT"]
