"""Notebook 00's room: the gate as a table, and what it says before and after a module is trained."""

from __future__ import annotations

import pandas as pd
import pytest

from xalma.paper import preview, report
from xalma.paper.tables import write_table
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
    p = load_profile("tiny", run_dir=str(tmp_path), results_dir=str(tmp_path), base="", test_pairs=5)
    sentence, table = preview.translations(p, "fi", n=2)
    assert "group 6 is not trained on this machine yet" in sentence and "notebooks 03 to 07" in sentence
    assert list(table) == ["direction", "source", "reference"]
    assert sorted(table["direction"]) == ["en-fi", "en-fi", "fi-en", "fi-en"]


def test_a_fresh_machine_shows_the_filed_run_else_the_shipped_base(tmp_path) -> None:
    p = load_profile("tiny", run_dir=str(tmp_path), results_dir=str(tmp_path), test_pairs=5, max_new_tokens=4)
    sentence, table = preview.translations(p, "fi", n=1)
    assert "the base continues" in sentence
    assert list(table) == ["direction", "source", "continuation", "reference"]
    assert table["direction"].tolist() == ["en-fi", "fi-en"]
    filed = pd.DataFrame({"direction": ["en-fi"], "translation": ["x"]})
    write_table(
        filed, tmp_path / "tiny" / "tables" / "00_translations", "Translated by the module of group 6."
    )
    sentence, table = preview.translations(p, "fi", n=1)
    assert sentence.endswith("filed in the repository. Translated by the module of group 6.")
    assert table.equals(filed)


def test_with_a_module_its_answers_stand_beside_the_references(tmp_path, monkeypatch) -> None:
    p = load_profile("tiny", run_dir=str(tmp_path), results_dir=str(tmp_path), test_pairs=5)
    monkeypatch.setattr(preview, "newest_stage", lambda p, group: tmp_path / f"group{group}")
    monkeypatch.setattr(preview, "open_merged", lambda folder: (folder.name, None))
    monkeypatch.setattr(preview, "read_run", lambda folder: {"number": 4})
    monkeypatch.setattr(
        preview,
        "translate",
        lambda model, tokenizer, texts, src, tgt, **_: [f"{model} {src}>{tgt} {t}" for t in texts],
    )
    sentence, table = preview.translations(p, "fi", n=1)
    assert "group 6 as of stage 4" in sentence
    assert table["translation"].tolist() == [
        f"group6 en>fi {table.loc[0, 'source']}",
        f"group6 fi>en {table.loc[1, 'source']}",
    ]
