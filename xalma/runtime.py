"""Seed, device, provenance and files that are either whole or absent."""

from __future__ import annotations

import os
import platform
import random
import re
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "sacrebleu", "babel", "numpy")
REPOSITORY = Path(__file__).resolve().parent.parent


def home() -> Path:
    """The folder that `runs/` and `results/` are under: the checkout this package lies in, else the current folder."""
    return REPOSITORY if (REPOSITORY / "notebooks").is_dir() else Path.cwd()


def data_root() -> Path | None:
    """The folder of real text: `XALMA_DATA`, else None. Raises FileNotFoundError if it is set to no folder."""
    value = os.environ.get("XALMA_DATA")
    if not value:
        return None
    root = Path(value).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"XALMA_DATA is {value!r}, which is no folder: set it to the folder that holds ntrex/"
        )
    return root


def device() -> str:
    """ "cuda" where torch sees a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def listed(text: str | None) -> list[str]:
    """The words of an argument that takes several, separated by commas, with or without blanks; none for None."""
    return [word for part in (text or "").split(",") if (word := part.strip())]


DTYPES = {"float32": "float32", "fp32": "float32", "float": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16",
          "float16": "float16", "fp16": "float16", "half": "float16"}  # fmt: skip


def usable_device(name: str | None = None) -> str:
    """A device by name, as "cpu", "cuda" or "cuda:1"; None for the GPU where there is one.

    Raises ValueError for a name that is no such device, and for a GPU that torch does not see.
    """
    import torch

    if name is None:
        return device()
    name = str(name)
    if not (match := re.fullmatch(r"(cpu|mps|cuda(?::(\d+))?)", name)):
        raise ValueError(f"no device {name!r}: write cpu, cuda, cuda:1 or mps")
    if name.startswith("cuda") and int(match[2] or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"no device {name}: torch sees {torch.cuda.device_count()} GPUs here; take --device cpu"
        )
    if name == "mps" and not torch.backends.mps.is_available():
        raise ValueError("no device mps here: take --device cpu")
    return name


def usable_dtype(name: str | None, device: str) -> str:
    """A torch dtype's full name from it or a short one, as bf16; None for float32 on a CPU and bfloat16 elsewhere.

    Raises ValueError for a dtype that models are not run in.
    """
    if name is None:
        return "float32" if device == "cpu" else "bfloat16"
    known = str(name).removeprefix("torch.").lower()
    if known not in DTYPES:
        raise ValueError(f"no dtype {name!r} for a model: write float32, bfloat16 (bf16) or float16 (fp16)")
    return DTYPES[known]


def on_device(model: Any) -> Any:
    """The model, moved to this process's device in place. Parameters that move inside inference mode could never be
    trained again, so that it is left for that.
    """
    import torch

    with torch.inference_mode(False):
        return model.to(device())


def all_finite(tensor: Any) -> bool:
    """Whether a torch tensor holds no NaN and no infinity; by its extremes, for `isfinite` takes 25 times as long."""
    import torch

    return not tensor.numel() or all(bool(value.isfinite()) for value in torch.aminmax(tensor))


def mixed_precision(choice: str = "auto") -> bool:
    """Whether matrix products run in bfloat16: "on", "off", or "auto", where the GPU or CPU has instructions for it."""
    import torch

    if choice != "auto":
        return choice == "on"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    cpuinfo = Path("/proc/cpuinfo")  # without such instructions bfloat16 is emulated, and slower than float32
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return "avx512_bf16" in flags or "amx_bf16" in flags


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch (all devices)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def hardware() -> dict[str, Any]:
    """CPU model, the instructions torch uses of it, cores, GPU name (None where there is none) and memory in GiB."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def git_commit() -> str:
    """What XALMA_COMMIT says, for a copy in a container or on a lent machine, whose own history may be older; else the
    commit of the checkout this package lies in, with "-dirty" where code differs; "unknown" outside one.
    """
    if given := os.environ.get("XALMA_COMMIT"):
        return given
    run = lambda *args: subprocess.run(  # noqa: E731
        ["git", "-C", str(REPOSITORY), *args], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        commit = run("rev-parse", "HEAD")
        dirty = run("status", "--porcelain", "--", "xalma", "notebooks", "requirements.lock")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("-dirty" if dirty else "")


def versions() -> dict[str, str]:
    """Python and the versions of the packages that decide a number."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def command_line(words: Sequence[str]) -> str:
    """A command as a record keeps it, for any shell: paths inside `XALMA_DATA` as $XALMA_DATA/…, those inside the
    checkout relative to it, whether they stand alone or behind "NAME="; all else as it was given.
    """
    return " ".join(map(_portable, words))


def _portable(word: str) -> str:
    is_path = word.startswith(("/", ".", "~"))
    before, sign, place = ("", "", word) if is_path else word.rpartition("=")
    path = Path(place).expanduser()
    if "/" not in place or not (path.is_absolute() or os.path.exists(path)):  # a name
        return shlex.quote(word)
    known = [(root, "$XALMA_DATA") for root in filter(None, [data_root()])] + [(home(), "")]
    for root, name in known:
        if path.resolve().is_relative_to(root.resolve()):
            inside = path.resolve().relative_to(root.resolve()).as_posix()
            kept = f"{name}/{shlex.quote(inside)}".removesuffix("/.") if name else shlex.quote(inside)
            return (shlex.quote(before + sign) if sign else "") + kept
    return shlex.quote(word)


def provenance() -> dict[str, Any]:
    """What every run.json and benchmark file carries: commit, versions, hardware."""
    return {"commit": git_commit(), "versions": versions(), "hardware": hardware()}
