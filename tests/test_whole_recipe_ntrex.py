"""The same five notebooks on real text. A file of its own, so that it runs beside `test_whole_recipe`."""

from __future__ import annotations

import pytest
from test_whole_recipe import check_recipe

from xalma.cli.notebooks import run, tasks
from xalma.evaluation.records import read_records
from xalma.runs import read_run, stage_folder


@pytest.mark.long
@pytest.mark.data
def test_the_same_notebooks_on_real_text(micro_values, tmp_path):
    """Profile ntrex, mini: real text goes all the way through, and the loss falls on held-out documents."""
    overrides = micro_values | {"run_dir": str(tmp_path / "runs"), "results_dir": str(tmp_path / "results")}
    # real sentences are longer; with less text or another seed the model may answer nothing, and stage 5 has no pair
    overrides |= {"sft_pairs": 60, "max_length": 600, "max_new_tokens": 100, "vocab_size": 1200, "seed": 1}
    overrides |= {"stage1_tokens": 102_400, "block_tokens": 64, "stage4_batch_size": 16}
    overrides |= {f"stage{number}_batch_size": 8 for number in (1, 2, 3)}
    folder = run("ntrex", overrides, only="03-07")
    p, _ = tasks("ntrex", overrides, "03-07")
    check_recipe(p, folder)
    sft = read_run(stage_folder(p, 4, 6))
    assert sft["inputs"]["corpus"] == "ntrex"
    assert sft["dev_loss_after"] < sft["dev_loss_before"] - 0.01


@pytest.mark.long
@pytest.mark.data
def test_small_cpu_in_a_size_of_a_minute(micro_values, tmp_path):
    """Bibles, web copy, NTREX and ALMA's pairs, two groups of two languages; nothing of a test set is trained on."""
    overrides = micro_values | {"run_dir": str(tmp_path / "runs"), "results_dir": str(tmp_path / "results")}
    overrides |= {
        "groups": "1,3",
        "sft_pairs": 60,
        "max_length": 600,
        "max_new_tokens": 80,
        "vocab_size": 1200,
    }
    overrides |= {"stage1_tokens": 102_400, "block_tokens": 64, "stage5_pairs": 20, "stage2_tokens": 4096}
    # up to SFT: a model of this size may answer nothing to real sentences, and then stage 5 has no pair to learn from
    folder = run("small-cpu", overrides, only="03-06")
    p, _ = tasks("small-cpu", overrides, "03-06")
    directions = {f"en-{code}" for g in p.group_numbers for code in p.languages_of(g)}
    directions |= {f"{direction[3:]}-en" for direction in directions}
    for stage in ("base", "stage1", "stage2", "stage3", "stage4"):
        assert {r.direction for r in read_records(folder / "scores" / f"{stage}.jsonl")} == directions
    for group in p.group_numbers:
        sft = read_run(stage_folder(p, 4, group))
        assert sft["inputs"]["languages"] == list(p.languages_of(group))
        assert sft["dev_loss_after"] < sft["dev_loss_before"]
        assert sft["contamination"]["action"] == "drop" and sft["contamination"]["test_sentences"] > 0
    pseudo = read_run(stage_folder(p, 3, 3))
    assert set(pseudo["tokens_by_language"]) == {"ru", "sr"}
