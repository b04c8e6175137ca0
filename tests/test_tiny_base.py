"""The shipped base's text, and its making at a size of seconds."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from tiny_base import card_text, held_out_bits, ship, train_base, write_text

from xalma.base_files import SHIPPED, find_base
from xalma.corpora.phrasebook.cldr import LENGTHS
from xalma.corpora.registry import open_corpus
from xalma.data.mixing import parse_shares
from xalma.languages import LANGUAGES
from xalma.models.backbone import build_llama, load_base, train_tokenizer
from xalma.profiles import load_profile


@pytest.fixture(scope="module")
def p():
    return load_profile(
        "tiny-base",
        threads=1,
        stage1_tokens=128 * 8 * 4,
        stage1_batch_size=8,
        micro_batch=8,
        groups="6",
        only_languages="et,zh",
        vocab_size=400,
    )


def test_all_languages_have_a_share_and_english_most():
    shares = parse_shares(load_profile("tiny-base").mixing_shares)
    assert set(shares) == set(LANGUAGES)
    assert shares["en"] / sum(shares.values()) > 0.8


def test_english_text_has_some_pages_in_two_languages_and_other_text_none(p):
    corpus = open_corpus(p)
    english = list(islice(corpus.monolingual("en"), 2000))
    two = [document for document in english if not document.isascii()]
    assert 0.01 < len(two) / len(english) < 0.06  # some of the other languages write in ASCII
    phrases = {phrase for document in english for phrase in document.split("\n")}
    others = " ".join(islice(corpus.monolingual("zh"), 200))
    assert not any(len(phrase) > 12 and phrase.isascii() and phrase in others for phrase in phrases)


def test_web_text_has_every_style(p):
    corpus = open_corpus(p)
    assert set(corpus.STYLES) == set(LENGTHS)
    text = "\n".join(islice(corpus.monolingual("en"), 400))
    assert "kilometers" in text and " km" in text


def test_the_shipped_base_loads_and_scores_as_its_card_says():
    assert find_base("tiny-base") == SHIPPED
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 8e6
    card = json.loads((SHIPPED / "card.json").read_text(encoding="utf-8"))
    assert (SHIPPED / "README.md").read_text(encoding="utf-8") == card_text(card)
    model, tokenizer = load_base("tiny-base")
    assert model.num_parameters() == card["parameters"]
    assert set(card["bits_per_byte"]) == set(LANGUAGES)
    bits = held_out_bits(model, tokenizer, open_corpus(load_profile("tiny-base")).book, ("en", "de", "et"))
    for code, value in bits.items():
        assert value == pytest.approx(card["bits_per_byte"][code], rel=0.01)
    assert bits["en"] < bits["de"] < bits["et"], "it has read most English, some German, and little Estonian"


def test_the_base_is_trained_on_its_text(p, tmp_path):
    texts = [text for code in ("en", "et", "zh") for text in islice(open_corpus(p).monolingual(code), 50)]
    tokenizer = train_tokenizer(texts, 400)
    model = build_llama(tokenizer, hidden_size=16, layers=1, heads=2, max_positions=128, seed=0)
    write_text(p, tokenizer, tmp_path, workers=1)
    made = train_base(p, model, tokenizer, tmp_path, tmp_path / "out")
    assert made["steps"] == 4
    assert made["tokens_seen"] == p.stage1_tokens
    assert made["log"][-1]["loss"] < made["log"][0]["loss"]
    ship(p, model, tokenizer, made | {"seconds": 1.0}, tmp_path / "shipped")
    card = json.loads((tmp_path / "shipped" / "card.json").read_text(encoding="utf-8"))
    assert card["tokens_seen"] == p.stage1_tokens
    assert set(card["bits_per_byte"]) == {"en", "et", "zh"}
    assert 0 < card["bits_per_byte"]["en"] < 8
