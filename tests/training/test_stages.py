"""Stages: each result says what it was made from, is made again only when that changes, and is never half there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import killed_stage5
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from xalma import files, runs, runtime
from xalma.corpora.registry import open_corpus
from xalma.languages import GROUPS
from xalma.models.adapters import parameter_hash
from xalma.preference.packed_pairs import tokenize_pairs
from xalma.profiles import Profile
from xalma.training import stage_models, stage_pairs, stages
from xalma.training.ladder import MODULE_STAGES, test_rows

test_rows.__test__ = False  # no test, whatever pytest thinks of the name

# Fields that no stage's weights depend on; all others must be among some stage's inputs.
DECIDE_NOTHING = {
    "name", "run_dir", "results_dir", "workers", "threads", "seeds", "methods", "ablation_share",
    "ablation_sft_share",
    "preference_id",  # an input of stage 5 where it is set
    "frozen_embeddings",  # an input of full weights' later stages where it is set
    "test_pairs", "comparison_groups", "comparison_steps", "comparison_pairs", "notebooks",
    "groups", "only_languages", "module_languages",  # by the languages they name
    "alma_lora_learning_rate",  # notebook 11's own stage
    "grpo_reward", "grpo_samples",  # a method of the comparison's
    "checkpoint_steps", "gradient_checkpointing", "torch_compile", "attention",
    "launch", "sharding", "track",
}  # fmt: skip


@pytest.fixture
def copied(micro, finished, tmp_path) -> Profile:
    """The micro profile on a copy of the finished stages that a test may spoil."""
    shutil.copytree(Path(micro.run_dir), tmp_path / "runs")
    return micro.but(run_dir=str(tmp_path / "runs"))


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """Labels of the trainings that really ran, which only pretend to."""
    ran = []

    def pretend(model, rows, p, stage, *, steps, seed, pad_token_id, label, checkpoints, borders=None):
        ran.append(f"stage{stage.number}")
        return []

    monkeypatch.setattr(stages, "train", pretend)
    return ran


def run_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def test_every_stage_leaves_weights_log_and_run(finished):
    for number, folder in finished.items():
        weights = "model.safetensors" if number <= 1 else "adapter_model.safetensors"
        assert {weights, "log.json", "run.json"} <= {f.name for f in folder.iterdir()}
        assert not list(folder.glob("*.bin")), "safetensors only"
        assert folder.parent.name == f"stage{number}_{runs.STAGE_NAMES[number]}"
    assert not list(finished[0].parent.parent.rglob(".partial*"))


@pytest.mark.parametrize("number", range(6))
def test_run_json(finished, micro, number):
    run = run_of(finished[number])
    assert (run["stage"], run["number"], run["group"]) == (
        runs.STAGE_NAMES[number],
        number,
        0 if number < 2 else 6,
    )
    found = stages.read_run(finished[number])
    assert found["base"] == str(finished[min(number, 1)])
    assert found["previous"] == (str(finished[number - 1]) if number else None)
    assert run["seconds"] > 0
    assert run["inputs"]["seed"] == 0
    assert run["inputs"]["corpus"] == "cldr"
    assert run["inputs"]["previous"] == (run_of(finished[number - 1])["fingerprint"] if number else None)
    assert run["versions"]["torch"] and run["commit"] and run["hardware"]["cores"]
    if number in (1, 2, 3):
        budget = micro.values()[f"stage{number}_tokens"]
        assert run["tokens_seen"] == sum(run["tokens_by_language"].values()) == budget
        languages = set(GROUPS[6]) | ({"en"} if number < 3 else set())
        assert set(run["tokens_by_language"]) <= languages
        assert run["steps"] == budget // (8 * micro.block_tokens)
    if number == 4:
        assert (run["rows"], run["rows_too_long"]) == (2 * 6 * micro.sft_pairs, 0)
        assert run["steps"] == run["rows"] / 16
        assert run["dev_loss_after"] < run["dev_loss_before"]
    if number == 5:
        pairs = run["pairs"]
        assert run["rows_too_long"] == 0
        assert pairs["considered"] == 2 * 6 * micro.stage5_pairs
        assert (
            pairs["kept"]
            == run["rows"]
            == pairs["considered"] - sum(v for k, v in pairs.items() if "dropped" in k)
        )


@pytest.mark.parametrize("number", range(1, 6))
def test_log_has_a_loss_for_every_step_logged(finished, number):
    log = [row for row in stages.read_log(finished[number]) if "loss" in row]
    assert len(log) == run_of(finished[number])["steps"]  # below 50 updates every one is logged
    assert all(0 < row["loss"] < 20 for row in log)


def test_stage1_learns(finished):
    log = stages.read_log(finished[1])
    assert log[-1]["loss"] < log[0]["loss"] - 0.2


def test_a_finished_stage_is_not_run_again(copied, counted):
    before = {f: f.stat().st_mtime_ns for f in Path(copied.run_dir).rglob("*") if f.is_file()}
    stages.stage0_backbone(copied)
    stages.stage1_monolingual_base(copied)
    for number in (2, 3, 4, 5):
        MODULE_STAGES[number](copied, 6)
    assert counted == []
    assert {f: f.stat().st_mtime_ns for f in Path(copied.run_dir).rglob("*") if f.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "redone"),
    [
        ({"stage3_learning_rate": 1e-4}, ["stage3", "stage4"]),
        (
            {"prompt_style": "alma"},
            ["stage1", "stage2", "stage3", "stage4"],
        ),  # its words are in the tokenizer's text
        ({"seed": 1}, ["stage1", "stage2", "stage3", "stage4"]),
        ({"lora_rank": 8}, ["stage2", "stage3", "stage4"]),
        ({"stage4_epochs": 0.5}, ["stage4"]),
        ({"stage4_updates": 3}, ["stage4"]),
        ({"module_languages": "6:et+fi"}, ["stage2", "stage3", "stage4"]),
        ({"stage5_learning_rate": 1e-5}, []),
        ({"seeds": 3, "comparison_steps": 7, "workers": 2, "methods": "dpo", "ablation_share": 0.5}, []),
    ],
    ids=lambda value: ",".join(value),
)
def test_what_is_redone_follows_what_changed(copied, counted, monkeypatch, changes, redone):
    monkeypatch.setattr(stages, "TOKENIZER_DOCUMENTS", 10)
    p = copied.but(**changes)
    stages.stage0_backbone(p)
    stages.stage1_monolingual_base(p)
    for number in (2, 3, 4):
        MODULE_STAGES[number](p, 6)
    assert counted == redone


def test_other_text_is_another_input(copied, counted, monkeypatch):
    monkeypatch.setattr(type(open_corpus(copied)), "fingerprint", lambda self: "another release")
    monkeypatch.setattr(stages, "TOKENIZER_DOCUMENTS", 10)
    stages.stage0_backbone(copied)
    stages.stage1_monolingual_base(copied)
    assert counted == ["stage1"]


def test_every_field_is_an_input_or_decides_nothing(finished):
    """A new field must be put on one of the two sides, or stale weights would pass for new ones."""
    inputs = {key for folder in finished.values() for key in run_of(folder)["inputs"]}
    names = {f.name for f in fields(Profile)}
    assert names - inputs == DECIDE_NOTHING
    assert not inputs & DECIDE_NOTHING


def test_a_killed_stage_leaves_the_finished_one_and_no_other(copied, monkeypatch):
    """Killed between weights and run.json, the stage is not there; the old result stays until the new one is whole."""
    p = copied.but(stage3_learning_rate=1e-4, stage3_tokens=1024)
    done = stages.stage_folder(p, 3, 6)
    before = run_of(done)

    def killed(path, *args):
        assert (path.parent / "adapter_model.safetensors").exists(), "the test must kill late"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            stages.stage3_pseudo_monolingual(p, 6)
    assert run_of(done) == before
    assert run_of(stages.stage3_pseudo_monolingual(p, 6))["inputs"]["stage3_learning_rate"] == 1e-4
    assert not list(done.parent.glob(".partial*"))


def test_weights_without_run_json_are_no_stage(copied, counted):
    folder = stages.stage_folder(copied, 3, 6)
    (folder / "run.json").unlink()
    with pytest.raises(FileNotFoundError, match="no finished stage"):
        stages.stage4_sft(copied, 6)
    stages.stage3_pseudo_monolingual(copied, 6)
    assert (folder / "run.json").exists()


@pytest.mark.parametrize(
    ("stage", "group", "notebook"),
    [
        (stages.stage1_monolingual_base, 0, "03_stage1_monolingual_base"),
        (stages.stage2_monolingual_modules, 6, "03_stage1_monolingual_base"),
        (stages.stage3_pseudo_monolingual, 6, "04_stage2_monolingual_modules"),
        (stages.stage4_sft, 6, "05_stage3_pseudo_monolingual"),
        (stages.stage5_arpo, 6, "06_stage4_sft"),
    ],
)
def test_a_missing_previous_stage_is_one_sentence(micro, tmp_path, stage, group, notebook):
    p = micro.but(run_dir=str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError) as caught:
        stage(p, group)
    text = str(caught.value)
    assert f"run notebooks/{notebook}.ipynb first" in text
    assert "\n" not in text
    assert not (tmp_path / "empty").exists()


def test_the_notebooks_named_exist():
    names = {f.stem for f in (runtime.REPOSITORY / "notebooks").glob("*.ipynb")}
    assert set(runs.NOTEBOOK_OF) <= names


def test_a_module_of_another_group_is_refused(micro, finished):
    with pytest.raises(ValueError, match="holds the module of group 6, not of group 3"):
        stages.open_for_training(micro, 3, finished[2])


def test_branches_lie_beside_the_ladder(copied, finished, counted):
    folder = stages.stage4_sft(copied, 6, stages.stage_folder(copied, 2, 6), branch="without-stage3")
    assert folder == Path(copied.run_dir) / "tiny" / "without-stage3" / "stage4_sft" / "group6"
    assert run_of(folder)["previous"].endswith("stage2_monolingual_modules/group6")
    ladder = run_of(stages.stage_folder(copied, 4, 6))
    assert ladder["fingerprint"] == run_of(finished[4])["fingerprint"] != run_of(folder)["fingerprint"]


def test_a_module_for_other_languages_than_its_groups(micro, finished, tmp_path):
    p = micro.but(run_dir=str(tmp_path), module_languages="6:fi+ru", stage4_updates=3, stage3_tokens=1024)
    start = finished[1]
    for number in (2, 3, 4):
        start = MODULE_STAGES[number](p, 6, start, branch="two")
        assert run_of(start)["inputs"]["languages"] == ["fi", "ru"]
    assert set(run_of(stages.stage_folder(p, 3, 6, "two"))["tokens_by_language"]) == {"fi", "ru"}
    assert run_of(start)["rows"] == 2 * 2 * p.sft_pairs and run_of(start)["steps"] == 3
    assert {row["direction"] for row in test_rows(p, 6)} == {"en-fi", "fi-en", "en-ru", "ru-en"}


def test_group_0_trains_the_base_on(micro, finished, tmp_path):
    """All weights move, stage after stage, and each folder is a base of its own; the ladder's base stays."""
    p, start = micro.but(run_dir=str(tmp_path), stage3_tokens=1024, stage4_updates=2), finished[1]
    before, hashes = parameter_hash(stages.open_merged(start)[0]), set()
    for number in (2, 3, 4):
        start = MODULE_STAGES[number](p, 0, start, branch="dense")
        assert stages.read_run(start)["base"] == str(start) and not (start / "adapter_config.json").exists()
        hashes.add(parameter_hash(stages.open_merged(start)[0]))
    assert len(hashes) == 3 and before not in hashes
    assert parameter_hash(stages.open_merged(finished[1])[0]) == before
    with pytest.raises(ValueError, match="holds the module of group 6, not of group 0"):
        stages.open_for_training(p, 0, finished[2])


def test_moved_stages_stay_whole(copied, finished, micro, counted, tmp_path):
    """A moved checkout finds its base and trains nothing again; run.json of older versions, absolute, still reads."""
    shutil.move(copied.run_dir, tmp_path / "elsewhere" / "runs")
    p = copied.but(run_dir=str(tmp_path / "elsewhere" / "runs"))
    folder = stages.stage4_sft(p, 6)
    assert counted == []
    assert not [
        value for value in run_of(folder).values() if isinstance(value, str) and value.startswith("/")
    ]
    assert stages.read_run(folder)["base"] == str(stages.stage_folder(p, 1))
    assert stages.read_run(folder)["previous"] == str(stages.stage_folder(p, 3, 6))
    stages.open_merged(folder)
    run = run_of(folder) | {"base": str(finished[1]), "previous": str(finished[3])}
    for key in ("sha256", "run_sha256", "base_sha256"):
        del run[key]
    (folder / "run.json").write_text(json.dumps(run))
    assert stages.read_run(folder)["base"] == str(finished[1])
    with pytest.warns(UserWarning, match="filed no hashes of its files.*run its stage again"):
        stages.open_merged(folder)


def test_too_small_a_budget_is_one_sentence(micro, tokenizer):
    corpus = open_corpus(micro)
    with pytest.raises(ValueError, match="stage2_tokens=500 is less than one batch of 8 × 64 tokens"):
        stages.packed({"fi": lambda: corpus.monolingual("fi")}, tokenizer, micro.but(stage2_tokens=500), 2)


def test_a_hub_or_local_model_can_be_the_base(micro, ladder, tmp_path):
    """`base` takes a folder as it takes an id: stage 0 then copies, and trains no tokenizer."""
    p = micro.but(run_dir=str(tmp_path / "runs"), base=str(ladder[1]))
    folder = stages.stage0_backbone(p)
    assert (folder / "model.safetensors").read_bytes() == (ladder[1] / "model.safetensors").read_bytes()
    assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_size == micro.hidden_size


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, pytest.param(10, marks=pytest.mark.long)])
def test_stage_5_killed_while_it_decodes_and_trains(micro, finished, tmp_path, seeds):
    """Bit for bit the unbroken stage: weights, log, counts of pairs; what was decoded in full is not decoded again."""
    command = [sys.executable, killed_stage5.__file__, micro.run_dir, str(tmp_path), str(seeds)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == seeds
    for row in found:
        assert row["killed"] == [True, True, True, False], row
        assert row["decoded"] == row["expected"], row
        assert row["same"] and row["left"] == ["group6"], row


def test_damaged_pairs_are_named_and_not_used(tmp_path):
    path, value = (
        tmp_path / stage_pairs.PAIRS_FILE,
        {"rows": [{"prompt": "ü", "chosen": " a"}], "report": {"kept": 1}},
    )
    assert stage_pairs._read_pairs(path) is None, "there are none yet"
    files.write_json(path, value | {"fingerprint": files.fingerprint(value)})
    assert stage_pairs._read_pairs(path) == value
    whole = path.read_bytes()
    for harmed in (whole.replace(b" a", b" b"), whole[:-9], b"[]", b"{}", b"null", b"3", b'"x"', b"[" * 5000):
        path.write_bytes(harmed)
        with pytest.warns(UserWarning, match=f"{path} is damaged"):
            assert stage_pairs._read_pairs(path) is None


def test_pairs_that_are_too_long_are_counted(copied, monkeypatch):
    """As in SFT: the chosen side fits, or the pair is left out; the counts of pairs stay what they were."""
    whole = run_of(stages.stage_folder(copied, 5, 6))
    pairs, report = stages.preference_pairs(copied, 6, stages.stage_folder(copied, 4, 6), copied.stage5_pairs)
    tokenizer = stages.open_merged(stages.stage_folder(copied, 4, 6))[1]
    lengths = sorted(len(pair["chosen_input_ids"]) for pair in tokenize_pairs(pairs, tokenizer, 10_000)[0])
    limit = lengths[len(lengths) // 2]
    monkeypatch.setattr(stage_pairs, "preference_pairs", lambda *_: (pairs, report))
    run = run_of(stages.stage5_arpo(copied.but(max_length=limit), 6, stages.stage_folder(copied, 4, 6)))
    assert run["rows"] == sum(length <= limit for length in lengths) < whole["rows"]
    assert run["rows_too_long"] == whole["rows"] - run["rows"] and run["pairs"] == whole["pairs"]


def test_preference_pairs_are_reference_over_output(micro, finished):
    """With identical and unusable outputs dropped, each row's answers are a reference and what stage 4 says."""
    rows, report = stages.preference_pairs(micro, 6, finished[4], micro.stage5_pairs)
    references = {
        text
        for code in GROUPS[6]
        for pair in open_corpus(micro).sft(code)[: micro.stage5_pairs]
        for text in pair
    }
    assert len(rows) == report["kept"] > 0
    for row in rows:
        assert row["chosen"].strip() in references
        assert row["rejected"].strip() not in ("", row["chosen"].strip())


def test_values_of_all_earlier_stages_count(copied, counted):
    """A stage's inputs are its chain's: what decided stage 0 or 1 is compared when stage 4 is asked for."""
    for values, place in (({"stage1_learning_rate": 0.1}, "stage1_"), ({"hidden_size": 128}, "stage0_")):
        why = rf"{place}.* was made with other inputs \({next(iter(values))}\): run notebooks/03"
        with pytest.raises(ValueError, match=why):
            stages.stage4_sft(copied.but(**values), 6)
    run = run_of(stages.stage_folder(copied, 1))
    run |= {"fingerprint": "another", "run_sha256": None}
    run["run_sha256"] = runs._own_hash(run)
    files.write_json(stages.stage_folder(copied, 1) / "run.json", run)
    with pytest.raises(ValueError, match=r"stage2_.* was made from another stage than now lies in .*stage1_"):
        stages.stage4_sft(copied, 6)
    assert counted == []


def own_text(folder: Path, **files: list[str]) -> Path:
    for name, rows in files.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "fi-en.tsv").write_text("\n".join(["en\tfi", *rows, ""]), encoding="utf-8")
    return folder


PAIRS = [f"this is sentence number {i} of all\ttämä on lause numero {i} kaikista" for i in range(20)]


def test_the_guard_looks_for_the_whole_test_set(micro, finished, tmp_path):
    """Not for the `test_pairs` that are scored: a stage is kept when more of them are scored later."""
    own = own_text(tmp_path / "own", sft=PAIRS[5:], dev=PAIRS[:2], test=PAIRS[:6])
    p = micro.but(
        run_dir=str(tmp_path), corpus="own", corpus_path=str(own), module_languages="6:fi", test_pairs=2
    )
    p = p.but(contamination="stop")
    with pytest.raises(ValueError, match=r"SFT pairs, en-fi, row 1, is a test sentence .*line 6 of"):
        stages.stage4_sft(p, 6, finished[3])


def test_a_guard_with_nothing_to_look_for_is_refused(micro, finished, tmp_path, counted):
    own = own_text(tmp_path / "own", sft=PAIRS, dev=PAIRS[:2])
    p = micro.but(run_dir=str(tmp_path), corpus="own", corpus_path=str(own), module_languages="6:fi")
    with pytest.raises(
        ValueError, match="corpus=own has no test sentences in fi to keep out of training: add some"
    ):
        stages.stage4_sft(p, 6, finished[3])
    assert not stages.stage_folder(p, 4, 6).exists() and counted == []


def test_pairs_read_back_say_what_the_guard_saw(micro, finished, tmp_path):
    first = stage_pairs.pairs_made_once(micro, 6, finished[4], tmp_path / "group6")
    stage_pairs.guarded_corpus(micro, micro.languages_of(6))  # a new process counts from 0
    assert stage_pairs.pairs_made_once(micro, 6, finished[4], tmp_path / "group6") == first
    assert first[2]["rows"] > 0


def test_equal_adapters_are_equal_to_the_byte(finished, micro):
    """Target modules in one order, and the base named by the way to it, not by where this machine has it."""
    text = (finished[4] / "adapter_config.json").read_text()
    config = json.loads(text)
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["base_model_name_or_path"] == "../../stage1_monolingual_base/base"
    assert micro.run_dir not in text and {f.name for f in finished[4].glob("[!o]*")} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "log.json",
        "run.json",
    }


def test_a_stage_must_leave_weights_that_are_numbers(micro, finished, tmp_path, monkeypatch):
    def spoiled(model, tokenizer, group, out):
        stage_models.save_adapter(model, group, out)
        path = out / "adapter_model.safetensors"
        tensors = load_file(path)
        next(iter(tensors.values())).view(-1)[3] = float("nan")
        save_file(tensors, path)

    monkeypatch.setattr(stages, "save_trained", spoiled)
    p = micro.but(run_dir=str(tmp_path), stage4_updates=1)
    with pytest.raises(ValueError, match=r"adapter_model.safetensors: .* is not finite"):
        stages.stage4_sft(p, 6, finished[3])
    assert not stages.stage_folder(p, 4, 6).exists()


def test_files_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    """Every file and folder of the new one, then the rename, then the folder it stands in."""
    told, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (told.append(os.readlink(f"/proc/self/fd/{fd}")), sync(fd)))
    monkeypatch.setattr(
        os, "replace", lambda a, b, replace=os.replace: (told.append("rename"), replace(a, b))
    )
    with files.new_directory(tmp_path / "new") as folder:
        (folder / "a").mkdir()
        (folder / "a" / "b").write_text("x")
    partial = str(tmp_path / ".partial-new")
    assert told == [f"{partial}/a/b", f"{partial}/a", partial, "rename", str(tmp_path)]


@pytest.mark.parametrize("killed_before", ["first rename", "second rename", "removal"])
def test_a_kill_between_the_renames_loses_nothing(tmp_path, killed_before):
    old, partial, aside = tmp_path / "x", tmp_path / ".partial-x", tmp_path / ".partial-old-x"
    {"first rename": old, "second rename": aside, "removal": aside}[killed_before].mkdir()
    (old if killed_before == "first rename" else aside).joinpath("f").write_text("old")
    if killed_before == "removal":
        old.mkdir()
        (old / "f").write_text("new")
    else:
        partial.mkdir()
    with pytest.raises(KeyboardInterrupt), files.new_directory(old):
        assert (old / "f").read_text() == ("new" if killed_before == "removal" else "old")
        raise KeyboardInterrupt
    with files.new_directory(old) as folder:
        (folder / "f").write_text("newer")
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and (old / "f").read_text() == "newer"


def test_a_lock_dies_with_its_process_and_is_gone_after(tmp_path):
    place = str(tmp_path / "x")
    code = f"import time, xalma.files as files\nwith files.locked({place!r}):\n print('in', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "in\n"
    with pytest.raises(
        BlockingIOError, match=rf"another run \(process {child.pid}\) is making .*x: wait for its end"
    ):
        files.locked(tmp_path / "x").__enter__()
    child.kill()
    child.wait()
    with files.locked(tmp_path / "x"), files.locked(tmp_path / "x"):
        assert (tmp_path / ".lock-x").exists()
    assert not list(tmp_path.iterdir())


def released(path: Path, *pairs: tuple[str, str, str]) -> Path:
    rows = [{"source": a, "chosen": b, "reject": c, "directions": "en-fi"} for a, b, c in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


PAIR = "the second of all sentences", "kaikista lauseista toinen", "kaikki lauseet toinen"


def test_stage_5_trains_on_pairs_that_others_made(copied, finished, tmp_path):
    """X-ALMA's layout; a test sentence is left out, what is kept is counted, and other pairs are another input."""
    english, finnish = open_corpus(copied).test("fi")[0]
    path = released(tmp_path / "pairs.jsonl", PAIR, (english, finnish, "muuta"), (PAIR[0], PAIR[1], PAIR[1]))
    p = copied.but(preference_id=str(path), contamination="drop")
    assert p.contamination == copied.contamination
    run = run_of(stages.stage5_arpo(p, 6, stages.stage_folder(p, 4, 6), branch="released"))
    assert (run["rows"], run["pairs"]["kept"], run["pairs"]["dropped_identical"]) == (1, 1, 1)
    assert run["contamination"]["rows"] == 3 and run["contamination"]["exact"] == 1
    assert run["inputs"]["preference_id"] == str(path) and list(run["inputs"]["preference_files"]) == [
        "pairs.jsonl"
    ]
    assert not {"preference_id", "preference_files"} & run_of(finished[5])["inputs"].keys()
    released(path, PAIR, (PAIR[0], "toinen kaikista", PAIR[2]))
    assert run_of(stages.stage5_arpo(p, 6, stages.stage_folder(p, 4, 6), branch="released"))["rows"] == 2


def test_stage_5_without_released_pairs_is_one_sentence(copied, tmp_path, counted):
    start = stages.stage_folder(copied, 4, 6)
    with pytest.raises(FileNotFoundError, match=r"no preference pairs at .*nowhere.jsonl: give a file"):
        stages.stage5_arpo(
            copied.but(preference_id=str(tmp_path / "nowhere.jsonl")), 6, start, branch="released"
        )
    path = released(tmp_path / "pairs.jsonl", (PAIR[0], PAIR[1], PAIR[1]))
    with pytest.raises(
        ValueError, match=r"no preference pairs: of 1 considered, 1 identical; .* has none for en-"
    ):
        stages.stage5_arpo(copied.but(preference_id=str(path)), 6, start, branch="released")
    assert not stages.stage_folder(copied, 5, 6, "released").exists() and counted == []
