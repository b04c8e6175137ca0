"""data_cards/croissant: what the cards say, as metadata that mlcroissant reads."""

from __future__ import annotations

import json
import runpy

import pytest
from pages import ROOT

FOLDER = ROOT / "data_cards" / "croissant"
WRITE = runpy.run_path(str(ROOT / "docs" / "croissant.py"))["build"]
FILES = sorted(FOLDER.glob("*.json"))
WITHOUT = {"own", "x-alma-preference"}  # no corpus; two data sets on one card, of which we read no row


def test_the_files_are_what_the_cards_say(tmp_path):
    """`make cards` was run after the last change of a card."""
    fresh = {file.name: file.read_text(encoding="utf-8") for file in WRITE(tmp_path)}
    assert {file.name: file.read_text(encoding="utf-8") for file in FILES} == fresh
    assert {file.stem for file in FILES} == {card.stem for card in FOLDER.parent.glob("*.md")} - WITHOUT


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_says_what_a_search_asks_for(file):
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["url"].startswith("https://") and found["license"] and "en" in found["inLanguage"]
    assert 30 < len(found["description"]) < 600 and not {"*", "`", "]("} & set(found["description"])


@pytest.mark.long
def test_mlcroissant_finds_no_error():
    mlcroissant = pytest.importorskip("mlcroissant", reason="the extra `book-test` is not installed")
    for file in FILES:
        read = mlcroissant.Dataset(jsonld=str(file)).metadata
        assert not read.ctx.issues.errors, file.name
        assert read.name == json.loads(file.read_text(encoding="utf-8"))["name"]
