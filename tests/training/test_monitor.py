"""What is shown while a stage trains: right numbers, in the right places, and nothing where there is no package."""

from __future__ import annotations

import io
import json
import time
from functools import partial

import pytest
import torch
from tqdm import tqdm

from xalma.runs import stage_folder
from xalma.training import monitor
from xalma.training.checkpoints import checkpoint_folder
from xalma.training.monitor import PROGRESS_FILE, Meter, trainings


@pytest.fixture
def clock(monkeypatch):
    """Seconds pass only when told to."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_the_note_the_file_and_the_time_left(micro, tmp_path, clock):
    asked = []
    with Meter("stage 2, group 6", 10, 4, micro, 1e6, tmp_path) as shown:
        shown.peak = 40_000e6  # operations a second
        for _ in range(3):
            clock[0] += 2.0
            shown.step(4000, lambda: asked.append(1) or 2.5)
        assert shown.note.startswith("loss 2.5, tokens/s 2,000, utilisation_% 5.0, memory_gib ")
        clock[0] += 0.1
        shown.step(4000, lambda: asked.append(1) or 2.5)
    assert len(asked) == 3, "the loss is looked at once a second at most: that stops a GPU's queue"
    said = json.loads((tmp_path / PROGRESS_FILE).read_text())
    assert (said["step"], said["steps"], said["loss"], said["tokens/s"]) == (7, 10, 2.5, 2000)
    assert said["seconds_left"] == 6  # three steps of two seconds; the four before a resume took none of them
    assert said["label"] == "stage 2, group 6"
    assert said["curve"] == [[5, 2.5], [6, 2.5], [7, 2.5]]


def test_the_last_update_is_always_told(micro, tmp_path, clock):
    with Meter("x", 2, 0, micro, 1e6, tmp_path) as shown:
        for loss in (2.5, 1.5):
            clock[0] += 0.1
            shown.step(4000, lambda loss=loss: loss)
    said = json.loads((tmp_path / PROGRESS_FILE).read_text())
    assert (said["step"], said["loss"], said["seconds_left"]) == (2, 1.5, 0)


def test_the_bar_s_time_left_after_a_resume(micro, clock, monkeypatch):
    """90 of 100 updates are behind and take no time now: ten updates of two seconds are 20 s, of which 18 are left."""
    monkeypatch.setattr("tqdm.auto.tqdm", partial(tqdm, disable=False, file=io.StringIO()))
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    with Meter("x", 100, 90, micro, 1e6, None) as shown:
        clock[0] += 2.0
        shown.step(4000, lambda: 2.5)
        assert "91/100 [00:02<00:18" in str(shown.bar.bar)


def test_the_curve_stays_short_and_goes_on_after_a_resume(micro, tmp_path, clock, monkeypatch):
    monkeypatch.setattr(monitor, "CURVE_POINTS", 20)

    def train(done, steps, loss):
        with Meter("x", 1000, done, micro, 1e6, tmp_path) as shown:
            for _ in range(steps):
                clock[0] += 1.5
                shown.step(10, lambda: loss)
        return json.loads((tmp_path / PROGRESS_FILE).read_text())["curve"]

    curve = train(0, 90, 2.0)
    assert 14 <= len(curve) <= 20
    steps = [step for step, _ in curve]
    assert steps == sorted(set(steps)) and steps[0] == 1 and steps[-10:] == list(range(81, 91))
    went_on = train(80, 10, 1.0)  # the updates after the checkpoint are trained again, and told again
    assert [point for point in went_on if point[0] <= 80] == [point for point in curve if point[0] <= 80]
    assert [point for point in went_on if point[0] > 80] == [[step, 1.0] for step in range(81, 91)]


def test_trainings_of_all_branches_that_spoke_lately(micro, tmp_path, clock):
    p = micro.but(run_dir=str(tmp_path))
    for number, branch, at in ((2, "ladder", 50.0), (3, "ablations/seed0/all", 150.0), (4, "ladder", 200.0)):
        folder = checkpoint_folder(stage_folder(p, number, 6, branch))
        folder.mkdir(parents=True)
        (folder / PROGRESS_FILE).write_text(json.dumps({"label": f"stage {number}", "at": at}))
    assert {said["label"] for said in trainings(p, 100.0)} == {"stage 3", "stage 4"}
    (folder / PROGRESS_FILE).write_text("{")
    assert {said["label"] for said in trainings(p, 100.0)} == {"stage 3"}


def test_a_tracker_gets_every_logged_step(micro, tmp_path, monkeypatch):
    rows = []

    class Tracker:
        def log(self, values, step):
            rows.append((step, values))

        def finish(self):
            rows.append("finished")

    monkeypatch.setattr(monitor, "_tracker", lambda p, label: Tracker())
    with Meter("x", 2, 0, micro, 1.0, None) as shown:
        shown.log({"step": 1, "loss": 2.0, "learning_rate": 0.1})
    assert rows[0][0] == 1 and rows[0][1]["loss"] == 2.0 and "tokens/s" in rows[0][1]
    assert rows[1] == "finished"


def tracked(p, steps):
    """A training of `steps` updates whose loss falls from 2.5 by a quarter each."""
    with Meter("stage 2, group 6", steps, 0, p, 1e6, None) as shown:
        for step in range(1, steps + 1):
            shown.step(1000, lambda: 2.5)
            shown.log({"step": step, "loss": 2.5 - step / 4, "learning_rate": 0.5})


def test_tensorboard_s_file_holds_what_was_logged(micro, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'xalma[track]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    p = micro.but(track="tensorboard", run_dir=str(tmp_path))
    tracked(p, 3)
    events = EventAccumulator(str(tmp_path / p.name / "tensorboard" / "stage2-group6")).Reload()
    assert [(row.step, row.value) for row in events.Scalars("loss")] == [(1, 2.25), (2, 2.0), (3, 1.75)]
    assert [row.value for row in events.Scalars("learning_rate")] == [0.5] * 3
    assert events.Scalars("seconds_left")[-1].value == 0
    assert all(row.value > 0 for key in ("tokens/s", "memory_gib") for row in events.Scalars(key))


@pytest.mark.slow
def test_wandb_s_file_holds_what_was_logged(micro, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'xalma[track]'")
    from wandb.proto import wandb_internal_pb2 as messages
    from wandb.sdk.internal.datastore import DataStore

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracked(micro.but(track="wandb"), 3)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    for _ in range(200):  # another process writes it, also after `finish`
        store, records = DataStore(), []
        store.open_for_scan(str(file))
        while (data := store.scan_data()) is not None:
            records.append(messages.Record.FromString(data))
        if records and records[-1].WhichOneof("record_type") == "exit":
            break
        time.sleep(0.1)
    rows = [
        {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(row["_step"], row["loss"]) for row in rows] == [(1, 2.25), (2, 2.0), (3, 1.75)]
    assert {"learning_rate", "tokens/s", "memory_gib", "seconds_left"} <= rows[0].keys()


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_tracker_whose_package_is_not_here_is_one_sentence(micro, monkeypatch, package, tmp_path):
    def absent(self):
        raise ModuleNotFoundError(f"No module named {package!r}")

    for name in ("TensorBoardTracker", "WandBTracker"):
        monkeypatch.setattr(f"accelerate.tracking.{name}.start", absent)
    with pytest.raises(ImportError, match=f"track={package} needs the package: pip install {package}"):
        Meter("x", 2, 0, micro.but(track=package, run_dir=str(tmp_path)), 1.0, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_cpu_has_no_data_sheet():
    assert monitor.peak_flops() is None
