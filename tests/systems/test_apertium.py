"""Apertium: segments keep their places, whatever the program does with blanks; the real one where it is installed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from xalma.systems import apertium
from xalma.systems.registry import open_system

STUB = """#!/usr/bin/env python3
import sys
text, mode = sys.stdin.read(), sys.argv[2]
if mode == "spa-eng":
    print("Error: Mode spa-eng does not exist")
    sys.exit(1)
if mode == "eng-cat":
    text = text.replace("\\n\\n", "\\n")
sys.stdout.write("".join(f" {line.upper()}\\n" for line in text.split("\\n")[:-1]))
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A program that answers in capitals, with a blank before each line; it lacks spa-eng, and eng-cat loses lines."""
    program = tmp_path / "apertium"
    program.write_text(STUB)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_segments_keep_their_places(stub):
    texts = ["One  house.", "", "two", "  ", "Three\u2028dogs"]
    outputs = open_system("apertium").translate(texts, "en", "es", progress=False)
    assert [line.strip() for line in outputs] == ["ONE HOUSE.", "", "TWO", "", "THREE DOGS"]
    assert open_system("apertium").translate([], "en", "es") == []


@pytest.mark.parametrize(
    ("src", "tgt", "said"),
    [
        ("es", "en", "apertium spa-eng gave .* of 2 segments, status 1: Error: Mode"),
        ("en", "ca", "gave 1 of 2 segments"),
    ],
)
def test_what_the_program_lacks_or_loses_is_said(stub, src, tgt, said):
    with pytest.raises(RuntimeError, match=said):
        open_system("apertium").translate(["a", "b"], src, tgt)


def test_other_directions_and_no_program(stub, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="apertium does not support en-de: it has en-es es-en"):
        open_system("apertium").translate(["a"], "en", "de")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="apt-get install apertium"):
        open_system("apertium")


@pytest.mark.skipif(
    not (shutil.which("apertium") and Path("/usr/share/apertium/modes/eng-spa.mode").is_file()),
    reason="needs Debian's apertium and apertium-eng-spa",
)
def test_the_real_one_translates():
    texts = ["The house is small.", "I see a dog", "", "The house is small."]
    found = apertium.Apertium(open_system("apertium").row).translate(texts, "en", "es", progress=False)
    assert found == ["La casa es pequeña.", "Veo un perro", "", "La casa es pequeña."]
