"""The guard finds what was planted, raises no false alarm, and no stage trains on a test sentence unless told to."""

from __future__ import annotations

import copy
import pickle
import random
import unicodedata

import pytest
from babel import Locale

from xalma import contamination
from xalma.cldr import LOCALES
from xalma.contamination import (
    CHUNK,
    Guard,
    TestIndex,
    guard_report,
    guard_rows,
    guarded_corpus,
    key,
    letters,
    line_hashes,
)
from xalma.draws import CANDIDATES
from xalma.languages import LANGUAGES
from xalma.profiles import load_profile


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("Die Straße ist naß.", "DIE STRASSE IST NASS"),
        ("İstanbul'da ılık", "ISTANBULDA ILIK"),  # Turkish dots, both ways
        ("Πρωτεΐνη — ὅς", "ΠΡΩΤΕΪΝΗ ΟΣ"),  # accents that capitals lose, and final sigma
        ("ﬁne", "ﬁne"),  # a ligature stays a ligature
        ("１２３ ＡＢＣ", "123 abc"),  # full width
        ("a\u200bb\u00a0c\u00ad", "abc"),  # zero-width, no-break and soft hyphen
        ("“Ja,” sagt(e) sie…", '"Ja", sagte sie...'),
        ("हिन्दी में", "हिन्दीमें"),  # vowel signs are letters of their own
        ("日本語 です。", "日本語です"),
        ("é", unicodedata.normalize("NFD", "É")),
        ("한국어 문장", "한국어문장"),
    ],
)
def test_key_sets_aside_what_a_copy_may_change(text, same_as):
    assert key(text) == key(same_as) != ""


@pytest.mark.parametrize(("one", "other"), [("5 days", "6 days"), ("हिन्दी", "हन्दी"), ("北京", "南京"), ("ka", "kä e")])
def test_key_keeps_what_makes_another_sentence(one, other):
    assert key(one) != key(other)


def test_letters_count_ideographs_more():
    assert [letters(text) for text in ("abc", "日本語", "한국", "", "ไทย")] == [3, 9, 4, 0, 3]


def test_hashes_are_those_of_the_keys():
    """Against the definition in Python's own integers; lines of one text, empty ones, and a text with a zero byte."""
    texts = ["One line.", "two\n\nTHREE\r\n", "", "a\0b", "ß"]
    hashes, owners = line_hashes(texts)
    assert owners.tolist() == [0, 1, 1, 1, 1, 2, 3, 4]
    for value, line in zip(hashes.tolist(), ["oneline", "two", "", "three", "", "", "ab", "ss"], strict=True):
        expected = 0
        for i, letter in enumerate(line):
            mixed = ord(letter) * 0xD6E8FEB86659FD93 % 2**64
            expected += (mixed ^ (mixed >> 29)) * pow(0x9E3779B97F4A7C15, i, 2**64)
        assert value == expected % 2**64


# --- planted copies -------------------------------------------------------------------------------

N_ROWS, N_PLANTED = 100_000, 100


def names_of_countries(lang: str) -> list[str]:
    territories = Locale.parse(LOCALES.get(lang, lang)).territories
    return [territories[code] for code in CANDIDATES["countries"]]


@pytest.fixture(scope="module")
def corpus():
    """Sentences of country names in six scripts, parallel: (test sides, clean rows)."""
    rng, codes = random.Random(0), ("en", "de", "ru", "zh", "hi", "el")
    said = {code: names_of_countries(code) for code in codes}
    spoken = lambda code, draw: "; ".join([said[code][i] for i in draw])  # noqa: E731
    numbers = range(len(said["en"]))
    tests = [rng.sample(numbers, 7) for _ in range(1000)]
    sides = {
        f"test en-{code} {lang}": [spoken(lang, draw) for draw in tests] for code in codes[1:] for lang in ("en", code)
    }
    rows = []
    for i in range(N_ROWS):
        draw, code = rng.choices(numbers, k=8), codes[1 + i % 5]  # eight names: never a test sentence of seven
        rows.append((spoken("en", draw), spoken(code, draw)))
    return sides, rows


def respaced(text: str, rng: random.Random) -> str:
    text = rng.choice((str.upper, str.title, str.swapcase, str.lower))(text)
    return "  ".join(text.replace(";", rng.choice((" ;", ",", "…"))).split()) + rng.choice(("", ".", " !"))


@pytest.fixture(scope="module")
def planted(corpus):
    """(sides, rows, kind of plant by row)."""
    sides, rows = corpus
    rng, rows = random.Random(1), list(rows)
    names, plants = [name for name in sides if name.endswith(" en")], {}
    spots = iter(rng.sample(range(N_ROWS), 3 * N_PLANTED))
    for kind in ("exact", "respaced", "target only"):
        for _ in range(N_PLANTED):
            i, name, line = next(spots), rng.choice(names), rng.randrange(1000)
            other = name.replace(" en-", " ").split()[1]
            source, target = sides[name][line], sides[f"test en-{other} {other}"][line]
            if kind == "respaced":
                source, target = respaced(source, rng), rows[i][1]
            elif kind == "target only":
                source = rows[i][0]  # the target of a direction in a row of another source
            rows[i], plants[i] = (source, target), kind
    return sides, rows, plants


def test_what_was_planted_is_found(planted):
    """Recall 100 % of exact, ≥ 99 % of re-cased and re-spaced, ≥ 99 % of target-only copies; false alarms ≤ 0.1 %."""
    sides, rows, plants = planted
    guard = Guard(TestIndex(sides), "drop")
    kept = list(guard.watch(rows, "rows"))
    index = {id(row): i for i, row in enumerate(rows)}
    dropped = set(range(N_ROWS)) - {index[id(row)] for row in kept}
    recall = {kind: [i in dropped for i, k in plants.items() if k == kind] for kind in dict.fromkeys(plants.values())}
    assert sum(recall["exact"]) == N_PLANTED
    assert sum(recall["respaced"]) >= 0.99 * N_PLANTED
    assert sum(recall["target only"]) >= 0.99 * N_PLANTED
    assert len(dropped - plants.keys()) <= 0.001 * N_ROWS
    assert guard.counts == {"rows": N_ROWS, "exact": 2 * N_PLANTED, "normalised": N_PLANTED}


def test_clean_text_passes_whole(corpus):
    sides, rows = corpus
    assert guard_rows(rows[:5000], TestIndex(sides)) == rows[:5000]


# --- the guard ------------------------------------------------------------------------------------

SENTENCE = "A sentence that nobody would write twice."
INDEX = TestIndex({"wmt22 en-is, en": ["Thank you.", SENTENCE]})


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (SENTENCE, "exact"),
        ((f"  {SENTENCE}\t", "anders"), "exact"),
        (("anders", SENTENCE.upper()), "normalised"),
        (f"a document\n{SENTENCE[:-1]}\nof lines", "normalised"),
        ("Thank you.", ""),  # too short to say anything
        (f"{SENTENCE} And more.", ""),  # inside a longer line: not looked for
        ("", ""),
    ],
)
def test_one_row(row, kind):
    guard = Guard(INDEX, "allow")
    assert list(guard.watch([row], "rows")) == [row]
    assert guard.counts == {"rows": 1, **({kind: 1} if kind else {})}


def test_a_match_stops_before_the_row_is_given_and_says_where():
    rows = [f"row {i}" for i in range(CHUNK)] + ["a", SENTENCE.lower(), SENTENCE]
    given = []
    with pytest.raises(ValueError) as caught:
        for row in Guard(INDEX).watch(rows, "bitext, en-de"):
            given.append(row)
    assert len(given) == CHUNK
    text = str(caught.value)
    assert text.startswith(
        f"bitext, en-de, row {CHUNK + 2}, is a test sentence (normalised: line 2 of wmt22 en-is, en)"
    )
    assert f"2 of the 3 rows from row {CHUNK + 1} on" in text
    assert "--set contamination=drop" in text and "\n" not in text
    assert guard_rows(rows, INDEX, action="drop") == rows[:-2]
    assert guard_rows(rows, INDEX, action="allow") == rows


def test_an_index_of_nothing_finds_nothing():
    assert guard_rows(["x" * 50], TestIndex({"empty": []})) == ["x" * 50]
    with pytest.raises(ValueError, match="unknown action 'warn'"):
        Guard(INDEX, "warn")


# --- stages ---------------------------------------------------------------------------------------


class Leaking:
    """A corpus of four pairs, whose monolingual text holds a test sentence."""

    def sft(self, lang):
        return [(f"A pair of sentences, number {i}.", f"Ein Satzpaar, und zwar Nummer {i}.") for i in range(4)]

    def monolingual(self, lang):
        return iter(["something", SENTENCE])

    bitext = dev = sft

    def test(self, lang):
        return [(SENTENCE, "Ein Satz, den niemand zweimal schreibt.")]

    tests = test

    def fingerprint(self):
        return "leaking"


def test_a_guarded_corpus_is_the_corpus_but_for_test_sentences(monkeypatch):
    monkeypatch.setattr(contamination, "open_corpus", lambda p: Leaking())
    contamination._guarded.cache_clear()
    p = load_profile("ntrex")
    corpus = guarded_corpus(p, ("de",))
    assert corpus.sft("de") == corpus.dev("de") == list(corpus.bitext("de")) and corpus.fingerprint() == "leaking"
    assert guard_report(p, ("de",)) == {
        "action": "stop", "test_sentences": 2, "rows": 8, "exact": 0, "normalised": 0
    }  # fmt: skip
    with pytest.raises(
        ValueError, match=r"monolingual text, de, row 2, is a test sentence \(exact: line 1 of the test"
    ):
        list(corpus.monolingual("de"))
    assert list(guarded_corpus(p.but(contamination="drop"), ("de",)).monolingual("de")) == ["something"]
    assert guarded_corpus(p, ("de",)) is corpus and guard_report(p, ("de",))["rows"] == 0
    # datasets copies and pickles what its generators hold: the counts must stay those of this one object
    assert copy.deepcopy(corpus) is corpus and pickle.loads(pickle.dumps(corpus)) is corpus
    contamination._guarded.cache_clear()


@pytest.mark.parametrize("lang", sorted(LANGUAGES))
def test_capitals_and_spaces_leave_the_key_alone_in_every_language(lang):
    """On the names of 60 countries; Georgian capitals are letters of their own, which CLDR's text does not use."""
    names = list(Locale.parse(LOCALES.get(lang, lang)).territories.values())[:60]
    for text in names:
        for copy_of in (text.upper(), text.replace(" ", "\u3000"), unicodedata.normalize("NFC", text)):
            assert key(copy_of) == key(text)
