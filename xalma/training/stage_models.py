"""What a stage trains, opened from the stage before and saved; and any stage's model as a plain one, for decoding."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.models.adapters import attach_adapter, load_adapters, merge_adapter, save_adapter
from xalma.models.backbone import load_base, save_base
from xalma.profiles import Profile
from xalma.runs import BASE, open_stage
from xalma.runtime import device


def open_for_training(p: Profile, group: int, previous: Path) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """(frozen base with the group's trainable module, tokenizer): `previous`' module, or a fresh one on a base.

    For group 0 the base itself, all its weights trainable, or all but the embeddings (`p.frozen_embeddings`).
    """
    run = open_stage(previous)
    if group == BASE == run["group"]:
        model, tokenizer = load_base(run["base"], "float32")
        for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
            embeddings.requires_grad_(not p.frozen_embeddings)
        return model, tokenizer
    model, tokenizer = load_base(run["base"], p.dtype)
    if run["group"] == BASE:
        fresh = attach_adapter(
            model, group, rank=p.lora_rank, alpha=p.lora_alpha, dropout=p.lora_dropout, seed=p.seed + group
        )
        return fresh, tokenizer
    if run["group"] != group:
        raise ValueError(
            f"{previous} holds the module of group {run['group']}, not of group {group}: pass that group's folder"
        )
    return load_adapters(model, {group: previous}, trainable=group), tokenizer


def save_trained(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, group: int, out: Path) -> None:
    """What a stage trained: the group's module, or for group 0 the base and its tokenizer."""
    if group == BASE:
        save_base(model, tokenizer, out)
    else:
        save_adapter(model, group, out)


def open_merged(
    folder: str | Path, dtype: str = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(plain model for decoding, tokenizer) of any stage's folder; a module is merged into its base in float32.

    The model is on this process's device, in torch dtype `dtype`.
    """
    run = open_stage(folder)
    model, tokenizer = load_base(run["base"])
    model = model if run["group"] == BASE else merge_adapter(model, run["group"], folder)
    return model.to(device(), getattr(torch, dtype)), tokenizer
