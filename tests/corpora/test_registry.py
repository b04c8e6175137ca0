"""The corpora: splits that share nothing, files that are checked, and the hub's documented layouts."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from xalma.corpora.ntrex import NtrexCorpus
from xalma.corpora.registry import mixing_sizes, open_corpus, tokenizer_sample
from xalma.profiles import load_profile
from xalma.text_files import check_parallel, read_lines

SOME = ["fi", "zh", "ru", "mg", "ar"]  # Malagasy lacks phrase types


@pytest.fixture(scope="module")
def cldr():
    return open_corpus(load_profile("tiny", sft_pairs=300, dev_pairs=30, test_pairs=50))


@pytest.mark.parametrize("lang", SOME)
def test_cldr_splits_are_disjoint(cldr, lang):
    sft, dev, test = cldr.sft(lang), cldr.dev(lang), cldr.test(lang)
    assert (len(sft), len(dev), len(test)) == (300, 30, 50)
    parts = {
        "sft": set(sft),
        "dev": set(dev),
        "test": set(test),
        "bitext": set(islice(cldr.bitext(lang), 2000)),
    }
    for held_out in ("test", "dev"):
        targets = {other for _, other in parts[held_out]}
        english = {text for text, _ in parts[held_out]}
        for name in parts.keys() - {held_out}:
            assert not targets & {other for _, other in parts[name]}, (held_out, name)
            assert not english & {text for text, _ in parts[name]}, (held_out, name)


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_cldr_monolingual_says_nothing_of_the_test_set(cldr, lang):
    lines = {line for text in islice(cldr.monolingual(lang), 1000) for line in text.split("\n")}
    pairs = [pair for code in ("ja", "fi") for pair in cldr.test(code)]
    held_out = {english for english, _ in pairs} if lang == "en" else {other for _, other in cldr.test("ja")}
    assert len(lines) > 1000
    assert not lines & held_out


def test_cldr_monolingual_documents_repeat_their_first_phrase(cldr):
    for text in islice(cldr.monolingual("fi"), 50):
        first, second, third = text.split("\n")
        assert first == third != second


def test_cldr_bitext_has_the_noise_asked_for():
    """Against the clean stream: English stays, a tenth of the targets are another row's."""
    clean, noisy = (
        list(islice(open_corpus(load_profile("tiny", bitext_noise=noise)).bitext("fi"), 1000))
        for noise in (0.0, 0.1)
    )
    assert [english for english, _ in clean] == [english for english, _ in noisy]
    wrong = [i for i, (a, b) in enumerate(zip(clean, noisy, strict=True)) if a != b]
    assert len(wrong) == 100
    assert {noisy[i][1] for i in wrong} <= {other for _, other in clean}


def test_cldr_is_the_same_every_time_and_follows_the_seed(cldr):
    again = open_corpus(load_profile("tiny", sft_pairs=300))
    assert again.sft("fi") == cldr.sft("fi")
    assert open_corpus(load_profile("tiny", sft_pairs=300, seed=1)).sft("fi") != cldr.sft("fi")


def test_tokenizer_sample_takes_each_language():
    class Two:
        def monolingual(self, lang):
            return iter([f"{lang}1", f"{lang}2", f"{lang}3"])

    assert list(tokenizer_sample(Two(), ("en", "fi"), 2)) == ["en1", "en2", "fi1", "fi2"]


# --- NTREX, in a folder made here ------------------------------------------------------------------


@pytest.fixture
def small_ntrex(tmp_path, monkeypatch) -> Path:
    """40 documents of three lines in English and Finnish."""
    folder = tmp_path / "ntrex"
    folder.mkdir()
    (folder / "DOCUMENT_IDS.tsv").write_text("".join(f"doc{i // 3}\n" for i in range(120)))
    for code in ("en", "fi"):
        (folder / f"{code}.txt").write_text("".join(f"{code} line {i}\n" for i in range(120)))
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    return folder


def ntrex(**changes) -> NtrexCorpus:
    return open_corpus(load_profile("full", corpus="ntrex", **changes))


def document(text: str) -> int:
    return int(text.split()[-1]) // 3


def test_ntrex_is_split_by_document(small_ntrex):
    corpus = ntrex(test_pairs=1000, dev_pairs=1000, sft_pairs=1000)
    parts = {name: getattr(corpus, name)("fi") for name in ("sft", "dev", "test")}
    assert all(english == other.replace("fi", "en") for pairs in parts.values() for english, other in pairs)
    documents = {name: {document(english) for english, _ in pairs} for name, pairs in parts.items()}
    assert {name: len(found) for name, found in documents.items()} == {"sft": 34, "dev": 2, "test": 4}
    assert len(set.union(*documents.values())) == 40
    assert sum(map(len, parts.values())) == 120
    assert list(corpus.bitext("fi")) == parts["sft"]
    texts = list(corpus.monolingual("fi"))
    assert {document(text.split("\n")[0]) for text in texts} == documents["sft"]
    assert all(len(text.split("\n")) == 3 for text in texts)


def test_ntrex_training_repeats_no_held_out_line(small_ntrex):
    """A line of a test document that stands in a training document too is taken out of training."""
    corpus = ntrex(test_pairs=1000, sft_pairs=1000)
    test, sft = corpus.test("fi"), corpus.sft("fi")
    held, trained = test[0][1], sft[0][1]
    lines = (small_ntrex / "fi.txt").read_text().replace(f"{trained}\n", f"{held}\n")
    (small_ntrex / "fi.txt").write_text(lines)
    again = ntrex(test_pairs=1000, sft_pairs=1000)
    assert again.test("fi") == test
    assert again.sft("fi") == list(again.bitext("fi")) == sft[1:]
    assert held not in {line for text in again.monolingual("fi") for line in text.split("\n")}


def test_ntrex_split_follows_the_seed(small_ntrex):
    assert ntrex().test("fi") == ntrex().test("fi")
    assert ntrex().test("fi") != ntrex(seed=1).test("fi")
    assert len(ntrex(test_pairs=2).test("fi")) == 2


def test_ntrex_fingerprint_follows_the_text(small_ntrex):
    before = ntrex().fingerprint()
    assert ntrex().fingerprint() == before
    (small_ntrex / "fi.txt").write_text("".join(f"fi line {i}\n" for i in range(119)) + "fi line x\n")
    assert ntrex().fingerprint() != before


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"one\ntwo\n", r"line counts differ: .*DOCUMENT_IDS.tsv has 120, .*fi.txt has 2"),
        (b"", r"fi\.txt is empty"),
        (b"good\nbad \xff\n", r"fi\.txt is not UTF-8: byte 0xff at offset 9, line 2"),
        (None, r"no file .*fi\.txt"),
    ],
    ids=["count", "empty", "latin1", "missing"],
)
def test_bad_files_are_named(small_ntrex, content, why):
    path = small_ntrex / "fi.txt"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=why) as caught:
        ntrex().test("fi")
    assert "\n" not in str(caught.value)
    with pytest.raises((ValueError, FileNotFoundError), match=why):
        check_parallel([small_ntrex / "DOCUMENT_IDS.tsv", path])


def test_lines_end_at_line_feeds_only(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("\ufeffa\r\nb\u2028c\n\nd".encode())
    assert read_lines(path) == ["a", "b\u2028c", "", "d"]


@pytest.mark.parametrize("corpus", ["ntrex", "real"])
def test_without_the_data_the_folder_is_named(tmp_path, monkeypatch, corpus):
    monkeypatch.delenv("XALMA_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set XALMA_DATA to the folder that holds ntrex/"):
        open_corpus(load_profile("tiny", corpus=corpus))
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="set XALMA_DATA"):
        open_corpus(load_profile("tiny", corpus=corpus))


def test_real_text_leaves_the_held_out_lines_out(small_ntrex):
    """A web pair that repeats a test line on either side is no training text."""
    held = ntrex().test("fi")[0]
    root = small_ntrex.parent
    for folder in ("mozilla", "bible"):
        (root / folder).mkdir()
    (root / "mozilla" / "en.tsv").write_text(f"a\tHome page\nb\t{held[0]}\nc\tOther\nd\tNo partner\n")
    (root / "mozilla" / "fi.tsv").write_text(f"a\tKotisivu\nb\tJotain\nc\t{held[1]}\n")
    corpus = open_corpus(load_profile("full", corpus="real"))
    assert list(corpus.bitext("fi")) == [("Home page", "Kotisivu")]
    texts = list(corpus.monolingual("fi"))
    assert sorted(texts) == sorted(["Kotisivu", "Jotain", *ntrex().monolingual("fi")])
    assert texts.index("Kotisivu") < 20  # sources take turns by chance, not one after the other
    assert list(corpus.monolingual("fi")) == texts
    assert "Kotisivu" not in {line for text in corpus.monolingual("en") for line in text.split("\n")}
    assert corpus.fingerprint() != ntrex().fingerprint()


def test_human_pairs_are_bitext_only_where_there_is_no_other(small_ntrex):
    for folder in ("mozilla", "bible"):
        (small_ntrex.parent / folder).mkdir()
    (small_ntrex.parent / "mozilla" / "en.tsv").write_text("a\tHome page\n")
    (small_ntrex.parent / "mozilla" / "fi.tsv").write_text("a\tKotisivu\n")
    (small_ntrex / "ky.txt").write_text("".join(f"ky line {i}\n" for i in range(120)))
    corpus = open_corpus(load_profile("full", corpus="real"))
    assert list(corpus.bitext("fi")) == [content for _, content in corpus.rows("bitext", "fi")]
    assert sorted(corpus.bitext("ky")) == sorted(ntrex().bitext("ky"))
    assert {content for _, content in corpus.rows("bitext", "ky")} == set(ntrex().bitext("ky"))
    assert ("en line 0", "fi line 0") in corpus.sft("fi")


def test_mixing_by_size_knows_how_much_text_there_is(small_ntrex):
    (small_ntrex.parent / "mozilla").mkdir()
    (small_ntrex.parent / "mozilla" / "en.tsv").write_text("a\tHome page\n")
    (small_ntrex.parent / "mozilla" / "fi.tsv").write_text("a\tKotisivu\n")
    p = load_profile("full", corpus="ntrex+mozilla", mixing="temperature")
    lines = sum(len(text) for text in ntrex().monolingual("fi"))
    assert mixing_sizes(p, "monolingual", ["fi"]) == {"fi": lines + len("Kotisivu")}
    assert mixing_sizes(p, "bitext", ["fi"]) == {"fi": len("Home page") + len("Kotisivu")}
    assert mixing_sizes(p.but(mixing="uniform"), "bitext", ["fi"]) is None
    assert mixing_sizes(p.but(corpus="cldr"), "bitext", ["fi"]) is None  # endless
    own = p.but(corpus="ntrex+own", corpus_path=str(small_ntrex))
    assert mixing_sizes(own, "monolingual", ["fi"]) is None  # may be large


def test_joined_sources_give_the_first_held_out_pairs_and_say_what_is_missing(small_ntrex):
    (small_ntrex.parent / "mozilla").mkdir()
    (small_ntrex.parent / "mozilla" / "en.tsv").write_text("a\tHome page\n")
    (small_ntrex.parent / "mozilla" / "fi.tsv").write_text("a\tKotisivu\n")
    joined = open_corpus(load_profile("full", corpus="mozilla+ntrex"))
    assert (joined.test("fi"), joined.dev("fi"), joined.sft("fi")) == (
        ntrex().test("fi"),
        ntrex().dev("fi"),
        ntrex().sft("fi"),
    )
    alone = open_corpus(load_profile("full", corpus="mozilla+udhr"))
    (small_ntrex.parent / "udhr").mkdir()
    with pytest.raises(
        ValueError, match=r"no bitext for ky in corpus 'mozilla\+udhr': join a corpus that has some"
    ):
        next(alone.bitext("ky"))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ntrex+bible", "choose one of hub, cldr, .*real, papers, .*bibles"),
        ("cldr+cldr", "stands there twice"),
    ],
)
def test_unknown_corpora_name_the_known(name, why):
    with pytest.raises(ValueError, match=why):
        load_profile("tiny", corpus=name)


@pytest.mark.data
@pytest.mark.parametrize("lang", ["fi", "zh", "de", "da", "vi", "ja"])
def test_real_ntrex(lang):
    """Danish, Vietnamese and Japanese repeat a line across documents."""
    corpus = ntrex(test_pairs=5000, dev_pairs=5000, sft_pairs=5000)
    parts = {name: getattr(corpus, name)(lang) for name in ("sft", "dev", "test")}
    assert sum(map(len, parts.values())) == 1997 - (lang in ("da", "vi", "ja"))
    assert len(parts["test"]) > 100 and len(parts["dev"]) > 50
    for side in (0, 1):
        for held_out in ("test", "dev"):
            assert not {p[side] for p in parts[held_out]} & {p[side] for p in parts["sft"]}
    training = {line for text in corpus.monolingual(lang) for line in text.split("\n")}
    assert {other for _, other in parts["sft"]} <= training
    assert training.isdisjoint(other for name in ("dev", "test") for _, other in parts[name])
    ids = read_lines(corpus.folder / "DOCUMENT_IDS.tsv")
    lines = read_lines(corpus.folder / f"{lang}.txt")
    placed = {(line, corpus.split_of[name]) for name, line in zip(ids, lines, strict=True)}
    assert all((other, "test") in placed for _, other in parts["test"])


@pytest.mark.data
def test_real_text_of_every_folder():
    corpus = open_corpus(load_profile("full", corpus="ntrex+bibles+mozilla+udhr+alma"))
    for lang, least in (("de", 5_000), ("ka", 100)):
        pairs = list(corpus.bitext(lang))
        assert len(pairs) > least
        held_out = {
            text for split in (corpus.test(lang), corpus.dev(lang)) for pair in split for text in pair
        }
        assert held_out.isdisjoint(text for pair in pairs for text in pair)


@pytest.mark.data
def test_pairs_come_in_the_order_in_which_corpora_are_named():
    """ALMA's own pairs before NTREX's, of which a few repeat; its Icelandic ones are FLORES-200 and left out."""
    joined = open_corpus(load_profile("full", corpus="alma+ntrex", sft_pairs=10**6))
    own = ntrex(sft_pairs=10**6)
    assert len(set(joined.sft("de")[:1000]) & set(own.sft("de"))) < 300
    assert joined.sft("is") == own.sft("is")
