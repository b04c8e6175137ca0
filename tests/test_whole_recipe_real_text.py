"""The same five notebooks on real text. A file of its own, so that it runs beside `test_whole_recipe`."""

from __future__ import annotations

import pytest
from test_whole_recipe import check_recipe

from xalma.cli.notebooks import run, tasks
from xalma.runs import read_run, stage_folder


@pytest.mark.long
@pytest.mark.data
def test_the_same_notebooks_on_real_text(micro_values, tmp_path):
    """NTREX, mini: a user's corpus goes all the way through, and the loss falls on held-out documents."""
    overrides = micro_values | {"run_dir": str(tmp_path / "runs"), "results_dir": str(tmp_path / "results")}
    overrides |= {"corpus": "ntrex", "bitext_noise": 0.0}
    # real sentences are longer; with less text or another seed the model may answer nothing, and stage 5 has no pair
    overrides |= {"sft_pairs": 60, "max_length": 600, "max_new_tokens": 100, "vocab_size": 1200, "seed": 1}
    overrides |= {"stage1_tokens": 102_400, "block_tokens": 64, "stage4_batch_size": 16}
    overrides |= {f"stage{number}_batch_size": 8 for number in (1, 2, 3)}
    folder = run("tiny", overrides, only="03-07")
    p, _ = tasks("tiny", overrides, "03-07")
    check_recipe(p, folder)
    sft = read_run(stage_folder(p, 4, 6))
    assert sft["inputs"]["corpus"] == "ntrex" and sft["inputs"]["languages"] == list(p.languages_of(6))
    assert sft["dev_loss_after"] < sft["dev_loss_before"] - 0.01
    assert sft["contamination"]["action"] == "drop" and sft["contamination"]["test_sentences"] > 0
