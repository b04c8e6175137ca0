"""A progress bar, or nothing in its place."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from xalma.progress import Progress, progress


class _NoBar:
    def update(self, n: int = 1, note: str = "") -> None: ...


def bar(total: int, label: str, show: bool) -> AbstractContextManager[Progress | _NoBar]:
    """`xalma.progress.progress`, or a bar that shows nothing."""
    return progress(total, label) if show else nullcontext(_NoBar())
