"""Where checkpoints lie, folder or hub, and what their JSON files say: model, kind of adapter, its group and base."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xalma.base_files import check_folder
from xalma.files import COPY_AGAIN, read_json

HUB_BASE = "haoranxu/X-ALMA-13B-Pretrain"  # the base of every X-ALMA-13B-Group{g}, by the released README
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# Of adapter_config.json: keys that leave B·A·alpha/r what it is whatever they say, or that are read by name below.
_ANY_VALUE = {
    "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "r", "lora_alpha", "target_modules", "exclude_modules", "eva_config",
}  # fmt: skip
# Other ways to begin (PiSSA, OLoRA, CorDA, LoftQ, …) change the base too, which the file of the adapter does not hold.
_PLAIN_VALUES: dict[str, tuple[Any, ...]] = {
    "bias": ("none",), "task_type": ("CAUSAL_LM",), "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}  # fmt: skip
_SMALL_FILES = ("*.json", "tokenizer.model", "*.jinja", "merges.txt")


def fetch(source: str | Path) -> Path:
    """The folder `source`, or the local copy of a hub repository: of one with an adapter, the adapter alone."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        check_folder(folder)
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


def check_adapter(source: str | Path) -> Path:
    """The folder of an adapter in safetensors. Raises ValueError for pickles, as `check_folder`, or if it has none."""
    from xalma.shards import read_headers

    check_folder(source)
    read_headers(Path(source), "adapter_model")
    return Path(source)


def plain_config(folder: Path) -> dict[str, Any]:
    """config.json of `folder` as transformers' own class reads it: no `auto_map`, no custom architecture name.

    Raises FileNotFoundError for no config.json, ValueError for a model type transformers does not know.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    config = read_json(folder / "config.json", COPY_AGAIN)
    if config.get("model_type") not in KNOWN:
        raise ValueError(
            f"{folder / 'config.json'}: transformers has no causal language model of type "
            f"{config.get('model_type')!r}, and xalma runs no code of a checkpoint"
        )
    config.pop("auto_map", None)
    return config | {"architectures": [KNOWN[config["model_type"]]]}


def lora_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a plain LoRA, y = Wx + alpha/r · B(Ax).

    Every key must be one that is understood, be off, or have peft's default value: a kind of adapter that came after
    this was written is refused too. Raises ValueError, naming the key, for any other kind.
    """
    from peft import LoraConfig

    path = folder / "adapter_config.json"
    config, defaults = read_json(path, COPY_AGAIN), LoraConfig().to_dict()
    if config.get("peft_type") != "LORA":
        raise ValueError(
            f"{path}: a module is a plain LoRA without bias, this is one of kind {config.get('peft_type')}"
        )
    odd = [f"{key} {value!r}" for key, value in config.items() if not _is_plain(key, value, defaults)]
    if odd:
        raise ValueError(f"{path}: a module is a plain LoRA without bias, this is one with {', '.join(odd)}")
    rank, alpha, targets = (config.get(key) for key in ("r", "lora_alpha", "target_modules"))
    if type(rank) is not int or rank < 1:
        raise ValueError(f"{path}: r is {rank!r}, where a whole number above 0 belongs")
    if type(alpha) not in (int, float) or not 0 < alpha < math.inf:
        raise ValueError(f"{path}: lora_alpha is {alpha!r}, where a number above 0 belongs")
    for key, names in (("target_modules", targets), ("exclude_modules", config.get("exclude_modules") or [])):
        listed = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not (listed or isinstance(names, str)) or (key == "target_modules" and not names):
            raise ValueError(f"{path}: {key} is {names!r}, where a list of layers' names belongs, or a pattern")
    return config


def _is_plain(key: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    off = value is None or value is False or value in ({}, [], "")
    if key in _PLAIN_VALUES:
        return value is None or value in _PLAIN_VALUES[key]
    return off or key in _ANY_VALUE or (key in defaults and value == defaults[key])


def adapted_layers(config: Mapping[str, Any], linears: Sequence[str], path: Path) -> tuple[str, ...]:
    """Those of a model's linear layers that an adapter is on, by peft's own rule: full names, endings, or a pattern.

    config: from `lora_config`; linears: full names, without the output layer; path: of adapter_config.json.
    Raises ValueError for a pattern that is none.
    """
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    targets = config["target_modules"]
    if isinstance(targets, str) and targets.lower() == "all-linear":
        targets = list(linears)
    try:
        asked = LoraConfig(target_modules=targets, exclude_modules=config.get("exclude_modules"))
        return tuple(name for name in linears if check_target_module_exists(asked, name))
    except re.error as error:
        raise ValueError(f"{path}: {targets!r} is no pattern of layers' names ({error})") from None


def group_of_folder(name: str | Path, folder: Path, asked: int | None = None) -> int:
    """The group whose module a folder holds: run.json's, else `asked`, else the number its name ends in.

    Raises ValueError for none of these, and where run.json has another one than `asked`.
    """
    if (folder / "run.json").exists() and (group := read_json(folder / "run.json", COPY_AGAIN).get("group")):
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
