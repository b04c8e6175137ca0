"""Adapters as the installed peft makes them: a plain LoRA gives peft's own logits, other kinds are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from xalma.models.backbone import load_base
from xalma.models.bank import load_modules
from xalma.models.convert import convert
from xalma.models.layouts import lora_config, open_checkpoint

IDS = torch.tensor([[1, 40, 41, 42, 300, 301, 2]])
LAYERS = [
    f"model.layers.{n}.{part}"
    for n in (0, 1)
    for part in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")
]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("adapters") / "base"
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def made(base: Path, out: Path, **options) -> torch.Tensor:
    """Saves an adapter that was "trained" a little to out/group6; returns the trained model's logits."""
    torch.manual_seed(1)
    options = {"r": 4, "lora_alpha": 12, "target_modules": ALL, "task_type": "CAUSAL_LM"} | options
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**options)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        logits = model(IDS).logits
    model.save_pretrained(out / "group6")
    return logits


PLAIN = {
    "peft's defaults": {}, "random A and B": {"init_lora_weights": False},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"}, "dropout": {"lora_dropout": 0.3}, "no task": {"task_type": None},
    "all-linear": {"target_modules": "all-linear"}, "full names": {"target_modules": LAYERS},
    "ends of names": {"target_modules": ["self_attn.q_proj", "mlp.up_proj"]},
    "a pattern": {"target_modules": r".*layers\.1\..*(q|down)_proj"},
    "left out": {"exclude_modules": ["o_proj", "layers.0.self_attn.q_proj"]},
    "a fraction": {"lora_alpha": 5, "r": 3},
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_lora_gives_what_peft_gives(base, tmp_path, name):
    """The bank, one it wrote again, and a converted copy: the logits of the model that was trained."""
    expected = made(base, tmp_path, **PLAIN[name])
    bank = load_modules(tmp_path, base=base)
    torch.testing.assert_close(bank(IDS, languages=[6]).logits, expected, atol=1e-5, rtol=1e-5)
    bank.save(6, tmp_path / "again" / "group6")
    copied = convert(open_checkpoint(tmp_path, base), tmp_path / "copy", "adapters", groups=[6])
    for folder in (tmp_path / "again", copied):
        found = load_modules(folder, base=base)(IDS, languages=[6]).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        theirs = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base), folder / "group6"
        ).eval()
        torch.testing.assert_close(theirs(IDS).logits, expected, atol=1e-5, rtol=1e-5)


OTHER = {
    "init_lora_weights 'pissa'": {"init_lora_weights": "pissa"},
    "init_lora_weights 'pissa_niter_4'": {"init_lora_weights": "pissa_niter_4"},
    "init_lora_weights 'olora'": {"init_lora_weights": "olora"},
    "init_lora_weights 'mica'": {"init_lora_weights": "mica"},
    "use_dora True": {"use_dora": True}, "use_rslora True": {"use_rslora": True},
    "alora_invocation_tokens [5, 6]": {"alora_invocation_tokens": [5, 6]},
    "rank_pattern {'q_proj': 2}": {"rank_pattern": {"q_proj": 2}},
    "alpha_pattern {'q_proj': 2}": {"alpha_pattern": {"q_proj": 2}},
    "modules_to_save ['lm_head']": {"modules_to_save": ["lm_head"]},
    "layers_to_transform [1]": {"layers_to_transform": [1]}, "bias 'lora_only'": {"bias": "lora_only"},
    "trainable_token_indices [1, 2]": {"trainable_token_indices": [1, 2]},
    "layer_replication [[0, 2], [0, 2]]": {"layer_replication": [[0, 2], [0, 2]]},
    "lora_bias True": {"lora_bias": True},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_other_kinds_that_peft_makes_are_refused_by_name(base, tmp_path, name):
    made(base, tmp_path, **OTHER[name])
    for use in (load_modules, open_checkpoint):
        with pytest.raises(
            ValueError, match=r"adapter_config\.json: a module is a plain LoRA without bias, this"
        ) as caught:
            use(tmp_path, base=base)
        assert name in str(caught.value)


CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"init_lora_weights": "corda"}, "init_lora_weights 'corda'"),
        ({"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, "'loftq', loftq_config"),
        ({"init_lora_weights": "lora_ga"}, "'lora_ga'"),
        ({"a_key_of_next_year": 7}, "a_key_of_next_year 7"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out True"),
        ({"task_type": "SEQ_CLS"}, "task_type 'SEQ_CLS'"),
        ({"peft_type": "ADALORA"}, "kind ADALORA"),
        ({"r": "16"}, "r is '16', where a whole number above 0"),
        ({"r": True}, "r is True"),
        ({"r": 0}, "r is 0"),
        ({"r": 4.0}, r"r is 4\.0"),
        ({"r": None}, "r is None"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"lora_alpha": -8}, "lora_alpha is -8"),
        ({"target_modules": []}, "target_modules is"),
        ({"target_modules": None}, "target_modules is None"),
        ({"target_modules": [1]}, "target_modules is"),
        ({"exclude_modules": 3}, "exclude_modules is 3"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path, changes, why):
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
    with pytest.raises(ValueError, match=rf"adapter_config\.json: .*{why}"):
        lora_config(tmp_path)


@pytest.mark.parametrize("text", ["[]", "7", "null", "[" * 100_000, ""])
def test_no_object(tmp_path, text):
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ValueError, match=r"adapter_config\.json (can't be read as JSON|holds a JSON)"):
        lora_config(tmp_path)


@pytest.mark.parametrize(
    "target", [["up_proj"], ["model.layers.0.self_attn.q_proj"], r".*\.1\..*", "(q_proj"]
)
def test_tensors_and_names_must_agree(base, tmp_path, target):
    """Tensors of layers that the configuration does not name, or names without tensors, are never passed over."""
    made(base, tmp_path, target_modules=["q_proj"])
    file = tmp_path / "group6" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"target_modules": target}))
    with pytest.raises(
        ValueError, match=r"lacks the A of|not on a linear layer that its config|is no pattern of"
    ):
        open_checkpoint(tmp_path, base)


def test_an_adapter_on_the_output_layer_is_refused(base, tmp_path):
    made(base, tmp_path, target_modules=["q_proj", "lm_head"])
    with pytest.raises(ValueError, match=r"holds base_model\.model\.lm_head\.\S+, which is n"):
        open_checkpoint(tmp_path, base)


def test_a_part_of_the_layers_is_no_all_modules_checkpoint(base, tmp_path):
    parts = [f"{'self_attn' if part in ALL[:4] else 'mlp'}.{part}" for part in ALL]
    made(base, tmp_path, target_modules=[f"layers.1.{part}" for part in parts], lora_alpha=8)
    with pytest.raises(ValueError, match="all-modules layout holds modules on every layer"):
        convert(open_checkpoint(tmp_path, base), tmp_path / "out", "all-modules", groups=[6])


def test_pickles_are_refused(base, tmp_path):
    made(base, tmp_path)
    file = tmp_path / "group6" / "adapter_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    save_file(load_file(file), tmp_path / "x.safetensors")
    file.unlink()
    with pytest.raises(ValueError, match=r"adapter_model\.bin is a pickle"):
        open_checkpoint(tmp_path, base)


def test_weights_without_a_tokenizer_serve_ids_and_say_so_of_text(base, tmp_path):
    """As a released checkpoint alone in its folder."""
    expected = made(base, tmp_path)
    bank = load_modules(tmp_path, base=base)
    torch.testing.assert_close(bank(IDS, languages=[6]).logits, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"this bank has no tokenizer, as .*base holds none: copy"):
        bank.translate(["Tere"], src="et", tgt="en")
    with pytest.raises(
        FileNotFoundError, match="base holds no tokenizer: copy its base's tokenizer files there"
    ):
        load_base(base)
