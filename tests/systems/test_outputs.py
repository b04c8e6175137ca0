"""Outputs of a whole test set: one line a segment, resumable, never two systems in one folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xalma.cli import main as cli
from xalma.systems.outputs import output_settings, single_lines, write_outputs
from xalma.systems.registry import open_system, supports
from xalma.systems.table import SYSTEMS

SOURCES = {"en-de": ["One.", "Two."], "de-en": ["Eins.", "Zwei.", "Drei."], "en-is": ["One."]}


class Fake:
    """Answers with the direction and the text, and counts what it was asked."""

    row = SYSTEMS["alma-7b"]

    def __init__(self, fails_at: str = "") -> None:
        self.asked, self.fails_at = [], fails_at

    def translate(self, texts, src, tgt, *, progress=True):
        self.asked.append(f"{src}-{tgt}")
        if self.asked[-1] == self.fails_at:
            raise KeyboardInterrupt
        return [f"{src}\n {tgt}: {text}" for text in texts]


def write(out: Path, fake: Fake, directions=tuple(SOURCES), given=None):
    return write_outputs(
        lambda: fake,
        output_settings(fake.row, given or {}),
        SOURCES.__getitem__,
        directions,
        out,
        fake.row.supports,
    )


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("a", "a"),
        ("a\nb", "a b"),
        ("a \r\n\n b", "a b"),
        ("a\rb", "a b"),
        ("\n", ""),
        ("a\u2028b", "a\u2028b"),
    ],
)
def test_line_breaks_become_one_blank(output, line):
    assert single_lines([output]) == ([line], int(output != line))


def test_one_line_a_segment_and_counts(tmp_path):
    records = write(tmp_path, Fake())
    assert (tmp_path / "de-en.txt").read_text() == "de en: Eins.\nde en: Zwei.\nde en: Drei.\n"
    assert records["de-en"]["line_breaks_replaced"] == records["de-en"]["segments"] == 3
    run = json.loads((tmp_path / "run.json").read_text())
    assert (
        run["settings"]["system"]["name"] == "alma-7b" and {"commit", "versions"} <= run["provenance"].keys()
    )


def test_a_stopped_run_goes_on_with_what_is_missing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Fake(fails_at="de-en"))
    assert [file.name for file in sorted(tmp_path.glob("*.txt"))] == ["en-de.txt"]
    second = Fake()
    write(tmp_path, second)
    assert second.asked == ["de-en", "en-is"]
    third = Fake()
    write(tmp_path, third)
    assert third.asked == []


@pytest.mark.parametrize("change", ["gone", "edited", "other sources"])
def test_what_changed_is_made_again(tmp_path, change, monkeypatch):
    write(tmp_path, Fake())
    if change == "gone":
        (tmp_path / "en-de.txt").unlink()
    elif change == "edited":
        (tmp_path / "en-de.txt").write_text("One.\n")
    else:
        monkeypatch.setitem(SOURCES, "en-de", ["One.", "Three."])
    again = Fake()
    write(tmp_path, again)
    assert again.asked == ["en-de"]


def test_a_folder_holds_one_system_with_one_setting(tmp_path):
    write(tmp_path, Fake())
    with pytest.raises(ValueError, match="was begun with alma-7b or other settings"):
        write(tmp_path, Fake(), given={"dtype": "float16"})


def test_directions_that_are_not_supported_are_said_so(tmp_path):
    fake = Fake()
    records = write(tmp_path, fake, ["en-fr", "en-de"])
    assert records["en-fr"] == {"status": "not supported"} and fake.asked == ["en-de"]
    assert not (tmp_path / "en-fr.txt").exists()


@pytest.fixture
def testset(tmp_path) -> Path:
    folder = tmp_path / "set"
    for direction, lines in SOURCES.items():
        (folder / direction).mkdir(parents=True)
        for side in ("src", "ref"):
            (folder / direction / f"{side}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.fixture
def released(tmp_path) -> Path:
    folder = tmp_path / "released"
    folder.mkdir()
    (folder / "en-de.txt").write_text("Eins.\nZwei.\n")
    (folder / "de-en.txt").write_text("One.\nTwo.\n")  # one is missing
    return folder


def test_existing_files_are_a_system(released):
    system = open_system("files", path=str(released))
    assert system.translate(["a", "b"], "en", "de") == ["Eins.", "Zwei."]
    assert supports(system, "en-de") and not supports(system, "en-is")
    pattern = open_system("files", path=str(released / "{direction}.txt"))
    assert pattern.translate(["a", "b"], "de", "en") == ["One.", "Two."]
    with pytest.raises(ValueError, match="has 2 lines for 3 segments"):
        system.translate(["a", "b", "c"], "de", "en")
    with pytest.raises(ValueError, match="existing files need their place"):
        open_system("files")


def test_outputs_from_the_shell(testset, released, tmp_path, capsys):
    argv = [
        "outputs",
        "--system",
        "files",
        "--path",
        released,
        "--testset",
        testset,
        "--out",
        tmp_path / "out",
    ]
    assert cli.main([str(word) for word in argv]) == 2
    assert "de-en.txt has 2 lines for 3 segments" in capsys.readouterr().err
    (released / "de-en.txt").write_text("One.\nTwo.\n\n")
    assert cli.main([str(word) for word in argv]) == 0
    out = capsys.readouterr().out
    assert "en-is  not supported" in out and "de-en  done, 3 segments, 1 empty, 0 line breaks replaced" in out
    assert (tmp_path / "out" / "en-de.txt").read_text() == "Eins.\nZwei.\n"


def test_translate_with_a_system_from_the_shell(testset, released, capsys):
    argv = [
        "translate",
        "--system",
        "files",
        "--path",
        released,
        "--from",
        "en",
        "--to",
        "de",
        testset / "en-de/src.txt",
    ]
    assert cli.main([str(word) for word in argv]) == 0
    assert capsys.readouterr().out == "Eins.\nZwei.\n"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("--system gpt-9 --from en --to de", "unknown system 'gpt-9'"),
        ("--system alma-7b --from en --to fr", "does not support en-fr"),
        ("--system llama-2-7b-5shot --from en --to de --shots {t}", "no shots.<src>-<tgt>.json"),
        ("--system tim-llama-7b --from en --to ru", "give path=FOLDER"),
    ],
)
def test_bad_systems_are_one_sentence(testset, capsys, line, why):
    words = ["translate", *line.format(t=testset).split(), str(testset / "en-de" / "src.txt")]
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert why in err and err.count("\n") == 1


def test_shots_as_alma_files_them(tmp_path):
    from xalma.cli.systems import read_shots

    (tmp_path / "shots.en-de.json").write_text('[{"source": "One.", "target": "Eins."}]')
    assert read_shots(tmp_path) == {"en-de": [("One.", "Eins.")]}
    (tmp_path / "shots.de-en.json").write_text('[{"src": "One."}]')
    with pytest.raises(ValueError, match=r"shots\.de-en\.json .*: write a list of"):
        read_shots(tmp_path)


def test_systems_are_listed(capsys):
    assert cli.main(["systems"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name} " in out for name in SYSTEMS)
    apertium = out.partition("\napertium ")[2]
    assert "beam" not in apertium and "NLLB" not in apertium and "prompt none: no prompt" in apertium
    translategemma = out.partition("\ntranslategemma ")[2].partition("\nlmt-60")[0]
    assert "training pairs chosen by: metricx24-qe+automqm+chrf" in translategemma
    assert "could not be read" in translategemma and out.rstrip().endswith("none was read of.")


def test_seconds_add_up_over_starts(tmp_path, monkeypatch):
    """Two starts that were stopped and one that ended, of one second each by the clock they read."""
    clock = iter(range(100))
    monkeypatch.setattr("xalma.systems.outputs.time.perf_counter", lambda: next(clock))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, Fake(fails_at="en-de"), ["en-de"])
    assert json.loads((tmp_path / "run.json").read_text())["directions"]["en-de"] == {
        "status": "stopped",
        "seconds": 2,
    }
    assert write(tmp_path, Fake(), ["en-de"])["en-de"]["seconds"] == 3
    (tmp_path / "en-de.txt").unlink()
    assert write(tmp_path, Fake(), ["en-de"])["en-de"]["seconds"] == 1, "what is made anew does not go on"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"settings": {"system": {"name": "a"}}, "directions": [1]}']
)
def test_a_record_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json .*: remove it, or choose another folder"):
        write(tmp_path, Fake())
