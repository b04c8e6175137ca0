"""Folders that `xalma export` wrote, opened again for decoding."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.files import read_json
from xalma.models.adapters import merge_adapter
from xalma.models.backbone import load_base
from xalma.models.layouts import base_of_adapter

EXPORT_AGAIN = "export the stage again"


def is_export(folder: str | Path) -> bool:
    """Whether `xalma export` wrote this folder."""
    return (Path(folder) / "export.json").is_file()


def open_exported(
    folder: str | Path, group: int, dtype: str = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(plain model on the CPU, tokenizer) of an exported merged model or adapter, for a language of `group`.

    Raises ValueError for another group's model or a record that can't be read, FileNotFoundError for an adapter whose
    base is not there.
    """
    folder = Path(folder)
    record = read_json(folder / "export.json", EXPORT_AGAIN, keys=("name", "what"))
    name = str(record["name"])
    what = record["what"]
    named = re.search(r"-group(\d+)-", name)
    if named and int(named[1]) != group:
        raise ValueError(
            f"{folder} is an export of group {named[1]}, and these languages are of group {group}"
        )
    if what == "merged":
        return load_base(folder, dtype)
    base = base_of_adapter(folder, folder, read_json(folder / "adapter_config.json", EXPORT_AGAIN))
    model, tokenizer = load_base(base, "float32")
    return merge_adapter(model, group, folder).to(getattr(torch, dtype)), tokenizer
