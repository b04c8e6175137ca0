"""Stage folders that mean harm: code in pickles, links out of the folder, mixed-up bases, chains that never end.

Held: one sentence that names the file, and no code of theirs ran.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chain import GROUP, copied, folder_of, options
from safetensors.torch import load_file, save_file
from shell import Shell

TITLE = "Hostile stage folders"
COUNT = 0  # all cases, once


class Planted:
    """Unpickled, it makes the folder `sign`."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.sign),)


def refiled(folder: Path, **changes: Any) -> None:
    """run.json with other values and good hashes, as one who means it would write it."""
    from xalma.files import file_hash
    from xalma.runs import _own_hash

    run = json.loads((folder / "run.json").read_text(encoding="utf-8")) | changes
    run["sha256"] = {name: file_hash(folder / name) for name in run["sha256"] if (folder / name).exists()}
    run["run_sha256"] = _own_hash(run)
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")


def pickled_module(runs: Path, sign: Path) -> tuple[Path, str]:
    """adapter_model.bin in place of the safetensors."""
    folder = folder_of(runs, 5)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Planted(sign)))
    refiled(folder, sha256={path.name: "" for path in folder.iterdir() if path.name != "run.json"})
    return folder, "adapter_model."  # the pickle that is there, or the file that is not


def pickle_beside(runs: Path, sign: Path) -> tuple[Path, str]:
    """A pickle more than the stage was left with."""
    path = folder_of(runs, 1) / "pytorch_model.bin"
    path.write_bytes(pickle.dumps(Planted(sign)))
    return folder_of(runs, 5), path.name


def code_of_its_own(runs: Path, sign: Path) -> tuple[Path, str]:
    """config.json with `auto_map`, and the code beside it."""
    folder = folder_of(runs, 1)
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(sign)!r})\n", encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder_of(runs, 5), ""


def link_outside(runs: Path, sign: Path) -> tuple[Path, str]:
    """The tokenizer is a link to a file outside."""
    path = folder_of(runs, 1) / "tokenizer.json"
    shutil.move(path, runs / "outside.json")
    data = (runs / "outside.json").read_bytes()
    (runs / "outside.json").write_bytes(data.replace(b"the", b"eht", 1))
    path.symlink_to(runs / "outside.json")
    return folder_of(runs, 5), path.name


def other_base(runs: Path, sign: Path) -> tuple[Path, str]:
    """run.json, well hashed, leads to another base."""
    refiled(folder_of(runs, 5), base="../../stage0_backbone/base")
    return folder_of(runs, 5), "another base"


def base_made_again(runs: Path, sign: Path) -> tuple[Path, str]:
    """The base was trained anew under a module of the old one."""
    path = folder_of(runs, 1) / "model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    refiled(folder_of(runs, 1))
    return folder_of(runs, 5), "another base"


def circle(runs: Path, sign: Path) -> tuple[Path, str]:
    """`previous` leads back to the stage itself; export walks along it."""
    refiled(folder_of(runs, 3), previous="../../stage5_arpo/group6")
    return folder_of(runs, 5), "lead back"


def deep_number(runs: Path, sign: Path) -> tuple[Path, str]:
    """A module of well hashed files that lacks a tensor."""
    path = folder_of(runs, 5) / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path, {"format": "pt"})
    refiled(folder_of(runs, 5))
    return folder_of(runs, 5), "lacks the tensor"


CASES: tuple[Callable[[Path, Path], tuple[Path, str]], ...] = (
    pickled_module, pickle_beside, code_of_its_own, link_outside, other_base, base_made_again, circle, deep_number
)  # fmt: skip


def run(work: Path, runs: Path, n: int, seed: int) -> dict[str, Any]:
    """Every case, on a fresh copy of the stages in `runs`."""
    failed = []
    with Shell(work) as shell:
        for case in CASES:
            harmed, sign = copied(runs, work / "hostile"), work / "ran"
            folder, expected = case(harmed, sign)
            command = ("translate", "--from", "en", "--to", "fi", "--model", folder, *options(harmed))
            if case is circle:
                command = ("export", "--group", GROUP, "--to", work / "exported", *options(harmed))
            done = shell.run(*command, stdin="one sentence\n")
            done.out = done.out if case is not circle else ""  # it says first what it is about to do
            if sign.exists() or not done.one_sentence(expected):
                failed.append(f"{case.__name__}: code ran: {sign.exists()}; {done}"[:600])
                shutil.rmtree(sign, ignore_errors=True)
    shutil.rmtree(work / "hostile", ignore_errors=True)
    return {"tried": len(CASES), "held": len(CASES) - len(failed), "failed": failed}
