"""results/reliability: all of it green, made by one command; and that command, on harnesses made up for the test."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from types import SimpleNamespace

import pytest

from xalma.runtime import REPOSITORY

FILED = REPOSITORY / "results" / "reliability.json"
HARNESSES = {
    "cache_damages", "checkpoint_damages", "clients", "damages", "endpoint_faults", "hostile", "kills", "long_lines",
    "two_runs",
}  # fmt: skip


@pytest.fixture
def reliability(monkeypatch):
    """benchmarks/reliability.py as a module."""
    spec = importlib.util.spec_from_file_location("reliability", REPOSITORY / "benchmarks" / "reliability.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def filed() -> dict:
    """The report, where it was made."""
    if not FILED.exists():
        pytest.skip(f"{FILED.name} is not made yet: python benchmarks/reliability.py")
    return json.loads(FILED.read_text(encoding="utf-8"))


def test_all_that_is_filed_is_green(reliability, filed):
    parts = {part["name"]: part for part in filed["parts"]}
    assert parts.keys() >= HARNESSES | {"test_hostile_weights", "test_json_files", "test_endpoint_faults"}
    assert all(map(reliability.is_green, filed["parts"])), [name for name, p in parts.items() if p["failed"]]
    assert re.fullmatch(r"python benchmarks/reliability\.py --scale [\d.]+ --seed \d+", filed["command"])
    assert all(re.fullmatch(r"[0-9a-f]{40}", part["commit"]) for part in filed["parts"])
    assert FILED.with_suffix(".md").read_text(encoding="utf-8") == reliability.markdown(filed)


def test_every_harness_has_a_part(reliability):
    assert {module.__name__ for module in reliability.harnesses()} == HARNESSES


def test_clients_answer_alike_in_all_of_their_kinds(filed):
    (part,) = [part for part in filed["parts"] if part["name"] == "clients"]
    assert set(part["held of each kind"].values()) == {part["sentences"]}
    assert part["held of each kind"].keys() >= {
        "transformers pipeline",
        "chat template",
        "PEFT",
        "model.gguf",
    }
    assert part["different answers"] >= part["sentences"] // 3


def fails(*_):
    raise OSError("no disk")


@pytest.mark.parametrize(
    ("run", "code", "said"),
    [
        (lambda *_: {"tried": 2, "held": 2, "failed": []}, 0, "[1/1] Made up: 2 of 2 held"),
        (lambda *_: {"tried": 2, "held": 1, "failed": ["1: odd"]}, 1, "[1/1] Made up: 1 of 2 held"),
        (lambda *_: {"tried": 0, "held": 0, "failed": []}, 1, "0 of 0 held"),
        (fails, 1, "could not be run: OSError: no disk"),
    ],
    ids=["green", "a failure", "nothing tried", "not run"],
)
def test_the_command_plans_tells_and_ends_with_a_status(
    reliability, monkeypatch, tmp_path, capsys, run, code, said
):
    made_up = SimpleNamespace(__name__="made_up", __doc__="A part.", TITLE="Made up", COUNT=4, run=run)
    monkeypatch.setattr(reliability, "harnesses", lambda: [made_up])
    monkeypatch.setitem(sys.modules, "chain", SimpleNamespace(made=lambda work: work))
    out = tmp_path / "report"
    monkeypatch.setattr(
        sys, "argv", ["reliability.py", "--only", "made_up", "--scale", "0.5", "--out", str(out)]
    )
    assert reliability.main() == code
    printed = capsys.readouterr().out
    assert "1 parts" in printed and "made_up: Made up, 2" in printed and said in printed
    filed = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    (part,) = filed["parts"]
    assert part["name"] == "made_up" and len(part["failed"]) == out.with_suffix(".md").read_text().count(
        "**failed**"
    )
