"""Pairs are what the rule says, and every pair that is not kept is counted under one reason."""

from __future__ import annotations

import pytest

from xalma.preference.pairs import (
    NoPairs,
    build_pairs,
    chrf,
    require_pairs,
)

ALWAYS = {"off_target": lambda text, tgt: False}


def counts(report) -> dict[str, int]:
    """The report without zeros, after checking that it adds up."""
    report = {name: value for name, value in report.items() if name != "chosen_by"}
    assert report["considered"] == sum(v for k, v in report.items() if k != "considered")
    return {name: value for name, value in report.items() if value and name != "considered"}


def test_reference_wins():
    rows, report = build_pairs(["p"], ["vor 5 Tagen "], ["vor 6 Tagen"], "en-de", **ALWAYS)
    assert rows == [
        {
            "prompt": "p",
            "chosen": " vor 5 Tagen",
            "rejected": " vor 6 Tagen",
            "src": "en",
            "tgt": "de",
        }
    ]
    assert counts(report) == {"kept": 1}


@pytest.mark.parametrize(
    ("reference", "output", "reason"),
    [
        ("Haus", "Haus", "identical"),
        ("ein  Haus", "ein Haus ", "identical"),
        ("caf\u00e9", "cafe\u0301", "identical"),
        ("", "Haus", "empty_chosen"),
        ("", "", "empty_chosen"),
        ("Haus", " ", "empty_rejected"),
        ("Haus", "Haus " * 10, "length_ratio"),
        ("Haus am See", "x", "length_ratio"),
        ("Haus", "дом!", "off_target"),
    ],
)
def test_each_reason(reference, output, reason):
    rows, report = build_pairs(["p"], [reference], [output], "en-de")
    assert rows == [] and counts(report) == {f"dropped_{reason}": 1}


def test_duplicates_are_counted_once_each():
    rows, report = build_pairs(["p", "p", "q"], ["a b"] * 3, ["a c"] * 3, "en-de", **ALWAYS)
    assert [row["prompt"] for row in rows] == ["p", "q"]
    assert counts(report) == {"kept": 2, "dropped_duplicate": 1}


def test_counts_add_up_over_a_mixture():
    references = ["Haus", "Haus", "Tag", "Tag", "", "Land", "Land"]
    outputs = ["Haus", "Hof", "Nacht", "", "x", "Land " * 9, "страна"]
    prompts = [str(i) for i in range(7)]
    _, report = build_pairs(prompts, references, outputs, ["en-de"] * 7)
    assert counts(report) == {
        "kept": 2, "dropped_identical": 1, "dropped_empty_rejected": 1, "dropped_empty_chosen": 1,
        "dropped_length_ratio": 1, "dropped_off_target": 1,
    }  # fmt: skip


def test_options():
    args = (["p", "q"], ["Haus", "Haus am See"], ["", "x"], "en-de")
    rows, _ = build_pairs(*args, max_length_ratio=None, keep_empty_rejected=True, **ALWAYS)
    assert [row["rejected"] for row in rows] == ["", " x"]


def test_several_outputs_each_lose_to_the_reference():
    rows, report = build_pairs(["p"], ["ab"], [["ac", "ab", "ad"]], "en-de", **ALWAYS)
    assert [row["rejected"] for row in rows] == [" ac", " ad"]
    assert counts(report) == {"kept": 2, "dropped_identical": 1}


def test_best_and_worst_by_a_callable_and_by_chrf():
    outputs = [["vor 5 Tagen", "vor 6 Jahren", "vor 5 Tage"]]
    for metric in ("chrf", lambda text, reference: -abs(len(text) - len(reference))):
        rows, report = build_pairs(
            ["p"], ["vor 5 Tagen"], outputs, "en-de", rule="best-worst", metric=metric, **ALWAYS
        )
        assert rows[0]["chosen"] == " vor 5 Tagen" and counts(report) == {"kept": 1}
    assert rows[0]["rejected"] == " vor 6 Jahren"
    assert chrf("vor 5 Tagen", "vor 5 Tagen") == 100.0


@pytest.mark.parametrize(("outputs", "reason"), [(["a", "a"], "tied"), (["a"], "tied"), ([], "unscored")])
def test_best_worst_without_a_winner(outputs, reason):
    rows, report = build_pairs(["p"], ["a"], [outputs], "en-de", rule="best-worst", **ALWAYS)
    assert rows == [] and counts(report) == {f"dropped_{reason}": 1}


def test_no_pairs_left_says_what_became_of_them():
    rows, report = build_pairs(["p", "q", "r"], ["Haus", "Tag", "Hof"], ["Haus", "Tag", ""], "en-de")
    with pytest.raises(NoPairs, match="of 3 considered, 1 empty rejected, 2 identical; train longer"):
        require_pairs(rows, report, "train longer")
    require_pairs([{"prompt": "p"}], report, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"references": []}, "1 prompts, 0 references"),
        ({"rule": "best"}, "reference, best-worst"),
        ({"rule": "best-worst", "metric": "bleu"}, "'chrf'"),
        ({"directions": "de-xx"}, "xx"),
    ],
)
def test_bad_input(change, message):
    good = {"prompts": ["p"], "references": ["a"], "outputs": ["b"], "directions": "en-de"}
    with pytest.raises(ValueError, match=message):
        build_pairs(**{**good, **change})
