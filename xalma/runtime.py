"""Seed, device, provenance and files that are either whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from xalma.files import folder_to_disk, locked, to_disk

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
        raise FileNotFoundError(f"XALMA_DATA is {value!r}, which is no folder: set it to the folder that holds ntrex/")
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
        raise ValueError(f"no device {name}: torch sees {torch.cuda.device_count()} GPUs here; take --device cpu")
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


def provenance() -> dict[str, Any]:
    """What every run.json and benchmark file carries: commit, versions, hardware."""
    return {"commit": git_commit(), "versions": versions(), "hardware": hardware()}


def fingerprint(value: Any) -> str:
    """16 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_atomically(path: str | Path, text: str) -> Path:
    """Write `text` as UTF-8 so that `path` is either the old file or the whole new one.

    Raises OSError (PermissionError, …), in one sentence, where the folder can't be written.
    """
    path = Path(path)
    partial = path.parent / f".partial-{os.getpid()}-{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        folder_to_disk(path.parent)
    except OSError as error:
        raise type(error)(f"can't write {path} ({error.strerror}): choose a folder you may write") from error
    finally:
        with suppress(OSError):  # where it could not be made there is nothing to take away
            partial.unlink()
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """`value` as indented JSON, atomically."""
    return write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


RUN_DIR, TO = "--set run_dir=…", "--to DIR"  # options that choose where a folder is made


def make_writable(folder: str | Path) -> Path:
    """`folder`, made if need be, after a file could be written in it. Raises OSError in one sentence otherwise."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise type(error)(f"can't write in {folder} ({error.strerror}): choose a folder you may write") from error
    return folder


def check_new(out: str | Path, option: str = TO) -> Path:
    """`out`, a folder that is not there and can be made: found out before hours of work, writing nothing.

    option: what chooses another one. Raises FileExistsError, or OSError in one sentence.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} is there already: choose a new folder, with {option}")
    parent = next(path for path in out.absolute().parents if path.exists())
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        why = f"can't write in {parent} ({error.strerror})"
        raise type(error)(f"{why}: choose a folder you may write, with {option}") from error
    return out


@contextmanager
def new_directory(path: str | Path, option: str = RUN_DIR) -> Iterator[Path]:
    """A folder to fill that becomes `path` only when the block ends without error, and all of it is on the disk.

    A killed run leaves a ".partial-" folder, which the next call removes, and never a half-written `path`; one killed
    between the two renames leaves the old `path` aside, and the next call puts it back.
    One that ends with an error leaves nothing. option: what chooses another folder, for the sentence of an error.
    Raises OSError (PermissionError, …), in one sentence, where the parent can't be written, and where another process
    makes the same folder.
    """
    path = Path(path)
    partial, old = (path.parent / f".partial-{old}{path.name}" for old in ("", "old-"))
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path, option))
            put_back(path)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise
            raise type(error)(
                f"can't write in {path.parent} ({error.strerror}): choose a folder you may write, with {option}"
            ) from error
        try:
            yield partial
        except BaseException:  # a half of 58 GB is of no use to anybody
            shutil.rmtree(partial, ignore_errors=True)
            raise
        to_disk(partial)
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
        folder_to_disk(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def put_back(path: Path) -> None:
    """Clear up after a run that was killed while `new_directory` renamed: the old folder takes its place again, or goes
    where the new one stands.
    """
    old = path.parent / f".partial-old-{path.name}"
    if old.exists() and not path.exists():
        os.replace(old, path)
    shutil.rmtree(old, ignore_errors=True)


STATUS_VARIABLE = "XALMA_STATUS"  # file that `xalma run` watches; progress bars would spoil executed notebooks


def _is_run_by_a_program() -> bool:
    if "ipykernel" not in sys.modules:
        return False
    from xalma.live import is_run_by_a_program

    return is_run_by_a_program()


class Progress:
    """A tqdm bar; under `xalma run`, lines in the status file that the terminal shows; both with the time left. In a
    kernel that a program runs, such as papermill, one line that changes: each refresh of a bar would be an output.

    done: units that an earlier run did, which say nothing of the speed of this one.
    """

    def __init__(self, total: int, label: str, done: int = 0) -> None:
        self.total, self.label, self.done = total, label, done
        self.begun, self.started, self.shown = done, time.perf_counter(), 0.0
        self.status = os.environ.get(STATUS_VARIABLE)
        self.bar = self.line = None
        if not self.status:
            if _is_run_by_a_program():
                from IPython.display import display

                self.line = display({"text/plain": label}, raw=True, display_id=True)
                return
            from tqdm.auto import tqdm

            self.bar = tqdm(total=total, initial=done, desc=label, leave=False)

    def update(self, n: int = 1, note: str = "") -> None:
        self.done += n
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(n)
        elif self.line and time.perf_counter() - self.shown >= 1.0:
            self.shown = time.perf_counter()
            self._show(self._left() if self.total else "", note)
        elif self.status:
            parts = (self.label, f"{self.done}/{self.total}", self._left() if self.total else "", note)
            Path(f"{self.status}.{os.getpid()}").write_text(" ".join(filter(None, parts)), encoding="utf-8")

    def close(self) -> None:
        """The bar and the status go, the line stays, without what would differ between two equal runs."""
        if self.bar is not None:
            self.bar.close()
        elif self.line:
            self._show()
        elif self.status:
            Path(f"{self.status}.{os.getpid()}").unlink(missing_ok=True)

    def _show(self, *more: str) -> None:
        text = " ".join(filter(None, (self.label, f"{self.done}/{self.total}", *more)))
        self.line.update({"text/plain": text}, raw=True)

    def _left(self) -> str:
        each = (time.perf_counter() - self.started) / max(1, self.done - self.begun)
        return f"{timedelta(seconds=max(0, round((self.total - self.done) * each)))} left"


@contextmanager
def progress(total: int, label: str, done: int = 0) -> Iterator[Progress]:
    """Progress of `total` units of work, of which `done` are behind, shown where the person is looking."""
    bar = Progress(total, label, done)
    try:
        yield bar
    finally:
        bar.close()
