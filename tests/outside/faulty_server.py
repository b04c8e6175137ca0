"""A chat server with every fault that was seen in the field: what it sends, and what it was paid for.

It honours no Idempotency-Key, so that each answer it makes is paid. `always` is a kind of `FAULTS`, for the first
`times` requests (None: for all).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 20, "completion_tokens": 10}
ANSWER = {"model": "m", "choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}], "usage": USAGE}
Reply = tuple[int, dict[str, str], bytes]


def answer(content: Any = "ok", usage: Any = USAGE, finish: Any = "stop") -> dict[str, Any]:
    """A chat completion of this content."""
    choice = {"message": {"content": content}, "finish_reason": finish}
    return {"model": "m", "choices": [choice], "usage": usage}


def ok(body: Any) -> Reply:
    """Status 200 with a JSON body; lone surrogates go out as escapes, as servers write them."""
    return 200, {}, json.dumps(body).encode()


def status(code: int, **headers: str) -> Reply:
    """An error status with OpenAI's form of body."""
    data = json.dumps({"error": {"code": "some_code", "message": "no"}}).encode()
    return code, {name.replace("_", "-"): value for name, value in headers.items()}, data


# Kinds whose answer came whole: it is paid, and asked for once. The text that is kept of it stands beside it.
ANSWERED: dict[str, tuple[Reply, str]] = {
    "as it should be": (ok(ANSWER), "ok"),
    "usage as strings": (ok(answer(usage={"prompt_tokens": "20", "completion_tokens": "10"})), "ok"),
    "usage absent": (ok({"choices": ANSWER["choices"]}), "ok"),
    "usage as a list": (ok(answer(usage=[1, 2])), "ok"),
    "usage of nonsense": (ok(answer(usage={"prompt_tokens": -5, "completion_tokens": [True]})), "ok"),
    "usage NaN": (ok(answer(usage={"prompt_tokens": float("nan"), "completion_tokens": float("inf")})), "ok"),
    "usage of 5,000 digits": ((200, {}, json.dumps(ANSWER).replace("20", "2" * 5000).encode()), "ok"),
    "a lone surrogate": (ok(answer("ok \ud83d")), "ok �"),
    "surrogates the wrong way round": (ok(answer("\ude00\ud83d ok")), "�� ok"),
    "a lone surrogate as the model's name": (ok(ANSWER | {"model": "\ud83d"}), "ok"),
    "no content": (ok({"choices": [{"message": {}, "finish_reason": "content_filter"}], "usage": USAGE}), ""),
    "content null": (ok(answer(None)), ""),
    "no message": (ok({"choices": [{"finish_reason": "stop"}], "usage": USAGE}), ""),
    "message as text": (ok({"choices": [{"message": "ok"}], "usage": USAGE}), "ok"),
    "a completion's text": (ok({"choices": [{"text": "ok"}], "usage": USAGE}), "ok"),
    "no choices, but usage": (ok({"choices": [], "usage": USAGE}), ""),
    "choices null, but usage": (ok({"choices": None, "usage": USAGE}), ""),
    "content as parts": (ok(answer([{"type": "text", "text": "o"}, {"type": "text", "text": "k"}])), "ok"),
    "content as parts with thoughts": (ok(answer([{"type": "thinking", "thinking": "hm"}, "ok"])), "ok"),
    "an emoji cut between parts": (ok(answer([{"text": "\ud83d"}, {"text": "\ude00"}])), "\U0001f600"),
    "content as a number": (ok(answer(7)), ""),
    "finish as an object": (ok(answer(finish={"reason": "stop"})), "ok"),
    "bytes that are not UTF-8": ((200, {}, json.dumps(ANSWER).encode().replace(b"ok", b"ok\xff")), "ok�"),
    "a byte order mark": ((200, {}, b"\xef\xbb\xbf" + json.dumps(ANSWER).encode()), "ok"),
    "a length that is too long": ((200, {"Content-Length": "9999"}, json.dumps(ANSWER).encode()), "ok"),
    "an error beside the answer": (ok(ANSWER | {"error": {"code": 500}}), "ok"),
}

# Kinds that pass: sent some times, then the server answers. Beside them, how many of these are paid.
PASSING: dict[str, tuple[Reply | str, int]] = {
    "429 with seconds": (status(429, Retry_After="0.05"), 0),
    "429 with a date long ago": (status(429, Retry_After=formatdate(0, usegmt=True)), 0),
    "429 with NaN": (status(429, Retry_After="nan"), 0),
    "429 with words": (status(429, Retry_After="soon"), 0),
    "429 with a negative wait": (status(503, Retry_After="-3"), 0),
    "500": (status(500), 0),
    "200 with an error that passes": (ok({"error": {"code": 429, "message": "slow down"}}), 0),
    "cut in the middle": ("cut", 1),
    "closed without a word": ("closed", 1),
    "no JSON": ((200, {}, b"<html>a proxy's page</html>"), 1),
    "gzip that is none": ((200, {"Content-Encoding": "gzip"}, b"not gzip"), 1),
    "slower than the time limit": ("hang", 1),
    "a byte now and then": ("trickle", 1),
    "headers a byte now and then": ("trickled headers", 1),
}

# Kinds that never pass: beside them, words of the sentence that the run ends with.
LASTING: dict[str, tuple[Reply | str, str]] = {
    "401": (status(401), "the key is not accepted"),
    "404": (status(404), "no such model"),
    "a redirect": (status(307, Location="https://example.org/"), "status 307"),
    "400": (status(400), "refuses it with status 400"),
    "200 with an error": (ok({"error": {"code": "content_policy", "message": "no"}}), "content_policy"),
    "200 with an error of words": (ok({"error": "model not loaded"}), "an error in place of an answer"),
    "200 with something else": (ok({"status": "fine"}), "no chat completion"),
    "a list": (ok([1]), "no chat completion"),
    "500": (status(500), "status 500"),
    "no JSON": ((200, {}, b"<html>"), "could not be read"),
    "nested too deep": ((200, {}, b"[" * 100_000), "could not be read"),
    "an endless body": ("endless", "sent an answer that"),
    "cut in the middle": ("cut", "broke off"),
    "slower than the time limit": ("hang", "broke off"),
    "a byte now and then": ("trickle", "broke off"),
    "Retry-After of 1e10": (status(429, Retry_After="1e10"), "asks for a wait of"),
    "Retry-After of 1e400": (status(429, Retry_After="1e400"), "asks for a wait of"),
    "Retry-After of a day": (status(503, Retry_After="86400"), "asks for a wait of 86,400 s"),
    "Retry-After in the year 9999": (
        status(429, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT"),
        "asks for a wait of",
    ),
}


class FaultyServer:
    """A server on localhost; in a `with` block. `paid`: answers made; `seen`: requests; `headers`: theirs."""

    def __init__(self, fault: Reply | str = "", times: int | None = None) -> None:
        self.fault, self.times = fault or ok(ANSWER), times
        self.paid, self.seen, self.headers, self.paths = 0, 0, [], []
        self._lock, self._closed = threading.Lock(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                with suppress(OSError):
                    outer._handle(self)

            def log_message(self, *args: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> FaultyServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._http.shutdown()
        self._http.server_close()

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers["Content-Length"]))
        with self._lock:
            faulty = self.times is None or self.seen < self.times
            self.seen += 1
            self.headers.append(dict(request.headers))
            self.paths.append(request.path)
            reply = self.fault if faulty else ok(ANSWER)
            self.paid += isinstance(reply, str) or (reply[0] == 200 and not _is_error(reply[2]))
        if isinstance(reply, str):
            request.close_connection = True
            return self._broken[reply](self, request)
        code, headers, data = reply
        request.send_response(code)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data)
        request.close_connection = "Content-Length" in headers

    def _cut(self, request: BaseHTTPRequestHandler) -> None:
        data = json.dumps(ANSWER).encode()
        request.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data[: len(data) // 2]
        )

    def _hang(self, request: BaseHTTPRequestHandler) -> None:
        self._closed.wait(60)

    def _drip(self, request: BaseHTTPRequestHandler, head: bytes) -> None:
        request.wfile.write(head)
        while not self._closed.wait(0.05):
            request.wfile.write(b"x")

    def _endless(self, request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not self._closed.is_set():
            request.wfile.write(b" " * 2**20)

    _broken: dict[str, Callable] = {  # noqa: RUF012
        "cut": _cut,
        "closed": lambda self, request: None,
        "hang": _hang,
        "trickle": lambda self, request: self._drip(request, b"HTTP/1.1 200 OK\r\n\r\n"),
        "trickled headers": lambda self, request: self._drip(request, b"HTTP/1.1 200 OK\r\nX-Slow: "),
        "endless": _endless,
    }


def _is_error(data: bytes) -> bool:
    return data.startswith(b'{"error"')
