"""The guard finds what was planted, raises no false alarm, and no stage trains on a test sentence unless told to."""

from __future__ import annotations

import copy
import pickle
import random
import tracemalloc
import unicodedata

import pytest
from babel import Locale

from xalma.corpora.phrasebook.cldr import LOCALES
from xalma.corpora.phrasebook.draws import CANDIDATES
from xalma.data import contamination
from xalma.data.contamination import CHUNK, Guard, guard_report, guarded_corpus, left_out
from xalma.data.folding import codes, fold, key, letters
from xalma.data.test_index import MIN_CONTAINED, WINDOW, TestIndex, window_hashes
from xalma.languages import LANGUAGES
from xalma.profiles import load_profile


def guarded(rows, index, action="stop") -> list:
    return list(Guard(index, action).watch(rows, "the training text"))


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
        ("كِتَابٌ مُحَمَّد", "كتاب محمد"),  # Arabic vowel signs, and a kasheeda
        ("کتاب یک ہے", "كتاب يك هے"),  # Persian and Urdu letters, and the Arabic ones in their place
        ("בְּרֵאשִׁית", "בראשית"),  # Hebrew points
        ("क़लम ज़रूर", "कलम जरूर"),  # nukta
        ("ガﾊﾟｰト", "カハート"),  # half width, voicing marks
        ("１２ ٣٤ ۵۶ ७८", "12345678"),  # digits of four scripts
        ("Tom &amp; Jerry&#39;s &lt;b&gt;caf&eacute;&lt;/b&gt;", "Tom Jerrys cafe"),
        ("&amp;quot;A&amp;quot;", "A"),  # escaped twice
        ('<p class="x">Ein <b>Satz</b>.<br/></p>', "Ein Satz"),
        ("3 < 4 and 5 > 2", "3 4 and 5 2"),  # no tag
        ("Oʻzbekiston, Oʼzbekiston", "O'zbekiston O‘zbekiston"),
        ("Łódź, Ærø, Œuvre", "lodz aero oeuvre"),
    ],
)
def test_key_sets_aside_what_a_copy_may_change(text, same_as):
    assert key(text) == key(same_as) != ""


@pytest.mark.parametrize(
    ("one", "other"), [("5 days", "6 days"), ("हिन्दी", "हन्दी"), ("北京", "南京"), ("ka", "kä e")]
)
def test_key_keeps_what_makes_another_sentence(one, other):
    assert key(one) != key(other)


def test_letters_count_ideographs_more():
    assert [letters(text) for text in ("abc", "日本語", "かな", "한국", "", "ไทย")] == [3, 9, 4, 6, 0, 3]


FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def test_normal_forms_of_every_character_have_one_key():
    """Unicode's own tables are the truth: all characters that any normal form changes, one by one."""
    changed = [
        c for c in map(chr, range(0x110000)) if not 0xD800 <= ord(c) < 0xE000 and unicodedata.decomposition(c)
    ]
    changed += map(chr, range(0xAC00, 0xD7A4, 7))
    assert len(changed) > 6000
    for char in changed:
        forms = {form: unicodedata.normalize(form, char) for form in FORMS}
        assert {tuple(fold(codes(form))[0]) for form in forms.values()} == {tuple(fold(codes(char))[0])}, char


def test_normal_forms_of_shuffled_marks_have_one_key():
    """Marks of several classes in any order, after any letter: canonical ordering moves them."""
    rng, marks = random.Random(0), [c for c in map(chr, range(0x3100)) if unicodedata.combining(c)]
    for _ in range(500):
        text = "".join(rng.choice("aşकกא한か") + "".join(rng.choices(marks, k=3)) for _ in range(4))
        assert len({key(unicodedata.normalize(form, text)) for form in FORMS} | {key(text)}) == 1, ascii(text)


def test_places_are_those_of_the_characters():
    folded, places = fold(codes("a-ß 한б"))
    assert folded.tobytes().decode("utf-32-le") == "assᄒ" + "ᅡᆫ" + "б"
    assert places.tolist() == [0, 2, 2, 4, 4, 4, 5]


def test_window_hashes_are_those_of_their_letters():
    """Equal windows have equal hashes wherever they stand; against the definition in Python's own integers."""
    text = codes("abcdefghijklmnopqrstuvwxyz")
    assert (
        window_hashes(text)[5] == window_hashes(text[5 : 5 + WINDOW])[0]
        and len(window_hashes(text)) == 27 - WINDOW
    )
    hashes = [c * 0x9E3779B1 % 2**32 for c in text[:WINDOW].tolist()]
    hashes = [value ^ (value >> 15) for value in hashes]
    for length, factor in zip((1, 2, 4, 8), (0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1), strict=True):
        hashes = [(a * factor + b) % 2**32 for a, b in zip(hashes[:-length], hashes[length:], strict=True)]
    assert window_hashes(text)[0] == hashes[0] and window_hashes(text[: WINDOW - 1]).size == 0


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
        f"test en-{code} {lang}": [spoken(lang, draw) for draw in tests]
        for code in codes[1:]
        for lang in ("en", code)
    }
    rows = []
    for i in range(N_ROWS):
        draw, code = (
            rng.choices(numbers, k=8),
            codes[1 + i % 5],
        )  # eight names: never a test sentence of seven
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
    recall = {
        kind: [i in dropped for i, k in plants.items() if k == kind]
        for kind in dict.fromkeys(plants.values())
    }
    assert sum(recall["exact"]) == N_PLANTED
    assert sum(recall["respaced"]) >= 0.99 * N_PLANTED
    assert sum(recall["target only"]) >= 0.99 * N_PLANTED
    assert len(dropped - plants.keys()) <= 0.001 * N_ROWS
    del guard.counts["near"]  # rows of the same countries in nearly the same order
    assert guard.counts == {"rows": N_ROWS, "exact": 2 * N_PLANTED, "normalised": N_PLANTED}


def test_clean_text_passes_whole(corpus):
    sides, rows = corpus
    assert guarded(rows[:5000], TestIndex(sides)) == rows[:5000]


# --- the guard ------------------------------------------------------------------------------------

SENTENCE = "A sentence that nobody would write twice."
LONG = "Another one, of more words than the first, which nobody would write in these words."
INDEX = TestIndex({"wmt22 en-is, en": ["Thank you.", SENTENCE, LONG]})


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (SENTENCE, "exact"),
        ((f"  {SENTENCE}\t", "anders"), "exact"),
        (("anders", SENTENCE.upper()), "normalised"),
        (f'"{SENTENCE}"', "normalised"),  # holds it as it is, and more
        (f"one\n{SENTENCE}\nthree", "exact"),
        (f"a document\n{SENTENCE[:-1]}\nof lines", "normalised"),
        ("Thank you.", ""),  # too short to say anything
        (f"{SENTENCE} And more.", "contained"),
        (f"1. {SENTENCE}", "contained"),
        (f"[12] {SENTENCE} [13]", "contained"),
        (f"Before. <i>{SENTENCE}</i>", "contained"),
        (f"a line\n{SENTENCE[:20]}\n{SENTENCE[20:]}\nanother", "contained"),
        (f"un{SENTENCE.lower()}", "near"),  # in the middle of a word
        (LONG.replace("nobody", "somebody"), "near"),
        (("anders", f"Well, {LONG.replace('would', 'could')} Or not."), "near"),
        ("A sentence of other words, which somebody would write.", ""),
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
    assert len(given) == CHUNK - 1  # the last one of a chunk waits for the next
    text = str(caught.value)
    assert text.startswith(
        f"bitext, en-de, row {CHUNK + 2}, is a test sentence (normalised: line 2 of wmt22 en-is, en)"
    )
    assert f"2 of the 4 rows from row {CHUNK} on" in text
    assert "--set contamination=drop" in text and "\n" not in text
    assert guarded(rows, INDEX, "drop") == rows[:-2]
    assert guarded(rows, INDEX, "allow") == rows


@pytest.mark.parametrize("before", [0, 5, CHUNK - 2, CHUNK - 1, CHUNK])
@pytest.mark.parametrize("side", [0, 1, None])
def test_a_sentence_split_over_two_rows_is_found_in_both(before, side):
    """Wherever the chunks end, and on each side of pairs, whose other sides do not come between."""
    parts = (SENTENCE[:22], SENTENCE[22:])
    rows = [f"row {i}" for i in range(before)] + [*parts, "after"]
    if side is not None:
        rows = [(row, "other") if side == 0 else ("other", row) for row in rows]
    guard = Guard(INDEX, "drop")
    kept = list(guard.watch(rows, "rows"))
    assert kept == [*rows[:before], rows[-1]] or (
        before == CHUNK - 1 and kept == [*rows[: before + 1], rows[-1]]
    )
    assert guard.counts["rows"] == before + 3 and guard.counts["split"] == len(rows) - len(kept)
    assert left_out(guard.report()) == guard.counts["split"]
    with pytest.raises(
        ValueError, match=r"holds part of a test sentence \(split: line 2 of wmt22 en-is, en\)"
    ):
        list(Guard(INDEX).watch(rows, "rows"))


def test_an_index_of_nothing_finds_nothing():
    assert guarded(["x" * 50], TestIndex({"empty": []})) == ["x" * 50]
    with pytest.raises(ValueError, match="unknown action 'warn'"):
        Guard(INDEX, "warn")


# --- stages ---------------------------------------------------------------------------------------


class Leaking:
    """A corpus of four pairs, whose monolingual text holds a test sentence."""

    def sft(self, lang):
        return [
            (f"A pair of sentences, number {i}.", f"Ein Satzpaar, und zwar Nummer {i}.") for i in range(4)
        ]

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
    p = load_profile("tiny", contamination="stop")
    corpus = guarded_corpus(p, ("de",))
    assert (
        corpus.sft("de") == corpus.dev("de") == list(corpus.bitext("de"))
        and corpus.fingerprint() == "leaking"
    )
    assert guard_report(p, ("de",)) == {
        "action": "stop",
        "test_sentences": 2,
        "rows": 8,
        "exact": 0,
        "normalised": 0,
        "contained": 0,
        "split": 0,
        "near": 0,
    }
    with pytest.raises(
        ValueError, match=r"monolingual text, de, row 2, is a test sentence \(exact: line 1 of the test"
    ):
        list(corpus.monolingual("de"))
    assert list(guarded_corpus(p.but(contamination="drop"), ("de",)).monolingual("de")) == ["something"]
    assert guarded_corpus(p, ("de",)) is corpus and guard_report(p, ("de",))["rows"] == 0
    # datasets copies and pickles what its generators hold: the counts must stay those of this one object
    assert copy.deepcopy(corpus) is corpus and pickle.loads(pickle.dumps(corpus)) is corpus
    contamination._guarded.cache_clear()


def test_pairs_with_an_empty_side_are_left_out_and_counted(monkeypatch):
    """Whatever corpus they come from: one's own, a line missing in a file of NTREX, a hub's row."""

    class Gaps(Leaking):
        def sft(self, lang):
            return [("", "leer"), *super().sft(lang), ("empty", " \u3000"), ("", "")]

        bitext = sft

    monkeypatch.setattr(contamination, "open_corpus", lambda p: Gaps())
    contamination._guarded.cache_clear()
    p = load_profile("tiny")
    corpus = guarded_corpus(p, ("de",))
    assert corpus.sft("de") == list(corpus.bitext("de")) == Leaking().sft("de")
    report = guard_report(p, ("de",))
    assert (report["rows"], report["empty_sides"]) == (8, 6)
    contamination._guarded.cache_clear()


@pytest.mark.parametrize("lang", sorted(LANGUAGES))
def test_capitals_and_spaces_leave_the_key_alone_in_every_language(lang):
    """On the names of 60 countries; Georgian capitals are letters of their own, which CLDR's text does not use."""
    names = list(Locale.parse(LOCALES.get(lang, lang)).territories.values())[:60]
    for text in names:
        for copy_of in (text.upper(), text.replace(" ", "\u3000"), unicodedata.normalize("NFC", text)):
            assert key(copy_of) == key(text)


@pytest.mark.parametrize("lang", sorted(LANGUAGES))
def test_a_sentence_is_found_in_every_form_in_every_language(lang):
    """Sentences of country names: normal forms, entities, tags, numbers before, inside, joined, split over lines."""
    names = list(Locale.parse(LOCALES.get(lang, lang)).territories.values())
    sentences = [", ".join(names[i : i + 8]) + "." for i in range(0, 80, 8)]
    index = TestIndex({lang: sentences})
    forms = {
        **{form: lambda text, form=form: unicodedata.normalize(form, text) for form in FORMS},
        "entities": lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
        "tags": lambda text: f"<p>{text[:7]}<br/>{text[7:]}</p>",
        "numbered": lambda text: f"[1] {text}",
        "inside": lambda text: f"1234. {text} 567",
        "joined": lambda text: f"{text} {text[::-1]}",
        "lines": lambda text: f"{text[:30]}\n{text[30:]}",
    }
    for name, change in forms.items():
        hits = {(hit.text, line) for hit in index.find(map(change, sentences)) for _, line in hit.places}
        assert {(i, i + 1) for i in range(len(sentences))} <= hits, name


def test_memory_does_not_grow_with_a_line(monkeypatch):
    """A sentence at any place of a line of 4 million characters, across the batches too, in a few megabytes."""
    line = ("b" * 997 + " ") * 4000
    for at in (0, (1 << 18) - 20, len(line) // 2, len(line) - 30):
        assert [hit.kind for hit in INDEX.find([line[:at] + " " + SENTENCE + " " + line[at:]])] == [
            "contained"
        ], at
    tracemalloc.start()
    assert INDEX.find([line]) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 2**20  # the batch's arrays: a line eight times as long takes as much


@pytest.mark.parametrize(("text", "found"), [("a" * MIN_CONTAINED, True), ("a" * (MIN_CONTAINED - 1), False)])
def test_short_sentences_count_as_lines_only(text, found):
    index = TestIndex({"t": [text]})
    assert [hit.kind for hit in index.find([text, f"{text}, {text * 3}!"])] == [
        "exact",
        *["contained"] * found,
    ]
