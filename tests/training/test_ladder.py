"""What notebooks call: jobs side by side in order, scores as records, outputs kept and read back."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path

import pytest
import torch
from sacrebleu.metrics import BLEU
from safetensors.torch import load_file, save_file

from xalma import runs
from xalma.corpora.registry import open_corpus
from xalma.data.collate import IGNORE
from xalma.languages import GROUPS
from xalma.models.backbone import load_base
from xalma.runs import read_run, results_folder, stage_folder
from xalma.training import ladder as recipe
from xalma.training import workers as workers_
from xalma.training.ladder import (
    evaluate_folder,
    evaluate_stage,
    for_each_group,
    ladder_records,
    newest_stage,
    reference_rows,
    run_chain,
    score_rows,
    test_rows,
    translate_test,
)
from xalma.training.workers import run_jobs

test_rows.__test__ = False  # a function of the library, not of this file


def slow_first(index: int) -> tuple[int, int]:
    time.sleep(0.3 if index == 0 else 0.0)
    return index, torch.get_num_threads()


def boom() -> None:
    raise ValueError("a job that fails")


@pytest.mark.parametrize("workers", [1, 2])
def test_jobs_come_back_in_order_with_their_share_of_threads(micro, workers):
    before = torch.get_num_threads()
    p = micro.but(workers=workers, threads=2)
    found = run_jobs(p, [(slow_first, (i,)) for i in range(5)])
    assert found == [(i, 2 // workers) for i in range(5)]
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="a job that fails"):
        run_jobs(p, [(boom, ()), (boom, ())])
    if workers > 1:
        workers_._pool(workers).shutdown()
        workers_._pool.cache_clear()


def test_each_group_gets_its_own_folder(micro):
    seen = []

    def stage(p, group):
        seen.append((group, p.threads))
        return Path(f"g{group}")

    assert for_each_group(stage, micro.but(groups="3,6", threads=4, workers=1)) == {
        3: Path("g3"),
        6: Path("g6"),
    }
    assert seen == [(3, 4), (6, 4)]


def test_rows_are_the_test_set_in_both_directions(micro):
    rows = test_rows(micro, 6)
    assert [row["direction"] for row in rows[:4]] == ["en-et", "et-en", "en-et", "et-en"]
    assert len(rows) == 2 * 6 * micro.test_pairs
    english, other = open_corpus(micro).test("et")[0]
    assert (rows[0]["source"], rows[0]["reference"]) == (english, other)
    assert (rows[1]["source"], rows[1]["reference"]) == (other, english)
    assert rows[1]["prompt"].startswith("[INST] Translate this from Estonian to English:\nEstonian: ")


def test_scores_are_sacrebleus(micro):
    """Outputs chosen by hand: right, empty, in the wrong script."""
    rows = [
        {"direction": "en-zh", "output": "5天前：德国、法国和日本", "reference": "5天前：德国、法国和日本"},
        {"direction": "fi-en", "output": "", "reference": "in 3 weeks"},
        {"direction": "fi-en", "output": "日本", "reference": "Japan"},
    ]
    found = {(r.direction, r.metric): r for r in score_rows(rows, micro, "stage4", seed=3)}
    assert {key: r.value for key, r in found.items() if key[1] != "chrf"} == {
        ("en-zh", "bleu"): 100.0,
        ("en-zh", "off_target"): 0.0,
        ("en-zh", "empty"): 0.0,
        ("fi-en", "bleu"): 0.0,
        ("fi-en", "off_target"): pytest.approx(50, abs=51),
        ("fi-en", "empty"): 50.0,
    }
    assert found["fi-en", "off_target"].value >= 50
    assert "tok:zh" in found["en-zh", "bleu"].signature
    assert {(r.profile, r.stage, r.seed) for r in found.values()} == {("tiny", "stage4", 3)}
    assert (found["en-zh", "bleu"].n, found["fi-en", "bleu"].n) == (1, 2)


def test_bits_a_byte_count_the_references_bytes(micro):
    """Two answers of 8 ln 2 nats in all on 2 + 2 bytes ("é" has two): 2 bits per byte."""
    rows = [
        {"direction": "en-fr", "output": "", "reference": text, "nats": 4 * math.log(2)}
        for text in ("ab", "é")
    ]
    (bits,) = [r for r in score_rows(rows, micro, "stage4", 0) if r.metric == "bits_per_byte"]
    assert (bits.value, bits.n) == (2.0, 2)


def test_the_reference_is_the_labelled_answer(micro, finished):
    _, tokenizer = load_base(read_run(finished[4])["base"])
    row = test_rows(micro, 6)[0]
    (encoded,) = reference_rows([row], tokenizer)
    learned = [token for token in encoded["labels"] if token != IGNORE]
    assert tokenizer.decode(learned) == f" {row['reference']}{tokenizer.eos_token}"


@pytest.fixture
def own_results(micro, tmp_path):
    return micro.but(results_dir=str(tmp_path / "results"))


def test_evaluate_stage_files_its_records(own_results, finished):
    records = evaluate_stage(own_results, 4)
    assert {r.direction for r in records} == {d for c in GROUPS[6] for d in (f"en-{c}", f"{c}-en")}
    assert {r.metric for r in records} == {
        "bleu",
        "chrf",
        "off_target",
        "empty",
        "bits_per_byte",
        "one_shot_bleu",
    }
    assert len(records) == 12 * 6
    assert {r.stage for r in records} == {"stage4"}
    assert sorted(ladder_records(own_results, ["stage4"]), key=lambda r: r.key) == sorted(
        records, key=lambda r: r.key
    )
    rows = [row for row in translate_test(own_results, finished[4], 6) if row["direction"] == "en-fi"]
    (bleu,) = [r.value for r in records if r.direction == "en-fi" and r.metric == "bleu"]
    assert bleu == round(
        BLEU().corpus_score([r["output"] for r in rows], [[r["reference"] for r in rows]]).score, 2
    )


def test_the_base_is_scored_under_its_name(own_results, ladder):
    records = evaluate_stage(own_results, 0)
    assert {r.stage for r in records} == {"base"}
    assert {"text_bits", "partner_gain"} < {r.metric for r in records}
    assert (results_folder(own_results) / "scores" / "base.jsonl").exists()
    assert max(r.value for r in records if r.metric == "bleu") < 5, "random weights translate nothing"


def test_a_missing_stage_is_named(own_results):
    with pytest.raises(FileNotFoundError, match=r"no records at .*base\.jsonl: run `xalma run`"):
        ladder_records(own_results)


def test_outputs_are_kept_and_read_back(micro, finished, monkeypatch):
    first = translate_test(micro, finished[4], 6)

    def never(*args, **kwargs):
        raise AssertionError("decoded a second time")

    monkeypatch.setattr(recipe, "continued", never)
    assert translate_test(micro, finished[4], 6) == first
    assert translate_test(micro.but(workers=2, seeds=3, comparison_steps=9), finished[4], 6) == first
    with pytest.raises(AssertionError, match="second time"):
        translate_test(micro.but(max_new_tokens=5), finished[4], 6)
    kept = [
        f
        for f in finished[4].glob("outputs-group6-*.json")
        if json.loads(f.read_text(encoding="utf-8")) == first
    ]
    assert len(kept) == 1


def test_outputs_of_other_weights_are_others(micro, finished, tmp_path):
    """Altered weights are refused by name; filed anew, as another stage's, they are translated with anew."""
    shutil.copytree(micro.run_dir, tmp_path / "runs")
    folder = tmp_path / "runs" / finished[4].relative_to(micro.run_dir)
    before = recipe.outputs_file(micro, folder, 6).name
    assert before == recipe.outputs_file(micro, finished[4], 6).name, "a moved stage keeps its outputs"
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"adapter_model.safetensors was changed after its stage was made"):
        translate_test(micro, folder, 6)
    run = read_run(folder)
    runs.file_run(folder, {key: value for key, value in run.items() if not key.endswith("sha256")}, folder)
    assert recipe.outputs_file(micro, folder, 6).name != before


def test_newest_stage(micro, finished, tmp_path):
    assert newest_stage(micro, 6) == finished[5]
    with pytest.raises(
        FileNotFoundError, match=r"no module of group 3 .*xalma stage N --profile tiny --group 3"
    ):
        newest_stage(micro, 3)


def test_a_chain_goes_through_its_stages(micro, monkeypatch):
    calls = []

    def stage(number):
        def run(p, group, previous, *, branch):
            calls.append((number, group, previous, branch))
            return Path(f"after{number}")

        return run

    monkeypatch.setattr(recipe, "MODULE_STAGES", {n: stage(n) for n in (2, 3, 4, 5)})
    assert run_chain(micro, 6, Path("start"), (2, 4), "no3") == Path("after4")
    assert calls == [(2, 6, Path("start"), "no3"), (4, 6, Path("after2"), "no3")]
    assert run_chain(micro, 6, Path("start"), (), "none") == Path("start")


def test_evaluate_folder_scores_what_was_decoded(micro, finished):
    records = evaluate_folder(micro, finished[5], 6, "stage5")
    assert {r.stage for r in records} == {"stage5"}
    assert results_folder(micro) == Path(micro.results_dir) / "tiny"
    assert stage_folder(micro, 5, 6) == finished[5]
