"""The long form is read back from its files as it was filed, without a trained module."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from test_marks import records
from test_preference_tables import records_of

from xalma.paper.studies import long_form
from xalma.paper.studies.long_form import (
    is_long,
    long_folder,
    plan,
    read_grpo,
    read_long_form,
    run_grpo_study,
    run_long_form,
)
from xalma.paper.studies.preference_methods import arpo_variants, systems
from xalma.profiles import load_profile


@pytest.fixture
def p(tmp_path):
    return load_profile("tiny", seeds=3, comparison_steps=5, results_dir=str(tmp_path), methods="cpo,arpo")


@pytest.fixture
def counted(monkeypatch):
    """A comparison that trains nothing: 20 BLEU for all, and made-up logs."""
    logs = pd.DataFrame([{"label": "ARPO", "seed": 0, "step": 1, "tau": 0.25, "z": 0.125}])
    counts = {"tau_counts": [[0, 3, 1]], "z_counts": [[4, 0]]}
    monkeypatch.setattr(
        long_form, "compare_methods", lambda p, group, chosen: records_of({}, [s.name for s in chosen])
    )
    monkeypatch.setattr(long_form, "probe_frame", lambda *_: logs.assign(chosen_avg_logp=-1.5))
    monkeypatch.setattr(long_form, "tau_frame", lambda *_: logs.assign(**counts))
    monkeypatch.setattr(long_form, "read_pairs", lambda *_: ([], {"considered": 5, "kept": 4}))


def test_what_is_filed_is_read_back(p, counted):
    assert read_long_form(p) is None
    found = run_long_form(p, records_of({}, ["stage4", "cpo", "arpo"]))
    assert [system.name for system in found.methods] == ["cpo", "arpo"]
    assert found.variants == arpo_variants(p) and found.systems == [*systems(p), *arpo_variants(p)]
    assert {record.stage for record in found.of(found.methods)} == {"stage4", "cpo", "arpo"}
    assert {record.stage for record in found.records} == {
        "stage4",
        *(system.name for system in found.systems),
    }
    assert found.taus["tau_counts"].tolist() == [[0, 3, 1]] and found.taus["z"].tolist() == [0.125]
    assert found.probes["chosen_avg_logp"].tolist() == [-1.5]
    again = read_long_form(p)
    assert again.records == found.records and again.run == found.run


def test_the_command_stands_in_run_json(p, counted):
    run_long_form(p, [])
    run = json.loads((long_folder(p) / "run.json").read_text())
    assert run["command"].startswith("xalma run --profile tiny --only 08 --set ")
    assert {"--set seeds=3", "--set comparison_steps=5"} <= {
        f"--set {w}" for w in run["command"].split(" --set ")
    }
    assert run["seeds"] == [0, 1, 2] and run["pairs"] == {"6": {"considered": 5, "kept": 4}}
    assert run["commit"] and run["hardware"]


def test_a_short_run_has_no_long_form(p):
    assert is_long(p) and not is_long(p.but(seeds=2))
    assert "36 modules" in plan(p)  # 2 methods and 10 variants, three seeds


def test_the_comparison_with_grpo_is_filed_and_read_back(p, counted, monkeypatch, tmp_path):
    made = records({"stage4": 50.0, "sft": 51.0, "cpo": 52.0, "arpo": 53.0, "grpo": 54.0}, ["grpo"])
    rewards = pd.DataFrame(
        {"seed": [0], "step": [40], "reward": [0.5], "groups without a difference": [0.25]}
    )
    monkeypatch.setattr(long_form, "compare_methods", lambda p, group: made)
    monkeypatch.setattr(long_form, "_content", lambda *_: [])
    monkeypatch.setattr(long_form, "reward_frame", lambda *_: rewards)
    start = {"fingerprint": "f", "seconds": 1.5, "inputs": {"recipe": "r"}}
    monkeypatch.setattr(long_form, "read_run", lambda _: start)
    assert read_grpo(p) is None
    run_grpo_study(["--set", f"results_dir={tmp_path}"])
    run, table = read_grpo(p)
    assert run["command"].endswith(
        f"long_form --profile tiny --set results_dir={tmp_path}"
    )  # alone: make grpo
    assert run["start"] == {"fingerprint": "f", "recipe": "r"}
    assert run["seeds"] == [0, 1, 2] and run["updates"] == 40 and run["seconds"]["grpo"] == [1.5] * 3
    assert table["method"].tolist() == ["SFT, the start", "SFT (continued)", "CPO", "ARPO", "GRPO"] * 2
    written = (tmp_path / "tiny" / "grpo" / "tables" / "grpo.md").read_text()
    assert "54.100‡" in written and "chose or filtered training pairs" in written
