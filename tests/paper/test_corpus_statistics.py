"""Measuring a corpus: counts against a tokenizer of one byte a token, mixing rules against hand-made shares."""

from __future__ import annotations

import pandas as pd
import pytest

from xalma.languages import LANGUAGES, group_of
from xalma.paper import corpus_statistics
from xalma.profiles import load_profile

P = load_profile("tiny", bitext_noise=0.2)


class ByteTokenizer:
    """One token per byte, none of them special."""

    added_tokens_decoder, all_special_tokens, all_special_ids, unk_token_id = {}, (), (), None

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        return {"input_ids": [list(text.encode()) for text in texts]}


def test_text_sizes_by_hand() -> None:
    sizes = corpus_statistics.text_sizes(
        {"de": [("day", "Tag"), ("dot", "Punkt")], "ru": [("day", "день")]}, ByteTokenizer(), ["ru"]
    )
    german, russian = sizes.to_dict("records")
    assert (german["sentences"], german["characters"], german["tokens"]) == (2, 4.0, 4.0)
    assert german["x English"] == pytest.approx(8 / 6) and not german["in tokenizer"]
    assert (russian["characters"], russian["bytes"], russian["x English"]) == (4.0, 8.0, pytest.approx(8 / 3))
    assert russian["in tokenizer"]


def test_mixing_rules_by_hand() -> None:
    rules = corpus_statistics.mixing_rules({"de": 10.0, "th": 30.0}, documents=5, budget=400)
    rules = rules.set_index(["rule", "language"])
    assert rules.loc[("uniform", "de")].tolist() == pytest.approx([0.5, 0.25, 2.0])
    assert rules.loc[("uniform", "th")].tolist() == pytest.approx([0.5, 0.75, 2.0])
    assert rules.loc[("equal tokens", "th")].tolist() == pytest.approx([0.25, 0.5, 400 / 15 * 0.25 / 5])
    assert rules.loc[("proportional to tokens", "th"), "documents"] == pytest.approx(0.75)
    assert rules.loc[("proportional to tokens", "th"), "tokens"] == pytest.approx(0.9)


def test_every_rule_spends_the_whole_budget() -> None:
    sizes = {"de": 12.0, "fi": 17.5, "th": 110.0}
    rules = corpus_statistics.mixing_rules(sizes, documents=300, budget=400_000)
    spent = (rules["epochs"] * 300 * rules["language"].map(sizes)).groupby(rules["rule"]).sum()
    assert spent.tolist() == pytest.approx([400_000] * 4)


# one giant, one small language, one in between; ALMA gives the first two shares
SIZES = {"en": 900.0, "is": 10.0, "fi": 90.0}


def test_rules_on_sizes_by_hand() -> None:
    rules = corpus_statistics.rules_on_sizes(SIZES, budget=300).set_index(["rule", "language"])
    assert rules.loc["proportional", "epochs"].tolist() == pytest.approx([0.3] * 3)
    assert rules.loc["uniform", "tokens"].tolist() == pytest.approx([1 / 3] * 3)
    assert rules.loc[("uniform", "is"), "epochs"] == pytest.approx(10)
    # UniMax: Icelandic may be read four times, 40 tokens; the other two share what is left
    assert rules.loc["UniMax, cap 4", "tokens"].tolist() == pytest.approx([130 / 300, 40 / 300, 130 / 300])
    # English, group 1 and group 6 have one language each
    assert rules.loc["equal groups", "tokens"].tolist() == pytest.approx([1 / 3] * 3)
    given = rules.loc["given by ALMA"]
    assert given["tokens"].tolist() == pytest.approx([17 / 25, 8 / 25, 0])
    assert given.loc["is", "epochs"] == pytest.approx(300 * 8 / 25 / 10)
    spent = (
        (rules["epochs"] * rules.index.get_level_values("language").map(SIZES)).groupby(level="rule").sum()
    )
    assert spent.tolist() == pytest.approx([300] * 6)


def test_extremes_and_their_sentence() -> None:
    rules = corpus_statistics.rules_on_sizes(SIZES, budget=300)
    table = corpus_statistics.extremes(rules, n=1).set_index("rule")
    assert table.loc["uniform"].tolist() == [3, 2, "is 10×", "en 0.11×"]
    assert table.loc["given by ALMA", ["languages", "most read"]].tolist() == [2, "is 9.6×"]
    assert table.loc["proportional"].tolist() == [
        3,
        0,
        "all: 0.3×",
        "all: 0.3×",
    ]  # not one number three times
    tied = pd.DataFrame(
        {"rule": "r", "language": list("abcd"), "tokens": 0.25, "epochs": [4.0, 4.0, 1.0, 0.5]}
    )
    assert corpus_statistics.extremes(tied, 1)["most read"].item() == "2 languages: 4×"
    assert corpus_statistics.extremes(tied, 3)["most read"].item() == "a, b 4×, c 1×"
    assert "Icelandic has 10 tokens, English 900, 90 times as many" in corpus_statistics.sizes_sentence(
        SIZES, "Here"
    )


def test_sizes_of_all_fifty_languages() -> None:
    for sizes in (corpus_statistics.text_at_hand(), corpus_statistics.oscar_text()):
        assert list(sizes) == list(LANGUAGES) and min(sizes.values()) > 0
    # Icelandic, 8 % of ALMA's 20 B tokens, out of OSCAR's 2.2 GB
    rules = corpus_statistics.rules_on_sizes(corpus_statistics.oscar_text(), 20e9).set_index(
        ["rule", "language"]
    )
    tokens = 2.2e9 / corpus_statistics.BYTES_PER_TOKEN
    assert rules.loc[("given by ALMA", "is"), "epochs"] == pytest.approx(1.6e9 / tokens)


def test_text_of_the_groups_adds_up_to_all_but_english() -> None:
    table, oscar = corpus_statistics.group_text(), corpus_statistics.oscar_text()
    assert table["languages"].sum() == 49
    assert table["OSCAR-2301, B tokens"].sum() == pytest.approx((sum(oscar.values()) - oscar["en"]) / 1e9)


def test_alma_shares() -> None:
    shares = corpus_statistics.shares_by_rule(corpus_statistics.ALMA_SHARES)
    assert sum(corpus_statistics.ALMA_SHARES.values()) == 100
    assert shares["given"].to_dict() == pytest.approx(corpus_statistics.ALMA_SHARES)
    assert shares["uniform"].tolist() == pytest.approx([100 / 6] * 6)
    assert shares.sum().tolist() == pytest.approx([100] * 4)
    # the ratio of two shares under temperature 2 is the square root of theirs
    assert shares.loc["zh", "temperature 2"] / shares.loc["is", "temperature 2"] == pytest.approx(
        (19 / 8) ** 0.5
    )


@pytest.fixture(scope="module")
def noisy() -> pd.DataFrame:
    return corpus_statistics.bitext_with_noise(P, "fi", 500)


def test_noise_is_the_share_asked_for(noisy: pd.DataFrame) -> None:
    assert noisy["misaligned"].sum() == 100
    # a wrong target is another pair's right one: the targets as a whole stay
    clean = corpus_statistics.bitext_with_noise(P.but(bitext_noise=0.0), "fi", 500)
    assert sorted(noisy["other"]) == sorted(clean["other"]) and not clean["misaligned"].any()


def test_multiway_rows_are_translations_of_each_other() -> None:
    class Corpus:
        def test(self, lang: str) -> list[tuple[str, str]]:
            words = {
                "de": [("one", "eins"), ("two", "zwei"), ("six", "sechs")],
                "fi": [("six", "kuusi"), ("one", "yksi")],
            }
            return words[lang]

    table = corpus_statistics.multiway(Corpus(), ["de", "fi"], 5)
    assert table.to_dict("split")["data"] == [["one", "six"], ["eins", "sechs"], ["yksi", "kuusi"]]
    assert list(table.index) == ["en", "de", "fi"]


def test_pairs_for_all_49_languages_with_enough_test_sentences() -> None:
    pairs = corpus_statistics.pairs_by_language(P)
    assert len(pairs) == 49 and {group_of(code) for code in pairs} == set(range(1, 9))
    assert {len(both) for both in pairs.values()} == {corpus_statistics._SENTENCES}
