"""Pairs that others made: each layout is read as its card says, and what is not understood is one sentence."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from xalma.preference.released import preference_fingerprint, read_preference


def counts(report) -> dict[str, int]:
    """The report without zeros, after checking that it adds up."""
    report = {name: value for name, value in report.items() if name not in ("other_directions", "chosen_by")}
    assert report["considered"] == sum(v for k, v in report.items() if k != "considered")
    return {name: value for name, value in report.items() if value and name != "considered"}


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
    rows, report = read_preference(path)
    assert rows == [
        {
            "prompt": "[INST] Translate this from English to German:\n"
            "English: five days ago\nGerman: [/INST]",
            "chosen": " vor fünf Tagen",
            "rejected": " vor 5 Tagen",
            "src": "en",
            "tgt": "de",
        }
    ]
    assert counts(report) == {"kept": 1, "dropped_identical": 1}
    assert read_preference(path, directions=["de-en"])[1]["considered"] == 1


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
            record |= {f"{name}_{tgt}_{s}": value for s, value in (("kiwi", 0.5), ("kiwi_xcomet", score))}
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
        (triple((0.9, 0.9, 0.9), (0.1, 0.2, 0.3)), [TO_ENGLISH]),
    ],
)
def test_alma_r_layout(record, expected, tmp_path):
    path = tmp_path / "triples.jsonl"
    path.write_text(json.dumps(record))
    rows, report = read_preference(path, prompt_style="alma")
    assert [(row["chosen"], row["rejected"]) for row in rows] == expected
    assert counts(report)["kept"] == len(expected)
    assert rows[0]["prompt"].startswith("Translate this from ")


def test_readers_name_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_preference(tmp_path / "nowhere.parquet")
    path = tmp_path / "other.jsonl"
    path.write_text('{"text": "x"}')
    with pytest.raises(
        ValueError, match="has the columns text: give one of: translation; source, chosen, reject"
    ):
        read_preference(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"\.parquet"):
        read_preference(tmp_path / "empty")


OWN = {
    "source": "five days ago",
    "chosen": "vor fünf Tagen",
    "rejected": "vor 5 Tagen",
    "src": "en",
    "tgt": "de",
}
PROMPT = {"prompt": "Say it in German: five days ago", "chosen": "vor fünf Tagen", "rejected": "vor 5 Tagen"}


def written(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_users_pairs_are_asked_in_the_profiles_style_or_as_they_are(tmp_path):
    (row,), _ = read_preference(written(tmp_path / "own.jsonl", OWN), prompt_style="alma")
    assert row["prompt"] == "Translate this from English to German:\nEnglish: five days ago\nGerman:"
    assert (row["chosen"], row["rejected"], row["src"], row["tgt"]) == (
        " vor fünf Tagen",
        " vor 5 Tagen",
        "en",
        "de",
    )
    path = written(tmp_path / "prompts.jsonl", PROMPT)
    (row,), _ = read_preference(path, directions=["en-fi"])
    assert (row["prompt"], row["tgt"]) == (PROMPT["prompt"], ""), "pairs that name no language are all taken"


def test_pairs_of_other_directions_are_counted(tmp_path):
    path = written(tmp_path / "own.jsonl", OWN, OWN | {"src": "de", "tgt": "en"}, OWN | {"tgt": "nl"})
    rows, report = read_preference(path, directions=["en-de"])
    assert len(rows) == report["kept"] == report["considered"] == 1 and report["other_directions"] == 2


def test_a_guard_sees_source_chosen_and_rejected(tmp_path):
    seen = []

    def watch(rows, where):
        for row in rows:
            seen.append((tuple(row), where))
            if "fünf" not in row[1]:
                yield row

    path = written(tmp_path / "own.jsonl", OWN, OWN | {"chosen": "vor sechs Tagen"})
    rows, report = read_preference(path, watch=watch)
    assert [row["chosen"] for row in rows] == [" vor sechs Tagen"] and report["considered"] == 1
    assert seen[0] == (("five days ago", "vor fünf Tagen", "vor 5 Tagen"), f"preference pairs of {path}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(OWN | {"tgt": "xx"}), r"own\.jsonl, row 1: .*'xx'"),
        (json.dumps(OWN | {"chosen": 3}), r"own\.jsonl, row 1: chosen is 3, not text"),
        (json.dumps(OWN | {"chosen": None}), r"own\.jsonl, row 1: chosen is None, not text"),
        ('{"prompt": "a"}', "has the columns prompt: give one of"),
        ("{", "can't be read as preference pairs"),
    ],
)
def test_what_is_not_understood_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "own.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_preference(path)
    assert "\n" not in str(caught.value)


def test_changed_files_are_other_inputs(tmp_path):
    path = written(tmp_path / "own.jsonl", OWN)
    before = preference_fingerprint(path)
    written(path, OWN, PROMPT)
    assert preference_fingerprint(path) != before and preference_fingerprint("somebody/pairs") is None
