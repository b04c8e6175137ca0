"""Logs as rows, computed sentences and the index page, from hand-made stage folders and records."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from xalma.evaluation.records import Record
from xalma.paper.report import (
    change_sentence,
    continuations,
    files_of,
    group_scores,
    left_table,
    loss_sentence,
    read_logs,
    training_table,
    values_frame,
    write_index,
    write_log,
)
from xalma.paper.tables import write_table
from xalma.profiles import load_profile
from xalma.runs import results_folder, stage_folder


@pytest.fixture
def p(tmp_path):
    return load_profile(
        "tiny", groups="6", run_dir=str(tmp_path / "runs"), results_dir=str(tmp_path / "results")
    )


def file_stage(p, number, group, run, log):
    folder = stage_folder(p, number, group)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"steps": 2, **run}))
    (folder / "log.json").write_text(json.dumps(log))


def records(**values: float) -> list[Record]:
    """stage4__en_ja=1.0 -> a record."""
    split = {key: key.replace("__", " ").replace("_", "-").split() for key in values}
    return [Record("tiny", split[k][0], split[k][1], "bleu", v, 5, "sig") for k, v in values.items()]


def test_log_keeps_what_two_equal_runs_share(p):
    counts = [0, 1, 3]
    log = [
        {"kind": "probe", "step": 0, "chosen_avg_logp": -2.0, "rejected_avg_logp": -1.0},
        {
            "kind": "train",
            "step": 1,
            "loss": 2.5,
            "tau": 0.5,
            "tau_counts": counts,
            "seconds": 3.0,
            "train_runtime": 1.0,
        },
    ]
    file_stage(p, 5, 6, {}, log)
    rows = write_log(p, 5)
    assert rows["group"].tolist() == [6, 6]
    assert rows["tau_full"].iloc[1] == 0.75
    assert not {"seconds", "train_runtime", "tau_counts"} & set(rows)
    pd.testing.assert_frame_equal(read_logs(p), rows, check_dtype=False)


def test_missing_logs_and_stages_name_the_notebook(p):
    with pytest.raises(FileNotFoundError, match="03 to 07"):
        read_logs(p)
    with pytest.raises(FileNotFoundError, match="06_stage4_sft"):
        write_log(p, 4)


def test_training_table_and_its_sentence(p):
    log = [{"step": 1, "loss": 5.0}, {"step": 2, "loss": 4.0}]
    file_stage(p, 1, 0, {"tokens_seen": 640}, log)
    file_stage(p, 4, 6, {"dev_loss_before": 3.0, "dev_loss_after": 1.25}, log)
    assert training_table(p, 1).to_dict("records") == [
        {"group": "base", "updates": 2, "tokens seen": 640, "first logged loss": 5.0, "last logged loss": 4.0}
    ]
    assert (
        loss_sentence(training_table(p, 1))
        == "Loss on training text, nats per token: base from 5.00 to 4.00."
    )
    assert "held-out" in loss_sentence(training_table(p, 4)) and "3.00 to 1.25" in loss_sentence(
        training_table(p, 4)
    )


def test_change_sentence_counts_what_rose_and_fell():
    found = change_sentence(
        records(
            stage4__en_ja=10,
            stage5__en_ja=12,
            stage4__en_zh=20,
            stage5__en_zh=17,
            stage4__ja_en=1,
            stage5__ja_en=1,
        ),
        "stage4",
        "stage5",
    )
    assert "stage 4 → stage 5: en→xx 15.00 → 14.50 (-0.50; 1 of 2 directions up, 1 down)" in found
    assert "xx→en 1.00 → 1.00 (+0.00; 0 of 1 directions up, 0 down)" in found


def test_change_sentence_counts_no_noise_as_success():
    given = records(stage1__en_ja=0, stage2__en_ja=0.25, stage1__ja_en=0.9, stage2__ja_en=1)
    found = change_sentence(given, "stage1", "stage2")
    assert "en→xx 0.00 → 0.25 (no translation yet)" in found and "xx→en 0.90 → 1.00 (+0.10; 1 of 1" in found


@pytest.mark.parametrize("given", [{}, {"stage4__en_ja": 1.0}, {"stage4__en_ja": 1.0, "stage5__en_zh": 1.0}])
def test_change_without_a_common_direction_is_an_error(given):
    with pytest.raises(ValueError, match="evaluate both stages"):
        change_sentence(records(**given), "stage4", "stage5")


def test_continuations_show_each_direction_once_and_count_what_is_right():
    def rows(*outputs):
        return [
            {"direction": d, "source": "s", "reference": "r", "output": text}
            for d, text in zip(("en-fi", "en-fi", "fi-en"), outputs, strict=True)
        ]

    table, sentence = continuations({"before": rows("x", "y", "z"), "after": rows("r", "q", "r")})
    assert table.to_dict("list") == {
        "direction": ["en-fi", "fi-en"],
        "source": ["s", "s"],
        "reference": ["r", "r"],
        "before": ["x", "z"],
        "after": ["r", "r"],
    }
    assert sentence.endswith("before, 0 of 3; after, 2 of 3.")


def test_a_table_of_sentences_is_set_to_the_left():
    text = left_table(pd.DataFrame({"source": ["a|b"], "output": ["c"]}))
    assert text == "| source | output |\n| :--- | :--- |\n| a\\|b | c |"


def test_a_shown_table_has_numbers_to_the_right_arrows_and_no_empty_column():
    frame = pd.DataFrame(
        {"direction": ["en-fi", "fi-en"], "stage4": [1.234, float("nan")], "none": [None, None]}
    )
    assert left_table(frame, 1).splitlines() == [
        "| direction | stage 4 |",
        "| :--- | ---: |",
        "| en→fi | 1.2 |",
        "| fi→en |  |",
    ]
    long = pd.DataFrame({"tokens": [999_424, 9_999], "moved": [True, False]})
    assert left_table(long).splitlines()[2:] == ["| 999,424 | True |", "| 9999 | False |"]
    named = pd.DataFrame({"after": ["stage1", "the stage1"], "en-xx BLEU": ["26.5", "0.7"]})
    assert left_table(named).splitlines()[::2] == ["| after | en→xx BLEU |", "| stage 1 | 26.5 |"]


def test_values_of_a_profile_stand_beside_the_papers_scale():
    made = values_frame(load_profile("tiny", seed=3), "^(seed|sft_pairs)$").set_index("value")
    assert made.loc["seed", "this run"] == "3" and made.loc["sft_pairs", "papers' scale"] == "4000"
    assert made.loc["sft_pairs", "where that is from"] == "paper: average pairs per language"
    assert values_frame(load_profile("tiny"), "^stage1_tokens$")["papers' scale"].tolist() == [
        "20,000,000,000"
    ]
    alma = values_frame(load_profile("alma-tiny"), "^lora_rank$|^sft_pairs$", load_profile("alma-7b"))
    assert alma.to_numpy().tolist() == [["sft_pairs", "100", "15,000"], ["lora_rank", "16", "16"]]
    assert list(alma) == ["value", "this run", "profile alma-7b"]
    filled = values_frame(load_profile("alma-tiny"), "^(corpus_path|only_languages)$")
    assert filled[["value", "papers' scale"]].to_numpy().tolist() == [["only_languages", "(none)"]]


def test_group_scores_average_one_group():
    found = group_scores(
        records(stage4__en_ja=10, stage4__en_zh=20, stage4__en_ru=90), 6, "bleu", {"stage4": "SFT"}
    )
    assert found.to_dict("records") == [{"system": "SFT", "direction": "en-xx", "value": 15.0}]


def test_index_shows_tables_ladder_first_and_links_long_ones(p):
    folder = results_folder(p)
    with pytest.raises(FileNotFoundError, match="no tables"):
        write_index(p, "xalma run")
    write_table(pd.DataFrame({"x": range(100)}), folder / "tables" / "long", "A long one")
    write_table(pd.DataFrame({"x": [1.5]}), folder / "tables" / "ladder_bleu", "The ladder")
    text = write_index(p, "xalma run --profile tiny").read_text()
    assert text.index("| 1.50 |") < text.index("A long one: [tables/long.md]")
    assert "| 57 |" not in text and "`xalma run --profile tiny`" in text


def test_index_is_the_same_twice(p):
    write_table(pd.DataFrame({"x": [1]}), results_folder(p) / "tables" / "a", "A")
    assert write_index(p, "c").read_bytes() == write_index(p, "c").read_bytes()


def test_files_of_leaves_out_what_only_a_second_run_has(p):
    folder = results_folder(p)
    for name in (
        "tables/stage1_scores.md",
        "tables/tests_stage1_base.md",
        "tables/ladder.md",
        "scores/base.jsonl",
        "notebooks/03_stage1.ipynb",
        "cost.json",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    tables = ["tables/ladder.md", "tables/stage1_scores.md", "tables/tests_stage1_base.md"]
    assert files_of(p) == ["scores/base.jsonl", *tables]
    assert files_of(p, "stage1", "base") == ["scores/base.jsonl", "tables/stage1_scores.md"]
