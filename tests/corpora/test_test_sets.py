"""Each source of a test set in the layout it really has, counted, and told in one sentence where it can't be had."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from xalma.corpora import test_sets
from xalma.corpora.test_sets import directions_of, load
from xalma.files import write_atomically


def write(path: Path, lines: list[str]) -> None:
    write_atomically(path, "\n".join(lines) + "\n")


def numbered(n: int, word: str) -> list[str]:
    return [f"{word} {i}" for i in range(n)]


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """XALMA_DATA with an NTREX and one WMT direction."""
    for code in ("en", "de", "fi"):
        write(tmp_path / "ntrex" / f"{code}.txt", numbered(1997, code))
    for side in ("src", "ref"):
        write(tmp_path / "wmt" / "wmt22" / "en-is" / f"{side}.txt", numbered(1000, side))
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    return tmp_path


def test_from_data(data):
    ntrex = load("ntrex", "fi-en")
    assert (ntrex.sources[3], ntrex.references[3], len(ntrex.sources)) == ("fi 3", "en 3", 1997)
    assert ntrex.signature == "ntrex|fi-en|n:1997|from:XALMA_DATA ntrex/|unicode:as is"
    wmt = load("wmt22", "en-is")
    assert (wmt.sources[0], wmt.references[-1]) == ("src 0", "ref 999")
    assert directions_of("wmt22") == ["en-is"]
    assert len(directions_of("ntrex")) == 98


def test_flores_from_its_own_files(data):
    with pytest.raises(FileNotFoundError, match="FLORES-200 is not here: set XALMA_DATA"):
        load("flores200", "en-fi")
    for code in ("eng_Latn", "fin_Latn"):
        write(data / "flores200" / "devtest" / f"{code}.devtest", numbered(1012, code))
    assert load("flores200", "en-fi").references[1] == "fin_Latn 1"
    assert len(directions_of("flores200")) == 98


def test_line_counts_are_checked(data):
    write(data / "ntrex" / "de.txt", numbered(1996, "de"))
    write(data / "ntrex" / "fi.txt", numbered(1996, "fi"))
    with pytest.raises(ValueError, match=r"line counts differ: .*en.txt has 1997, .*de.txt has 1996"):
        load("ntrex", "en-de")
    with pytest.raises(
        ValueError, match=r"ntrex de-fi from XALMA_DATA ntrex/ has 1996 lines and should have 1997"
    ):
        load("ntrex", "de-fi")


def test_a_folder_of_ones_own(tmp_path):
    for side in ("src", "ref"):
        write(tmp_path / "mine" / "en-de" / f"{side}.txt", ["ä", "ﬁ", "e\u0301"])
    found = load(str(tmp_path / "mine"), "en-de")
    assert found.references == ["ä", "ﬁ", "e\u0301"] and found.signature.endswith("|unicode:as is")
    assert directions_of(str(tmp_path / "mine")) == ["en-de"]
    with pytest.raises(FileNotFoundError, match=r"no de-en in .*mine: it has en-de"):
        load(str(tmp_path / "mine"), "de-en")
    with pytest.raises(FileNotFoundError, match="no test set wmt33: name one of flores200, wmt15"):
        load("wmt33", "en-de")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ntrex", "en-de", "cloud"), "unknown origin 'cloud' of ntrex: choose data, sacrebleu, hub"),
        (("ntrex", "en-xx"), "unknown language code 'xx'"),
        (("ntrex", "en-de", "sacrebleu"), r"sacreBLEU has no ntrex en-de: it has WMT'15"),
        (("wmt22", "en-is", "sacrebleu"), r"sacreBLEU has no wmt22 en-is: it has cs-en, de-en"),
        (("wmt20", "en-de", "hub"), "no hub id is known for wmt20: take origin sacrebleu"),
    ],
)
def test_what_there_is_not(arguments, message):
    with pytest.raises(ValueError, match=message):
        load(*arguments)


def test_without_xalma_data(monkeypatch):
    monkeypatch.delenv("XALMA_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="wmt22 is not here: set XALMA_DATA"):
        load("wmt22", "en-de")


# --- sacreBLEU's own data sets, in a folder of ours ------------------------------------------------

XML = """<?xml version='1.0' encoding='utf-8'?>
<dataset id="t"><doc origlang="en" id="a"><src lang="en"><p><seg id="1">One</seg><seg id="2">Two</seg></p></src>
<ref lang="de" translator="A"><p><seg id="1">Eins</seg><seg id="2">Zwei</seg></p></ref>
<ref lang="de" translator="B"><p><seg id="1">EINS</seg><seg id="2">ZWEI</seg></p></ref></doc></dataset>
"""


@pytest.fixture
def sacrebleu_folder(tmp_path, monkeypatch) -> Path:
    from sacrebleu.dataset import DATASETS

    for name in ("wmt19", "wmt23"):
        monkeypatch.setattr(DATASETS[name], "_outdir", str(tmp_path / name))
        monkeypatch.setattr(DATASETS[name], "_rawdir", str(tmp_path / name / "raw"))
    return tmp_path


def test_from_sacrebleu(sacrebleu_folder):
    from sacrebleu.dataset import DATASETS

    for field in ("src", "ref", "docid", "genre", "origlang"):
        write(sacrebleu_folder / "wmt19" / f"wmt19.en-de.{field}", [f"{field} 1", f"{field} 2"])
    old = load("wmt19", "en-de", "sacrebleu")
    assert (old.sources, old.references) == (["src 1", "src 2"], ["ref 1", "ref 2"])
    assert old.signature == "wmt19|en-de|n:2|from:sacrebleu wmt19|unicode:as is"
    raw = sacrebleu_folder / "wmt23" / "raw"  # WMT'21 on is XML, several references in a file
    write_atomically(raw / DATASETS["wmt23"].langpairs["en-de"][0], XML.replace('"A"', '"refA"'))
    write_atomically(
        raw / f"wmt23.{os.path.basename(DATASETS['wmt23'].data[0])}", "the archive, unpacked beside"
    )
    with pytest.raises(ValueError, match="wmt23 en-de from sacrebleu wmt23 has 2 lines and should have 557"):
        load("wmt23", "en-de", "sacrebleu")
    assert (sacrebleu_folder / "wmt23" / "wmt23.en-de.ref-refA").read_text() == "Eins\nZwei\n"
    assert "he-en" in directions_of("wmt23", "sacrebleu") and "cs-uk" not in directions_of(
        "wmt23", "sacrebleu"
    )


def test_sacrebleu_without_its_files_is_one_sentence(sacrebleu_folder, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(
        RuntimeError, match=r"sacreBLEU can't give wmt19 en-de \(OSError: no network\): put its files"
    ):
        load("wmt19", "en-de", "sacrebleu")


# --- the hub, on files in its datasets' layout ------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """Parquet files in folders named as the hub's configurations, read by the real load_dataset."""
    import datasets

    def put(path: str, config: str, rows: list[dict]) -> None:
        folder = tmp_path / path.replace("/", "__") / config
        folder.mkdir(parents=True)
        datasets.Dataset.from_list(rows).to_parquet(folder / "test-00000-of-00001.parquet")

    real = datasets.load_dataset

    def local(path, name, split):
        folder = tmp_path / path.replace("/", "__") / name
        if not folder.is_dir():
            raise ConnectionError("offline")
        return real("parquet", data_dir=str(folder), split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", local)
    put("haoranxu/FLORES-200", "en-fi", [{"en-fi": {"en": f"e{i}", "fi": f"f{i}"}} for i in range(1012)])
    put("wmt/wmt18", "fi-en", [{"translation": {"en": f"e{i}", "fi": f"f{i}"}} for i in range(3)])
    put("davidstap/NTREX", "zho_Hans", [{"text": f"z{i}"} for i in range(1997)])
    put("davidstap/NTREX", "eng_Latn", [{"text": f"e{i}"} for i in range(1997)])
    return tmp_path


@pytest.mark.parametrize(
    ("name", "direction", "first"),
    [
        ("flores200", "en-fi", ("e0", "f0")),
        ("wmt18", "en-fi", ("e0", "f0")),
        ("wmt18", "fi-en", ("f0", "e0")),
        ("ntrex", "zh-en", ("z0", "e0")),
    ],
)
def test_from_the_hub(hub, name, direction, first):
    found = load(name, direction, "hub")
    assert (found.sources[0], found.references[0]) == first
    assert f"from:hub {test_sets._HUB[name]}|" in found.signature


def test_the_hub_out_of_reach_is_one_sentence(hub):
    with pytest.raises(
        RuntimeError, match=r"can't read haoranxu/WMT22-Test \(en-de, test\) from the hub: Connection"
    ):
        load("wmt22", "en-de", "hub")


# --- what is never scored, documents, second references ----------------------------------------------


@pytest.fixture
def later(tmp_path, monkeypatch) -> Path:
    """WMT'24 with its canary and documents beside the directions, WMT24++ with two bad sources."""
    for direction in ("en-de", "en-cs"):
        for side in ("src", "ref", "refB"):
            lines = [f"{test_sets.CANARY} 26b5", *numbered(997, f"{direction} {side}")]
            write(tmp_path / "wmt" / "wmt24" / direction / f"{side}.txt", lines)
    write(
        tmp_path / "wmt" / "wmt24" / "docs.txt",
        ["canary\tcanary", *(f"news\tdoc{i // 10}" for i in range(997))],
    )
    rows = [f"source {i}\tZiel {i}\tdoc{i // 10}\t{int(i in (1, 5))}" for i in range(961)]
    path = tmp_path / "wmt24pp" / "de.tsv.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress("\n".join([f"{test_sets.CANARY} 26b5\tX\tcanary\t1", *rows, ""]).encode()))
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    return tmp_path


def test_a_canary_is_never_scored(later):
    one = load("wmt24", "en-de")
    assert (len(one.sources), one.sources[0], one.references[0]) == (997, "en-de src 0", "en-de ref 0")
    assert (one.documents[0], one.documents[9:11]) == ("doc0", ["doc0", "doc1"])
    assert one.scored(["canary", *numbered(997, "out")]) == numbered(997, "out")
    assert one.scored(numbered(997, "out")) == numbered(997, "out")
    folder = load(str(later / "wmt" / "wmt24"), "en-de")  # nor by the folder's own name
    assert (folder.sources, folder.signature) == (one.sources, one.signature)


def test_a_second_reference_is_asked_for_by_name(later):
    one = load("wmt24", "en-de", reference="refB")
    assert one.references[0] == "en-de refB 0" and "|ref:refB|" in one.signature
    with pytest.raises(FileNotFoundError, match=r"no refC.txt in .*en-de: it has ref, refB"):
        load("wmt24", "en-de", reference="refC")
    with pytest.raises(ValueError, match="no reference refA of wmt24pp from data"):
        load("wmt24pp", "en-de", reference="refA")


def test_bad_sources_of_wmt24pp_are_left_out(later, monkeypatch):
    with pytest.raises(
        ValueError, match="wmt24pp en-de from XALMA_DATA wmt24pp/ has 959 lines and should have 960"
    ):
        load("wmt24pp", "en-de")
    monkeypatch.setattr(test_sets, "WMT24PP_LINES", 959)
    one = load("wmt24pp", "en-de")
    assert one.sources[:3] == ["source 0", "source 2", "source 3"] and one.references[-1] == "Ziel 960"
    assert one.documents[-1] == "doc96" and one.scored(numbered(962, "out"))[:2] == ["out 1", "out 3"]
    assert directions_of("wmt24pp") == ["en-de"]
    with pytest.raises(FileNotFoundError, match=r"no de-en in .*wmt24pp: it has en-de"):
        load("wmt24pp", "de-en")


def test_documents_of_ntrex_flores_and_folders(data):
    assert load("ntrex", "en-de").documents is None
    write(data / "ntrex" / "DOCUMENT_IDS.tsv", [f"doc{i // 100}" for i in range(1997)])
    assert load("ntrex", "en-de").documents[99:101] == ["doc0", "doc1"]
    for code in ("eng_Latn", "fin_Latn"):
        write(data / "flores200" / "devtest" / f"{code}.devtest", numbered(1012, code))
    write(
        data / "flores200" / "metadata_devtest.tsv",
        ["URL\tdomain", *(f"page{i // 3}\tnews" for i in range(1012))],
    )
    assert load("flores200", "fi-en").documents[2:4] == ["page0", "page1"]
    write(data / "wmt" / "wmt22" / "en-is" / "docs.txt", numbered(999, "doc"))
    with pytest.raises(
        ValueError, match=r"docs.txt has 999 lines, the segments are 1000: line n names the document"
    ):
        load("wmt22", "en-is")


def test_training_tables_are_no_test_set(data):
    write(data / "wmt" / "wmt15" / "de.tsv", ["en\t1\teins\tone"])
    with pytest.raises(
        FileNotFoundError, match="wmt15 has training pairs only, no test set: take origin sacrebleu"
    ):
        load("wmt15", "en-de")


@pytest.mark.data
def test_documents_and_second_references_at_hand():
    documents = {
        name: len(set(load(name, direction).documents))
        for name, direction in (
            ("ntrex", "en-de"),
            ("flores200", "en-de"),
            ("wmt23", "ru-en"),
            ("wmt24", "en-is"),
            ("wmt24pp", "en-is"),
        )
    }
    assert documents == {"ntrex": 123, "flores200": 281, "wmt23": 162, "wmt24": 170, "wmt24pp": 170}
    assert load("wmt23", "en-de").documents is None
    for direction in ("en-he", "he-en"):
        first, second = load("wmt23", direction), load("wmt23", direction, reference="refA")
        assert first.sources == second.sources and first.references != second.references
    pp, wmt24 = load("wmt24pp", "en-is"), load("wmt24", "en-is")
    assert len(directions_of("wmt24pp")) == 38 and len(pp.sources) == 960
    assert set(pp.references) <= set(wmt24.references)  # data README: Icelandic targets are WMT'24's
    assert not any("CANARY" in text for one in (pp, wmt24) for text in (*one.sources, *one.references))


@pytest.mark.data
@pytest.mark.parametrize(("name", "n"), [("wmt22", 10), ("wmt23", 12), ("wmt24", 9)])
def test_the_real_sets_have_the_lines_they_should(name, n):
    found = [load(name, direction) for direction in directions_of(name)]
    assert [len(one.sources) for one in found] == [test_sets.WMT_LINES[name][one.direction] for one in found]
    assert len(found) == n
