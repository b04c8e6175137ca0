"""Checkpoints inside a stage, from which training goes on as if nothing had happened.

transformers' Trainer writes into the final folder and trusts the newest name: a run killed while it saves then
starts from half a state. Here a checkpoint is written aside, every file reaches the disk, a manifest with the SHA-256
of each is written last, and only then does it get its name. On load every hash is compared; a damaged checkpoint is
named and put aside, and the one before it is used. Tensors are stored by torch.distributed.checkpoint: sharded as they
lie, by all processes at once, and read back for any number of them; as safetensors, all else as JSON, so that nothing
is unpickled.
"""

from __future__ import annotations

import os
import random
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xalma.files import file_hash, folder_to_disk, read_json, write_json
from xalma.training.distributed import barrier, rank, together, world_size

KEPT = 2  # the newest and, should it be damaged, the one before
MANIFEST = "manifest.json"


def checkpoints_for(out: Path, key: str) -> Path:
    """The folder of checkpoints of the stage that will be `out`, emptied if they were made from other inputs.

    key: fingerprint of the stage's inputs. It lies beside `out`, as .checkpoints-<name>, and survives a killed run.
    """
    folder = checkpoint_folder(out)
    if rank() == 0:
        if folder.exists() and made_from(out) != key:
            shutil.rmtree(folder)
        write_json(folder / "inputs.json", {"fingerprint": key})
    barrier()
    return folder


def made_from(out: Path) -> str | None:
    """Fingerprint of the inputs that the checkpoints of `out` were made from, None where there are none.

    Raises ValueError, naming the file, where it is damaged.
    """
    folder = checkpoint_folder(out)
    if not (folder / "inputs.json").exists():
        return None
    return read_json(folder / "inputs.json", f"remove {folder} to train the stage anew").get("fingerprint")


def checkpoint_folder(out: str | Path) -> Path:
    """Where the checkpoints of a stage's folder lie, or of the ".partial-" folder it is made in."""
    out = Path(out)
    return out.parent / f".checkpoints-{out.name.removeprefix('.partial-')}"


class Checkpoints:
    """The checkpoints in a folder, saved every `every` steps; 0 saves none, but goes on from what is there."""

    def __init__(self, folder: str | Path, every: int) -> None:
        self.folder = Path(folder)
        self.every = every

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be saved after `step` updates."""
        return self.every > 0 and step % self.every == 0

    def save(self, step: int, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> bool:
        """Save the state after `step` updates; all processes take part. False, with a warning, if it can't be written.

        tensors: name -> tensor, sharded or not. values: what JSON holds. The processes' random states are added.
        A full disk ends no training: the checkpoints before stay, and the next one is tried again.
        """
        partial = self.folder / f".partial-{step}"
        try:
            together(lambda: rank() == 0 and self._empty(partial))
            hashes = together(lambda: self._write(partial, tensors))
            listed = dict(pair for part in hashes for pair in part.items())
            together(lambda: rank() == 0 and self._finish(partial, step, values, listed))
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            free = shutil.disk_usage(self.folder.parent).free / 2**30  # torch may hide that a disk is full
            _warn(
                f"no checkpoint after step {step}, {free:.1f} GiB free on its disk: {error}. Training goes on"
            )
            return False
        return True

    def _empty(self, partial: Path) -> None:
        for left in self.folder.glob(".partial-*"):
            shutil.rmtree(left)
        partial.mkdir(parents=True)

    def _write(self, partial: Path, tensors: dict[str, torch.Tensor]) -> dict[str, str]:
        import torch.distributed.checkpoint as dcp

        writer = dcp.HuggingFaceStorageWriter(str(partial / "tensors"), save_distributed=True)
        with _alone():
            dcp.save(tensors, storage_writer=writer, no_dist=world_size() == 1)
        mine = write_json(partial / f"random-{rank()}.json", random_state())
        # every process hashes what it wrote: one alone would read for minutes
        written = [*(partial / "tensors").glob(f"shard-{rank() + 1:05d}-*.safetensors"), mine]
        return {str(path.relative_to(partial)): file_hash(path) for path in written}

    def _finish(self, partial: Path, step: int, values: dict[str, Any], hashes: dict[str, str]) -> None:
        state = write_json(partial / "state.json", values)
        write_json(partial / MANIFEST, {"step": step, "sha256": hashes | {state.name: file_hash(state)}})
        for folder in (partial / "tensors", partial):
            folder_to_disk(folder)
        final = self.folder / f"step-{step:09d}"
        if final.exists():  # an earlier run got here with more steps to lose
            os.replace(final, self.folder / f".partial-old-{step}")
        os.replace(partial, final)
        folder_to_disk(self.folder)
        for old in self._all()[KEPT:]:
            os.replace(old, self.folder / f".partial-{old.name}")  # half removed it must not look like one
        for left in self.folder.glob(".partial-*"):
            shutil.rmtree(left, ignore_errors=True)

    def newest(self) -> Path | None:
        """The newest checkpoint whose files all have their hashes, None without one. Warns of each that has not."""
        for folder in self._all():
            parts = together(lambda: damage(folder, rank(), world_size()))  # noqa: B023
            faults = [fault for part in parts for fault in part]
            if not faults:
                return folder
            _warn(
                f"{'; '.join(faults)}: this checkpoint is not used, training goes on from the one before, if any"
            )
            together(lambda: rank() == 0 and self._put_aside(folder))  # noqa: B023
        return None

    def load(self, folder: Path, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Fill `tensors` in place from a checkpoint, set this process's random state; returns the values.

        Raises ValueError if it holds others.
        """
        import torch.distributed.checkpoint as dcp

        reader = dcp.HuggingFaceStorageReader(str(folder / "tensors"))
        anew = f"remove {self.folder} to train anew"
        stored = reader.read_metadata().state_dict_metadata
        if stored.keys() != tensors.keys():
            raise ValueError(
                f"{folder} was saved by another version or for another model: go on with that one, or {anew}"
            )
        for name, tensor in tensors.items():
            if stored[name].size != tensor.size() or stored[name].properties.dtype != tensor.dtype:
                raise ValueError(f"{folder} holds {name} in another shape or type than the model's: {anew}")
        with _alone():
            dcp.load(tensors, storage_reader=reader, no_dist=world_size() == 1)
        mine = folder / f"random-{rank()}.json"
        if mine.exists():  # not for processes that joined since
            set_random_state(read_json(mine, anew))
        return read_json(folder / "state.json", anew)

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)

    def _put_aside(self, folder: Path) -> None:
        aside = self.folder / f"damaged-{folder.name}"
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)


def damage(folder: Path, part: int = 0, parts: int = 1) -> list[str]:
    """What is wrong with a checkpoint, a phrase naming the file each; [] if nothing is. Looks at one of `parts`."""
    try:
        manifest = read_json(folder / MANIFEST, "")
        hashes = sorted(manifest["sha256"].items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return [f"{folder / MANIFEST} can't be read ({type(error).__name__})"] if part == 0 else []
    faults = []
    for name, expected in hashes[part::parts]:
        path = folder / name
        try:
            if file_hash(path) != expected:
                faults.append(f"{path} is damaged ({path.stat().st_size} bytes with another SHA-256)")
        except OSError as error:
            faults.append(f"{path} can't be read ({error.strerror})")
    return faults


def random_state() -> dict[str, Any]:
    """The random states of python, numpy and torch (this process's device included), as JSON holds them."""
    name, keys, *rest = np.random.get_state()
    state = {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest]}
    state["torch"] = torch.get_rng_state().numpy().tobytes().hex()
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state().numpy().tobytes().hex()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Go back to what `random_state` gave."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_bytes(state["torch"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_bytes(state["cuda"]))


def _bytes(digits: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(digits), dtype=torch.uint8)


@contextmanager
def _alone() -> Iterator[None]:
    """torch warns of a single process each time, also when told that there is but one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _warn(text: str) -> None:
    if rank() == 0:
        warnings.warn(text, stacklevel=3)
