"""Notebook 00's room: the gate as a table, and what it says before and after a module is trained."""

from __future__ import annotations

import pytest

from xalma.paper import report
from xalma.profiles import load_profile


def test_both_directions_of_a_language_share_its_module() -> None:
    table = report.gate_table(["en-ja", "ja-en", "fr-en"])
    assert table["module"].tolist() == ["group6", "group6", "group4"]
    assert table["non-English side"].tolist() == ["Japanese", "Japanese", "French"]


@pytest.mark.parametrize(
    ("direction", "message"), [("fi-ko", "not English-centric"), ("en-xx", "unknown language code")]
)
def test_a_direction_without_a_module_is_refused(direction: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report.gate_table([direction])


def test_without_a_module_it_says_what_trains_one(tmp_path) -> None:
    p = load_profile("tiny", run_dir=str(tmp_path), test_pairs=5)
    sentence, table = report.translations(p, "fi", n=2)
    assert "group 6 is not trained yet" in sentence and "notebooks 03 to 07" in sentence
    assert list(table) == ["direction", "source", "reference"]
    assert table["direction"].tolist() == ["en-fi", "en-fi", "fi-en", "fi-en"]
    assert table["source"].tolist() == table["reference"].tolist()[2:] + table["reference"].tolist()[:2]


def test_with_a_module_its_answers_stand_beside_the_references(tmp_path, monkeypatch) -> None:
    p = load_profile("tiny", run_dir=str(tmp_path), test_pairs=5)
    monkeypatch.setattr(report, "newest_stage", lambda p, group: tmp_path / f"group{group}")
    monkeypatch.setattr(report, "open_merged", lambda folder: (folder.name, None))
    monkeypatch.setattr(report, "read_run", lambda folder: {"number": 4})
    monkeypatch.setattr(
        report, "translate", lambda model, tokenizer, texts, src, tgt, **_: [f"{model} {src}>{tgt} {t}" for t in texts]
    )
    sentence, table = report.translations(p, "fi", n=1)
    assert "group 6 as of stage 4" in sentence
    assert table["translation"].tolist() == [
        f"group6 en>fi {table.loc[0, 'source']}",
        f"group6 fi>en {table.loc[1, 'source']}",
    ]
