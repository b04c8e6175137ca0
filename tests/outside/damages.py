"""Damages to finished stages: a file flipped, cut, emptied, removed, or changed with sense; then translate, or train.

Held: one sentence that names the file (or the folder, where it is run.json), a status other than 0, nothing on stdout.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from chain import GROUP, copied, folder_of, options
from safetensors.torch import load_file, save_file
from shell import Shell

TITLE = "Damaged stages"
COUNT = 40


def flip(path: Path, draw: random.Random) -> None:
    """One bit of the file."""
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def cut(path: Path, draw: random.Random) -> None:
    """The file's end."""
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(1, len(data))])


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def gone(path: Path, draw: random.Random) -> None:
    path.unlink()


def other_kind(path: Path, draw: random.Random) -> None:
    """Good JSON that is no object, or not one of these."""
    path.write_text(
        draw.choice(["[]", "3", "null", "{}", '"' + "x" * 50 + '"', "[" * 5000]), encoding="utf-8"
    )


def other_number(path: Path, draw: random.Random) -> None:
    """Good JSON in which one number is another."""
    value = json.loads(path.read_text(encoding="utf-8"))
    spots = list(_numbers(value))
    holder, key = draw.choice(spots)
    holder[key] += 1
    path.write_text(json.dumps(value), encoding="utf-8")


def _numbers(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        if isinstance(inner, int | float) and not isinstance(inner, bool):
            yield value, key
        yield from _numbers(inner)


def no_tensor(path: Path, draw: random.Random) -> None:
    """A tensor less."""
    tensors = load_file(path)
    del tensors[draw.choice(sorted(tensors))]
    save_file(tensors, path, {"format": "pt"})


def renamed(path: Path, draw: random.Random) -> None:
    """All tensors under other names."""
    save_file({f"x.{name}": tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def no_number(path: Path, draw: random.Random) -> None:
    """A value that is not finite."""
    tensors = load_file(path)
    tensors[draw.choice(sorted(tensors))].view(-1)[0] = draw.choice([torch.nan, torch.inf])
    save_file(tensors, path, {"format": "pt"})


ANY = (flip, cut, empty, gone)
OF_JSON, OF_WEIGHTS = (other_kind, other_number), (no_tensor, renamed, no_number)


def kinds(path: Path) -> tuple[Callable[[Path, random.Random], None], ...]:
    more = {".json": OF_JSON, ".safetensors": OF_WEIGHTS}.get(path.suffix, ())
    return (
        *ANY,
        *(kind for kind in more if kind is not other_number or list(_numbers(json.loads(path.read_text())))),
    )


def run(work: Path, runs: Path, n: int, seed: int) -> dict[str, Any]:
    """n damages, drawn by `seed`, each to a fresh copy of the stages in `runs`."""
    draw, counts, failed = random.Random(seed), Counter(), []
    with Shell(work) as shell:
        for i in range(n):
            number = draw.choice([1, 4, 5])
            harmed = copied(runs, work / "harmed")
            path = draw.choice(
                sorted(p for p in folder_of(harmed, number).iterdir() if not p.match("outputs-*"))
            )
            kind = draw.choice(kinds(path))
            kind(path, draw)
            if number == 4:  # the next stage opens it
                done = shell.run("stage", 5, "--group", GROUP, *options(harmed, stage5_learning_rate=1e-5))
            else:
                asked = ("translate", "--from", "en", "--to", "fi", *options(harmed))
                done = shell.run(*asked, stdin="one sentence\n")
            held = done.one_sentence(
                path.name if path.exists() or path.name != "run.json" else "no finished stage"
            )
            # without its run.json stage 5 is none, and stage 4 translates
            held |= number == 5 and path.name == "run.json" and kind is gone and done.code == 0
            counts[kind.__name__, "held" if held else "failed"] += 1
            if not held:
                failed.append(f"{i}: {kind.__name__} {folder_of(Path(), number) / path.name}: {done}"[:600])
    shutil.rmtree(work / "harmed", ignore_errors=True)
    by_kind = {name: counts[name, "held"] for name in sorted({name for name, _ in counts})}
    return {"tried": n, "held": sum(by_kind.values()), "held of each kind": by_kind, "failed": failed}
