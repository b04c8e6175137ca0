"""Likeness of languages: n-grams, cosines and swaps worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from xalma.languages import GROUPS, LANGUAGES, language
from xalma.paper import language_similarity


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("Tag", {" ta": 1, "tag": 1, "ag ": 1}),
        ("3 Tag, tag!", {" ta": 2, "tag": 2, "ag ": 2}),
        ("a-b", {" a ": 1, " b ": 1}),
        ("हिन", {" हि": 1, "हिन": 1, "िन ": 1}),  # a vowel sign is a mark, and stays in its word
        ("12:30", {}),
    ],
)
def test_ngrams_are_those_of_words(text: str, counts: dict[str, int]) -> None:
    assert language_similarity.ngram_counts([text]) == counts


def test_cosine_by_hand() -> None:
    # en and de share 2 of 3 trigrams each, all counted once; ru shares none
    matrix = language_similarity.similarity_matrix({"ru": ["ток"], "de": ["tag"], "en": ["tab tab", "tab"]})
    assert list(matrix) == ["en", "de", "ru"]
    assert matrix.loc["en", "de"] == pytest.approx(1 / 3)  # " ta" is all they share
    assert matrix.loc["ru"].drop("ru").tolist() == [0, 0]
    assert np.allclose(np.diag(matrix), 1)


def test_counts_are_weighed_by_their_logarithm() -> None:
    matrix = language_similarity.similarity_matrix({"de": ["a a a b"], "nl": ["a b"]})
    many, one = math.log(4), math.log(2)
    assert matrix.loc["de", "nl"] == pytest.approx((many + one) / (math.hypot(many, one) * math.sqrt(2)))


def test_a_language_without_letters_is_refused() -> None:
    with pytest.raises(ValueError, match="no letters in the text of ja"):
        language_similarity.similarity_matrix({"de": ["Tag"], "ja": ["12"]})


def _matrix(alike: dict[str, list[str]]) -> pd.DataFrame:
    """1 between languages listed together, 0 elsewhere."""
    codes = [code for cluster in alike.values() for code in cluster]
    cells = [[float(any(a in c and b in c for c in alike.values())) for b in codes] for a in codes]
    return pd.DataFrame(cells, index=codes, columns=codes)


# French planted with the Romance languages, Romanian with those of group 4, Thai with nobody.
PLANTED = _matrix({"x": ["es", "it", "fr"], "y": ["ro", "id", "ms"], "z": ["th"]})


def test_swaps_find_the_planted_groups_and_keep_the_sizes() -> None:
    found = language_similarity.swapped_groups(PLANTED)
    assert {code for code, group in found.items() if group == language("es").group} == {"es", "it", "fr"}
    assert sorted(found.values()) == sorted(language(code).group for code in PLANTED)
    assert language_similarity.within_mean(
        PLANTED.to_numpy(), np.array(list(found.values()))
    ) == pytest.approx(12 / 18)


def test_swaps_leave_the_best_grouping_alone_and_the_matrix_as_it_was() -> None:
    matrix = _matrix({str(group): list(codes) for group, codes in GROUPS.items()})
    before = matrix.copy()
    assert language_similarity.swapped_groups(matrix) == {code: language(code).group for code in matrix}
    pd.testing.assert_frame_equal(matrix, before)


def test_group_similarity_leaves_the_language_itself_out() -> None:
    to_group = language_similarity.group_similarity(PLANTED)
    assert to_group.loc["fr"].to_dict() == {2: pytest.approx(2 / 3), 4: 0}
    assert to_group.loc["id"].to_dict() == {
        2: pytest.approx(1 / 3),
        4: pytest.approx(1 / 3),
    }  # fr, ms, th; es, it, ro


def test_neighbours_and_their_absence() -> None:
    near = language_similarity.neighbours(PLANTED).set_index("language")
    assert near.loc["fr", "nearest's group"] == 2 and near.loc["fr", "group nearest on average"] == 2
    assert near.loc["th", ["nearest", "nearest's group", "group nearest on average"]].tolist() == ["", 0, 0]


def test_group_table_counts() -> None:
    table = language_similarity.group_table(PLANTED)
    assert table["languages"].tolist() == [3, 4]
    assert table["genera"].tolist() == [1, 3]  # Romance; Romance again (fr), Malayo-Polynesian, Tai
    assert table["nearest inside"].tolist() == [
        2,
        0,
    ]  # id and ms are as near to ro; the first in the table counts
    assert table["to the rest"].tolist() == pytest.approx([4 / 12, 4 / 12])  # es-fr it-fr ro-id ro-ms
    assert table["within"].tolist() == pytest.approx([2 / 6, 2 / 12])  # es-it; id-ms


def test_random_groupings_repeat_and_average_to_the_mean_of_all_pairs() -> None:
    chance = language_similarity.random_groupings(PLANTED, n=4000, seed=1)
    assert np.array_equal(chance, language_similarity.random_groupings(PLANTED, n=4000, seed=1))
    assert chance.mean() == pytest.approx(12 / 42, abs=0.01)  # 12 of the 42 ordered pairs are alike


def test_the_sentence_counts_what_it_says() -> None:
    text = language_similarity.separation_sentence(
        _matrix({str(g): list(codes) for g, codes in GROUPS.items()})
    )
    assert (
        "**1.000**" in text and "(0 reach" in text and "**49 of 49**" in text and " 0 have a script" in text
    )


# --- the committed likeness ------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", language_similarity.MEASURES)
def test_committed_likeness_is_whole(measure: str) -> None:
    matrix = language_similarity.likeness(measure)
    assert list(matrix) == [code for code in LANGUAGES if code != "en"]
    assert np.allclose(matrix, matrix.T) and np.allclose(np.diag(matrix), 1)
    assert ((matrix >= 0) & (matrix <= 1)).all(axis=None)
    for a, b in (("id", "ms"), ("da", "no"), ("es", "gl"), ("ru", "uk"), ("hi", "ne")):  # known relatives
        assert (matrix[a].drop(a) > matrix.loc[a, b]).sum() < 3


def test_another_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="no measure 'words': choose trigrams or compression"):
        language_similarity.likeness("words")


# --- groups from scratch --------------------------------------------------------------------------------

# eight families of six languages, the last of seven, planted
RELATIVES = {str(i): list(LANGUAGES)[1 + 6 * i : 7 + 6 * i + (i == 7)] for i in range(8)}


def test_moving_a_language_is_said_with_its_numbers() -> None:
    text = language_similarity.move_sentence(PLANTED, "fr", 2)  # fr is like es, it; by id, ms, th
    assert "**0.000** to the others of its group 4" in text and "**0.667** to group 2" in text
    # pairs alike within groups: es-it and id-ms of 3 + 6, then es-it, es-fr, it-fr and id-ms of 6 + 3
    assert "from 0.2222 to 0.4444" in text
    assert "group 4 would have 3 languages instead of 4, and group 2 4 instead of 3" in text
