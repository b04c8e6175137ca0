"""Data cards: all there, in the Hugging Face form, and their measured lines those that the data give now."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml
from cards import (
    MEASURED,
    SIZED,
    SIZES,
    _words,
    as_lines,
    card_path,
    compression_matrix,
    measured_row,
    measured_sizes,
    open_whole,
    phrasebook_card,
    refreshed_card,
    size_row,
)

from xalma.corpora.base import Corpus, data_folder
from xalma.corpus_names import FAMILIES
from xalma.languages import LANGUAGES
from xalma.paper.language_similarity import SENTENCES, likeness, similarity_matrix
from xalma.runtime import REPOSITORY
from xalma.text_files import read_lines

CARDS = sorted((REPOSITORY / "data_cards").glob("*.md"))
CARD_OF = {
    "cldr": "cldr", "cldr_web": "cldr", "ntrex": "ntrex", "oscar": "oscar-2301", "nllb": "nllb", "opus": "opus-100",
    "flores": "flores-200",
    "wmt": "wmt", "alma": "alma-human-parallel", "alma_as_released": "alma-human-parallel", "own": "own",
    "xalma": "x-alma-parallel-data", "ntrex_whole": "ntrex", "wmt22": "wmt", "wmt24": "wmt24", "wmt24pp": "wmt24pp",
    "bibles": "bibles", "mozilla": "mozilla", "udhr": "udhr",
}  # fmt: skip


def test_every_family_has_a_card():
    assert set(FAMILIES) - set(CARD_OF) == {"hub"}  # several in one
    assert {card_path(name).is_file() for name in CARD_OF.values()} == {True}
    assert set(MEASURED) <= set(CARD_OF.values())
    assert set(MEASURED.values()) <= set(FAMILIES)


@pytest.mark.parametrize(
    "card", [c for c in CARDS if c.stem != "x-alma-preference"], ids=lambda card: card.stem
)
def test_a_card_has_the_hubs_form(card):
    text = card.read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert {"pretty_name", "language", "license", "task_categories"} <= head.keys()
    assert head["license"] != "other" or head.get("license_name")
    assert set(head["language"]) <= set(LANGUAGES)  # YAML's no is not Norwegian
    assert "What we do not know" in text
    assert (card.stem in MEASURED) == ("<!-- measured:start -->" in text)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "langs"),
    [
        ("ntrex", ["da", "zh"]),
        ("bibles", ["uk"]),
        ("mozilla", ["af", "ja"]),
        ("udhr", ["ne"]),
        ("wmt", ["is"]),
        ("flores-200", ["cs"]),
    ],
)
def test_measured_lines_are_current(name, langs):
    """Some languages of each: all would take two minutes. `make cards` writes them anew."""
    text, corpus = card_path(name).read_text(encoding="utf-8"), open_whole(MEASURED[name])
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    for lang in langs:
        row = measured_row(corpus, lang)
        (committed,) = [line for line in lines if line.startswith(f"| {lang} |")]
        assert [cell for cell in committed.split(" | ")[2:] if cell != "0"] == [
            cell for cell in as_lines([row]).splitlines()[-1].split(" | ")[2:] if cell != "0"
        ]


@pytest.mark.data
def test_a_table_has_every_language_of_its_corpus():
    for name, corpus in MEASURED.items():
        text = card_path(name).read_text(encoding="utf-8")
        found = [
            line.split(" | ")[0][2:]
            for line in text.splitlines()
            if line.count(" | ") > 2 and line[2:4] in LANGUAGES
        ]
        assert found == list(open_whole(corpus).languages()), name


def test_a_card_without_its_markers_is_refused(tmp_path):
    card = tmp_path / "ntrex.md"
    card.write_text("# A card")
    with pytest.raises(ValueError, match="no measured block: put <!-- measured:start -->"):
        refreshed_card(card)


class Pairs(Corpus):
    """Running text in Finnish, pairs alone in German and Icelandic, which share an English side."""

    def languages(self):
        return ("de", "fi", "is")

    def monolingual(self, lang):
        return iter(["yö\npäivä", "yö"] if lang == "fi" else [])

    def sft(self, lang):
        return {"de": [("one", "eins"), ("two", "zwei")], "is": [("one", "einn")]}.get(lang, [])


@pytest.mark.parametrize(
    ("lang", "kind", "rows", "characters", "size"),
    [
        ("fi", "monolingual", 3, 10, 14),
        ("de", "side of SFT pairs", 2, 8, 8),
        ("en", "side of SFT pairs", 2, 6, 6),
    ],
)
def test_a_size_counts_lines_characters_and_bytes(lang, kind, rows, characters, size):
    row = size_row(Pairs(None), "pairs", lang)
    assert [row[name] for name in ("text", "rows", "characters", "bytes")] == [kind, rows, characters, size]


@pytest.mark.data
def test_committed_sizes_are_those_of_the_text():
    committed = pd.read_csv(SIZES.with_suffix(".csv"), keep_default_na=False)
    pd.testing.assert_frame_equal(committed, measured_sizes().reset_index(drop=True))
    note = SIZES.with_suffix(".md").read_text(encoding="utf-8")
    assert all(f"{name} `{open_whole(name).fingerprint()}`" in note for name in SIZED)


def test_the_phrasebooks_card_is_current():
    card = card_path("cldr")
    assert card.read_text(encoding="utf-8") == phrasebook_card(card), "run: make cards"


def test_a_compressor_saves_on_what_it_has_read() -> None:
    rng = np.random.default_rng(0)
    text = ["".join(chr(97 + c) for c in rng.integers(0, 26, 40)) for _ in range(200)]
    other = ["".join(chr(97 + c) for c in rng.integers(0, 26, 40)) for _ in range(200)]
    matrix = compression_matrix({"nl": text, "de": list(text), "da": other})
    assert (
        list(matrix) == ["da", "de", "nl"]
        and np.allclose(np.diag(matrix), 1)
        and np.allclose(matrix, matrix.T)
    )
    assert matrix.loc["de", "nl"] > 0.9  # the same text
    assert matrix.loc["da", "de"] < 0.1  # random letters have nothing in common but their alphabet


@pytest.mark.data
def test_committed_likeness_is_that_of_the_text() -> None:
    codes = ["de", "fr", "ca", "ka", "ja", "zh", "kk"]
    folder = data_folder("ntrex", "NTREX-128")
    texts = {code: _words(read_lines(folder / f"{code}.txt"), code) for code in codes}
    assert {len(lines) for lines in texts.values()} == {SENTENCES}
    for measure, measured, off in (
        ("trigrams", similarity_matrix(texts), 1e-4),
        ("compression", compression_matrix(texts), 2e-3),  # releases of LZMA may differ
    ):
        committed = likeness(measure).loc[list(measured), list(measured)]
        assert np.abs(committed - measured).max(axis=None) < off
