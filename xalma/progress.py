"""How a person sees that long work goes on: a bar, a file that `xalma run` watches, or a figure in a notebook."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

# file that `xalma run` watches; progress bars would spoil executed notebooks
STATUS_VARIABLE = "XALMA_STATUS"


class Progress:
    """A tqdm bar; under `xalma run`, lines in the status file that the terminal shows; both with the time left. In a
    kernel that a program runs, such as papermill, one line that changes: each refresh of a bar would be an output.

    done: units that an earlier run did, which say nothing of the speed of this one.
    """

    def __init__(self, total: int, label: str, done: int = 0) -> None:
        self.total, self.label, self.done = total, label, done
        self.begun = done
        self.started = time.perf_counter()
        self.shown = 0.0
        self.status = os.environ.get(STATUS_VARIABLE)
        self.bar = self.line = None
        if not self.status:
            if is_run_by_a_program():
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


SESSION = "JPY_SESSION_NAME"  # what Jupyter's server tells the kernel of an open notebook


def is_watched() -> bool:
    """Whether this is the kernel of a notebook that Jupyter's server has opened, and not one that a program runs.

    papermill, called in a notebook, hands the session on to its kernels: so the parent must not have it itself.
    """
    if not _in_kernel() or SESSION not in os.environ or STATUS_VARIABLE in os.environ:
        return False
    parent = Path(f"/proc/{os.getppid()}/environ")
    return not (parent.exists() and f"{SESSION}=".encode() in parent.read_bytes())


def is_run_by_a_program() -> bool:
    """Whether this is a notebook's kernel that no person is known to watch, as papermill's."""
    return _in_kernel() and not is_watched()


def _in_kernel() -> bool:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None
