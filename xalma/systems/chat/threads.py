"""An event loop in a thread of its own, since a notebook's has one already, and Ctrl-C that ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any

GRACE_S = 2.0  # for answers under way after Ctrl-C: they are paid


def in_thread(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` in an event loop of its own thread, since a notebook's has one already. Ctrl-C cancels it."""
    loop = asyncio.new_event_loop()
    outcome = Future[None]()
    task = loop.create_task(work)

    def run() -> None:
        try:
            try:
                loop.run_until_complete(task)
            finally:
                loop.run_until_complete(loop.shutdown_asyncgens())  # an answer that was broken off half-read
                loop.close()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    thread = Thread(target=run, daemon=True)  # it must not hold up the end of the process
    thread.start()
    try:
        outcome.result()
    except KeyboardInterrupt:
        with suppress(RuntimeError):  # the loop has just ended
            loop.call_soon_threadsafe(task.cancel)
        thread.join(GRACE_S + 0.5)
        raise
