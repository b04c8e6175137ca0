"""Systems behind an OpenAI-compatible server, a local one with every fault: no segment is lost or paid for twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from xalma.cli import main as cli
from xalma.systems.chat.endpoint import Endpoint
from xalma.systems.chat.journal import Journal
from xalma.systems.chat.threads import in_thread
from xalma.systems.registry import open_system
from xalma.systems.table import SYSTEMS

KEY = "sk-secret-0123456789"
TEXTS = [f"Sentence number {i}." for i in range(12)]


class Server:
    """A chat endpoint. `faults`: what happens to the n-th request; `paid`: answers made for each request.

    An answer lost on the way is kept by its Idempotency-Key and not charged again, as the header asks.
    "hold" answers when `release` is set.
    """

    def __init__(self, faults: dict[int, str] | None = None, always: str = "") -> None:
        self.faults, self.always, self.release = faults or {}, always, threading.Event()
        self.paid, self.seen, self.headers = Counter(), [], []
        self._answers, self._lock = {}, threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.handle(self)

            def log_message(self, *args: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        key = request.headers["Idempotency-Key"]
        with self._lock:
            fault = self.faults.get(len(self.seen), self.always)
            self.seen.append(body)
            self.headers.append(dict(request.headers))
        if fault == "hold":
            self.release.wait()
            fault = self.always
        if fault.isdigit() or " " in fault:
            status, _, wait = fault.partition(" ")
            data = json.dumps({"error": {"code": "some_code", "message": f"your key {KEY} is bad"}}).encode()
            return self.send(request, int(status), data, {"Retry-After": wait} if wait else {})
        with self._lock:
            if key not in self._answers:
                self.paid[key] += 1
                self._answers[key] = self.answer(body)
        data = self._answers[key]
        if fault == "cut":  # half the body, then the line is dead
            self.send(request, 200, data, {}, cut=len(data) // 2)
        elif fault == "garbage":
            self.send(request, 200, data[:-5], {})
        elif fault == "slow":
            time.sleep(3.0)
            self.send(request, 200, data, {})
        else:
            self.send(request, 200, data, {})

    def answer(self, body: dict) -> bytes:
        text = body["messages"][0]["content"].split("\n")[1].split(": ", 1)[1]
        choice = {"message": {"content": f" Satz:\n{text[::-1]}"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 20, "completion_tokens": 10}
        return json.dumps({"model": "m-2024", "choices": [choice], "usage": usage}).encode()

    def send(self, request, status: int, data: bytes, headers: dict, cut: int | None = None) -> None:
        try:
            request.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(data[:cut])
            if cut is not None:
                request.close_connection = True
                request.connection.shutdown(2)
        except OSError:
            request.close_connection = True  # the client was killed or had no patience

    def close(self) -> None:
        self.release.set()
        self._http.shutdown()
        self._http.server_close()


class Hands:
    """A clock that stands still but for the waits, which it files."""

    def __init__(self) -> None:
        self.now, self.waits = 1_800_000_000.0, []

    def time(self) -> float:
        return self.now

    monotonic = time

    async def wait(self, stop: object, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def serve(monkeypatch):
    """Starts servers, and sets a key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    servers = []

    def start(*args, **options) -> Server:
        servers.append(Server(*args, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def endpoint(server: Server, tmp_path, **options) -> Endpoint:
    options = {"first_wait_s": 0.01, "workers": 3, "timeout_s": 120.0} | options
    return open_system("gpt-4", journal=tmp_path / "j.jsonl", base_url=server.url, **options)


EXPECTED = [f"Satz: {text[::-1]}" for text in TEXTS]


FAULTS = {
    "none": {},
    "429 with seconds": {2: "429 0.1"},
    "429 without": {0: "429", 1: "429", 5: "429"},
    "500s": {0: "500", 3: "503", 4: "502"},
    "cut": {1: "cut", 2: "cut", 7: "cut"},
    "garbage": {3: "garbage"},
    "slow": {4: "slow"},
    "all": {0: "429 0.05", 1: "cut", 2: "500", 3: "garbage", 4: "slow", 5: "429", 6: "cut", 9: "503 0.05"},
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_nothing_is_lost_and_nothing_paid_twice(serve, tmp_path, faults):
    server = serve(faults)
    slow = "slow" in faults.values()  # with a short timeout a loaded machine may cut other answers too
    system = endpoint(server, tmp_path, timeout_s=1.5 if slow else 120.0)
    texts = [*TEXTS, TEXTS[0]]  # the same segment twice is one request
    assert system.translate(texts, "en", "de", progress=False) == [*EXPECTED, EXPECTED[0]]
    assert system.translate(texts, "en", "de", progress=False) == [*EXPECTED, EXPECTED[0]]
    assert len(server.paid) == len(TEXTS) and set(server.paid.values()) == {1}
    cut = sum(fault in ("cut", "garbage", "slow") for fault in faults.values())
    assert system.cut == cut or (slow and system.cut > cut)
    assert len(server.seen) == len(TEXTS) + len(faults) + system.cut - cut
    system.close()
    assert len((tmp_path / "j.jsonl").read_text().splitlines()) == len(TEXTS)


def test_the_request_is_what_the_row_says(serve, tmp_path):
    server = serve()
    endpoint(server, tmp_path, body={"max_tokens": None, "seed": 7}).translate(
        ["Hello"], "en", "de", progress=False
    )
    (body,) = server.seen
    assert body == {
        "model": SYSTEMS["gpt-4"].hub,
        "temperature": 0,
        "seed": 7,
        "messages": [
            {"role": "user", "content": "Translate this from English to German:\nEnglish: Hello\nGerman:"}
        ],
    }
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(("form", "waits"), [("seconds", 300), ("date", 300), ("past", 0.01)])
def test_retry_after_is_kept_to_by_all(serve, tmp_path, form, waits):
    clock = Hands()
    asked = {
        "seconds": "300",
        "date": formatdate(clock.now + 300, usegmt=True),
        "past": formatdate(0, usegmt=True),
    }
    server = serve({0: f"429 {asked[form]}"})
    system = endpoint(server, tmp_path, workers=1, clock=clock)
    system.translate(TEXTS[:3], "en", "de", progress=False)
    assert len(server.seen) == 4 and waits <= sum(clock.waits) <= max(waits, 2 * system.first_wait_s)


def test_waits_double_and_end(serve, tmp_path):
    server, clock = serve(always="500"), Hands()
    system = endpoint(server, tmp_path, attempts=5, first_wait_s=20, workers=1, clock=clock)
    with pytest.raises(
        RuntimeError, match=r"failed 5 times, last with status 500 \(some_code\).*goes on from there"
    ):
        system.translate(TEXTS, "en", "de", progress=False)
    assert len(server.seen) == 5, "the first failure for good stops the run"
    first = clock.waits[0]  # nothing is waited for after the last
    assert 20 <= first <= 40 and clock.waits == [min(60, first * 2**i) for i in range(4)]


@pytest.mark.parametrize(("status", "why"), [("401", "key is not accepted"), ("404", "no such model")])
def test_faults_that_will_not_pass_stop_at_once(serve, tmp_path, status, why):
    server = serve(always=status)
    with pytest.raises(RuntimeError, match=why) as caught:
        endpoint(server, tmp_path, workers=1).translate(TEXTS, "en", "de", progress=False)
    assert len(server.seen) == 1 and KEY not in str(caught.value)


def test_a_refused_segment_does_not_stop_the_others(serve, tmp_path):
    server = serve({4: "400"})
    system = endpoint(server, tmp_path, workers=1)
    with pytest.raises(RuntimeError, match="1 of 12 segments were refused"):
        system.translate(TEXTS, "en", "de", progress=False)
    assert len(system.journal) == 11
    assert system.translate(TEXTS, "en", "de", progress=False) == EXPECTED
    assert len(server.seen) == 13 and set(server.paid.values()) == {1}


def test_only_refusals_stop_after_three(serve, tmp_path):
    server = serve(dict.fromkeys(range(4, 12), "hold"), always="400")
    with pytest.raises(RuntimeError, match="refuses it with status 400"):
        endpoint(server, tmp_path, workers=1).translate(TEXTS, "en", "de", progress=False)
    assert len(server.seen) == 3


KILLED = """
import sys
from xalma.systems import open_system
system = open_system("gpt-4", journal=sys.argv[1], base_url=sys.argv[2], workers=2)
system.translate([f"Sentence number {i}." for i in range(12)], "en", "de", progress=False)
"""


def test_a_killed_process_goes_on(serve, tmp_path):
    server = serve({4: "hold", 5: "hold"})  # its two workers stop there until it is dead
    journal = tmp_path / "j.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(journal), server.url], stderr=subprocess.DEVNULL
    )
    while process.poll() is None and (len(server.seen) < 6 or journal.read_bytes().count(b"\n") < 4):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    server.release.set()
    done = journal.read_bytes().count(b"\n")
    assert done == 4
    with journal.open("ab") as file:
        file.write(b'{"key": "half a li')  # as a cut of power leaves it
    before = len(server.seen)
    system = endpoint(server, tmp_path)
    assert system.translate(TEXTS, "en", "de", progress=False) == EXPECTED
    assert system.journal.lost_lines == 1
    assert len(server.seen) - before == 12 - done, "what is in the journal is not asked again"
    assert len(server.paid) == 12 and set(server.paid.values()) == {1}
    system.close()
    reread = Journal(journal)
    assert len(reread) == 12 and reread.lost_lines == 1


def test_two_processes_cannot_hold_one_journal(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    with pytest.raises(OSError, match="held by another process"):
        Journal(tmp_path / "j.jsonl")
    journal.close()
    Journal(tmp_path / "j.jsonl").close()


def test_a_journal_that_cannot_be_written(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match="can't write the journal"):
        Journal(tmp_path / "taken" / "j.jsonl")


def test_the_cost_is_said_before_the_first_request(serve, tmp_path, capsys):
    server = serve()
    system = endpoint(server, tmp_path, prices=(10.0, 30.0))
    estimate = system.estimate(TEXTS, "en", "de")
    prompts = [system.request(text, "en", "de")["messages"][0]["content"] for text in TEXTS]
    given = sum(-(-len(prompt) // 3) + 10 for prompt in prompts)
    assert (estimate.requests, estimate.in_journal, estimate.input_tokens) == (12, 0, given)
    assert estimate.cost == pytest.approx((given * 10 + estimate.output_tokens * 30) / 1e6)
    assert not server.seen
    system.translate(TEXTS, "en", "de", progress=False)
    assert f"12 requests (0 more are in the journal), about {given} tokens in" in capsys.readouterr().err
    assert system.estimate(TEXTS, "en", "de").cost == 0
    assert endpoint(server, tmp_path / "other").estimate(TEXTS, "en", "de").cost is None, (
        "prices are not guessed"
    )


def test_max_cost(serve, tmp_path):
    server = serve()
    with pytest.raises(ValueError, match=r"estimated are above 0\.001"):
        system = endpoint(server, tmp_path, prices=(10.0, 30.0), max_cost=0.001)
        system.translate(TEXTS, "en", "de", progress=False)
    assert not server.seen
    system.close()
    # 20 and 10 tokens an answer: the server's count is dearer than the rule of thumb for these
    system = endpoint(server, tmp_path, prices=(0.0, 1e6), max_cost=75.0, workers=1)
    with pytest.raises(RuntimeError, match=r"70\.00 spent, the limit is 75"):
        system.translate(TEXTS, "en", "de", progress=False)
    assert len(server.seen) == len(system.journal) == 7, "one more would go beyond the limit"
    system.close()
    with pytest.raises(ValueError, match="needs prices"):
        endpoint(server, tmp_path, max_cost=1.0)


def test_the_key_is_nowhere_but_in_the_header(serve, tmp_path, capsys, caplog):
    caplog.set_level("DEBUG")
    server = serve({0: "500", 1: "401"})
    system = endpoint(server, tmp_path, workers=1)
    with pytest.raises(RuntimeError) as caught:
        system.translate(TEXTS, "en", "de", progress=False)
    system.translate(TEXTS, "en", "de", progress=False)
    system.close()
    said = "".join(capsys.readouterr()) + caplog.text + str(caught.value) + (tmp_path / "j.jsonl").read_text()
    assert "Satz" in said and KEY not in said
    assert all(KEY not in json.dumps(body) for body in server.seen)


@pytest.mark.parametrize(
    ("key", "url", "why"),
    [
        (None, "https://api.openai.com/v1", "set the environment variable OPENAI_API_KEY"),
        (KEY, "http://models.example.org/v1", "unencrypted"),
    ],
)
def test_keys_that_lack_or_would_leak(tmp_path, monkeypatch, key, url, why):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValueError, match=why) as caught:
        open_system("gpt-4", base_url=url, journal=tmp_path / "j.jsonl")
    assert KEY not in str(caught.value)


def test_a_server_of_ones_own_needs_a_model_and_no_key(serve, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    server = serve()
    with pytest.raises(ValueError, match="has no model"):
        open_system("endpoint", base_url=server.url, journal=tmp_path / "j.jsonl")
    system = open_system("endpoint", path="my-model", base_url=server.url, journal=tmp_path / "j.jsonl")
    assert system.translate(["Hello"], "en", "de", progress=False) == ["Satz: olleH"]
    assert server.seen[0]["model"] == "my-model" and "Authorization" not in server.headers[0]


def test_outputs_of_a_test_set_say_the_whole_cost_first(serve, tmp_path, capsys):
    server = serve({1: "cut", 3: "429 0.05"})
    for direction in ("en-de", "de-en"):
        (tmp_path / "set" / direction).mkdir(parents=True)
        for side in ("src", "ref"):
            (tmp_path / "set" / direction / f"{side}.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    argv = [
        "outputs",
        "--system",
        "gpt-4",
        "--testset",
        str(tmp_path / "set"),
        "--out",
        str(tmp_path / "out"),
    ]
    argv += ["--base-url", server.url, "--prices", "10", "30"]
    assert cli.main([*argv, "--max-cost", "0.001"]) == 2
    assert "estimated are above 0.001" in capsys.readouterr().err and not server.seen
    assert cli.main(argv) == 0
    err = capsys.readouterr().err
    assert err.startswith("gpt-4, 2 directions: 24 requests (0 more are in the journal)")
    assert (tmp_path / "out" / "en-de.txt").read_text().splitlines() == EXPECTED
    assert len((tmp_path / "out" / "journal.jsonl").read_text().splitlines()) == 24
    assert cli.main(argv) == 0, "the journal was let go"
    assert len(server.paid) == 24 and set(server.paid.values()) == {1}


def test_an_answer_broken_off_half_read_is_closed_with_its_loop():
    closed, kept = [], []

    async def chunks():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async def work():
        kept.append(chunks())
        assert await anext(kept[0]) == 1

    in_thread(work())
    assert closed
