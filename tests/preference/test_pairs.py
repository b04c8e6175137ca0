"""Pairs are what the rule says, and every pair that is not kept is counted under one reason."""

from __future__ import annotations

import pytest

from xalma.preference.pairs import NoPairs, build_pairs, require_pairs


def asked(references, outputs, prompts=None) -> list[dict[str, str]]:
    """Rows as stage 5 hands them over, into German."""
    prompts = prompts or [str(i) for i in range(len(references))]
    keys = ("prompt", "reference", "output")
    return [
        dict(zip(keys, row, strict=True), direction="en-de")
        for row in zip(prompts, references, outputs, strict=True)
    ]


def counts(report) -> dict[str, int]:
    """The report without zeros, after checking that it adds up."""
    assert report["considered"] == sum(v for k, v in report.items() if k != "considered")
    return {name: value for name, value in report.items() if value and name != "considered"}


def test_reference_wins():
    rows, report = build_pairs(asked(["vor 5 Tagen "], ["vor 6 Tagen"], ["p"]))
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
    rows, report = build_pairs(asked([reference], [output]))
    assert rows == [] and counts(report) == {f"dropped_{reason}": 1}


def test_duplicates_are_counted_once_each():
    rows, report = build_pairs(asked(["a b"] * 3, ["a c"] * 3, ["p", "p", "q"]))
    assert [row["prompt"] for row in rows] == ["p", "q"]
    assert counts(report) == {"kept": 2, "dropped_duplicate": 1}


def test_counts_add_up_over_a_mixture():
    references = ["Haus", "Haus", "Tag", "Tag", "", "Land", "Land"]
    outputs = ["Haus", "Hof", "Nacht", "", "x", "Land " * 9, "страна"]
    _, report = build_pairs(asked(references, outputs))
    assert counts(report) == {
        "kept": 2,
        "dropped_identical": 1,
        "dropped_empty_rejected": 1,
        "dropped_empty_chosen": 1,
        "dropped_length_ratio": 1,
        "dropped_off_target": 1,
    }


def test_no_pairs_left_says_what_became_of_them():
    rows, report = build_pairs(asked(["Haus", "Tag", "Hof"], ["Haus", "Tag", ""]))
    with pytest.raises(NoPairs, match="of 3 considered, 1 empty rejected, 2 identical; train longer"):
        require_pairs(rows, report, "train longer")
    require_pairs([{"prompt": "p"}], report, "")


def test_a_direction_that_is_none_is_named():
    with pytest.raises(ValueError, match="xx"):
        build_pairs([asked(["a"], ["b"])[0] | {"direction": "de-xx"}])
