"""Values that are no counts, and corpora without an end, on the command line: one sentence, before anything is made."""

from __future__ import annotations

import pytest

from xalma.cli.main import main

PREPARE = ("prepare", "--profile", "tiny", "--languages", "fi")


@pytest.mark.parametrize("value", ["inf", "nan", "-3", "0", "0.5", "-inf"])
@pytest.mark.parametrize("option", ["--tokens", "--processes"])
def test_counts_of_prepare(tmp_path, capsys, option, value):
    others = () if option == "--tokens" else ("--tokens", "1000")
    if option == "--processes" and value not in ("-3", "0"):
        pytest.skip("argparse takes whole numbers only")
    assert main([*PREPARE, *others, f"{option}={value}", "--to", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert (
        said.out == ""
        and said.err == f"xalma: {option} {float(value):g} is no count: give a number from 1 on\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_phrasebook_has_no_end(tmp_path, capsys):
    """Without --tokens it would be written for ever."""
    base = ("--set", f"run_dir={tmp_path / 'runs'}")
    assert main([*PREPARE, *base, "--to", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("xalma: ") and err.count("\n") == 1 and "--tokens" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("row", ['{"text": 7}', '{"text": ["a"]}', '{"text": null}', "[1]", "7"])
def test_a_text_that_is_no_string(tmp_path, capsys, row):
    (tmp_path / "own" / "monolingual").mkdir(parents=True)
    (tmp_path / "own" / "monolingual" / "fi.jsonl").write_text(f"{row}\n", encoding="utf-8")
    values = ("--set", "corpus=own", "--set", f"corpus_path={tmp_path / 'own'}", "--set", "base=tiny-base")
    assert (
        main([*PREPARE, *values, "--tokens", "1000", "--processes", "1", "--to", str(tmp_path / "out")]) == 2
    )
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("xalma: ")]
    assert len(err) == 1 and "fi.jsonl" in err[0] and "strings in them" in err[0]
    assert not list((tmp_path / "out").glob("*/fi"))
