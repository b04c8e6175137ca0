"""A chat model as a judge, on a local server: GEMBA's two questions, scores in tables, nothing paid for twice."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import pytest

from xalma.cli.main import main
from xalma.evaluation import scoring
from xalma.evaluation.metrics import NotScored
from xalma.files import write_atomically
from xalma.systems.chat import judge
from xalma.systems.chat.judge import ChatJudge, gemba_prompts, score_in

PROMPTS = (
    [
        {"role": "system", "content": "Mark {errors}."},
        {"role": "user", "content": "Errors? {source_lang}: {source_seg} {target_lang}: {target_seg}"},
    ],
    "Score 0-100? {source_lang}: {source_seg} {target_lang}: {target_seg} Spans: {error_spans}",
)  # the form of gemba's
SAMPLES = [{"src": "Ja {error_spans}.", "mt": "Yes."}, {"src": "Nein.", "mt": "Perhaps so."}]


@pytest.fixture
def server(monkeypatch):
    """A judge that finds as many errors as the answer has letters; `seen`: its requests. `refuses`: says no number."""
    monkeypatch.setattr(judge, "gemba_prompts", lambda: PROMPTS)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            http.seen.append(body)
            text = body["messages"][-1]["content"]
            mt = text.split("English: ")[1].split(" Spans: ")[0]
            found = f"Major: {len(mt)}" if text.startswith("Errors") else f"Score: {100 - len(mt)}/100"
            if http.refuses and body["temperature"] < http.refuses and text.startswith("Score"):
                found = "It is good."
            choice = {"message": {"content": found}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 100, "completion_tokens": 10}
            data = json.dumps({"choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.seen, http.refuses, http.url = [], 0, f"http://127.0.0.1:{http.server_port}/v1"
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield http
    http.shutdown()
    http.server_close()


def asked(server, tmp_path, **options):
    made = ChatJudge("m", tmp_path / "journal.jsonl", base_url=server.url, **options)
    try:
        return made(SAMPLES, ["de-en", "de-en"]), made.endpoint.spent
    finally:
        made.endpoint.close()


def test_two_questions_per_segment_and_none_twice(server, tmp_path):
    found, spent = asked(server, tmp_path, prices=(10.0, 30.0))
    assert found.scores.tolist() == [0.96, 0.89] and found.signature.startswith("GEMBA-ESA|judge:m|gemba:")
    spans, scores = server.seen[:2], server.seen[2:]
    first = next(body for body in spans if "Ja" in body["messages"][1]["content"])
    assert first["messages"] == [
        PROMPTS[0][0],
        {"role": "user", "content": "Errors? German: Ja {error_spans}. English: Yes."},
    ]
    assert sorted(body["messages"][0]["content"].rpartition("Spans: ")[2] for body in scores) == [
        "Major: 11",
        "Major: 4",
    ]
    assert len(server.seen) == 4 and spent == pytest.approx(4 * (100 * 10 + 10 * 30) / 1e6)
    again, _ = asked(server, tmp_path, prices=(10.0, 30.0))
    assert again.scores.tolist() == found.scores.tolist() and len(server.seen) == 4


def test_an_answer_without_a_score_is_asked_again_warmer(server, tmp_path):
    server.refuses = 1
    assert asked(server, tmp_path)[0].scores.tolist() == [0.96, 0.89]
    assert [body["temperature"] for body in server.seen] == [0, 0, 0, 0, 0.5, 0.5, 1, 1]


def test_a_judge_that_gives_no_score_is_not_scored(server, tmp_path):
    server.refuses = 2
    found, _ = asked(server, tmp_path)
    assert isinstance(found, NotScored) and found.reason == "not scored: 2 of 2 answers hold no score"


def test_a_limit_of_cost_holds(server, tmp_path):
    with pytest.raises(ValueError, match="estimated are above"):
        asked(server, tmp_path, prices=(1e6, 1e6), max_cost=1.0)
    assert not server.seen


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("85", 85),
        ("Score: 92.5.", 92.5),
        ("**70**/100", 70),
        ("I give it 66 out of 100", 66),
        ("66, so 66", 66),
        ("100", 100),
        ("0", 0),
        ("", None),
        ("good", None),
        ("101", None),
        ("-5", None),
        ("70 to 80", None),
        ("95%", None),
        ("Score (0-100): 40", 40),
    ],
)
def test_scores_in_answers(answer, score):
    assert score_in(answer) == score


def test_the_command_scores_systems_by_a_judge(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "home", lambda: tmp_path)
    for name, lines in {
        "set/de-en/src.txt": ["Ja.", "Nein."],
        "set/de-en/ref.txt": ["Yes.", "No."],
        "systems/one/de-en.txt": ["Yes.", "No."],
        "systems/two/de-en.txt": ["Yes, indeed.", "Oh no."],
    }.items():
        write_atomically(tmp_path / name, "\n".join(lines) + "\n")
    score = ("score", "--system-outputs", tmp_path / "systems", "--testset", tmp_path / "set", "--workers", 1)
    judged = (
        "--metrics",
        "gemba-esa",
        "--judge",
        "m",
        "--base-url",
        server.url,
        "--results",
        tmp_path / "out",
    )
    for _ in range(2):
        assert main([str(a) for a in (*score, *judged, "--prices", 1, 1)]) == 0
        done = capsys.readouterr()
        assert "96.50 ±" in done.out and "91.00 ±" in done.out and "GEMBA-ESA|judge:m" in done.out
        assert "gemba-esa spent: now" in done.err
    assert len(server.seen) == 8 and (tmp_path / "out" / "gemba-esa.journal.jsonl").is_file()
    assert "96.50" in (tmp_path / "out" / "set" / "gemba-esa.csv").read_text()
    assert main([str(a) for a in (*score, "--metrics", "gemba-esa")]) == 0
    assert "gemba-esa needs --judge MODEL" in capsys.readouterr().out


def test_the_packages_prompts_have_the_fields(monkeypatch):
    if find_spec("gemba") is None:
        with pytest.raises(ImportError, match=r"pip install 'xalma\[judge\]'"):
            gemba_prompts()
        return
    spans, ranking = gemba_prompts()
    assert [turn["role"] for turn in spans] == ["system", *["user", "assistant"] * 3, "user"]
    for field in ("source_lang", "source_seg", "target_lang", "target_seg"):
        assert f"{{{field}}}" in spans[-1]["content"] and f"{{{field}}}" in ranking
    assert "{error_spans}" in ranking
