"""Pairs are what the rule says, and every pair that is not kept is counted under one reason."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from xalma.preference.pairs import (
    NoPairs,
    build_pairs,
    chrf,
    read_alma_r_preference,
    read_xalma_preference,
    require_pairs,
)

ALWAYS = {"off_target": lambda text, tgt: False}


def counts(report) -> dict[str, int]:
    """The report without zeros, after checking that it adds up."""
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
        rows, report = build_pairs(["p"], ["vor 5 Tagen"], outputs, "en-de", rule="best-worst", metric=metric, **ALWAYS)
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


FIELDS = ("source", "chosen", "reject", "directions")
XALMA = [
    dict(zip(FIELDS, values, strict=True))
    for values in (
        ("five days ago", "vor fünf Tagen", "vor 5 Tagen", "en-de"),
        ("vor fünf Tagen", "five days ago", "five days ago", "de-en"),
    )
]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "folder"])
def test_xalma_layout(kind, tmp_path):
    if kind == "jsonl":
        path = tmp_path / "pairs.jsonl"
        path.write_text("\n".join(map(json.dumps, XALMA)))
    else:
        path = tmp_path / "data" / "train-00000.parquet"
        path.parent.mkdir()
        Dataset.from_list(XALMA).to_parquet(path)
        path = tmp_path if kind == "folder" else path
    rows, report = read_xalma_preference(path)
    assert rows == [
        {
            "prompt": "[INST] Translate this from English to German:\n"
            "English: five days ago\nGerman: [/INST]",
            "chosen": " vor fünf Tagen", "rejected": " vor 5 Tagen", "src": "en", "tgt": "de",
        }
    ]  # fmt: skip
    assert counts(report) == {"kept": 1, "dropped_identical": 1}
    assert read_xalma_preference(path, directions=["de-en"])[1]["considered"] == 1


def triple(scores_de, scores_en, delta=0.0, required="") -> dict:
    """A record of ALMA-R's layout; scores: GPT-4, ALMA, reference."""
    record = {
        "en": "five days ago", "de": "vor fünf Tagen",
        "gpt4_de": "vor 5 Tagen", "alma_de": "5 Tage zuvor",
        "gpt4_en": "5 days ago", "alma_en": "before five days",
        "Delta": delta, "required_directions": required, "language_pair": "en-de",
    }  # fmt: skip
    for tgt, scores in (("de", scores_de), ("en", scores_en)):
        for name, score in zip(("gpt4", "alma", "ref"), scores, strict=True):
            record |= {f"{name}_{tgt}_{s}": score for s in ("kiwi", "xcomet", "kiwi_xcomet")}
    return {"translation": record}


GPT4, ALMA = " vor 5 Tagen", " 5 Tage zuvor"
TO_ENGLISH = (" five days ago", " 5 days ago")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (triple((0.9, 0.7, 0.8), (0.1, 0.2, 0.3)), [(GPT4, ALMA), TO_ENGLISH]),
        (triple((0.7, 0.9, 0.8), (0.5, 0.5, 0.5)), [(ALMA, GPT4)]),
        (triple((0.7, 0.9, 0.8), (0.1, 0.2, 0.3), 1.0, "en-de"), [(GPT4, ALMA)]),
        (triple((0.9, 0.7, 0.8), (0.1, 0.2, 0.3), -1.0, "en-de"), [(ALMA, GPT4)]),
        (triple((0.9, 0.7, None), (0.1, 0.2, 0.3)), [TO_ENGLISH]),
    ],
)
def test_alma_r_layout(record, expected, tmp_path):
    path = tmp_path / "triples.jsonl"
    path.write_text(json.dumps(record))
    rows, report = read_alma_r_preference(path)
    assert [(row["chosen"], row["rejected"]) for row in rows] == expected
    assert counts(report)["kept"] == len(expected)
    assert rows[0]["prompt"].startswith("Translate this from ")


def test_readers_name_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_xalma_preference(tmp_path / "nowhere.parquet")
    path = tmp_path / "other.jsonl"
    path.write_text('{"text": "x"}')
    with pytest.raises(ValueError, match="no column 'source'; it has text"):
        read_xalma_preference(path)
    with pytest.raises(ValueError, match="kiwi, xcomet"):
        read_alma_r_preference(path, score="bleu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"\.parquet"):
        read_xalma_preference(tmp_path / "empty")
