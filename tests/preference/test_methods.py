"""Every method trains, on the same data; references are the adapter's start; BC is one thing."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pytest
import torch
from peft import LoraConfig, get_peft_model
from smooth import SMOOTH
from test_arpo import tiny_model, tiny_rows, tiny_tokenizer
from transformers import TrainerCallback

import xalma.preference.method_specs as method_specs
import xalma.preference.methods as methods
from xalma.preference.method_specs import METHODS, method_table
from xalma.preference.methods import frozen_copy, schedule, train_preference
from xalma.preference.packed_pairs import pair_logps, tokenize_pair

WITH_REFERENCE = [name for name, method in METHODS.items() if method.needs_reference]


def tuned_adapter() -> torch.nn.Module:
    """A PEFT model whose adapter, not called "default", changes the output, as after SFT."""
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules="all-linear")
    model = get_peft_model(tiny_model(), config, adapter_name="group6")
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def train(method, folder, model=None, **changes):
    options = {
        "learning_rate": 5e-3, "batch_size": 4, "max_steps": 2, "seed": 0, "n_probe_rows": 4,
        "output_dir": folder / "out",
    }  # fmt: skip
    model = tuned_adapter() if model is None else model
    rows = changes.pop("rows", tiny_rows(10))
    return train_preference(method, model, tiny_tokenizer(), rows, **{**options, **changes})


def train_entries(log):
    return [entry for entry in log if entry["kind"] == "train"]


def weights(model, adapter: bool) -> dict[str, torch.Tensor]:
    return {n: p.clone() for n, p in model.named_parameters() if ("lora_" in n) == adapter}


@dataclass
class Run:
    """One training run of a method: the model before and after, its log, the chosen tokens it saw."""

    names: set[str]
    base: dict[str, torch.Tensor]
    adapter: dict[str, torch.Tensor]
    model: torch.nn.Module
    log: list
    batches: list
    files: list


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs each method once, however many tests look at it."""

    @functools.cache
    def once(method: str) -> Run:
        batches: list = []

        class Watch(TrainerCallback):
            def on_train_begin(self, args, state, control, train_dataloader=None, **_):
                batches.extend(_chosen_tokens(batch) for batch in train_dataloader)

        def watched(trainer):
            kind = original(trainer)
            return lambda callbacks, **rest: kind(callbacks=[*callbacks, Watch()], **rest)

        model, folder, original = tuned_adapter(), tmp_path_factory.mktemp("run"), methods.in_order
        names = {n for n, _ in model.named_parameters()}
        base, adapter = weights(model, False), weights(model, True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(methods, "in_order", watched)
            short = {"max_completion_length": 8} if method == "grpo" else {}
            trained, log = train(method, folder, model, **short)
        assert trained is model
        files = [f for f in folder.rglob("*") if f.is_file()]
        return Run(names, base, adapter, model, log, batches, files)

    return once


@pytest.mark.parametrize("method", METHODS)
def test_trains_the_adapter_only_and_tidies_up(method, run):
    found = run(method)
    model = found.model
    assert not model.training
    assert {n for n, _ in model.named_parameters()} == found.names, "an adapter was left behind"
    assert all(torch.equal(p, found.base[n]) for n, p in weights(model, False).items())
    assert any(not torch.equal(p, found.adapter[n]) for n, p in weights(model, True).items())
    assert all("forward" not in m.__dict__ for m in model.modules()), "a patched forward"
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}
    assert not found.files
    assert [entry["step"] for entry in train_entries(found.log)] == [1, 2]
    assert [entry["step"] for entry in found.log if entry["kind"] == "probe"] == [0, 1, 2]


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_see_the_same_tokens_in_the_same_order(method, run):
    """Tokens of each update's pairs, whatever the trainer's own batch layout."""
    tokenizer, rows = tiny_tokenizer(), tiny_rows(10)
    order = schedule(10, 8, seed=0)
    ids = [tokenize_pair(tokenizer, rows[i], 512)["chosen_input_ids"] for i in order]
    assert run(method).batches == [ids[:4], ids[4:]]


@pytest.mark.parametrize("method", WITH_REFERENCE)
def test_reference_is_the_adapters_start(method, run):
    """At the first step policy = reference: rewards are 0; not so with the adapter off."""
    model, rows = tuned_adapter().eval(), tiny_rows(10)
    with model.disable_adapter():
        without = pair_logps(model, tiny_tokenizer(), rows)["chosen_logps"]
    assert (pair_logps(model, tiny_tokenizer(), rows)["chosen_logps"] - without).abs().min() > 0.01
    first = train_entries(run(method).log)[0]
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
        assert first[name] == pytest.approx(0.0, abs=1e-5)
    if method == "dpo":
        assert first["loss"] == pytest.approx(0.6931, abs=1e-3)


@pytest.mark.parametrize("method", ["dpo", "simpo", "kto"])
def test_bc_adds_the_token_mean_nll_once(method, run):
    rows = tiny_rows(10)
    batch = [rows[i] for i in schedule(10, 4, seed=0)]
    logps = pair_logps(tuned_adapter().eval(), tiny_tokenizer(), batch)
    nll = -(logps["chosen_logps"].sum() / logps["chosen_lengths"].sum()).item()
    plain, cloned = (train_entries(run(name).log)[0]["loss"] for name in (method, f"{method}+bc"))
    assert cloned - plain == pytest.approx(nll, abs=2e-3)  # TRL logs four digits


def test_frozen_copy_shares_the_base_and_stays_put():
    model = tuned_adapter().eval()
    reference = frozen_copy(model)
    inner = dict(model.get_base_model().named_parameters())
    for name, parameter in reference.named_parameters():
        assert not parameter.requires_grad
        same = parameter.data_ptr() == inner[name].data_ptr()
        assert same == ("lora_" not in name)
    ids = torch.arange(3, 30)[None]
    before = reference(ids).logits
    torch.testing.assert_close(before, model(ids).logits)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(1.0)
    assert torch.equal(reference(ids).logits, before)
    assert all(p.requires_grad for n, p in model.named_parameters() if "lora_" in n)


def _chosen_tokens(batch) -> list[list[int]]:
    """BOS, prompt, chosen answer and EOS of each pair, from any of the trainers' batch layouts."""
    if isinstance(batch, list):  # GRPO: a row for each answer that it will sample
        once = batch[:: METHODS["grpo"].options["num_generations"]]
        rows = [{**row, "prompt": row["prompt"].removeprefix("<s>"), "rejected": ""} for row in once]
        return [tokenize_pair(tiny_tokenizer(), row, 512)["chosen_input_ids"] for row in rows]
    if "sources" in batch:  # ARPO, packed
        rows = []
        for i in range(len(batch["chosen_lengths"])):
            keep = (batch["pair"] == i) & (batch["branch"] < 2)
            rows.append(batch["input_ids"][keep].tolist())
        return rows
    if "chosen_input_ids" in batch:  # CPO, ORPO
        ids, mask = batch["chosen_input_ids"], batch["chosen_attention_mask"]
    elif "label" in batch:  # KTO
        ids, mask = (batch[name][batch["label"].bool()] for name in ("input_ids", "attention_mask"))
    else:  # DPO: chosen then rejected; SFT: chosen
        n = 4
        ids = batch["input_ids"][:n]
        mask = batch["attention_mask"][:n] if "attention_mask" in batch else ids != 0
    return [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]


def test_arpo_with_tau_one_trains_like_cpo(tmp_path, monkeypatch):
    smooth = {"max_grad_norm": SMOOTH["clip_norm"], "weight_decay": SMOOTH["weight_decay"]}
    monkeypatch.setattr(methods, "COMMON", methods.COMMON | smooth)
    options = {"max_steps": 4, "learning_rate": 0.1}
    cpo = train("cpo", tmp_path, tuned_adapter().double(), **options)[1]
    arpo = train("arpo", tmp_path, tuned_adapter().double(), clamp_min=1.0, **options)[1]
    assert abs(cpo[-1]["chosen_avg_logp"] - cpo[0]["chosen_avg_logp"]) > 1e-3, "it must learn"
    for name, kind in (("loss", "train"), ("grad_norm", "train"), ("chosen_avg_logp", "probe")):
        theirs, ours = ([entry[name] for entry in log if entry["kind"] == kind] for log in (cpo, arpo))
        assert ours == pytest.approx(theirs, rel=1e-3), name


def test_same_seed_same_model_and_log(tmp_path, run):
    first, (second, log) = run("arpo"), train("arpo", tmp_path)
    other = train("arpo", tmp_path, seed=1)[0]
    ours, again, others = (weights(m, True) for m in (first.model, second, other))
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    assert first.log == log
    assert any(not torch.equal(ours[name], others[name]) for name in ours)


def test_full_model_reference_does_not_follow_training(tmp_path):
    log = train_entries(train("dpo", tmp_path, tiny_model(), max_steps=4, learning_rate=1e-2)[1])
    assert log[0]["rewards/margins"] == 0.0 and log[-1]["rewards/chosen"] != 0.0


def test_the_table_of_settings_has_one_switch_for_bc():
    table = method_table().set_index("method")
    assert list(table.index) == [method.label for method in METHODS.values()]
    for name in ("DPO", "SimPO", "KTO"):
        assert (table.loc[name, "BC weight"], table.loc[f"{name}+BC", "BC weight"]) == (
            0.0,
            method_specs.BC_WEIGHT,
        )
        assert table.loc[name, "beta"] == table.loc[f"{name}+BC", "beta"]
    assert (
        not table["other options"].str.contains("alpha|nll|weights").any()
    )  # the trainers' own names of that switch
    assert table.loc["SimPO", "other options"] == "loss_type=simpo, simpo_gamma=1.0"
    assert set(table.index[table["reference model"]]) == {"DPO", "DPO+BC", "KTO", "KTO+BC"}


def test_schedule_is_whole_shuffles():
    order = schedule(5, 12, seed=3)
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5)) and len(order) == 12
    assert order != schedule(5, 12, seed=4) and order[:5] != order[5:10]


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("ppo", {}, "unknown preference method 'ppo'"),
        ("dpo", {"eta": 1.0}, "no options of 'dpo': .arpo. takes"),
        ("arpo", {"rows": []}, "no preference pairs"),
        ("kto", {"batch_size": 1}, "at least 2"),
        ("cpo", {"rows": [{"prompt": "p" * 600, "chosen": "a", "rejected": "b"}]}, "600 tokens"),
    ],
)
def test_bad_input(method, changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(method, tmp_path, **changes)


def test_frozen_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to train"):
        train("arpo", tmp_path, tuned_adapter().requires_grad_(False))
