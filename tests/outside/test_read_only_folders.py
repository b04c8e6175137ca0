"""`xalma convert`, `export`, `trim` and `prepare` into a folder that can't be written, as a user whom permissions stop:
one sentence with the option that chooses another folder, before the work, and nothing left behind.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
from shell import Done
from test_arpo import tiny_model, tiny_tokenizer

from xalma.cli import main as cli
from xalma.files import new_directory

VERSION_3 = 0x20080522  # of capset's header (linux/capability.h)


def as_a_user(folder: Path, *arguments: object) -> Done:
    """A command in a fork that has no capabilities: root's rights end at the permissions, as everybody's do."""
    out, err = folder / "out", folder / "err"
    if (pid := os.fork()) == 0:
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        header, none = (ctypes.c_uint32 * 2)(VERSION_3, 0), (ctypes.c_uint32 * 6)()
        ended = 70
        if ctypes.CDLL(None, use_errno=True).capset(header, none) == 0:
            import sys

            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            try:
                ended = cli.main([str(argument) for argument in arguments])
            except BaseException:
                sys.excepthook(*sys.exc_info())
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(ended)
    _, status = os.waitpid(pid, 0)
    return Done(os.waitstatus_to_exitcode(status), out.read_text(), err.read_text())


@pytest.fixture
def closed(tmp_path):
    """A folder without the right to write."""
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def commands(base: Path, micro, finished, out: Path) -> dict[str, tuple[object, ...]]:
    values = [
        part for key in ("run_dir", "results_dir") for part in ("--set", f"{key}={getattr(micro, key)}")
    ]
    text = base / "config.json"
    return {
        "convert": ("convert", "--from", finished[5], "--groups", 6, "--to", out),
        "export": ("export", "--group", 6, "--to", out, *values),
        "trim": ("trim", "--from", base, "--texts", text, "--to", out),
        "prepare": (
            "prepare",
            "--profile",
            "tiny",
            "--set",
            f"base={base}",
            "--tokens",
            1e3,
            "--languages",
            "fi",
            "--processes",
            1,
            "--to",
            out,
            *values,
        ),
    }


@pytest.mark.parametrize("deep", [False, True], ids=["beside", "below"])
@pytest.mark.parametrize("name", ["convert", "export", "trim", "prepare"])
def test_the_sentence_names_folder_and_option(tmp_path, closed, base, micro, finished, name, deep):
    out = closed / "a" / "b" if deep else closed / "out"
    done = as_a_user(tmp_path, *commands(base, micro, finished, out)[name])
    told = [line for line in done.err.splitlines() if line.startswith("xalma: ")]
    assert done.code == 2 and len(told) == 1 and "Traceback" not in done.err, done
    assert "can't write in" in told[0] and str(closed) in told[0] and "(Permission denied)" in told[0]
    assert told[0].endswith("choose a folder you may write, with --to DIR"), told
    assert list(closed.iterdir()) == []


def test_what_fails_half_way_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), new_directory(tmp_path / "new") as folder:
        (folder / "weights").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
