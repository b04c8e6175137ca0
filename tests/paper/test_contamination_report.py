"""The audit finds blocks and leaks in files made here, and the leaks that the real texts have of their own."""

from __future__ import annotations

import json
import random
import unicodedata

import pytest

from xalma.cli.main import main
from xalma.corpora.test_sets import load
from xalma.files import write_atomically
from xalma.paper import contamination_report
from xalma.paper.contamination_report import Text, alma_texts, leaks, shared_blocks
from xalma.runtime import data_root
from xalma.text_files import read_lines

WORDS = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(400)]


def sentences(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=9)) for _ in range(n)]


def text(other: str, english: list[str]) -> Text:
    return Text(f"mine/{other}-en", {other: [f"{other} {line[::-1]}" for line in english], "en": english})


def test_leaks_are_counted_by_set_and_by_the_direction_they_came_through():
    test = sentences(50, 1)
    sides = {"wmt22|en-is|en": test, "wmt22|en-is|is": sentences(50, 2), "wmt23|de-en|en": sentences(20, 3)}
    leaky = text("de", [*sentences(30, 4), *test[:10], *(line.upper() for line in test[10:15])])
    same_pair = text("is", [*test[:5], *sentences(5, 5)])
    table = leaks([leaky, same_pair, text("cs", sentences(40, 6))], sides)
    assert table.to_dict("records") == [
        {
            "training text": "mine/de-en",
            "language": "en",
            "lines": 45,
            "test set": "wmt22",
            "found": 15,
            "exact": 10,
            "contained": 0,
            "near": 0,
            "other direction": 15,
            "side": "en-is, en",
            "sentences": 50,
            "covered": 15,
        },
        {
            "training text": "mine/is-en",
            "language": "en",
            "lines": 10,
            "test set": "wmt22",
            "found": 5,
            "exact": 5,
            "contained": 0,
            "near": 0,
            "other direction": 0,
            "side": "en-is, en",
            "sentences": 50,
            "covered": 5,
        },
    ]


def test_a_line_counts_once_by_its_plainest_match_and_near_ones_apart():
    test = [" ".join(pair) for pair in zip(sentences(4, 1), sentences(4, 3), strict=True)]
    words = test[2].split()
    words[9] = "other"
    lines = [test[0], f"1. {test[1]}", f"{test[0]} {test[1]}", " ".join(words), *sentences(9, 2)]
    (row,) = leaks([Text("mine", {"en": lines})], {"wmt22|en-is|en": test}).to_dict("records")
    assert [row[name] for name in ("found", "exact", "contained", "near", "covered")] == [3, 1, 2, 1, 2]


def test_a_set_used_as_training_text_is_no_leak_of_itself():
    lines = sentences(20, 1)
    assert leaks([Text("ntrex", {"en": lines})], {"ntrex|en-de de-en|en": lines}).empty


def test_a_block_that_several_files_share_is_told_by_its_size():
    block = sentences(2009, 1)
    texts = [text(code, [*sentences(100 * i, i + 2), *block]) for i, code in enumerate(("cs", "de", "is"))]
    texts.append(text("ru", sentences(300, 9)))
    (row,) = shared_blocks(texts).to_dict("records")
    assert row == {
        "files": "mine/cs-en, mine/de-en, mine/is-en",
        "shared English lines": 2009,
        "in one block": 2009,
        "at the end": True,
        "by its size": "FLORES-200 dev and devtest",
    }
    scattered = [text(code, random.Random(code).sample(block, 2009)) for code in ("cs", "de")]
    (row,) = shared_blocks(scattered).to_dict("records")
    assert (row["in one block"], row["by its size"]) == (0, "")  # as many, but in another order


def test_the_command_writes_counts_and_no_text(tmp_path, monkeypatch, capsys):
    english = sentences(1997, 1)
    for code in ("en", "de"):
        write_atomically(tmp_path / "data" / "ntrex" / f"{code}.txt", "\n".join(english) + "\n")
    for part in ("train", "valid"):
        for code in ("de", "en"):
            lines = english[:7] if part == "train" else sentences(5, 3)
            write_atomically(
                tmp_path / "data" / "alma-human" / "de-en" / f"{part}.{code}.txt", "\n".join(lines) + "\n"
            )
    monkeypatch.setattr(contamination_report, "directions_of", lambda name: ["en-de"])
    monkeypatch.setattr(contamination_report, "home", lambda: tmp_path)
    monkeypatch.setenv("XALMA_DATA", str(tmp_path / "data"))
    assert main(["contamination"]) == 0
    assert "7" in capsys.readouterr().out
    report = json.loads((tmp_path / "results" / "contamination.json").read_text())
    assert [row["found"] for row in report["leaks"]] == [7, 7]
    assert report["provenance"]["commit"]
    written = "".join(path.read_text() for path in (tmp_path / "results").iterdir())
    assert not any(line in written for line in english[:20])
    monkeypatch.setenv("XALMA_DATA", str(tmp_path / "results"))
    assert main(["contamination"]) == 2
    assert "no training text under" in capsys.readouterr().err


# --- the real texts ---------------------------------------------------------------------------------


def slow_key(line: str) -> str:
    """Letters and digits, small and without accents, one character at a time."""
    plain = unicodedata.normalize("NFKD", line.casefold())
    return "".join(char for char in plain if unicodedata.category(char)[0] not in "PZSCM").casefold()


@pytest.fixture(scope="module")
def alma() -> list[Text]:
    root = data_root()
    if root is None or not (root / "alma-human").is_dir():
        pytest.skip("XALMA_DATA points to no folder with alma-human/")
    return alma_texts(root)


@pytest.mark.data
def test_newstest2021_and_ntrex_are_found_in_almas_files(alma):
    """As many as the slow way finds: 905 of WMT'22 en-is's sources in each validation set, all of NTREX in training."""
    sides = {
        "wmt22|en-is|en": load("wmt22", "en-is").sources,
        "ntrex|en-de|en": load("ntrex", "en-de").sources,
    }
    table = leaks(alma, sides).set_index(["training text", "language", "test set"])
    slow = {
        name: {slow_key(line) for line in lines if len(slow_key(line)) >= 20} for name, lines in sides.items()
    }
    for name, (file, testset) in {
        "wmt22|en-is|en": ("cs-en valid", "wmt22"),
        "ntrex|en-de|en": ("de-en train", "ntrex"),
    }.items():
        folder, part = file.split()
        lines = read_lines(data_root() / "alma-human" / folder / f"{part}.en.txt")
        expected = sum(slow_key(line) in slow[name] for line in lines)
        row = table.loc[(f"alma-human/{file}", "en", testset)]
        assert row["found"] - row["contained"] == expected > 850
    valid = table.xs("wmt22", level="test set")
    assert (
        len(valid) == 4
        and (valid["other direction"] == valid["found"]).all()
        and (valid["contained"] > 40).all()
    )
    assert (table.xs("ntrex", level="test set")["covered"] == 1940).sum() == 4


@pytest.mark.data
def test_flores_is_found_in_almas_files_without_flores(alma):
    first = shared_blocks(alma).iloc[0]
    assert first["files"].count("train") == 5
    assert (first["in one block"], first["at the end"], first["by its size"]) == (
        2009,
        True,
        "FLORES-200 dev and devtest",
    )
