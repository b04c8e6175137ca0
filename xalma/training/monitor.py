"""What can be watched while a stage trains: loss, tokens per second, utilisation, memory, and the time left.

It goes to the progress bar (in a notebook, a terminal or `xalma run`'s status line), to progress.json for
`xalma status` and the live figure, and, if the profile asks, through accelerate's trackers to TensorBoard or W&B. None
of it is an output of a notebook, none decides a weight.

The live figure (`view`) shows all trainings that run now in the notebook that waits for them, one line per training,
whichever process it runs in: a thread of the kernel reads progress.json, which `Meter` writes beside each one's
checkpoints. Only a person sees it, in JupyterLab. Under `xalma run` and papermill there is none, as a picture of speeds
would differ from run to run; and when the training ends it is emptied, so that none is saved.
"""

from __future__ import annotations

import io
import os
import resource
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from xalma.files import read_json, write_json
from xalma.profiles import Profile
from xalma.progress import Progress, is_watched, progress
from xalma.runs import BASE, STAGE_NAMES, read_run, stage_folder
from xalma.runtime import home
from xalma.training.checkpoints import checkpoint_folder
from xalma.training.distributed import rank, world_size

if TYPE_CHECKING:  # a training that nobody watches does without matplotlib
    from matplotlib.figure import Figure

EVERY_S = 1.0  # between two readings of the loss, which stops a GPU's queue for a moment
CURVE_POINTS = 200  # of the loss in progress.json, the newest closest together
PROGRESS_FILE = "progress.json"
SILENT_S = 300  # a training that has reported nothing for so long is not running
PICTURE_EVERY_S = 3.0  # between two pictures, which take about a tenth of a second of the kernel's time
_one_view = threading.Lock()  # a stage inside a chain inside a pool: the outermost view shows them all


class Meter:
    """Shows a training of `steps` updates of which `done` are behind; a context manager.

    flops_per_token, peak: operations a trained token costs and those the device can do a second, for the utilisation
    (model FLOPs, so that recomputing activations counts as waste); peak None: not shown. folder: for progress.json.
    """

    def __init__(
        self, label: str, steps: int, done: int, p: Profile, flops_per_token: float, folder: Path | None
    ):
        self.label, self.steps, self.done, self.p, self.folder = label, steps, done, p, folder
        self.flops_per_token = flops_per_token
        self.peak = peak_flops()
        self.tokens = 0
        self.begun = done
        self.started = time.perf_counter()
        self.reported, self.note = 0.0, ""
        self.curve = _curve(folder, done)  # goes on after a resume
        self.tracker = _tracker(p, label) if rank() == 0 else None

    def __enter__(self) -> Meter:
        self.context = ExitStack()
        self.bar: Progress | None = None
        if rank() == 0:  # the first process speaks for all
            self.bar = self.context.enter_context(progress(self.steps, self.label, self.done))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.context.__exit__(kind, error, trace)
        if self.tracker:
            self.tracker.finish()

    def step(self, n_tokens: int, loss: Callable[[], float]) -> None:
        """One update more. n_tokens: of all processes. loss: asked for only when a report is due."""
        self.done, self.tokens = self.done + 1, self.tokens + n_tokens
        if self.bar is None:
            return
        now = time.perf_counter()
        if now - self.reported >= EVERY_S or self.done == self.steps:
            self.reported = now
            self._report(round(loss(), 4))
        self.bar.update(1, self.note)

    def _report(self, loss: float) -> None:
        measured = {"loss": loss} | self.measured()
        # the bar has the time left itself
        self.note = ", ".join(f"{key} {value:,}" for key, value in measured.items() if key != "seconds_left")
        if self.folder:
            self.curve.append([self.done, loss])
            if len(self.curve) > CURVE_POINTS:
                self.curve = self.curve[: CURVE_POINTS // 2 : 2] + self.curve[CURVE_POINTS // 2 :]
            state = {"label": self.label, "step": self.done, "steps": self.steps, "curve": self.curve}
            write_json(
                self.folder / PROGRESS_FILE, measured | state | {"pid": os.getpid(), "at": time.time()}
            )

    def measured(self) -> dict[str, Any]:
        """Tokens per second of all processes since the start, utilisation in percent, peak memory, seconds left.

        Memory is that of this process's device, on a CPU of the process.
        """
        passed = max(1e-9, time.perf_counter() - self.started)
        rate = self.tokens / passed
        measured: dict[str, Any] = {"tokens/s": round(rate)}
        if self.peak:
            measured["utilisation_%"] = round(100 * rate * self.flops_per_token / self.peak / world_size(), 1)
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated()
        measured["memory_gib"] = round(peak / 2**30, 1)
        # what was done before a resume says nothing of the speed now
        measured["seconds_left"] = round((self.steps - self.done) * passed / max(1, self.done - self.begun))
        return measured

    def log(self, row: dict[str, Any]) -> None:
        """A logged step, for the tracker, histograms aside."""
        if self.tracker:
            scalars = {
                key: value for key, value in row.items() if key != "step" and not isinstance(value, list)
            }
            values = scalars | self.measured()
            self.tracker.log(values, step=int(row["step"]))


def trainings(p: Profile, since: float) -> list[dict[str, Any]]:
    """What progress.json says of each training of the profile that reported after `since` (Unix time)."""
    files = sorted((home() / p.run_dir / p.name).rglob(f".checkpoints-*/{PROGRESS_FILE}"))
    reports = [_progress_in(file.parent) for file in files]
    return [one for one in reports if isinstance(one.get("at"), int | float) and one["at"] >= since]


def _progress_in(folder: Path | None) -> dict[str, Any]:
    with suppress(OSError, ValueError):  # none yet, gone since, or damaged: it is written anew
        return read_json(folder / PROGRESS_FILE, "") if folder else {}
    return {}


def _curve(folder: Path | None, done: int) -> list[list[float]]:
    """The points of progress.json up to `done` updates; none of a damaged one."""
    try:
        return [
            [int(step), float(loss)] for step, loss in _progress_in(folder).get("curve", []) if step <= done
        ]
    except (TypeError, ValueError):
        return []


def peak_flops() -> float | None:
    """Dense bfloat16 operations a second of this GPU by its data sheet; None for one we don't know, and for a CPU."""
    from xalma.training.plan import GPUS

    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name().lower()
    return next((gpu.flops for key, gpu in GPUS.items() if key in name), None)


def _tracker(p: Profile, label: str) -> Any:
    """accelerate's tracker named by the profile, started. Raises ImportError, in one sentence, without its package."""
    if not p.track:
        return None
    from accelerate import PartialState
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    PartialState()  # without it accelerate's logger, which the trackers call, raises
    run = label.replace(", ", "-").replace(" ", "")
    try:
        if p.track == "tensorboard":
            tracker = TensorBoardTracker(run, home() / p.run_dir / p.name / "tensorboard")
        else:
            tracker = WandBTracker("xalma", name=f"{p.name}-{run}", config=p.values())
        tracker.main_process_only = False  # there is no other process here
        tracker.start()
    except ImportError as error:
        raise ImportError(f"track={p.track} needs the package: pip install {p.track} ({error})") from error
    return tracker


def stage_status(p: Profile, number: int, group: int) -> dict[str, Any]:
    """State of one stage: done, training, stopped (resumable from a step), begun or to do."""
    folder = stage_folder(p, number, group)
    row: dict[str, Any] = {
        "stage": f"{number} {STAGE_NAMES[number]}",
        "group": group or "base",
        "state": "to do",
    }
    if (folder / "run.json").exists():
        run = read_run(folder)
        hours = timedelta(seconds=round(run.get("seconds", 0)))
        return row | {
            "state": "done",
            "progress": f"{run['steps']:,} steps" if "steps" in run else "",
            "time": hours,
        }
    begun = checkpoint_folder(folder)
    saved = [int(f.name.removeprefix("step-")) for f in begun.glob("step-*")]
    file = begun / PROGRESS_FILE
    report = read_json(file, "remove it, a training that goes on writes it anew") if file.exists() else {}
    if report.keys() >= {"step", "steps", "loss", "at", "seconds_left", "tokens/s"}:
        percent = 100 * report["step"] / report["steps"]
        row["progress"] = f"step {report['step']:,} of {report['steps']:,} ({percent:.0f} %)"
        row["loss"] = report["loss"]
        if time.time() - report["at"] < SILENT_S:
            left = timedelta(seconds=report["seconds_left"])
            return row | {"state": "training", "time": f"{left} left", "tokens/s": report["tokens/s"]}
        return row | {
            "state": f"stopped, goes on from step {max(saved):,}" if saved else "stopped, starts anew"
        }
    return row | ({"state": "begun"} if begun.exists() else {})


def status_table(p: Profile) -> pd.DataFrame:
    """One row per stage of the main ladder: the base's, then each group's chain."""
    jobs = [(0, BASE), (1, BASE), *((number, group) for group in p.group_numbers for number in range(2, 6))]
    return pd.DataFrame([stage_status(p, *job) for job in jobs]).fillna("")


@contextmanager
def view(p: Profile) -> Iterator[None]:
    """Inside, the notebook shows the trainings of profile `p`, if a person has it open; else nothing happens."""
    if not is_watched() or not _one_view.acquire(blocking=False):
        yield
        return
    from IPython.display import display

    handle = display({}, raw=True, display_id=True)
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(p, handle, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        handle.update({}, raw=True)
        _one_view.release()


def _watch(p: Profile, handle: Any, over: threading.Event) -> None:
    opened = time.time()
    while not over.wait(PICTURE_EVERY_S):
        if running := trainings(p, opened):
            image = io.BytesIO()
            live_figure(running).savefig(image, format="png")
            handle.update({"image/png": b64encode(image.getvalue()).decode()}, raw=True)


def live_figure(running: Sequence[dict[str, Any]]) -> Figure:
    """Loss against updates, a line a training, over it what each one's progress.json says. running: `trainings`."""
    from matplotlib.figure import Figure

    fig = Figure((8.0, 2.4 + 0.2 * len(running)), layout="constrained")  # pyplot belongs to the main thread
    ax = fig.subplots()
    for training in running:
        marker = "o" if len(training["curve"]) < 3 else None
        ax.plot(*zip(*training["curve"], strict=True), label=caption(training), marker=marker)
    ax.set(xlabel="updates", ylabel="loss")
    ax.grid(axis="y", color="#E6E6E6")
    ax.spines[["top", "right"]].set_visible(False)
    ax.xaxis.get_major_locator().set_params(integer=True)
    fig.legend(loc="outside upper left", frameon=False)
    return fig


def caption(training: dict[str, Any]) -> str:
    """A training's label, step, loss, tokens per second, utilisation and memory where they are known, and time left."""
    parts = [
        f"{training['label']}: {training['step']:,} of {training['steps']:,}",
        f"loss {training['loss']:.3f}",
        f"{training['tokens/s']:,} tokens/s",
    ]
    units = {"utilisation_%": "%", "memory_gib": "GiB"}
    parts += [f"{training[key]} {unit}" for key, unit in units.items() if key in training]
    return ", ".join([*parts, f"{timedelta(seconds=training['seconds_left'])} left"])
