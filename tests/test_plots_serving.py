"""The serving benchmark as table, sentence and figure: from its file alone, and from the committed one."""

from __future__ import annotations

import copy

import pytest

from xalma.plots.serving import LABELS, read_serving, serving_figure, serving_note, serving_sentence, serving_table
from xalma.runtime import REPOSITORY

STEPS = {"merged": 20.0, "in_turn": 40.0, "gated": 30.0, "adapter_names": 45.0, "rebuilt": 300.0}


@pytest.fixture
def record():
    rows = [
        {"way": way, "groups": groups, "prefill_tokens_per_s": 1000.0, "decode_tokens_per_s": 8e3 / ms / groups,
         "first_token_ms": 5 * ms, "step_ms": 7.0 * ms * groups, "forward_step_ms": ms * groups,
         "peak_mib": 100.0 * groups,
         "floor_ms": 24.0 * groups if way == "gated" else None, "times_floor": 1.25 if way == "gated" else None}
        for way, ms in STEPS.items() for groups in (1, 8)
    ]  # fmt: skip
    options = {"layers": 6, "hidden": 768, "rank": 512, "dtype": "float32", "batch": 8, "prompt": 64, "threads": 2}
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
    assert list(table["way"]) == [label for label in LABELS.values() for _ in range(2)]
    assert table["floor, ms"].notna().sum() == 2
    note = serving_note(record)
    assert "25 to 25 GB/s" in note and "a CPU, 2 threads" in note and note.endswith("On a GPU: not measured.")
    record["hardware"]["gpu"] = "a GPU"
    assert "not measured" not in serving_note(record)


def test_sentence_gives_the_ratios(record):
    assert serving_sentence(record) == (
        "With 8 groups in a batch a decoding step of the bank takes 240 ms, 1.25 times the time to read its weights "
        "once; PEFT's mixed batch takes 1.50 times as long, rebuilding weights language by language 10 times. With one "
        "group the bank takes 1.50 times the step of a merged model."
    )


def test_figure(record):
    before = copy.deepcopy(record)
    steps, memory = serving_figure(record).axes
    assert len(steps.lines) == len(STEPS) + 1 and len(memory.lines) == len(STEPS) - 1
    assert record == before


def test_no_file_says_what_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"make it with python benchmarks/module_serving\.py"):
        read_serving(tmp_path / "none.json")


def test_the_committed_benchmark():
    """Whole, and its ways compute the same: otherwise its times would compare different things."""
    record = read_serving(REPOSITORY / "results" / "benchmarks" / "module_serving.json")
    assert len(serving_table(record)) == len(LABELS) * 4
    assert max(record["largest_logit_difference"].values()) < 1e-4 * record["largest_logit"]
    serving_figure(record)
