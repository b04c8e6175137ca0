"""Modules: a fresh one changes nothing, the gate picks one, training one moves nothing else, peft can read it."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from xalma.languages import GROUPS, adapter_name
from xalma.models.adapters import (
    attach_adapter,
    combine_adapters,
    gate,
    load_adapters,
    merge_adapter,
    parameter_hash,
    projections,
    save_adapter,
)
from xalma.models.backbone import load_base, save_base, train_tokenizer
from xalma.models.bank import load_modules as load_bank
from xalma.models.convert import convert
from xalma.models.layouts import PROJECTIONS, open_checkpoint
from xalma.profiles import FULL
from xalma.runs import read_run
from xalma.training.trainer import train

IDS = torch.tensor([[1, 40, 41, 42, 300, 301, 2]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def disturbed(base, group: int, seed: int):
    """A module whose B is not zero, as after training."""
    model = attach_adapter(copy.deepcopy(base), group, rank=4, alpha=8, dropout=0.0, seed=seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model


@pytest.fixture
def folders(base, tmp_path):
    """Saved modules of groups 3 and 6, and the logits each gives."""
    expected = {}
    for group in (3, 6):
        model = disturbed(base, group, seed=group)
        expected[group] = logits(model)
        save_adapter(model, group, tmp_path / f"g{group}")
    return {group: tmp_path / f"g{group}" for group in (3, 6)}, expected


def test_a_fresh_module_changes_no_output(base):
    before = logits(base)
    model = attach_adapter(base, 6, rank=8, alpha=16, dropout=0.3, seed=0)
    assert torch.equal(logits(model), before)


def test_a_fresh_module_is_all_that_trains(base):
    n_layers = base.config.num_hidden_layers
    model = attach_adapter(base, 6, rank=8, alpha=16, dropout=0.0)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == n_layers * 7 * 2
    assert all(".group6." in name and ".lora_" in name for name in trained)
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in trained} == set(PROJECTIONS)


def test_the_seed_decides_a_module(base):
    hashes = {
        seed: parameter_hash(attach_adapter(copy.deepcopy(base), 6, rank=4, alpha=8, dropout=0.0, seed=seed))
        for seed in (1, 2)
    }
    again = attach_adapter(copy.deepcopy(base), 6, rank=4, alpha=8, dropout=0.0, seed=1)
    assert hashes[1] == parameter_hash(again) != hashes[2]


def test_published_configuration(base):
    """rank 512, alpha 1024: scale 2, dropout 0.05, no bias, all seven projections (X-ALMA-13B-Group1)."""
    config = attach_adapter(
        base, 1, rank=FULL.lora_rank, alpha=FULL.lora_alpha, dropout=FULL.lora_dropout
    ).peft_config["group1"]
    assert (config.r, config.lora_alpha, config.lora_dropout, config.bias) == (512, 1024, 0.05, "none")
    assert config.target_modules == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }
    assert not config.use_rslora and not config.modules_to_save


def test_saved_layout_is_one_peft_reads_alone(folders, base):
    paths, expected = folders
    files = {f.name for f in paths[6].iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files
    assert not [f for f in paths[6].iterdir() if f.is_dir()]
    with safe_open(paths[6] / "adapter_model.safetensors", "pt") as tensors:
        assert not [key for key in tensors.keys() if "group6" in key], "names as in the released adapters"  # noqa: SIM118
        assert len(list(tensors.keys())) == base.config.num_hidden_layers * 14
    assert torch.equal(logits(PeftModel.from_pretrained(base, str(paths[6]))), expected[6])


BASES = {  # the real architectures, tiny: the same modelling code as the released models
    "llama-3": (
        "llama",
        {"num_key_value_heads": 2, "head_dim": 16, "rope_theta": 500000.0},
    ),  # 3.x: grouped queries
    "llama-3.2": (
        "llama",
        {"num_key_value_heads": 1, "tie_word_embeddings": True},
    ),  # 1B and 3B tie embeddings
    "mistral": ("mistral", {"num_key_value_heads": 2, "sliding_window": 8}),
    "qwen2": ("qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),  # biases on q, k, v
    "qwen3": ("qwen3", {"num_key_value_heads": 2, "head_dim": 16}),  # normed q and k
    "phi3": ("phi3", {"num_key_value_heads": 2}),  # q, k, v fused, and gate, up
    "gemma3": (
        "gemma3_text",
        {  # normed q and k, four norms a layer, windows, scaled and tied embeddings
            "num_key_value_heads": 1,
            "head_dim": 16,
            "sliding_window": 8,
            "tie_word_embeddings": True,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
}


def tiny_base(name: str):
    """A random model of a released family, two layers and 32 wide."""
    kind, more = BASES[name]
    config = AutoConfig.for_model(
        kind,
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **more,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", BASES)
def test_any_llama_like_base(name, tmp_path):
    """Attach, save, load, gate and merge on each family; tied embeddings stay tied, biases and norms untouched."""
    base = tiny_base(name)
    names, plain = projections(base), parameter_hash(base)
    assert names == (("o_proj", "down_proj", "qkv_proj", "gate_up_proj") if name == "phi3" else PROJECTIONS)
    model = disturbed(base, 6, seed=6)
    expected = logits(model)
    trained = {n.split(".lora_")[0].rsplit(".", 1)[1] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == set(names)
    save_adapter(model, 6, tmp_path / "g6")
    merged = merge_adapter(copy.deepcopy(base), 6, tmp_path / "g6")
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)
    assert not torch.equal(expected, logits(base))
    tied = merged.get_input_embeddings().weight is merged.get_output_embeddings().weight
    assert tied == base.config.tie_word_embeddings
    moved = {n for n, p in merged.named_parameters() if not torch.equal(p, base.get_parameter(n))}
    assert {n.rsplit(".", 2)[1] for n in moved} == set(names)
    assert parameter_hash(base) == plain


@pytest.mark.parametrize("name", BASES)
def test_any_llama_like_base_in_every_layout(name, tmp_path):
    """Saved, opened by headers, in a bank beside another group, and converted; a fused base stays adapters."""
    base, expected = tiny_base(name), {}
    save_base(base, train_tokenizer(["a b c"], 300), tmp_path / "base")
    for group in (3, 6):
        model = disturbed(base, group, seed=group)
        expected[group] = logits(model)
        save_adapter(model, group, tmp_path / f"group{group}")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.groups == (3, 6)
    assert {layer.rsplit(".", 1)[-1] for layer in checkpoint.layers} == set(projections(base))
    bank = load_bank(tmp_path)
    both = {"input_ids": IDS.repeat(2, 1), "attention_mask": torch.ones(2, IDS.shape[1], dtype=torch.long)}
    with torch.no_grad():
        found = bank(**both, languages=["ru", "zh"]).logits
    torch.testing.assert_close(found, torch.cat([expected[3], expected[6]]), atol=1e-5, rtol=1e-5)
    if name == "phi3":
        with pytest.raises(
            ValueError, match=r"those beside .* are on down_proj, gate_up_proj, o_proj, qkv_proj"
        ):
            convert(checkpoint, tmp_path / "all", groups=[3, 6])
        return
    together = open_checkpoint(convert(checkpoint, tmp_path / "all", groups=[3, 6]))
    assert (together.layout, together.layers) == ("all-modules", checkpoint.layers)
    for group in (3, 6):
        here, there = (sides_of(c, group) for c in (checkpoint, together))
        assert here.keys() == there.keys()
        assert all(torch.equal(here[side], there[side]) for side in here)


def sides_of(checkpoint, group: int) -> dict[tuple[str, str], torch.Tensor]:
    return {(layer, side): tensor for layer, side, tensor in checkpoint.module_tensors(group)}


@pytest.mark.parametrize(
    ("kind", "found"), [("gpt2", "linear layers of its decoder are none"), ("gpt_neox", "query_key_value")]
)
def test_bases_that_are_not_llama_like(kind, found):
    """Other names, or no linear layers at all: one sentence says what was found."""
    sizes = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
    with pytest.raises(ValueError, match=f"is not LLaMA-like: .*{found}"):
        attach_adapter(base, 6, rank=4, alpha=8, dropout=0.0)


def test_gate_picks_exactly_one_module(folders, base):
    paths, expected = folders
    plain = logits(base)
    model = load_adapters(base, paths)
    for choice, group in ((6, 6), ("zh", 6), (3, 3), ("ru", 3), ("fi", 6)):
        assert gate(model, choice) == group
        assert torch.equal(logits(model), expected[group])
    assert not any(p.requires_grad for p in model.parameters()), "the gate makes nothing trainable"
    assert not torch.equal(expected[6], plain)
    assert not torch.equal(expected[6], expected[3])


def test_gate_keeps_what_is_trainable(folders, base):
    model = load_adapters(base, folders[0], trainable=6)
    gate(model, "ru")
    assert {
        name.split(".lora_")[1].split(".")[1] for name, p in model.named_parameters() if p.requires_grad
    } == {"group6"}


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        ("en", "English belongs to every group"),
        ("xx", "unknown language code 'xx'"),
        ("de", r"module of group 1 is not loaded \(loaded: group3, group6\)"),
        (1, "module of group 1 is not loaded"),
        (9, "no language group 9: choose 1 to 8"),
    ],
)
def test_gate_errors(folders, base, choice, why):
    with pytest.raises(ValueError, match=why):
        gate(load_adapters(base, folders[0]), choice)


def test_load_errors(base):
    with pytest.raises(ValueError, match="no modules to load"):
        load_adapters(base, {})
    with pytest.raises(ValueError, match="no language group 0"):
        adapter_name(0)


def test_merged_equals_gated(folders, base):
    paths, expected = folders
    merged = merge_adapter(base, 6, paths[6])
    assert not isinstance(merged, PeftModel)
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    torch.testing.assert_close(logits(merged), expected[6], atol=1e-5, rtol=1e-5)


def test_training_one_module_leaves_the_rest_bit_for_bit(folders, base, micro):
    """By hash, and by the tensors themselves."""
    paths, _ = folders
    model = load_adapters(base, paths, trainable=6)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    hashes = {part: parameter_hash(model, **part_of(part)) for part in ("base", "group3", "group6")}
    rows = [{"input_ids": IDS[0].tolist(), "labels": IDS[0].tolist()}] * 8
    few = micro.but(stage4_batch_size=4)
    train(model, rows, few, few.stage(4), steps=3, seed=0, pad_token_id=0, label="three steps")
    after = {part: parameter_hash(model, **part_of(part)) for part in hashes}
    assert after["base"] == hashes["base"]
    assert after["group3"] == hashes["group3"]
    assert after["group6"] != hashes["group6"]
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if ".group6." in name}


def part_of(part: str) -> dict[str, str]:
    return {"excludes": ".lora_"} if part == "base" else {"contains": f".{part}."}


def test_hash_sees_a_single_bit(base):
    before = parameter_hash(base)
    weight = next(base.parameters()).data
    assert parameter_hash(copy.deepcopy(base)) == before
    weight.view(torch.int32)[0, 0] ^= 1
    assert parameter_hash(base) != before


def test_stages_move_only_their_module(ladder, finished):
    """The base of run.json is stage 1's, untouched; each module names that base and its own group alone."""
    for number in (2, 3, 4, 5):
        assert read_run(finished[number])["base"] == str(ladder[1])
        model = load_adapters(load_base(ladder[1])[0], {6: finished[number]})
        assert parameter_hash(model.unload()) == parameter_hash(load_base(ladder[1])[0])
    adapters = [(finished[n] / "adapter_model.safetensors").read_bytes() for n in (2, 3, 4, 5)]
    assert len(set(adapters)) == 4, "every stage trains"


@pytest.mark.parametrize("group", GROUPS)
def test_adapter_names(group):
    assert adapter_name(group) == f"group{group}"


def test_a_combined_module_is_the_weighted_sum_of_the_modules_products(base, tmp_path):
    """Sum of w · alpha/rank · B A, in float64 from the files; PEFT's "linear" would be (sum of B)(sum of A)."""
    folders, weights = [tmp_path / str(seed) for seed in (1, 2, 3)], [0.5, -1.0, 2.0]
    for seed, folder in enumerate(folders, 1):
        save_adapter(disturbed(base, 6, seed), 6, folder)
    model = combine_adapters(copy.deepcopy(base), 6, folders, weights)
    files = [safe_open(folder / "adapter_model.safetensors", "pt") for folder in folders]
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "lora_A")}
    assert len(layers) == 7 * base.config.num_hidden_layers and list(model.peft_config) == ["group6"]
    for name, layer in layers.items():
        a, b = ([file.get_tensor(f"{name}.lora_{side}.weight").double() for file in files] for side in "AB")
        expected = sum(w * 2 * right @ left for w, left, right in zip(weights, a, b, strict=True))
        torch.testing.assert_close(layer.get_delta_weight("group6").double(), expected, atol=1e-5, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    save_adapter(model, 6, tmp_path / "all")
    torch.testing.assert_close(
        logits(load_adapters(copy.deepcopy(base), {6: tmp_path / "all"})), logits(model)
    )
    with pytest.raises(ValueError, match="3 modules and 1 weights"):
        combine_adapters(base, 6, folders, [1.0])
