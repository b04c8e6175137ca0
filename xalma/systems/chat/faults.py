"""The faults that come back from an endpoint: which pass, which stop one segment, which stop the run."""

from __future__ import annotations

import asyncio
import math
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

REFUSED = (400, 413, 422)  # about this segment, not about the key or the model
PASSING = (408, 409, 425, 429)  # and all from 500


class Clock:
    """What time it is, and waiting; a test gives another, so that no test rests on the time of a loaded machine."""

    def time(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; never set back."""
        return time.monotonic()

    async def wait(self, stop: asyncio.Event, seconds: float) -> None:
        """Returns after `seconds`, or as soon as `stop` is set."""
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)


@dataclass(frozen=True)
class Fault:
    """An error that may pass."""

    words: str
    asked_s: float = 0.0  # the wait that the server asks for
    is_for_all: bool = False
    is_unreached: bool = False  # no connection was made


class Lost(Exception):
    """An answer that broke off or could not be read, of a request that may have been paid."""


class SegmentRefused(RuntimeError):
    """The server will not answer this one request, however often it is asked."""


def check_faults(response: httpx.Response, data: bytes, host: str) -> str:
    """The fault of a status that may pass, in words. Raises for one that will not: RuntimeError, or SegmentRefused."""
    status = response.status_code
    words = f"status {status}{_code(data)}"
    if passes(status):
        return words
    if status in REFUSED:
        raise SegmentRefused(f"{host} refuses it with {words}")
    hint = {
        401: "the key is not accepted",
        403: "the key may not use this model",
        404: "no such model or address",
    }
    raise RuntimeError(f"{host} answers with {words}: {hint.get(status, 'see its documentation')}")


def passes(status: int | None) -> bool:
    """Whether an error of this status may be gone when asked again."""
    return status is not None and (status in PASSING or 500 <= status < 600)


def _code(data: bytes) -> str:
    """ " (insufficient_quota)" and the like; the server's own sentence is left out, it may repeat parts of the key."""
    found = re.search(rb'"code"\s*:\s*"([a-z_]{3,40})"', data[:10_000])
    return f" ({found[1].decode()})" if found else ""


def retry_after(response: httpx.Response, now: float) -> float:
    """Seconds the server asks to wait: 0 where it does not say, infinity where it names no time that can be.

    now: seconds since 1970, for a date.
    """
    value = response.headers.get("Retry-After", "")
    try:
        seconds = float(value)
        return 0.0 if math.isnan(seconds) else max(0.0, seconds)
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, IndexError):
        return 0.0
    except (OverflowError, OSError):
        return math.inf
