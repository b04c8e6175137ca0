"""README's examples run as printed, each in a fresh process; its command lines and values are ones there are."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_arpo import tiny_model, tiny_rows, tiny_tokenizer
from test_bank import folder as modules  # noqa: F401

from xalma.cli import main
from xalma.profiles import load_profile
from xalma.runtime import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def example(words: str) -> str:
    """The one Python example of README that has `words` in it."""
    (found,) = (text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if words in text)
    return found


def run(code: str, folder: Path, *arguments: str) -> str:
    """What `code` prints, in a process of its own that stands in `folder` and sees no GPU."""
    (folder / "example.py").write_text(code, encoding="utf-8")
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY), "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "example.py", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_arpo_as_printed(tmp_path):
    """For someone who wants nothing else of this package: a model folder and a file of rows, on any machine."""
    tiny_model().save_pretrained(tmp_path / "my-model")
    tiny_tokenizer().save_pretrained(tmp_path / "my-model")
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, tiny_rows(4))))
    found = run(example("ARPOTrainer") + "\nprint(trainer.state.global_step, trainer.args.bf16)", tmp_path)
    assert found.splitlines()[-1] == "3 False", "three epochs of one batch"


@pytest.mark.slow
def test_a_mixed_batch_as_printed(modules, tmp_path):  # noqa: F811
    """On a bank that lies where the hub's names point when they are read as folders."""
    for name in ("base", "group1", "group6"):
        hub_name = name.replace("group", "X-ALMA-13B-Group")
        shutil.copytree(modules / name, tmp_path / "haoranxu" / hub_name)
    found = run(example("load_modules") + "\nprint(bank.groups)", tmp_path)
    assert found.splitlines()[-1] == "(1, 6)"


def commands() -> list[list[str]]:
    """The words of every `xalma …` line in README's shell blocks, braces spelled out as a shell does."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    lines = [line for line in blocks.splitlines() if re.search(r"\bxalma ", line) and not line.startswith(("git", "#"))]
    found = [shlex.split(line, comments=True) for line in lines]
    found = [words[[w.endswith("xalma") for w in words].index(True) + 1 :] for words in found]
    return [[w for word in words for w in _braces(word)] for words in found]


def _braces(word: str) -> list[str]:
    match = re.search(r"\{(\d)\.\.(\d)\}", word)
    numbers = range(int(match[1]), int(match[2]) + 1) if match else []
    return [word.replace(match[0], str(n)) for n in numbers] if match else [word]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_are_understood(words):
    arguments = main._parser().parse_args(words)
    if "profile" in arguments:
        load_profile(arguments.profile, **main._overrides(getattr(arguments, "set", [])))
