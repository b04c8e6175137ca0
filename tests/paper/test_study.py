"""A study is filed and read back whole, and its table and sentences agree with hand counts."""

from __future__ import annotations

import pandas as pd
import pytest

from xalma.evaluation.records import Record
from xalma.paper.studies.study import (
    Study,
    file_study,
    read_study,
    study_findings,
    study_note,
    study_table,
)

GIVEN = {"bleu": 5.0, "chrf": 30.0, "off_target": 10.0, "empty": 0.0}


def study_records(
    names, bits: dict[tuple[str, str, int], float], seeds=(0, 1, 2), bleu: float = 5.0
) -> list[Record]:
    """Records of one language in both directions; 2 bits per byte where `bits` (name, class, seed) has no other."""
    made = []
    for name in names:
        for direction, side in (("en-fi", "en-xx"), ("fi-en", "xx-en")):
            for seed in seeds:
                values = GIVEN | {"bleu": bleu, "bits_per_byte": bits.get((name, side, seed), 2.0)}
                made += [
                    Record("tiny", name, direction, metric, value, 10, "sig", seed)
                    for metric, value in values.items()
                ]
    return made


# "b" is worse by 0.1, 0.2, 0.3 bits: mean 0.2, standard deviation 0.1, half 4.303 × 0.1 / √3 = 0.2484
BITS = {("b", "en-xx", seed): 2.1 + 0.1 * seed for seed in range(3)} | {
    ("a", "en-xx", seed): 2.0 for seed in range(3)
}


@pytest.fixture
def study() -> Study:
    systems = {"a": {"system": "first", "updates": 7}, "b": {"system": "second", "updates": 9}}
    return Study("some", "A title", "a", systems, study_records(systems, BITS))


def test_filed_and_read_back(study, tmp_path):
    found = file_study(tmp_path, study)
    assert (found.name, found.title, found.baseline, found.systems) == ("some", "A title", "a", study.systems)
    assert sorted(r.key for r in found.records) == sorted(r.key for r in study.records)
    assert found == read_study(tmp_path, "some") and list(found.labels.values()) == ["first", "second"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["some.json", "some.jsonl"]
    with pytest.raises(FileNotFoundError):
        read_study(tmp_path, "other")


def test_table_has_facts_scores_and_paired_differences(study):
    table = study_table(study).set_index(["direction", "system"])
    row = table.loc[("en→xx", "second")]
    assert (row["updates"], row["BLEU"], row["bits per byte"]) == (9, 5.0, pytest.approx(2.2))
    assert row["bits − baseline"] == pytest.approx(0.2) and row["bits − baseline ±"] == pytest.approx(
        0.2484, abs=1e-4
    )
    assert table.loc[("en→xx", "first"), "bits − baseline"] == 0
    assert "paper COMET-22" not in table
    shown = study_table(study, {("en-xx", "b"): "90.1?"})["paper COMET-22"].tolist()
    assert shown == ["", "90.1?", "", ""]


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        (0.0, r"+0.200 ± 0.248 (within the interval)"),
        (0.1, "+0.300 ± 0.248 (worse)"),
        (-0.5, "-0.300 ± 0.248 (better)"),
    ],
)
def test_findings_judge_by_the_interval(study, shift, said):
    bits = {key: value + shift * (key[0] == "b") for key, value in BITS.items()}
    moved = Study("some", "", "a", study.systems, study_records("ab", bits))
    first = study_findings(moved)[0]
    assert (
        first
        == f"en→xx, bits per byte of the reference, less is better: first 2.000; against it second {said}."
    )


def test_findings_say_what_can_not_be_said(study):
    single = Study("some", "", "a", study.systems, study_records("ab", BITS, seeds=(0,), bleu=0.4))
    text = study_findings(single)
    assert text[0].endswith("against it second +0.100.")
    assert text[1] == "en→xx: none reaches 1 BLEU at this size, so BLEU says nothing here."
    assert text[-1].startswith("With 1 seed there is no interval")
    assert "BLEU: first 5.0; second 5.0." in study_findings(study)[1]
    assert pd.isna(study_table(single)["bits per byte ±"]).all()


def test_note_names_command_signatures_and_baseline(study):
    note = study_note(study, "xalma run")
    assert (
        "Made by `xalma run`" in note and "n = 10 segments" in note and note.endswith("the baseline is first")
    )
