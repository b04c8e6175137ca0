"""Where checkpoints lie, folder or hub, and what their JSON files say: model, kind of adapter, its group and base."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HUB_BASE = "haoranxu/X-ALMA-13B-Pretrain"  # the base of every X-ALMA-13B-Group{g}, by the released README
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_UNSUPPORTED = ("use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out",
                "layers_to_transform")  # fmt: skip
_SMALL_FILES = ("*.json", "tokenizer.model", "*.jinja", "merges.txt")


def fetch(source: str | Path) -> Path:
    """The folder `source`, or the local copy of a hub repository: of one with an adapter, the adapter alone."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if not HUB_ID.fullmatch(str(source)):
        raise FileNotFoundError(f"{source} is neither a folder nor a hub id: write a hub id as owner/name")
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(str(source), allow_patterns=list(_SMALL_FILES)))
        wanted = "adapter_model.safetensors" if (folder / "adapter_config.json").exists() else "*.safetensors"
        return Path(snapshot_download(str(source), allow_patterns=[*_SMALL_FILES, wanted]))
    except Exception as error:  # the hub client has a dozen kinds; the user needs one sentence
        why = f"{type(error).__name__}: {error}"
        raise OSError(f"can't read {source} from the hub ({why}): download it first") from error


def plain_config(folder: Path) -> dict[str, Any]:
    """config.json of `folder` as transformers' own class reads it: no `auto_map`, no custom architecture name.

    Raises FileNotFoundError for no config.json, ValueError for a model type transformers does not know.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    config = read_json(folder / "config.json")
    if config.get("model_type") not in KNOWN:
        raise ValueError(
            f"{folder / 'config.json'}: transformers has no causal language model of type "
            f"{config.get('model_type')!r}, and xalma runs no code of a checkpoint"
        )
    config.pop("auto_map", None)
    return config | {"architectures": [KNOWN[config["model_type"]]]}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file. Raises FileNotFoundError or ValueError, naming the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: copy or download it again") from None
    except ValueError as error:
        raise ValueError(f"{path} is truncated or no JSON ({error}): copy or download it again") from None


def lora_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a plain LoRA. Raises ValueError for any other kind."""
    path = folder / "adapter_config.json"
    config = read_json(path)
    wrong = [key for key in _UNSUPPORTED if config.get(key)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or wrong:
        what = ", ".join(wrong) or f"{config.get('peft_type')} with bias {config.get('bias')}"
        raise ValueError(f"{path}: a module is a plain LoRA without bias, this is one with {what}")
    if not isinstance(config.get("target_modules"), list) or not config.get("r") or not config.get("lora_alpha"):
        raise ValueError(f"{path} lacks r, lora_alpha or a list of target_modules")
    return config


def group_of_folder(name: str | Path, folder: Path, asked: int | None = None) -> int:
    """The group whose module a folder holds: run.json's, else `asked`, else the number its name ends in.

    Raises ValueError for none of these, and where run.json has another one than `asked`.
    """
    if (folder / "run.json").exists() and (group := read_json(folder / "run.json").get("group")):
        if asked not in (None, group):
            raise ValueError(
                f"{name} holds the module of group {group}, not of group {asked}: name that group's folder"
            )
        return group
    if asked is not None:
        return asked
    if match := re.search(r"group[-_ ]?([1-9]\d*)/*$", str(name), re.IGNORECASE):
        return int(match[1])
    raise ValueError(f"can't tell whose module {name} holds: end the folder's name in its group, as group6")


def find_base(name: str | Path, folder: Path, config: Mapping[str, Any]) -> Path:
    """The base of an adapter: run.json's, adapter_config's if it is a folder, one beside it, the hub's.

    name: the folder as the user named it. Raises FileNotFoundError where none of these is there.
    """
    named = str(config.get("base_model_name_or_path") or "")
    if (folder / "run.json").exists():
        from xalma.runs import open_stage

        places = [Path(open_stage(folder).get("base") or folder)]
    else:
        beside = named.rsplit("/", 1)[-1] or "base"
        places = [folder / named, Path(named), folder.parent / beside, folder.parent / "base"]
    for place in places:
        if place.resolve() != folder.resolve() and (place / "config.json").exists():
            return place.resolve()
    if re.fullmatch(r"haoranxu/X-ALMA-13B-Group[1-8]", str(name)):
        return fetch(HUB_BASE).resolve()
    if HUB_ID.fullmatch(named):
        return fetch(named).resolve()
    raise FileNotFoundError(
        f"can't find the base of {name}: its adapter_config.json names {named or 'none'!r}; say where the base lies"
    )
