"""Language-specific modules: one frozen base, one LoRA adapter a group, and the hard gate that picks it.

X-ALMA §3: rank 512, alpha 1024 (scale 2), dropout 0.05, no bias, on all seven projections of attention and MLP.
peft does the arithmetic; this room names the adapters ("group6"), gates them by language and proves what moved.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from transformers import PreTrainedModel

from xalma.files import read_json, write_json
from xalma.languages import adapter_name, gated_group
from xalma.models.layouts import PROJECTIONS, check_adapter, lora_config
from xalma.runtime import all_finite

# Phi-3 and GLM keep q, k, v and gate, up in one matrix: one module serves it
FUSED = "qkv_proj", "gate_up_proj"


def projections(base: PreTrainedModel) -> tuple[str, ...]:
    """Names of the linear layers a module goes on: X-ALMA's seven, or those of a base that fuses some of them.

    Raises ValueError for a base with other linear layers in its decoder (mixtures of experts, GPT-2, …).
    """
    linear = {
        name.rsplit(".", 1)[-1]
        for name, layer in base.named_modules()
        if isinstance(layer, torch.nn.Linear) and ".layers." in f".{name}"
    }
    if not {"o_proj", "down_proj"} <= linear <= {*PROJECTIONS, *FUSED}:
        raise ValueError(
            f"{type(base).__name__} is not LLaMA-like: the linear layers of its decoder are "
            f"{', '.join(sorted(linear)) or 'none'}; modules know {', '.join((*PROJECTIONS, *FUSED))}"
        )
    return tuple(name for name in (*PROJECTIONS, *FUSED) if name in linear)


def attach_adapter(
    base: PreTrainedModel, group: int, *, rank: int, alpha: int, dropout: float, seed: int = 0
) -> PeftModel:
    """`base` frozen, with a fresh trainable module for `group`; the fresh module changes no output (B = 0).

    Raises ValueError as `projections`.
    """
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias="none",
        target_modules=list(projections(base)),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    return get_peft_model(base, config, adapter_name=adapter_name(group))


def load_adapters(
    base: PreTrainedModel, folders: Mapping[int, str | Path], *, trainable: int | None = None
) -> PeftModel:
    """`base` with the modules of several groups beside each other; folders: group -> folder of the saved adapter.

    trainable: the one group whose module may be trained, the rest and the base stay frozen.
    Raises ValueError for no folders or an unknown group, and, naming file and tensor, for weights that are no
    safetensors or do not fit the base: peft would leave them out in silence.
    """
    if not folders:
        raise ValueError("no modules to load: give at least one group's folder")
    model: PeftModel | None = None
    for group, folder in folders.items():
        name = adapter_name(group)
        file = Path(folder) / "adapter_model.safetensors"
        lora_config(check_adapter(folder))
        if model is None:
            model = PeftModel.from_pretrained(
                base, str(folder), adapter_name=name, is_trainable=group == trainable, trust_remote_code=False
            )
        else:
            model.load_adapter(str(folder), adapter_name=name, is_trainable=group == trainable)
        _check_loaded(model, name, file)
        # the file names it relative to its folder; peft asks the hub for what it can't find when it saves
        model.peft_config[name].base_model_name_or_path = base.name_or_path
    gate(model, trainable or next(iter(folders)))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable is not None and f".{adapter_name(trainable)}." in name)
    return model


def _check_loaded(model: PeftModel, name: str, file: Path) -> None:
    """Raises ValueError, naming file and tensor, unless an adapter's tensors are those of its file, all finite."""
    expected = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    with safe_open(file, "pt") as tensors:
        names = set(tensors.keys())
    if missing := expected.keys() - names:
        raise ValueError(f"{file} lacks the tensor {min(missing)}: copy the module again")
    if odd := names - expected.keys():
        raise ValueError(f"{file} holds {min(odd)}, for which the base has no place: copy the module again")
    for key, tensor in expected.items():
        if not all_finite(tensor):
            raise ValueError(f"{file}: {key} is not finite: copy the module again")


def gate(model: PeftModel, language_or_group: str | int) -> int:
    """Switch the module of a group, or of a language's group, on and all others off; returns the group.

    Raises ValueError for English alone, an unknown language, or a group whose module is not loaded.
    """
    group = gated_group(language_or_group)
    name = adapter_name(group)
    if name not in model.peft_config:
        loaded = ", ".join(model.peft_config)
        raise ValueError(
            f"the module of group {group} is not loaded (loaded: {loaded}): train it or load its folder"
        )
    frozen = {n for n, parameter in model.named_parameters() if not parameter.requires_grad}
    model.set_adapter(name)
    for n, parameter in model.named_parameters():  # peft makes the active adapter trainable: gating must not
        parameter.requires_grad_(n not in frozen)
    return group


def save_adapter(model: PeftModel, group: int, out: Path) -> None:
    """The group's adapter alone, in the layout of haoranxu/X-ALMA-13B-Group{g} (adapter_config + safetensors)."""
    name = adapter_name(group)
    model.save_pretrained(str(out), selected_adapters=[name], safe_serialization=True)
    nested = out / name  # peft puts every adapter but "default" in a folder of its own
    for file in nested.iterdir():
        file.rename(out / file.name)
    nested.rmdir()
    (out / "README.md").unlink(missing_ok=True)  # peft's empty card
    path = out / "adapter_config.json"
    config = read_json(path, "train the stage again")
    config["target_modules"] = sorted(config["target_modules"])  # peft writes a set in any order
    if os.path.isdir(
        config["base_model_name_or_path"] or ""
    ):  # a hub id stays; a path of this machine does not
        final = out.parent / out.name.removeprefix(".partial-")
        config["base_model_name_or_path"] = os.path.relpath(config["base_model_name_or_path"], final)
    write_json(path, config)


def merge_adapter(base: PreTrainedModel, group: int, folder: str | Path) -> PreTrainedModel:
    """A plain model with the group's module folded into the weights of `base` (which is used up)."""
    return load_adapters(base, {group: folder}).merge_and_unload()


def combine_adapters(
    base: PreTrainedModel, group: int, folders: Sequence[str | Path], weights: Sequence[float]
) -> PeftModel:
    """`base` with one module for `group`: what several modules add to its weights, each times its weight, in sum.

    Exactly sum_i w_i · scale_i · B_i A_i, by PEFT's combination "cat": its rank is the sum of the modules' ranks.
    (PEFT's "linear" adds As and Bs, whose product has cross terms.) folders: of saved modules, also of one group.
    Raises ValueError as `load_adapters`, and for another number of weights.
    """
    if len(folders) != len(weights) or not folders:
        raise ValueError(
            f"{len(folders)} modules and {len(weights)} weights: give one weight for each module"
        )
    model: PeftModel | None = None
    names = [f"part{i}" for i in range(len(folders))]
    for name, folder in zip(names, folders, strict=True):
        lora_config(check_adapter(folder))
        if model is None:
            model = PeftModel.from_pretrained(base, str(folder), adapter_name=name, trust_remote_code=False)
        else:
            model.load_adapter(str(folder), adapter_name=name)
        _check_loaded(model, name, Path(folder) / "adapter_model.safetensors")
    assert model is not None
    model.add_weighted_adapter(names, list(weights), adapter_name(group), combination_type="cat")
    for name in names:
        model.delete_adapter(name)
    model.set_adapter(adapter_name(group))
    model.peft_config[adapter_name(group)].base_model_name_or_path = base.name_or_path
    return model.requires_grad_(False)


def parameter_hash(model: torch.nn.Module, contains: str = "", excludes: str | None = None) -> str:
    """SHA-256 of the parameters whose name contains `contains` and not `excludes`: equal means bit for bit equal."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if contains in name and (excludes is None or excludes not in name):
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
