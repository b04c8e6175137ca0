"""Resume: bit for bit the unbroken run, whenever it was killed, and from the checkpoint before if one is damaged."""

from __future__ import annotations

import errno
import json
import mmap
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import killed_runs
import numpy as np
import pytest
import torch

from xalma.training import checkpoints
from xalma.training.checkpoints import (
    Checkpoints,
    checkpoint_folder,
    checkpoints_for,
    random_state,
    set_random_state,
)


class Killed(BaseException):
    """Stands for SIGKILL where no process of its own is made: nothing in the library may catch it."""


def stop_before(step: int):
    def before(now: int) -> None:
        if now == step:
            raise Killed

    return before


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("unbroken")
    return {kind: killed_runs.outcome(kind, folder / str(i)) for i, kind in enumerate(killed_runs.KINDS)}


@pytest.mark.parametrize(
    ("kind", "step"),
    [*zip(killed_runs.KINDS, (4, 8, 8), strict=True), *((killed_runs.KINDS[2], n) for n in (2, 6, 11))],
)
def test_a_killed_run_goes_on_bit_for_bit(unbroken, tmp_path, kind, step):
    """Mid-pack, and in the second epoch with dropout (21 rows: it begins within update 6); pairs with all their log."""
    with pytest.raises(Killed):
        killed_runs.outcome(kind, tmp_path / "c", stop_before(step))
    seen = []
    assert killed_runs.outcome(kind, tmp_path / "c", seen.append) == unbroken[kind]
    assert seen[0] == step // killed_runs.EVERY * killed_runs.EVERY, "at most one interval is done again"


def test_the_comparison_sees_a_lost_random_state(unbroken, tmp_path, monkeypatch):
    """The test above would pass for nothing if dropout, data and losses did not depend on the state."""
    kind = killed_runs.KINDS[1]
    with pytest.raises(Killed):
        killed_runs.outcome(kind, tmp_path / "c", stop_before(8))
    monkeypatch.setattr(checkpoints, "set_random_state", lambda state: None)
    assert killed_runs.outcome(kind, tmp_path / "c") != unbroken[kind]


@pytest.mark.long
def test_thirty_runs_killed_twice(tmp_path):
    """Ten of each kind."""
    command = [sys.executable, killed_runs.__file__, str(tmp_path), "30"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 30
    assert all(row["killed"] and row["same"] for row in found), [row for row in found if not row["same"]]


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"weight.a": torch.full((300, 7), value), "step.a": torch.tensor(value)}


def saved(folder: Path, *steps: int) -> Checkpoints:
    kept = Checkpoints(folder, 1)
    for step in steps:
        assert kept.save(step, tensors(float(step)), {"step": step})
    return kept


def loaded(kept: Checkpoints) -> int | None:
    """The step that is gone on from, its tensors and facts proved to be that step's."""
    folder = kept.newest()
    if folder is None:
        return None
    into = tensors(-1.0)
    step = kept.load(folder, into)["step"]
    assert all((x == step).all() for x in into.values())
    return step


def in_child(function) -> int:
    """Process id of a fork that runs `function` (which must not need autograd) and exits with its result."""
    if (pid := os.fork()) == 0:
        try:
            os._exit(function())
        finally:
            os._exit(99)
    return pid


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.long)])
def test_killed_while_it_saves(tmp_path, kills):
    """SIGKILL at a random point of a save, the process doing nothing else: what was finished is there, whole."""
    kept, draw = saved(tmp_path, 1), random.Random(0)
    done = mmap.mmap(-1, 8)
    started = time.perf_counter()
    saved(tmp_path, 2)
    one_save = time.perf_counter() - started
    for _ in range(kills):
        first = loaded(kept)
        done[:] = first.to_bytes(8, "little")

        def save_on(first=first):
            for step in range(first + 1, first + 1000):
                saved(tmp_path, step)
                done[:] = step.to_bytes(8, "little")

        pid = in_child(save_on)
        while int.from_bytes(done[:], "little") == first:  # it is saving
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, one_save))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a killed save is no damage
            assert loaded(kept) >= int.from_bytes(done[:], "little") > first


def test_only_the_newest_two_are_kept(tmp_path):
    saved(tmp_path, 1, 2, 3, 4)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["step-000000003", "step-000000004"]
    saved(tmp_path, 4)  # the same step again, after an older one was resumed
    assert sorted(f.name for f in tmp_path.iterdir()) == ["step-000000003", "step-000000004"]


FILES = (
    "tensors/shard-00001-model-00001-of-00001.safetensors",
    "random-0.json",
    "state.json",
    "manifest.json",
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["flipped", "truncated", "removed"])
def test_a_damaged_file_is_named_and_the_checkpoint_before_used(tmp_path, name, harm):
    kept = saved(tmp_path, 1, 2)
    path = tmp_path / "step-000000002" / name
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle] ^= 1
    path.write_bytes({"flipped": whole, "truncated": whole[:middle], "removed": b""}[harm])
    if harm == "removed":
        path.unlink()
    with pytest.warns(UserWarning, match="this checkpoint is not used") as caught:
        assert loaded(kept) == 1
    named = str(caught[0].message)
    assert str(path) in named or name == "manifest.json"  # there a flipped byte may be another file's hash
    assert (tmp_path / "damaged-step-000000002").exists(), "kept, to look at"
    saved(tmp_path, 2)
    assert loaded(kept) == 2


def test_nothing_in_a_checkpoint_is_unpickled(tmp_path):
    """Not even a file as torch.distributed.checkpoint and earlier versions wrote, listed in the manifest."""
    kept = saved(tmp_path / "kept", 1)
    folder = tmp_path / "kept" / "step-000000001"
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("tensors/.metadata", "tensors/__0_0.distcp", "random-0.pt"):
        (folder / name).write_bytes(pickle.dumps(Planted(str(tmp_path / "ran"))))
        manifest["sha256"][name] = checkpoints.file_hash(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert loaded(kept) == 1
    assert not (tmp_path / "ran").exists()
    # This test's own planted file, opened on purpose: it would have run.
    assert pickle.loads((folder / "random-0.pt").read_bytes()) is None
    assert (tmp_path / "ran").exists()


class Planted:
    """Unpickled, it makes a folder."""

    def __init__(self, sign: str) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.sign,)


def test_both_damaged_is_a_new_start(tmp_path):
    kept = saved(tmp_path, 1, 2)
    for path in tmp_path.glob("step-*/state.json"):
        path.write_text("{}")
    with pytest.warns(UserWarning, match="is damaged"):
        assert kept.newest() is None


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    """The kernel refuses to write beyond a size: the save fails, says so, leaves nothing behind."""
    kept = saved(tmp_path, 1)

    def refused() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ok = kept.save(2, tensors(2.0), {"step": 2})
        text = " ".join(str(w.message) for w in caught)
        return 0 if not ok and "no checkpoint after step 2" in text and "GiB free" in text else 1

    assert os.waitstatus_to_exitcode(os.waitpid(in_child(refused), 0)[1]) == 0
    assert [f.name for f in tmp_path.iterdir()] == ["step-000000001"]
    assert loaded(kept) == 1


def test_a_full_disk_ends_no_training(unbroken, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Checkpoints, "_write", full)
    with pytest.warns(UserWarning, match="no checkpoint after step 3, .*No space left on device"):
        found = killed_runs.outcome(killed_runs.KINDS[0], tmp_path)
    assert found == unbroken[killed_runs.KINDS[0]]


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    kept = Checkpoints(tmp_path, 1)
    assert kept.save(1, {"weight.a": torch.zeros(4)}, {})
    with pytest.raises(ValueError, match=r"step-000000001 was saved by another version or for another model"):
        kept.load(kept.newest(), {"weight.b": torch.zeros(4)})
    with pytest.raises(ValueError, match=r"step-000000001 holds weight\.a in another shape or type"):
        kept.load(kept.newest(), {"weight.a": torch.zeros(2, 2)})


def test_checkpoints_of_other_inputs_are_removed(tmp_path):
    out = tmp_path / "group6"
    folder = checkpoints_for(out, "a")
    assert folder == checkpoint_folder(out) == checkpoint_folder(tmp_path / ".partial-group6")
    saved(folder, 1)
    assert loaded(Checkpoints(checkpoints_for(out, "a"), 1)) == 1
    assert loaded(Checkpoints(checkpoints_for(out, "b"), 1)) is None


def test_random_states_come_back():
    state = random_state()
    draws = lambda: (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: E731
    first = draws()
    assert draws() != first
    set_random_state(state)
    assert draws() == first
