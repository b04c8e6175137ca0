"""The trainings that run now, as one small figure in the notebook that waits for them.

One line a training, whichever process it runs in: a thread of the kernel reads what `meter.Meter` writes beside each
one's checkpoints. Only a person sees it, in JupyterLab. Under `xalma run` and papermill there is none, as a picture of
speeds would differ from run to run; and when the training ends it is emptied, so that none is saved.
"""

from __future__ import annotations

import io
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from xalma.profiles import Profile
from xalma.training.monitor import trainings

if TYPE_CHECKING:  # a training that nobody watches does without matplotlib
    from matplotlib.figure import Figure
from xalma.progress import is_watched

EVERY_S = 3.0  # between two pictures, which take about a tenth of a second of the kernel's time
_one = threading.Lock()  # a stage inside a chain inside a pool: the outermost view shows them all


@contextmanager
def view(p: Profile) -> Iterator[None]:
    """Inside, the notebook shows the trainings of profile `p`, if a person has it open; else nothing happens."""
    if not is_watched() or not _one.acquire(blocking=False):
        yield
        return
    from IPython.display import display

    place, over = display({}, raw=True, display_id=True), threading.Event()
    watcher = threading.Thread(target=_watch, args=(p, place, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        place.update({}, raw=True)
        _one.release()


def _watch(p: Profile, place: Any, over: threading.Event) -> None:
    opened = time.time()
    while not over.wait(EVERY_S):
        if running := trainings(p, opened):
            image = io.BytesIO()
            live_figure(running).savefig(image, format="png")
            place.update({"image/png": b64encode(image.getvalue()).decode()}, raw=True)


def live_figure(running: Sequence[dict[str, Any]]) -> Figure:
    """Loss against updates, a line a training, over it what each one's progress.json says. running: `trainings`."""
    from matplotlib.figure import Figure

    fig = Figure((8.0, 2.4 + 0.2 * len(running)), layout="constrained")  # pyplot belongs to the main thread
    ax = fig.subplots()
    for said in running:
        ax.plot(*zip(*said["curve"], strict=True), label=caption(said), marker="o" if len(said["curve"]) < 3 else None)
    ax.set(xlabel="updates", ylabel="loss")
    ax.grid(axis="y", color="#E6E6E6")
    ax.spines[["top", "right"]].set_visible(False)
    ax.xaxis.get_major_locator().set_params(integer=True)
    fig.legend(loc="outside upper left", frameon=False)
    return fig


def caption(said: dict[str, Any]) -> str:
    """A training's label, step, loss, tokens a second, utilisation and memory where they are known, and time left."""
    parts = [f"{said['label']}: {said['step']:,} of {said['steps']:,}", f"loss {said['loss']:.3f}"]
    parts.append(f"{said['tokens/s']:,} tokens/s")
    parts += [f"{said[key]} {unit}" for key, unit in (("utilisation_%", "%"), ("memory_gib", "GiB")) if key in said]
    return ", ".join([*parts, f"{timedelta(seconds=said['seconds_left'])} left"])
