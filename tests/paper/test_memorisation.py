"""The probe for memorised test sets: who translates keeps its score where names are swapped, who recalls does not."""

from __future__ import annotations

import pytest

from xalma.cli.main import main
from xalma.corpora.test_sets import load
from xalma.files import write_atomically
from xalma.paper.memorisation import names_of, probe_table, swaps

NAMES = ["Miller", "Garcia", "Tanaka", "Novak", "Berlin"]
SOURCES = [
    f"Today we saw {name} in the Garden of {other}."
    for name, other in zip(NAMES, NAMES[1:] + NAMES[:1], strict=True)
]
SOURCES += ["It rains in the garden.", "NATO and Ann met."]
WORDS = {"Today": "Heute", "we": "wir", "saw": "sahen", "in": "in", "the": "dem", "Garden": "Garten", "of": "von",
         "It": "Es", "rains": "regnet", "garden": "Garten", "and": "und", "met": "trafen"}  # fmt: skip


def translated(line: str) -> str:
    return " ".join(WORDS.get(word.strip("."), word.strip(".")) for word in line.split()) + "."


@pytest.fixture
def folder(tmp_path):
    write_atomically(tmp_path / "set" / "en-de" / "src.txt", "\n".join(SOURCES) + "\n")
    write_atomically(tmp_path / "set" / "en-de" / "ref.txt", "\n".join(map(translated, SOURCES)) + "\n")
    return tmp_path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_names_stand_in_both_sides_and_never_in_small_letters(folder):
    found = names_of(load(str(folder / "set"), "en-de"))
    assert found[0] == ["Miller", "Garcia"] and found[-2:] == [[], []]  # no Garden, no short or capital words
    by = swaps(found)
    assert set(by) == set(by.values()) == set(NAMES) and all(a != b for a, b in by.items())
    assert by == swaps(found)
    with pytest.raises(ValueError, match="1 names stand in both sides"):
        swaps([["Miller"]])


def test_who_recalls_loses_and_writes_old_names(folder, capsys):
    probe = folder / "probe"
    assert run("probe", "--testset", folder / "set", "--direction", "en-de", "--out", probe) == 0
    assert "5 segments with names" in capsys.readouterr().out
    tests = {kind: load(str(probe / kind), "en-de") for kind in ("original", "swapped")}
    assert tests["original"].sources == SOURCES[:5]
    assert all(a != b for a, b in zip(tests["original"].sources, tests["swapped"].sources, strict=True))
    assert tests["swapped"].references == [*map(translated, tests["swapped"].sources)]
    for kind, test in tests.items():
        write_atomically(
            folder / "honest" / kind / "en-de.txt", "\n".join(map(translated, test.sources)) + "\n"
        )
        write_atomically(
            folder / "recalls" / kind / "en-de.txt", "\n".join(tests["original"].references) + "\n"
        )
    files = {
        name: tuple(folder / name / kind / "en-de.txt" for kind in tests) for name in ("honest", "recalls")
    }
    table = probe_table(probe, "en-de", files).set_index("system")
    assert table.loc["honest", "drop"] == 0 and table.loc["honest", "names, swapped %"] == 100
    assert table.loc["honest", "old names, swapped %"] == 0 == table.loc["recalls", "names, swapped %"]
    assert table.loc["recalls", "old names, swapped %"] == 100 and table.loc["recalls", "drop"] > 10
    both = [folder / "recalls" / kind for kind in tests]
    assert run("probe", "--testset", probe, "--direction", "en-de", "--outputs", *both) == 0
    assert "old names, swapped %" in capsys.readouterr().out


def test_one_of_two_forms_is_asked(folder, capsys):
    assert run("probe", "--testset", folder / "set", "--direction", "en-de") == 2
    assert "probe takes --out DIR" in capsys.readouterr().err
