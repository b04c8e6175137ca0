"""The families of corpora: the hub's documented layouts as folders on disk, broken reads, and text of one's own."""

from __future__ import annotations

import gzip
import hashlib
import json
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from xalma.corpora import files
from xalma.corpora.alma import AlmaAsReleased, AlmaCorpus
from xalma.corpora.base import Corpus
from xalma.corpora.files import Unreadable, hub_rows, parquet_rows, text_lines
from xalma.corpora.hub import IN_BUCKET, HubCorpus, NllbCorpus, OpusCorpus, OscarCorpus
from xalma.corpora.own import OwnCorpus
from xalma.corpora.registry import family, open_corpus
from xalma.corpus_names import FAMILIES
from xalma.languages import ENGLISH, LANGUAGES, language
from xalma.profiles import load_profile


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch, tmp_path):
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def packed(path: Path, data: bytes) -> Path:
    """The file, packed as its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    elif path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(data)
    else:
        path.write_bytes(data)
    return path


def jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def test_every_family_answers_every_question():
    for name in FAMILIES:
        assert issubclass(family(name), Corpus), name
        assert set(vars(Corpus)) <= set(dir(family(name)))


# --- OSCAR-2301 --------------------------------------------------------------------------------------


def oscar_row(text: str) -> dict:
    """A row as the corpus' documentation shows it."""
    headers = {"warc-type": "conversion", "warc-target-uri": "https://a", "content-length": "35298"}
    metadata = {"identification": {"label": "de", "prob": 0.9}, "tlsh": None, "quality_warnings": ["header"],
                "categories": None, "sentence_identifications": [{"label": "de", "prob": 0.99}, None]}  # fmt: skip
    return {"content": text, "warc_headers": headers, "metadata": metadata}


@pytest.fixture
def oscar(tmp_path) -> OscarCorpus:
    folder = tmp_path / "oscar"
    for part in (1, 2, 10):
        name = f"de_meta/de_meta_part_{part}.jsonl.zst"
        packed(folder / name, jsonl([oscar_row(f"Teil {part}\nZeile {i}") for i in range(2)]))
    bad = jsonl([oscar_row("eins")]) + b'{"cut off\n' + jsonl([oscar_row("drei")]).replace(b"drei", b"dr\xff")
    packed(folder / "is_meta" / "is_meta.jsonl.zst", bad)
    for lang in ("de", "is"):  # what lies beside the text on the hub
        files = sorted((folder / f"{lang}_meta").glob("*.zst"))
        sums = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
        (folder / f"{lang}_meta" / "checksum.sha256").write_text(sums)
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    return OscarCorpus(load_profile("full", monolingual_id=str(folder)))


def test_oscar_reads_its_parts_in_order(oscar):
    assert list(oscar.monolingual("de")) == [
        f"Teil {part}\nZeile {i}" for part in (1, 2, 10) for i in range(2)
    ]


def test_a_bad_row_stops_training_and_is_listed_for_hygiene(oscar):
    with pytest.raises(
        ValueError, match=r"is_meta.jsonl.zst:2 is no readable row: mend it, or run `xalma prepare`"
    ):
        list(oscar.monolingual("is"))
    rows = list(oscar.rows("monolingual", "is"))
    assert [place.rsplit(":")[-1] for place, _ in rows] == ["1", "2", "3"]
    assert [text for _, text in rows] == ["eins", None, "dr\udcff"]


@pytest.mark.parametrize("where", ["folder", "hub"])
def test_oscar_that_is_not_there_is_one_sentence(oscar, where):
    corpus = oscar if where == "folder" else OscarCorpus(load_profile("full"))
    with pytest.raises(
        RuntimeError, match=r"can't read .*\(fi\).*accept its terms.*`hf auth login`"
    ) as caught:
        next(corpus.monolingual("fi"))
    assert "\n" not in str(caught.value)


# --- NLLB and OPUS -----------------------------------------------------------------------------------


@pytest.fixture
def nllb(tmp_path) -> NllbCorpus:
    folder = tmp_path / "nllb"
    scores = "1.2\t1.0\t0.9\tcrawl\thttp://a\tcrawl\t_"  # "_" is no address
    packed(folder / "eng_Latn-kir_Cyrl.gz", f"hello\tсалам\t{scores}\ntwo\tэки\t{scores}\nhalf\n".encode())
    packed(folder / "afr_Latn-eng_Latn.gz", f"hallo\thello\t{scores}\n".encode())
    packed(folder / "cc-matrix" / "de-en.bitextf.tsv.gz", b"1.25\tHallo\thello\n")
    packed(folder / "cc-matrix" / "en-zh.bitextf.tsv.gz", "1.25\thello\t你好\n".encode())
    return NllbCorpus(load_profile("full", bitext_id=str(folder)))


@pytest.mark.parametrize(
    ("lang", "pair"),
    [
        ("ky", ("hello", "салам")),
        ("af", ("hello", "hallo")),
        ("de", ("hello", "Hallo")),
        ("zh", ("hello", "你好")),
    ],
)
def test_nllb_finds_english_in_either_column_of_either_source(nllb, lang, pair):
    assert next(nllb.bitext(lang)) == pair
    assert [content for _, content in nllb.rows("bitext", "ky")] == [("hello", "салам"), ("two", "эки"), None]


# nllb_lang_pairs.py of allenai/nllb: English in CCMATRIX_PAIRS, and all of ours that are not in NLLB_PAIRS
ENGLISH_FIRST = "es et fa fi fr gl he hu id is it ja ko lt lv mk nl no pl pt ro ru sr sv tr uk vi zh"
ENGLISH_LAST = "ar bg ca cs da de el"


def test_nllb_finds_each_pair_where_the_loading_script_does():
    corpus = NllbCorpus(load_profile("full"))
    for codes, first in ((ENGLISH_FIRST, True), (ENGLISH_LAST, False)):
        for lang in codes.split():
            name = f"en-{lang}" if first else f"{lang}-en"
            assert corpus.source(lang) == (
                f"https://data.statmt.org/cc-matrix/{name}.bitextf.tsv.gz",
                1,
                first,
            )
    listed = {*ENGLISH_FIRST.split(), *ENGLISH_LAST.split(), *IN_BUCKET}
    assert listed == set(corpus.languages()) and len(listed) == 48
    bucket = "https://storage.googleapis.com/allennlp-data-bucket/nllb"
    assert corpus.source("az") == (f"{bucket}/azj_Latn-eng_Latn.gz", 0, False)
    assert corpus.source("ne") == (f"{bucket}/eng_Latn-npi_Deva.gz", 0, True)


def test_nllb_names_a_file_for_every_language_but_thai():
    corpus = NllbCorpus(load_profile("full"))
    assert set(corpus.languages()) == set(LANGUAGES) - {ENGLISH, "th"}
    for lang in corpus.languages():
        url, _, english_first = corpus.source(lang)
        names = url.rpartition("/")[2].partition(".")[0].split("-")
        assert names == sorted(names)
        codes = (language(ENGLISH).flores, language(lang).flores) if lang in IN_BUCKET else (ENGLISH, lang)
        assert tuple(names if english_first else names[::-1]) == codes


def repository(folder: Path, config: str, split: str, rows: list[dict], form: str = "parquet") -> None:
    """One configuration of a dataset repository, declared in README.md as on the hub."""
    folder.mkdir(exist_ok=True)
    (folder / config).mkdir(exist_ok=True)
    path = folder / config / f"{split}.{form}"
    if form == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_bytes(jsonl(rows))
    card = folder / "README.md"
    entries = card.read_text().splitlines()[2:-1] if card.exists() else []
    entries += [
        f"- config_name: {config}",
        "  data_files:",
        f"  - split: {split}",
        f"    path: {config}/{split}.{form}",
    ]
    card.write_text("\n".join(["---", "configs:", *entries, "---"]))


def translations(english: str, other: str, name: str, n: int) -> list[dict]:
    return [{"translation": {english: f"{name} en {i}", other: f"{name} xx {i}"}} for i in range(n)]


@pytest.fixture
def hub(tmp_path, oscar, nllb) -> HubCorpus:
    repository(tmp_path / "opus", "en-th", "train", translations("en", "th", "opus", 4))
    flores = [{"en-de": {"en": f"flores en {i}", "de": f"flores xx {i}"}} for i in range(6)]
    repository(tmp_path / "flores", "en-de", "test", flores)
    sft = translations("en", "de", "sft", 10)
    sft[4]["translation"]["en"] = "flores en 1"  # a test sentence among the training pairs
    sft[7]["translation"]["de"] = "flores xx 5"
    repository(tmp_path / "sft", "de-en", "train", sft)
    ids = {"bitext_id_th": "opus", "sft_id": "sft", "test_id": "flores"}
    ids = {key: str(tmp_path / value) for key, value in ids.items()}
    ids |= {"monolingual_id": oscar.p.monolingual_id, "bitext_id": nllb.p.bitext_id}
    return open_corpus(load_profile("full", **ids, dev_pairs=2, sft_pairs=5))


@pytest.fixture
def no_data(monkeypatch):
    monkeypatch.delenv("XALMA_DATA", raising=False)


def test_the_hub_as_one_corpus(hub, no_data):
    assert len(list(hub.monolingual("de"))) == 6
    assert list(hub.bitext("th")) == [(f"opus en {i}", f"opus xx {i}") for i in range(4)]
    assert next(hub.bitext("de")) == ("hello", "Hallo")
    assert next(hub.rows("bitext", "th")) == ("OPUS-100 en-th:1", ("opus en 0", "opus xx 0"))


def test_hub_test_set_is_cut_and_kept_out_of_training(hub, no_data):
    assert hub.test("de") == [(f"flores en {i}", f"flores xx {i}") for i in range(6)]
    assert HubCorpus(hub.p.but(test_pairs=2)).test("de") == hub.test("de")[:2]
    assert hub.dev("de") == [("sft en 0", "sft xx 0"), ("sft en 1", "sft xx 1")]
    assert hub.sft("de") == [(f"sft en {i}", f"sft xx {i}") for i in (2, 3, 5, 6, 8)]


def test_what_the_hub_refuses_is_one_sentence():
    """Offline, as all tests are: the same sentence as for a gated or missing corpus."""
    with pytest.raises(
        Unreadable, match=r"can't read Helsinki-NLP/opus-100 \(en-th, train\) from the hub"
    ) as caught:
        next(OpusCorpus(load_profile("full")).bitext("th"))
    assert "\n" not in str(caught.value) and "or use another corpus" in str(caught.value)


# --- broken reads ------------------------------------------------------------------------------------


class Breaking:
    """A source of 10 rows that breaks before the rows of `at`, each once."""

    def __init__(self, at: list[int], error: Exception) -> None:
        self.at, self.error, self.opened = list(at), error, []

    def __call__(self, row: int):
        self.opened.append(row)
        for i in range(row, 10):
            if i in self.at:
                self.at.remove(i)
                raise self.error
            yield i


@pytest.mark.parametrize("start", [0, 4])
def test_a_broken_read_goes_on_at_its_row(start):
    source = Breaking([5, 5, 9], ConnectionError("reset"))
    assert list(files.resumed(source, "x", start)) == [(i, i) for i in range(start, 10)]
    assert source.opened == [start, 5, 5, 9]


def test_breaks_at_one_row_are_not_mended_for_ever():
    source = Breaking([3] * 100, ConnectionError("reset by peer"))
    with pytest.raises(Unreadable, match="can't read x at row 3: ConnectionError: reset by peer"):
        list(files.resumed(source, "x"))
    assert len(source.opened) == files.RETRIES + 1


def test_what_is_not_allowed_is_not_asked_for_again():
    source = Breaking([0], PermissionError("gated"))
    with pytest.raises(Unreadable, match="gated; accept its terms"):
        list(files.resumed(source, "x"))
    assert source.opened == [0]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("start", [0, 2])
def test_lines_of_packed_files(tmp_path, suffix, start):
    path = packed(tmp_path / f"a.txt{suffix}", "eins\r\nzwei\u2028\ndrei \n\nfünf".encode())
    lines = list(enumerate(["eins", "zwei\u2028", "drei ", "", "fünf"]))
    assert list(text_lines(str(path), start)) == lines[start:]


def test_parquet_and_datasets_begin_at_a_row(tmp_path):
    repository(tmp_path / "r", "en-th", "train", rows := translations("en", "th", "x", 2500))
    path = tmp_path / "r" / "en-th" / "train.parquet"
    for found in (parquet_rows(str(path), start=1200), hub_rows(str(tmp_path / "r"), "en-th", "train", 1200)):
        assert list(islice(found, 2)) == [(1200, rows[1200]), (1201, rows[1201])]


# --- ALMA --------------------------------------------------------------------------------------------


@pytest.fixture
def alma_data(tmp_path, monkeypatch) -> Path:
    """Two languages, each with three pairs of its own and then the pairs that all share."""
    shared = [f"shared {i}" for i in range(4)]
    for code, own in (("is", []), ("de", [f"own {i}" for i in range(3)])):
        folder = tmp_path / "alma-human" / f"{code}-en"
        folder.mkdir(parents=True)
        (folder / "train.en.txt").write_text("".join(f"{text}\n" for text in own + shared))
        (folder / f"train.{code}.txt").write_text("".join(f"{code} {text}\n" for text in own + shared))
    (tmp_path / "alma-human" / "de-en" / "valid.en.txt").write_text("valid\n")
    (tmp_path / "alma-human" / "de-en" / "valid.de.txt").write_text("gültig\n")
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    return tmp_path


def test_alma_leaves_the_shared_test_lines_out_unless_asked(alma_data):
    p = load_profile("full")
    assert AlmaCorpus(p).sft("de") == [(f"own {i}", f"de own {i}") for i in range(3)]
    assert (AlmaCorpus(p).sft("is"), AlmaCorpus(p).sft("fi")) == ([], [])
    assert len(AlmaAsReleased(p).sft("de")) == 7
    assert len(AlmaAsReleased(p).sft("is")) == 4
    assert (AlmaCorpus(p).dev("de"), AlmaCorpus(p).dev("is")) == ([("valid", "gültig")], [])


@pytest.mark.data
def test_alma_at_hand_ends_with_2009_shared_pairs():
    p = load_profile("full", sft_pairs=20_000)
    for lang, lines in (("cs", 12_076), ("de", 14_211), ("is", 2_009), ("ru", 15_000), ("zh", 15_406)):
        assert len(AlmaAsReleased(p).sft(lang)) == lines
        assert (
            lines - 2_009 - 60 <= len(AlmaCorpus(p).sft(lang)) <= lines - 2_009
        )  # news may repeat a sentence


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "lang", "documents", "pairs"),
    [
        ("bibles", "de", 1178, 30_814),
        ("mozilla", "ka", None, 1_533),
        ("udhr", "ne", None, 48),
        ("bibles", "fi", None, 30_628),
    ],
)
def test_keyed_texts_at_hand(name, lang, documents, pairs):
    corpus = open_corpus(load_profile("full", corpus=name))
    assert len(list(corpus.bitext(lang))) == pairs
    texts = list(corpus.monolingual(lang))
    assert len(texts) == documents or documents is None
    assert sum(len(text.split("\n")) for text in texts) >= pairs
    assert texts == list(corpus.monolingual(lang))


# --- FLORES-200 and WMT -----------------------------------------------------------------------------


def lines_file(path: Path, lines: list[str]) -> None:
    packed(path, "".join(f"{line}\n" for line in lines).encode())


def flores_file(root: Path, folder: str, code: str, n: int) -> None:
    suffix = "devtest" if folder == "devtest" else "dev"
    lines_file(
        root / "flores200" / folder / f"{language(code).flores}.{suffix}", [f"{code} {i}" for i in range(n)]
    )


def test_flores_takes_the_whole_dev_else_the_subset_and_says_which(tmp_path, monkeypatch):
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    for folder, codes, n in (
        ("dev", "en de", 997),
        ("dev-subset", "en de fi", 507),
        ("devtest", "en de fi ky", 1012),
    ):
        for code in codes.split():
            flores_file(tmp_path, folder, code, n)
    corpus = open_corpus(load_profile("full", corpus="flores"))
    assert corpus.languages() == ("de", "fi", "ky")
    assert [len(corpus.sft(code)) for code in ("de", "fi", "ky", "is")] == [997, 507, 0, 0]
    assert corpus.notes("de") == ["FLORES-200 dev: all of its 997 lines"]
    assert (corpus.notes("fi"), corpus.notes("ky")) == (["FLORES-200 dev: 507 of its 997 lines"], [])
    assert [len(corpus.test(code)) for code in ("de", "fi", "ky", "is")] == [1012, 1012, 1012, 0]
    cut = open_corpus(load_profile("full", corpus="flores", test_pairs=3))
    assert (len(cut.test("fi")), len(cut.tests("fi"))) == (3, 1012)


TABLE = "en\t1\teins\tone\nen\t2\tEINS\tone\nde\t1\tzwei\ttwo\n"


@pytest.fixture
def wmt_data(tmp_path, monkeypatch) -> Path:
    """Two tables, one of them not packed; WMT'21 as a test set alone; WMT'23, which shares a line; WMT'24."""
    packed(tmp_path / "wmt" / "wmt15" / "de.tsv.gz", TABLE.encode())
    packed(
        tmp_path / "wmt" / "wmt22" / "de.tsv", b"de\t1\tdrei\tthree\nde\t1\tzwei\ttwo\nen\t1\tTest 0\tyou\n"
    )
    for year, side, lines in (
        ("wmt21", "src", ["four"]),
        ("wmt21", "ref", ["vier"]),
        ("wmt22", "src", ["no"]),
        ("wmt22", "ref", ["nein"]),
        ("wmt23", "src", [f"test {i}" for i in range(3)]),
        ("wmt23", "ref", [f"Test {i}" for i in range(3)]),
        ("wmt24", "src", ["later"]),
        ("wmt24", "ref", ["später"]),
    ):
        lines_file(tmp_path / "wmt" / year / "en-de" / f"{side}.txt", lines)
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    return tmp_path


def test_wmt_trains_on_first_references_of_15_to_22_and_tests_on_23(wmt_data):
    corpus = open_corpus(load_profile("full", corpus="wmt", test_pairs=2))
    pairs = [
        ("one", "eins"),
        ("two", "zwei"),
        ("three", "drei"),
        ("four", "vier"),
    ]  # '22's test set is its table's
    assert sorted(corpus.sft("de")) == sorted(corpus.bitext("de")) == sorted(pairs)
    assert sorted(corpus.monolingual("en")) == sorted(english for english, _ in pairs)
    assert (corpus.test("de"), len(corpus.tests("de"))) == ([("test 0", "Test 0"), ("test 1", "Test 1")], 3)
    assert corpus.languages() == ("de",) and corpus.sets("de") == {"wmt15", "wmt21", "wmt22"}
    orders = {
        tuple(open_corpus(load_profile("full", corpus="wmt", seed=seed)).sft("de")) for seed in range(9)
    }
    assert len(orders) > 1
    before = corpus.fingerprint()
    lines_file(wmt_data / "wmt" / "wmt24" / "en-de" / "src.txt", ["later still"])
    assert corpus.fingerprint() == before  # it is no part of this corpus
    alma = open_corpus(load_profile("full", corpus="wmt22"))
    assert (alma.test("de"), alma.sft("de")) == ([("no", "nein")], [])


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        (
            "de.tsv",
            b"en\t1\teins\tone\nen\t1\teins\n",
            "de.tsv, line 2, has 3 columns: they are origin, reference",
        ),
        (
            "de.tsv.gz",
            gzip.compress(TABLE.encode() * 999)[:-9],
            "de.tsv.gz is cut or no gzip file .*: fetch it again",
        ),
        ("de.tsv.gz", TABLE.encode(), "de.tsv.gz is cut or no gzip file"),
        ("de.tsv", "en\t1\teins\tone\n".encode("utf-16"), "is not UTF-8 but UTF-16: convert it"),
    ],
)
def test_a_bad_table_is_one_sentence(tmp_path, monkeypatch, name, data, why):
    (tmp_path / "wmt" / "wmt15").mkdir(parents=True)
    (tmp_path / "wmt" / "wmt15" / name).write_bytes(data)
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=why) as caught:
        open_corpus(load_profile("full", corpus="wmt")).sft("de")
    assert "\n" not in str(caught.value)


ALL_OF = "are of {}, which another corpus has"


@pytest.mark.parametrize("spec", ["wmt+alma", "alma+wmt"])
@pytest.mark.parametrize(
    ("years", "kept", "why"),
    [
        (
            (15, 17, 18, 19, 20),
            5,
            "Parallel: 3 pairs left out, they " + ALL_OF.format("wmt17, wmt18, wmt19, wmt20"),
        ),
        ((17,), 3, "WMT: 1 pairs left out, they " + ALL_OF.format("wmt17")),
        ((15, 17), 4, "1 pairs left out, they stand in another corpus too"),
    ],
)
def test_a_set_that_two_corpora_have_is_trained_on_once(alma_data, spec, years, kept, why):
    """ALMA's three own pairs are WMT'17 to '20; here '17 is the first of them, each other year a pair of its own."""
    for year in years:
        other = "de own 0\town 0" if year == 17 else f"x {year}\tx {year}"
        packed(alma_data / "wmt" / f"wmt{year}" / "de.tsv.gz", f"en\t1\t{other}\n".encode())
    corpus = open_corpus(load_profile("full", corpus=spec))
    pairs = corpus.sft("de")
    assert len(pairs) == len(set(pairs)) == kept and ("own 0", "de own 0") in pairs
    (note,) = corpus.notes("de")
    assert note.endswith(why)


def test_whole_ntrex_has_no_test_documents(tmp_path, monkeypatch):
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    lines_file(tmp_path / "ntrex" / "DOCUMENT_IDS.tsv", [f"doc{i // 2}" for i in range(80)])
    for code in ("en", "fi"):
        lines_file(tmp_path / "ntrex" / f"{code}.txt", [f"{code} {i}" for i in range(80)])
    split, whole = (open_corpus(load_profile("full", corpus=name)) for name in ("ntrex", "ntrex_whole"))
    assert [len(corpus.test("fi")) for corpus in (split, whole)] == [8, 0]
    assert [len(corpus.sft("fi")) for corpus in (split, whole)] == [68, 76]
    assert len(whole.dev("fi")) == 4
    assert whole.held_out("fi").isdisjoint(text for pair in whole.sft("fi") for text in pair)


# data README, table of WMT'15 to '22: pairs of each language, reference 1
WMT_PAIRS = {
    "de": 23253, "is": 2000, "ro": 1999, "ru": 24745, "uk": 3928, "fr": 1499, "cs": 21040, "lt": 1998, "lv": 2001,
    "pl": 2000, "et": 2000, "fi": 14344, "ja": 7945, "zh": 20078, "gu": 1987, "he": 0, "kk": 1997, "tr": 9003,
}  # fmt: skip


@pytest.mark.data
def test_flores_and_wmt_at_hand():
    p = load_profile("full", corpus="flores+wmt", test_pairs=5000, sft_pairs=30_000)
    joined, wmt = open_corpus(p), open_corpus(p.but(corpus="wmt"))
    assert {code: len(wmt.sft(code)) for code in wmt.languages()} == WMT_PAIRS
    assert (len(wmt.test("de")), len(wmt.test("he")), len(wmt.test("is"))) == (1105, 3962, 0)
    assert {len(joined.test(code)) for code in joined.languages()} == {1012} and len(joined.languages()) == 49
    whole = {"cs", "de", "is", "ru", "zh"}
    flores = open_corpus(p.but(corpus="flores"))
    assert {code: len(flores.sft(code)) for code in LANGUAGES if code != ENGLISH} == {
        code: 997 if code in whole else 507 for code in LANGUAGES if code != ENGLISH
    }
    for code in ("de", "ja", "he"):
        held = {text for pair in joined.tests(code) for text in pair}
        assert len(joined.tests(code)) == 1012 + len(wmt.test(code))
        assert held.isdisjoint(text for pair in joined.sft(code) for text in pair)


@pytest.mark.data
def test_the_papers_sets_at_hand():
    """X-ALMA's sets and stand-ins for web text: every language has pairs, tests and bitext beyond its web copy."""
    corpus = open_corpus(load_profile("full", corpus="papers"))
    assert len(corpus.languages()) == 49
    for code in corpus.languages():
        assert 2400 < len(corpus.sft(code)) <= 4000
        assert len(corpus.test(code)) == 1012 and len(corpus.dev(code)) > 40
        assert len(list(islice(corpus.bitext(code), 1900))) == 1900
        assert corpus.notes(code)


def test_a_cut_bible_is_one_sentence(tmp_path, monkeypatch):
    path = packed(
        tmp_path / "bible" / "de.tsv.gz", "".join(f"Gen.1.{i}\tVers {i * i}\n" for i in range(999)).encode()
    )
    path.write_bytes(path.read_bytes()[:-50])
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"de.tsv.gz is cut or no gzip file .*: fetch it again"):
        next(open_corpus(load_profile("full", corpus="bibles")).monolingual("de"))


def test_an_added_language_is_among_the_languages_of_a_corpus(swahili, tmp_path, monkeypatch):
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    packed(tmp_path / "mozilla" / "sw.tsv", b"a\tNyumbani\n")
    packed(tmp_path / "mozilla" / "en.tsv", b"a\tHome page\n")
    packed(tmp_path / "wmt" / "wmt22" / "sw.tsv", b"en\t1\tNyumba\tA house\n")
    packed(tmp_path / "mine" / "sft" / "sw-en.tsv", b"en\tsw\nHi\tHabari\n")
    p = load_profile("full", corpus="own+mozilla+wmt", corpus_path=str(tmp_path / "mine"))
    corpus = open_corpus(p)
    assert corpus.languages() == ("sw",)
    assert sorted(corpus.sft("sw")) == [("A house", "Nyumba"), ("Hi", "Habari")]
    assert sorted(corpus.bitext("sw")) == [("A house", "Nyumba"), ("Home page", "Nyumbani")]


# --- one's own ---------------------------------------------------------------------------------------

PAIRS = [("one", "eins"), ("two\u2028", "zwei"), ("three", "drei")]


def as_tsv(pairs):
    return "\n".join(["de\ten", *(f"{b}\t{a}" for a, b in pairs)]).encode()


def as_jsonl(pairs):
    return jsonl([{"en": a, "de": b, "score": 1} for a, b in pairs])


def as_nested(pairs):
    return jsonl([{"translation": {"en": a, "de": b}} for a, b in pairs])


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("de-en.tsv", as_tsv),
        ("de-en.tsv.gz", as_tsv),
        ("de-en.jsonl", as_jsonl),
        ("de-en.jsonl.zst", as_nested),
    ],
)
def test_own_pairs_in_every_form(tmp_path, name, write):
    for kind, part in (("sft", PAIRS[:2]), ("test", PAIRS[2:])):
        packed(tmp_path / kind / name, write(part))
    corpus = OwnCorpus(load_profile("full", corpus_path=str(tmp_path)))
    assert (corpus.sft("de"), corpus.test("de"), corpus.dev("de")) == (PAIRS[:2], PAIRS[2:], [])
    assert list(corpus.bitext("de")) == list(corpus.monolingual("de")) == []
    assert corpus.held_out("de") == {"three", "drei"} == corpus.held_out("en")
    assert corpus.languages() == ("de",)


def test_own_text_and_two_aligned_files_and_parquet(tmp_path):
    packed(tmp_path / "monolingual" / "de.txt.gz", b"ein Satz\nnoch einer\n")
    packed(tmp_path / "monolingual" / "en.jsonl", jsonl([{"text": "a document\nof lines"}]))
    for code, side in (("en", 0), ("de", 1)):
        packed(
            tmp_path / "bitext" / f"de-en.{code}.txt", "".join(pair[side] + "\n" for pair in PAIRS).encode()
        )
    (tmp_path / "sft").mkdir()
    pd.DataFrame(PAIRS, columns=["en", "de"]).to_parquet(tmp_path / "sft" / "de-en.parquet")
    corpus = open_corpus(load_profile("full", corpus="own", corpus_path=str(tmp_path)))
    assert list(corpus.monolingual("de")) == ["ein Satz", "noch einer"]
    assert list(corpus.monolingual("en")) == ["a document\nof lines"]
    assert list(corpus.bitext("de")) == corpus.sft("de") == PAIRS
    before = corpus.fingerprint()
    packed(tmp_path / "monolingual" / "de.txt.gz", b"ein Satz\n")
    assert corpus.fingerprint() != before


@pytest.mark.parametrize(
    ("files_", "why"),
    [
        (
            {"sft/de-en.tsv": b"a\tb\n1\t2\n"},
            "first row: no such columns; it needs en and de, or translation",
        ),
        ({"sft/de-en.txt": b"a\n"}, "holds one side only: name the two files as data_cards/own.md says"),
        (
            {"sft/de-en.tsv": b"", "sft/de-en.jsonl.gz": b""},
            "has de-en.tsv and de-en.jsonl.gz: keep one of them",
        ),
        (
            {"sft/de-en.de.txt": b"a\nb\n", "sft/de-en.en.txt": b"a\n"},
            "de-en.en.txt has fewer lines than its other side",
        ),
        ({"sft/de-en.jsonl": as_jsonl(PAIRS[:1]) + b"{\n"}, r"de-en.jsonl:2 is no readable row"),
    ],
)
def test_own_files_that_are_not_right_are_named(tmp_path, files_, why):
    for name, data in files_.items():
        packed(tmp_path / name, data)
    with pytest.raises(ValueError, match=why) as caught:
        OwnCorpus(load_profile("full", corpus_path=str(tmp_path))).sft("de")
    assert "\n" not in str(caught.value)


UTF8_MARK = b"\xef\xbb\xbf"


def own(folder: Path, **values) -> OwnCorpus:
    return OwnCorpus(load_profile("full", corpus_path=str(folder), **values))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("de-en.tsv", as_tsv),
        ("de-en.tsv.gz", as_tsv),
        ("de-en.jsonl", as_jsonl),
        ("de-en.jsonl.zst", as_nested),
    ],
)
def test_a_byte_order_mark_and_blank_last_lines_are_no_text(tmp_path, name, write):
    packed(tmp_path / "sft" / name, UTF8_MARK + write(PAIRS) + b"\n\n")
    for code, side in (("en", 0), ("de", 1)):
        text = "".join(pair[side] + "\n" for pair in PAIRS).encode()
        packed(tmp_path / "dev" / f"de-en.{code}.txt", UTF8_MARK + text)
        packed(tmp_path / "monolingual" / f"{code}.txt", UTF8_MARK + text + b"\n")
    corpus = own(tmp_path)
    assert corpus.sft("de") == corpus.dev("de") == PAIRS
    assert list(corpus.monolingual("de")) == [other for _, other in PAIRS]


def test_pairs_with_an_empty_side_are_left_out_and_counted(tmp_path):
    gaps = [*PAIRS, ("four", ""), (" ", "fünf"), ("", "")]
    for kind in ("sft", "test", "bitext"):
        packed(tmp_path / kind / "de-en.jsonl", as_jsonl(gaps))
    for code, side in (("en", 0), ("de", 1)):
        packed(tmp_path / "dev" / f"de-en.{code}.txt", "".join(pair[side] + "\n" for pair in gaps).encode())
    corpus = own(tmp_path)
    assert corpus.sft("de") == corpus.dev("de") == corpus.test("de") == list(corpus.bitext("de")) == PAIRS
    assert len(list(corpus.rows("bitext", "de"))) == 6  # `xalma prepare` counts them itself
    left = "pairs of {}/ left out, a side is empty"
    assert [note for note in corpus.notes("de") if "bitext" not in note] == [
        f"own text: 3 {left.format(kind)}" for kind in ("sft", "dev", "test")
    ]


@pytest.mark.parametrize(
    ("names", "kind", "ignored"),
    [
        (["sft/de-en.csv"], "sft", "sft/de-en.csv"),
        (["sft/de-en.json"], "sft", "sft/de-en.json"),
        (["sft/en-de.tsv"], "sft", "sft/en-de.tsv"),
        (["SFT/de-en.tsv"], "sft", "SFT/de-en.tsv"),
        (["sft/de_en.tsv", "sft/fi-en.tsv"], "sft", "sft/de_en.tsv"),
        (["sft/train.tsv"], "sft", "sft/train.tsv"),
        (["sft/de-en.de.txt"], "sft", "sft/de-en.de.txt"),
        (["sft/de-en.TSV"], "sft", "sft/de-en.TSV"),
        (["monolingual/de.csv"], "monolingual", "monolingual/de.csv"),
        (["dev/de-en.xlsx"], "dev", "dev/de-en.xlsx"),
    ],
)
def test_files_that_are_not_read_are_named(tmp_path, names, kind, ignored):
    for name in [*names, "bitext/fi-en.tsv"]:
        packed(tmp_path / name, as_tsv(PAIRS))
    with pytest.raises(ValueError, match="has nothing to read for de: ") as caught:
        list(getattr(own(tmp_path), kind)("de"))
    text = str(caught.value)
    assert f"{tmp_path / kind} has nothing" in text and f"ignored: {ignored}. " in text and "\n" not in text
    assert ("de-en.<form>" in text) == (kind != "monolingual")


def test_a_language_without_files_is_empty_and_a_folder_without_any_is_named(tmp_path):
    packed(tmp_path / "sft" / "fi-en.tsv", b"en\tfi\nHi\tHei\n")
    (tmp_path / "sft" / "README.md").write_text("mine")
    assert own(tmp_path).sft("de") == own(tmp_path).dev("de") == []
    (tmp_path / "other" / "data").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match=r"has none of the folders monolingual, .* but data: lay it out"
    ):
        own(tmp_path / "other").sft("de")


@pytest.mark.parametrize("kind", ["sft", "bitext"])
@pytest.mark.parametrize(
    ("encoding", "why"),
    [("utf-16", "UTF-16: convert"), ("utf-16-le", "UTF-16: convert"), ("latin1", "is not UTF-8")],
)
@pytest.mark.parametrize(
    ("name", "write"), [("de-en.tsv", as_tsv), ("de-en.jsonl", as_jsonl), ("de-en", None)]
)
def test_another_encoding_is_named(tmp_path, kind, encoding, why, name, write):
    pairs = [("A house by the lake", "Ein Häuschen am See"), ("Rain", "Regen")]
    if write:
        packed(tmp_path / kind / name, write(pairs).decode().encode(encoding))
    for code, side in () if write else (("en", 0), ("de", 1)):
        text = "".join(pair[side] + "\n" for pair in pairs).encode(encoding)
        packed(tmp_path / kind / f"{name}.{code}.txt", text)
    with pytest.raises((ValueError, Unreadable), match=why) as caught:
        list(getattr(own(tmp_path), kind)("de"))
    assert "iconv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["de-en.tsv.gz", "de-en.jsonl.zst", "de-en.parquet", "de-en.jsonl.gz"])
def test_a_cut_file_on_this_machine_is_called_cut(tmp_path, name):
    write = as_tsv if "tsv" in name else as_jsonl
    path = packed(
        tmp_path / "sft" / name, write([(f"{i * 7919} one", f"{i * 104729} eins") for i in range(5000)])
    )
    if name.endswith("parquet"):
        pd.DataFrame(PAIRS * 99, columns=["en", "de"]).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(Unreadable, match=r"is cut or damaged .*: make it or fetch it again") as caught:
        own(tmp_path, sft_pairs=10**6).sft("de")
    assert "log in" not in str(caught.value)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("value", [3, ["a"], None, {"de": "x"}])
def test_text_that_is_no_string_is_one_sentence(tmp_path, form, value):
    for kind, stem, good, bad in (
        ("monolingual", "de", [{"text": "gut"}], {"text": value}),
        ("sft", "de-en", [{"en": "a", "de": "b"}], {"en": "a", "de": value}),
    ):
        for rows, why in (
            ([bad], "first row: no such columns; it needs .*strings"),
            ([*good, bad], "is no readable row"),
        ):
            path = packed(tmp_path / kind / f"{stem}.{form}", jsonl(rows))
            if form == "parquet":
                if len(rows) == 2 and not isinstance(value, type(None)):
                    continue  # a Parquet column has one type
                pd.DataFrame(rows).to_parquet(path)
            with pytest.raises(ValueError, match=why):
                list(getattr(own(tmp_path), kind)("de"))


def test_own_text_needs_a_folder():
    with pytest.raises(FileNotFoundError, match="--set corpus_path=FOLDER"):
        OwnCorpus(load_profile("full")).sft("de")
