"""Examples of README and the guides run as printed, each in a fresh process; their command lines are understood."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from pages import GUIDES, blocks
from test_arpo import tiny_model, tiny_rows, tiny_tokenizer
from test_bank import folder as modules  # noqa: F401

from xalma.cli import main, options
from xalma.profiles import load_profile
from xalma.runtime import REPOSITORY

EXAMPLES = [text for page in GUIDES for text in blocks(page, "python")]
TESTED = (
    "ARPOTrainer",
    "load_modules",
    "open_system",
    "add_language(",
)  # the last by tests/cli/test_new_language.py


def example(words: str) -> str:
    """The one Python example of the guides that has `words` in it."""
    (text,) = (text for text in EXAMPLES if words in text)
    return text


def run(code: str, folder: Path, *arguments: str) -> str:
    """What `code` prints, in a process of its own that stands in `folder` and sees no GPU."""
    (folder / "example.py").write_text(code, encoding="utf-8")
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(REPOSITORY),
        "WANDB_MODE": "disabled",
    }
    done = subprocess.run(
        [sys.executable, "example.py", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_example_is_run_by_a_test():
    assert sorted(map(example, TESTED)) == sorted(EXAMPLES)


@pytest.mark.slow
def test_arpo_as_printed(tmp_path):
    """For someone who wants nothing else of this package: a model folder and a file of rows, on any machine."""
    tiny_model().save_pretrained(tmp_path / "my-model")
    tiny_tokenizer().save_pretrained(tmp_path / "my-model")
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, tiny_rows(4))))
    printed = run(example("ARPOTrainer") + "\nprint(trainer.state.global_step, trainer.args.bf16)", tmp_path)
    assert printed.splitlines()[-1] == "3 False", "three epochs of one batch"


@pytest.mark.slow
def test_a_mixed_batch_as_printed(modules, tmp_path):  # noqa: F811
    """On a bank that lies where the hub's names point when they are read as folders."""
    for name in ("base", "group1", "group6"):
        hub_name = name.replace("group", "X-ALMA-13B-Group")
        shutil.copytree(modules / name, tmp_path / "haoranxu" / hub_name)
    printed = run(example("load_modules") + "\nprint(bank.groups)", tmp_path)
    assert printed.splitlines()[-1] == "(1, 6)"


@pytest.mark.slow
def test_systems_as_printed(tmp_path):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "de-en.txt").write_text("Good morning.\n")
    printed = run(example("open_system") + "\nprint(outputs)", tmp_path)
    assert printed.splitlines()[-1] == "['Good morning.']"


# In place of the command, and with no other one to be found: bash itself spells out variables, braces and loops.
PRINTS = "xalma() { printf '%s\\n' \"$@\" 'END OF COMMAND'; }\n"


def commands() -> list[list[str]]:
    """The words of every `xalma …` in the guides' shell blocks, as a shell passes them on."""
    found = []
    shell = (str(shutil.which("bash")), "-c")
    with tempfile.TemporaryDirectory() as empty:
        for block in (block for page in GUIDES for block in blocks(page, "sh")):
            script = PRINTS + re.sub(r"\S*/xalma(?= )", "xalma", block)
            done = subprocess.run(
                (*shell, script), env={"PATH": ""}, cwd=empty, capture_output=True, text=True
            )
            found += [part.split("\n")[:-1] for part in done.stdout.split("END OF COMMAND\n")[:-1]]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_are_understood(words):
    arguments = main._parser().parse_args(words)
    if "profile" in arguments:
        load_profile(arguments.profile, **options.overrides(getattr(arguments, "set", [])))
