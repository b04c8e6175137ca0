"""What passes between an endpoint and us besides answers: the key that goes out, the faults that come back."""

from __future__ import annotations

import os
import re
import time
from email.utils import parsedate_to_datetime
from threading import Event

import httpx

REFUSED = (400, 413, 422)  # about this segment, not about the key or the model


class Clock:
    """What time it is, and waiting; a test gives another, so that no test rests on the time of a loaded machine."""

    def time(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; never set back."""
        return time.monotonic()

    def wait(self, stop: Event, seconds: float) -> None:
        """Returns after `seconds`, or as soon as `stop` is set."""
        stop.wait(seconds)


class SegmentRefused(RuntimeError):
    """The server will not answer this one request, however often it is asked."""


def headers(base_url: str, variable: str) -> dict[str, str]:
    """The header with the key. Raises ValueError where OpenAI has none, or where it would cross a network in clear."""
    url, key = httpx.URL(base_url), os.environ.get(variable)
    if not key:
        if url.host.endswith("openai.com"):
            raise ValueError(f"no API key: set the environment variable {variable}")
        return {}
    if url.scheme != "https" and url.host not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError(f"the key in {variable} would go to {url.host} unencrypted: use https, or unset {variable}")
    return {"Authorization": f"Bearer {key}"}


def check(response: httpx.Response) -> str:
    """The fault of an answer that may pass, in words. Raises for one that will not: RuntimeError, or SegmentRefused."""
    status, host = response.status_code, response.url.host
    words = f"status {status}{_code(response)}"
    if status in (408, 409, 425, 429) or status >= 500:
        return words
    if status in REFUSED:
        raise SegmentRefused(f"{host} refuses it with {words}")
    hint = {401: "the key is not accepted", 403: "the key may not use this model", 404: "no such model or address"}
    raise RuntimeError(f"{host} answers with {words}: {hint.get(status, 'see its documentation')}")


def _code(response: httpx.Response) -> str:
    """ " (insufficient_quota)" and the like; the server's own sentence is left out, it may repeat parts of the key."""
    try:
        code = str(response.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""
    return f" ({code})" if re.fullmatch("[a-z_]{3,40}", code) else ""


def retry_after(response: httpx.Response, now: float) -> float:
    """Seconds the server asks to wait, 0 where it does not say; `now`: seconds since 1970, for a date."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return 0.0
