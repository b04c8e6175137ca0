"""The serving benchmark as table, sentence and figure: from its file alone, and from the committed one."""

from __future__ import annotations

import copy
import json

import cost_tables
import pytest
from cost_tables import (
    WAY_LABELS,
    serving_figure,
    serving_note,
    serving_sentence,
    serving_table,
    write_serving,
)

from xalma.runtime import REPOSITORY

STEPS = {
    "merged": 20.0,
    "replayed": 16.0,
    "in_turn": 40.0,
    "gated": 30.0,
    "adapter_names": 45.0,
    "rebuilt": 300.0,
}


def committed(name: str) -> dict:
    return json.loads((REPOSITORY / "results" / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def record():
    rows = [
        {
            "way": way,
            "groups": groups,
            "prefill_tokens_per_s": 1000.0,
            "decode_tokens_per_s": 8e3 / ms / groups,
            "first_token_ms": 5 * ms,
            "step_ms": 7.0 * ms * groups,
            "forward_step_ms": ms * groups,
            "peak_mib": 100.0 * groups,
            "floor_ms": 24.0 * groups if way == "gated" else None,
            "times_floor": 1.25 if way == "gated" else None,
        }
        for way, ms in STEPS.items()
        for groups in (1, 8)
        if way != "replayed"
    ]
    options = {
        "layers": 6,
        "hidden": 768,
        "rank": 512,
        "dtype": "float32",
        "batch": 8,
        "prompt": 64,
        "threads": 2,
    }
    hardware = {"gpu": None, "cpu": "a CPU"}
    return {
        "rows": rows,
        "options": options,
        "hardware": hardware,
        "bandwidth_gb_per_s": [24.6, 25.4],
        "commit": "0" * 40,
    }


def test_table_and_note(record):
    table = serving_table(record)
    assert list(table["way"]) == [WAY_LABELS[way] for way in STEPS if way != "replayed" for _ in range(2)]
    assert table["floor, ms"].notna().sum() == 2
    note = serving_note(record)
    assert "25 to 25 GB/s" in note and "a CPU, 2 threads" in note and "for prefill" not in note
    record["hardware"]["gpu"] = "a GPU"
    record["options"] |= {"prefill_rows": 32, "prefill_prompt": 128}
    assert "prompts of 64 tokens, for prefill 32 of 128; a GPU" in serving_note(record)


def test_sentence_gives_the_ratios(record):
    assert serving_sentence(record) == (
        "With 8 groups in a batch a decoding step of the bank takes 240 ms, 1.25 times the time to read its weights "
        "once; PEFT's mixed batch takes 1.50 times as long, rebuilding weights language by language 10 times. With one "
        "group the bank takes 1.50 times the step of a merged model."
    )


def on_a_gpu(record):
    """The same with replays, and steps that are timed in `generate`."""
    more = [
        r | {"way": "replayed", "step_ms": 7 * STEPS["replayed"]}
        for r in record["rows"]
        if r["way"] == "merged"
    ]
    for row in record["rows"]:
        row |= {"recording_ms": 90.0} if row["way"] == "gated" else {}
        row["prefill_tokens_per_s"] *= 0.85 if row["way"] == "gated" else 1
    return record | {"rows": [*record["rows"], *more], "hardware": {"gpu": "a GPU", "cpu": "a CPU"}}


def test_sentence_of_a_gpu(record):
    assert serving_sentence(on_a_gpu(record)) == (
        "With 8 groups in a batch a decoding step of the bank takes 1680 ms, 1.25 times the time to read its weights "
        "once; PEFT's mixed batch takes 1.50 times as long, rebuilding weights language by language 10 times. With one "
        "group the bank takes 1.50 times the step of a merged model as transformers decodes with it, 1.88 times that "
        "of one with replays. A mixed batch's prompts are read at 85% of a merged model's speed. Recording the graph "
        "takes 90 ms per call."
    )


def test_figure(record):
    before = copy.deepcopy(record)
    steps, memory = serving_figure(record).axes
    assert len(steps.lines) == len(STEPS) and len(memory.lines) == len(STEPS) - 2
    assert steps.lines[0].get_ydata().tolist() == [20.0, 160.0]
    assert serving_figure(on_a_gpu(copy.deepcopy(record))).axes[0].lines[0].get_ydata().tolist() == [
        140.0,
        1120.0,
    ]
    assert record == before


@pytest.mark.parametrize(
    "name", ["module_serving", "module_serving_middle", "module_serving_wide", "module_serving_widest"]
)
def test_the_committed_benchmarks(name):
    """Whole, and its ways compute the same: otherwise its times would compare different things."""
    record = committed(name)
    assert len(serving_table(record)) == (len(WAY_LABELS) - 1) * 4  # without a GPU nothing is replayed
    assert max(record["largest_logit_difference"].values()) < 1e-4 * record["largest_logit"]
    serving_figure(record)


def test_the_committed_benchmark_of_a_gpu():
    record = committed("module_serving_h200")
    assert "H200" in record["hardware"]["gpu"] and record["options"]["hidden"] == 5120
    assert set(serving_table(record)["way"]) == {WAY_LABELS[way] for way in WAY_LABELS if way != "in_turn"}
    assert "with replays" in serving_sentence(record)
    serving_figure(record)


@pytest.mark.parametrize(
    "stem",
    [*(REPOSITORY / "results" / "benchmarks").glob("module_serving*.json")],
    ids=lambda path: path.stem,
)
def test_the_committed_tables_are_what_their_file_says(stem, tmp_path, monkeypatch):
    monkeypatch.setattr(cost_tables, "save_figure", lambda figure, path: None)  # drawn above
    write_serving(json.loads(stem.read_text(encoding="utf-8")), tmp_path / "made")
    for suffix in (".csv", ".md"):
        assert (tmp_path / f"made{suffix}").read_bytes() == stem.with_suffix(suffix).read_bytes()
