"""A server with every fault: how many of the requests for N segments are paid, and what is kept of the answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from endpoint_faults import COUNT, asked, opened, run, texts_of
from faulty_server import ANSWERED, LASTING, PASSING, FaultyServer, answer, ok, status

from xalma.systems.chat.faults import Clock
from xalma.systems.chat.journal import Journal
from xalma.systems.registry import open_system

N, TEXTS = COUNT, texts_of(COUNT)
KEY = "sk-secret-0123456789"


@pytest.mark.parametrize("kind", ANSWERED)
def test_an_answer_that_came_is_kept_and_paid_once(tmp_path, kind):
    fault, text = ANSWERED[kind]
    with FaultyServer(fault) as server:
        first = asked(server, tmp_path / "j.jsonl", prices=(1e6, 1e6))
        again = asked(server, tmp_path / "j.jsonl")
    assert first == again == [text] * N
    assert server.seen == server.paid == N
    journal = Journal(tmp_path / "j.jsonl")
    assert len(journal) == N and not journal.lost_lines
    assert min(journal.tokens) > 0 or text == "", "an answer without counts is no answer without cost"
    assert journal.tokens[0] > 0


@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_passes_costs_no_more_than_its_answers(tmp_path, kind):
    fault, paid_each = PASSING[kind]
    with FaultyServer(fault, times=2) as server:
        assert asked(server, tmp_path / "j.jsonl") == ["ok"] * N
        assert asked(server, tmp_path / "j.jsonl") == ["ok"] * N
    assert server.seen == N + 2 and server.paid == N + 2 * paid_each


@pytest.mark.parametrize("kind", LASTING)
def test_a_fault_that_lasts_ends_the_run_soon(tmp_path, kind):
    fault, words = LASTING[kind]
    with FaultyServer(fault) as server:
        with pytest.raises(RuntimeError, match=words):
            asked(server, tmp_path / "j.jsonl", attempts=3)
        assert server.paid <= 3 + 4 + 2, "workers, tries, and what was under way"
        assert server.seen <= 3 * 3 + 2
    assert (tmp_path / "j.jsonl").read_bytes() == b""


def test_the_harness_counts_no_failure(tmp_path):
    found = run(tmp_path, tmp_path, 2, 0)
    assert found["failed"] == [] and found["held"] == found["tried"]


def test_an_answer_lost_each_time_does_not_stop_the_others(tmp_path, monkeypatch):
    """One segment's answers break off; it is asked for four times, the others once."""
    with FaultyServer() as server:
        handle = server._handle

        def broken(request) -> None:
            length = int(request.headers["Content-Length"])
            body = request.rfile.peek(length)
            server.fault = "closed" if b"number 2." in body else ok(answer())
            handle(request)

        monkeypatch.setattr(server, "_handle", broken)
        with pytest.raises(RuntimeError, match=r"1 of 6 segments were refused.*broke off .*4 times"):
            asked(server, tmp_path / "j.jsonl", workers=1)
        assert server.seen == N - 1 + 4


@pytest.mark.parametrize("workers", [1, 8])
def test_a_limit_holds_over_all_starts(tmp_path, workers):
    """30 tokens, so 30 an answer; 100 pay for three, however often it is started."""
    options = {"prices": (1e6, 1e6), "max_cost": 100.0, "workers": workers, "body": {"max_tokens": 10}}
    with FaultyServer(ok(answer(usage={"prompt_tokens": 20, "completion_tokens": 10}))) as server:
        for _ in range(5):
            system = opened(server, tmp_path / "j.jsonl", **options)
            estimate = system.estimate(TEXTS[:1], "en", "de").cost
            assert estimate < 100
            with pytest.raises((RuntimeError, ValueError), match=r"spent"):
                for text in TEXTS:
                    system.translate([text], "en", "de", progress=False)
            system.close()
        assert server.paid <= 3


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"max_cost": 0.0}, "estimated are above 0"),
        ({"max_cost": float("nan")}, "max_cost is nan"),
        ({"max_cost": float("inf")}, "max_cost is inf"),
        ({"max_cost": -1.0}, "max_cost is -1.0"),
        ({"prices": (float("nan"), 1.0)}, "prices is nan"),
        ({"prices": (-1.0, 1.0)}, "prices is -1.0"),
        ({"timeout_s": 0.0}, "timeout_s is 0.0"),
        ({"deadline_s": -1.0}, "deadline_s is -1.0"),
    ],
)
def test_limits_that_are_no_limits(tmp_path, options, why):
    with FaultyServer() as server:
        with pytest.raises(ValueError, match=why):
            asked(server, tmp_path / "j.jsonl", **{"prices": (10.0, 30.0)} | options)
        assert server.seen == 0


@pytest.mark.parametrize(
    "line",
    [
        b'{"key": "half a li',
        b"[]",
        b"7",
        b'{"key": 1, "text": "a"}',
        b'{"key": "a"}',
        b'{"key": "a", "text": 7}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_lines_that_cannot_be_read_are_said_before_they_are_bought_again(tmp_path, capsys, line):
    with FaultyServer() as server:
        asked(server, tmp_path / "j.jsonl")
        whole = (tmp_path / "j.jsonl").read_bytes().split(b"\n")
        (tmp_path / "j.jsonl").write_bytes(b"\n".join([line, *whole[1:]]))
        capsys.readouterr()
        assert asked(server, tmp_path / "j.jsonl") == ["ok"] * N
        assert server.paid == N + 1
    assert "1 lines of" in capsys.readouterr().err


def test_a_journal_with_parts_of_an_earlier_version(tmp_path):
    with FaultyServer() as server:
        asked(server, tmp_path / "j.jsonl")
        records = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
        parts = [{"type": "text", "text": "o"}, {"type": "text", "text": "k"}]
        lines = [json.dumps({**record, "text": parts}) + "\n" for record in records]
        (tmp_path / "j.jsonl").write_text("".join(lines))
        assert asked(server, tmp_path / "j.jsonl") == ["ok"] * N
        assert server.seen == N


class Hands(Clock):
    """A clock that stands still but for the waits, which it files."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, []

    def monotonic(self) -> float:
        return self.now

    async def wait(self, stop, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def test_waits_are_said_and_a_deadline_ends_them(tmp_path, capsys):
    clock = Hands()
    with FaultyServer(status(429, Retry_After="42"), times=1) as server:
        assert asked(server, tmp_path / "a.jsonl", workers=1, clock=clock) == ["ok"] * N
        assert "status 429 (some_code): waits 42 s, as the server asks" in capsys.readouterr().err
        assert clock.waits == [42]
    with (
        FaultyServer(status(429, Retry_After="42")) as server,
        pytest.raises(RuntimeError, match="a wait of 42 s"),
    ):
        asked(server, tmp_path / "b.jsonl", deadline_s=5.0)
    with FaultyServer("hang") as server, pytest.raises(RuntimeError, match=r"deadline is over|broke off"):
        asked(server, tmp_path / "c.jsonl", deadline_s=0.2, timeout_s=60.0)


@pytest.mark.parametrize("fault", ["hang", status(503, Retry_After="500")], ids=["hang", "wait"])
def test_ctrl_c_ends_it_at_once_with_a_sentence(tmp_path, fault):
    (tmp_path / "in.txt").write_text("Hello.\n")
    with FaultyServer(fault) as server:
        command = [sys.executable, "-m", "xalma.cli", "translate", "--system", "endpoint", "--path", "m"]
        command += [
            "--from",
            "en",
            "--to",
            "de",
            "--base-url",
            server.url,
            "--journal",
            str(tmp_path / "j.jsonl"),
        ]
        heeds = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 (a suite in the background ignores it)
        command.append(str(tmp_path / "in.txt"))
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heeds)
        deadline = time.monotonic() + 60
        while not server.seen and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        begun = time.monotonic()
        _, said = process.communicate(timeout=60)
        assert time.monotonic() - begun < 10, (
            "measured 2 s; a machine under load takes longer, a server that hangs 60"
        )
    assert (
        process.returncode == 130
        and "the same command goes on from there" in said
        and "Traceback" not in said
    )


ADDRESSES = (
    "http://user:SECRET@{host}/v1",
    "http://{host}/v1?api-key=SECRET",
    "http://SECRET@{host}/v1?a=SECRET#SECRET",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_secrets_of_an_address_reach_the_server_and_nothing_else(
    tmp_path, capsys, caplog, monkeypatch, address
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level("DEBUG")
    from xalma.cli import main as cli

    folder = tmp_path / "set" / "en-de"
    folder.mkdir(parents=True)
    for side in ("src", "ref"):
        (folder / f"{side}.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    with FaultyServer(status(500), times=1) as server:
        url = address.format(host=server.url.removeprefix("http://").removesuffix("/v1"))
        argv = ["outputs", "--system", "endpoint", "--path", "m", "--testset", str(tmp_path / "set")]
        assert cli.main([*argv, "--out", str(tmp_path / "out"), "--base-url", url]) == 0
        sent = json.dumps(server.headers) + "".join(server.paths)
    filed = "".join(file.read_text() for file in (tmp_path / "out").iterdir())
    said = "".join(capsys.readouterr()) + caplog.text
    assert "SECRET" in sent or "Basic" in sent
    assert "SECRET" not in filed + said and KEY not in filed + said
    if "@" in address:
        assert KEY not in sent, "one who gives a user gives it in place of the key"


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_proxy_sees_what_goes_to_this_machine(tmp_path, monkeypatch, variable):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with FaultyServer() as proxy, FaultyServer() as server:
        monkeypatch.setenv(variable, proxy.url.removesuffix("/v1"))
        assert asked(server, tmp_path / "j.jsonl") == ["ok"] * N
        assert proxy.seen == 0 and server.seen == N


@pytest.mark.parametrize(
    "url",
    [
        "http://user:SECRET@models.example.org/v1",
        "http://models.example.org/v1?key=SECRET",
        "localhost:SECRET",
        "http://[SECRET",
        "http://SECRET:99999/",
        "https://SECRET host/",
        "ftp://SECRET/",
        "http://SECRET..x/",
        "",
        f"https://{'SECRET' * 20}.org/",
    ],
)
def test_addresses_that_leak_or_are_none(tmp_path, monkeypatch, url):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"unencrypted|base URL") as caught:
        open_system("endpoint", path="m", journal=tmp_path / "j.jsonl", base_url=url)
    assert "SECRET" not in str(caught.value)


def test_a_host_that_is_not_there_is_given_up_soon(tmp_path, capsys):
    from xalma.cli import main as cli

    with FaultyServer() as server:
        url = server.url
    (tmp_path / "in.txt").write_text("Hello.\n")
    argv = [
        "translate",
        "--system",
        "endpoint",
        "--path",
        "m",
        "--from",
        "en",
        "--to",
        "de",
        str(tmp_path / "in.txt"),
    ]
    for address, why in (
        (url, "failed 3 times, last with no connection (ConnectError)"),
        ("http://a b/", "base URL"),
    ):
        assert cli.main([*argv, "--base-url", address, "--journal", str(tmp_path / "j.jsonl")]) in (1, 2)
        err = capsys.readouterr().err
        assert why in err and "Traceback" not in err


@pytest.mark.parametrize("key", ["schlüssel", "a\nb", "a\x00b" if os.name == "nt" else "a\tb"])
def test_keys_that_no_header_takes(tmp_path, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValueError, match="characters that a key can't have") as caught:
        open_system("endpoint", path="m", journal=tmp_path / "j.jsonl", base_url="http://localhost:1/v1")
    assert key not in str(caught.value)
