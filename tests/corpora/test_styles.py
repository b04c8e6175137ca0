"""The style set: the same facts in two styles, and a score that asks for the facts alone."""

from __future__ import annotations

import pytest

from xalma.corpora.phrasebook.cldr import LENGTHS
from xalma.corpora.phrasebook.draws import say
from xalma.corpora.phrasebook.styles import content_rate, renderings, style_rows
from xalma.profiles import load_profile

DRAW = ("colon", (("date", (1984, 5, 6)), ("measure", ("length-kilometer", 13))))


def test_every_style_of_every_part_is_a_rendering():
    texts = renderings(DRAW, "en")
    assert texts == {
        f"{date}: {length}"
        for date in ("Sunday, May 6, 1984", "May 6, 1984", "5/6/84")
        for length in ("13 kilometers", "13 km")
    }
    for lang in ("ja", "fi", "ru", "fr"):
        assert {say(DRAW, lang, style) for style in LENGTHS} <= renderings(DRAW, lang)
    three = renderings(("colon+paren", (DRAW[1][0], ("countries", ("DE",)), ("amount", ("EUR", 3)))), "en")
    assert {"May 6, 1984: Germany (EUR 3)", "Sunday, May 6, 1984: Germany (3 euros)"} <= three


def test_rows_ask_for_the_same_facts_in_another_style():
    p = load_profile("tiny")
    rows = style_rows(p, 6, "test", 5)
    assert len(rows) == 2 * 5 * len(p.languages_of(6))
    for there, back in zip(rows[::2], rows[1::2], strict=True):
        assert there["direction"].split("-")[::-1] == back["direction"].split("-")
        full, short = back["renderings"], back["reference"]
        assert there["source"] in full and short in full and there["source"] != short
        assert there["source"] in there["prompt"] and there["reference"] in there["renderings"]
    training = {row["source"] for row in style_rows(p, 6, "sft", 200)}
    assert not training & {row["source"] for row in style_rows(p, 6, "test", 60)}


def test_content_is_right_in_any_style_and_wrong_with_one_wrong_fact():
    rows = [{"renderings": sorted(renderings(DRAW, "en"))} for _ in range(4)]
    outputs = (
        "May 6, 1984: 13 km",
        "Sunday, May 6, 1984: 13 km",
        "Monday, May 6, 1984: 13 km",
        "May 6, 1984: 13 m",
    )
    assert content_rate([row | {"output": text} for row, text in zip(rows, outputs, strict=True)]) == 0.5


def test_a_corpus_without_styles_is_refused(monkeypatch):
    monkeypatch.setattr("xalma.corpora.phrasebook.styles.open_corpus", lambda p: object())
    with pytest.raises(ValueError, match="corpus=ntrex has no styles"):
        style_rows(load_profile("tiny", corpus="ntrex"), 6, "test", 1)
