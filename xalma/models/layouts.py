"""One view of the layouts that X-ALMA's modules come in; headers are read when opened, weights only when asked for.

    adapters      a base, and a PEFT adapter folder a group: haoranxu/X-ALMA-13B-Pretrain with X-ALMA-13B-Group{1..8};
                  xalma's own stage folders are the same with a run.json that says base and group
    all-modules   one checkpoint, haoranxu/X-ALMA: beside each plain `q_proj.weight` stand `q_lora_A.<group>.weight` and
                  `q_lora_B.<group>.weight` for every group, and so for k, v, o, gate, up, down; scale fixed at 2

Names as in the released modeling_xalma.py. Safetensors only, and no code of a checkpoint is ever run: `auto_map`, which
asks for that, is left out of the configuration. `xalma.models.convert` writes both layouts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from xalma.base_files import check_folder
from xalma.files import COPY_AGAIN, read_json
from xalma.models.safetensors_io import Entry, read_headers, read_tensors

ADAPTERS, ALL_MODULES = "adapters", "all-modules"
ALL_MODULES_SCALE = 2.0  # LORA_ALPHA in the released modeling_xalma.py

Side = tuple[str, str]  # (layer, "A" or "B"), for example ("model.layers.0.self_attn.q_proj", "A")
Entries = Mapping[str, Entry]  # by the stored name
Modules = Mapping[int, Mapping[Side, tuple[str, Entry]]]  # group -> side -> (stored name, entry)

_IN_ALL_MODULES = re.compile(r"(.+\.)(q|k|v|o|gate|up|down)_lora_([AB])\.([1-9]\d*)\.weight")
_IN_ADAPTER = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")


@dataclass(frozen=True)
class Checkpoint:
    """A base and its modules, wherever their tensors lie; from `open_checkpoint`."""

    layout: str
    base: Path  # folder of config.json and tokenizer, and of the base's weights
    rank: int  # 0 without modules
    scale: float  # alpha / rank
    layers: tuple[str, ...]  # the linear layers that have modules, in the model's order
    base_entries: Entries = field(repr=False)
    modules: Modules = field(repr=False)

    @property
    def groups(self) -> tuple[int, ...]:
        """The groups whose modules are here, in order."""
        return tuple(sorted(self.modules))

    @property
    def module_names(self) -> set[str]:
        """The modules' tensors as they are stored."""
        return {name for module in self.modules.values() for name, _ in module.values()}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return self.nbytes_of(self.groups)

    def nbytes_of(self, groups: Sequence[int]) -> int:
        """Bytes of the base and of the modules of `groups`."""
        sides = (entry for group in groups for _, entry in self.modules[group].values())
        return sum(entry.nbytes for entry in (*self.base_entries.values(), *sides))

    def config(self) -> dict[str, Any]:
        """The base's config.json, without `auto_map` and its custom classes."""
        return plain_config(self.base)

    def base_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, tensor) of the base's plain state dict, file by file; one tensor lives at a time."""
        return read_tensors(self.base_entries)

    def module_tensors(self, group: int) -> Iterator[tuple[str, str, torch.Tensor]]:
        """(layer, "A", (rank, in)) and (layer, "B", (out, rank)) of a group's module, in the order of the files.

        Raises ValueError for a group that is not here.
        """
        self.check_groups([group])
        sides = {name: side for side, (name, _) in self.modules[group].items()}
        for name, tensor in read_tensors(dict(self.modules[group].values())):
            yield *sides[name], tensor

    def check_groups(self, groups: Sequence[int]) -> None:
        """Raises ValueError if one of `groups` is not here."""
        missing = [str(group) for group in groups if group not in self.modules]
        if missing:
            raise ValueError(
                f"no module of group {', '.join(missing)} beside {self.base}: it has "
                f"{', '.join(map(str, self.groups)) or 'none'}; name the groups you want, or add the folders that lack"
            )


def open_checkpoint(
    source: str | Path | Sequence[str | Path] | Mapping[int, str | Path], base: str | Path | None = None
) -> Checkpoint:
    """The checkpoint in a folder or hub id, of either layout, or in several adapter folders of different groups.

    source: an all-modules checkpoint, an adapter, a folder of adapter folders (…/group6), a stage's folder, a base;
    or several adapters, as a list whose names end in their group or as {group: folder or hub id}.
    base: the base of adapters, where neither run.json, adapter_config.json nor a folder beside them leads to it.
    Raises OSError for what is not there, and ValueError, with the file's name, for pickles, truncated files, wrong
    shapes, missing tensors and kinds of adapters that are no plain LoRA.
    """
    if isinstance(source, Mapping):
        return _open_adapters(list(source.items()), base)
    if not isinstance(source, str | Path):
        return _open_adapters([(None, name) for name in source], base)
    folder = fetch(source)
    if (folder / "adapter_config.json").exists():
        return _open_adapters([(None, source)], base)
    adapters = sorted(path.parent for path in folder.glob("[!.]*/adapter_config.json"))
    if adapters and not (folder / "config.json").exists():
        return _open_adapters([(None, path) for path in adapters], base)
    return _open_single(folder)


def _open_single(folder: Path) -> Checkpoint:
    """An all-modules checkpoint, or a base without modules."""
    modules: dict[int, dict[Side, tuple[str, Entry]]] = {}
    plain = {}
    for name, entry in read_headers(folder).items():
        if match := _IN_ALL_MODULES.fullmatch(name):
            prefix, projection, side, group = match.groups()
            modules.setdefault(int(group), {})[f"{prefix}{projection}_proj", side] = (name, entry)
        else:
            plain[name] = entry
    if not modules:
        check_named_base(folder, plain)
        return Checkpoint(ADAPTERS, folder, 0, 0.0, (), plain, {})
    first = next(iter(modules.values()))
    rank = next((entry.shape[0] for (_, side), (_, entry) in first.items() if side == "A"), 0)
    layers = tuple(name for name in check_named_base(folder, plain) if name.rsplit(".", 1)[-1] in PROJECTIONS)
    return _checked(ALL_MODULES, folder, rank, ALL_MODULES_SCALE, layers, plain, modules)


def _open_adapters(sources: Sequence[tuple[int | None, str | Path]], base: str | Path | None) -> Checkpoint:
    """Adapters of different groups on one base; sources: (group, if the caller said it, and folder or hub id)."""
    if not sources:
        raise ValueError("no folder of a module: name at least one")
    modules: dict[int, dict[Side, tuple[str, Entry]]] = {}
    configs, bases = {}, {}
    for asked, name in sources:
        folder = fetch(name)
        group = group_of_folder(name, folder, asked)
        if group in modules:
            raise ValueError(
                f"{name} holds the module of group {group} a second time: name one folder a group"
            )
        configs[name] = config = lora_config(folder)
        bases[name] = fetch(base).resolve() if base else base_of_adapter(name, folder, config)
        modules[group] = _adapter_entries(folder)
    _same(bases)
    base = next(iter(bases.values()))
    plain = read_headers(base)
    if any(map(_IN_ALL_MODULES.fullmatch, plain)):
        raise ValueError(
            f"{base} is an all-modules checkpoint, not the plain base of adapters: name another base"
        )
    linears = check_named_base(base, plain)
    kinds = {
        name: (
            c["r"],
            c["lora_alpha"] / c["r"],
            adapted_layers(c, linears, Path(name) / "adapter_config.json"),
        )
        for name, c in configs.items()
    }
    _same(kinds)
    rank, scale, layers = next(iter(kinds.values()))
    return _checked(ADAPTERS, base, rank, scale, layers, plain, modules)


def _same(values: Mapping[str | Path, Any]) -> None:
    """Raises ValueError where modules have different bases, ranks, scales or layers."""
    if len({str(value) for value in values.values()}) > 1:
        listed = "; ".join(f"{name}: {str(value)[:200]}" for name, value in values.items())
        raise ValueError(
            f"these modules don't belong together, their base, rank, scale or layers differ: {listed}"
        )


def _adapter_entries(folder: Path) -> dict[Side, tuple[str, Entry]]:
    entries = {}
    for name, entry in read_headers(folder, "adapter_model").items():
        match = _IN_ADAPTER.fullmatch(name)
        if not match:
            raise ValueError(f"{entry.file} holds {name}, which is no LoRA matrix of a linear layer")
        entries[match[1], match[2]] = (name, entry)
    return entries


def check_named_base(folder: Path, entries: Entries) -> list[str]:
    """Names of the linear layers, but for the output layer, of the model that config.json describes, in its order.

    Raises ValueError, naming file and tensor, where `entries` are others.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    plain = plain_config(folder)
    config = CONFIG_MAPPING[plain["model_type"]].from_dict(plain)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    for name in expected:
        if name not in entries and name not in tied:
            index = folder / "model.safetensors.index.json"
            raise ValueError(
                f"{index if index.exists() else folder / 'model.safetensors'} lacks the tensor {name}"
            )
    for name, entry in entries.items():
        if name not in expected and not name.endswith(
            "rotary_emb.inv_freq"
        ):  # older exports keep that constant
            raise ValueError(f"{entry.file} holds {name}, which a {config.model_type} model has not")
        if name in expected and entry.shape != expected[name]:
            raise ValueError(
                f"{entry.file}: {name} has shape {entry.shape}, config.json asks for {expected[name]}"
            )
    head = model.get_output_embeddings()
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    ]


def _checked(
    layout: str,
    folder: Path,
    rank: int,
    scale: float,
    layers: tuple[str, ...],
    plain: Entries,
    modules: Modules,
) -> Checkpoint:
    """The Checkpoint, after every layer of every group was found to have an A and a B of the right shape."""
    for group, module in sorted(modules.items()):
        for side in ((layer, side) for layer in layers for side in "AB"):
            if side not in module:
                file = next(entry.file for _, entry in module.values())
                raise ValueError(
                    f"{file} lacks the {side[1]} of {side[0]} for group {group}, and so do its other shards"
                )
        for (layer, side), (name, entry) in module.items():
            if layer not in layers:
                what = "a linear layer that its configuration names" if layout == ADAPTERS else "a projection"
                raise ValueError(f"{entry.file} holds {name}, which is not on {what} in {folder}")
            out_size, in_size = plain[f"{layer}.weight"].shape
            if entry.shape != ((rank, in_size) if side == "A" else (out_size, rank)):
                raise ValueError(
                    f"{entry.file}: {name} has shape {entry.shape}, which does not fit rank {rank} and "
                    f"{layer} of shape {(out_size, in_size)}"
                )
    return Checkpoint(layout, folder, rank, scale, layers, plain, modules)


PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

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
    config = read_json(path, COPY_AGAIN)
    defaults = LoraConfig().to_dict()
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
            raise ValueError(
                f"{path}: {key} is {names!r}, where a list of layers' names belongs, or a pattern"
            )
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


def base_of_adapter(name: str | Path, folder: Path, config: Mapping[str, Any]) -> Path:
    """The base of an adapter: run.json's, adapter_config's if it is a folder, one beside it, the hub's.

    name: the folder as the user named it. Raises FileNotFoundError where none of these is there.
    """
    named = str(config.get("base_model_name_or_path") or "")
    if (folder / "run.json").exists():
        from xalma.runs import open_stage

        candidates = [Path(open_stage(folder).get("base") or folder)]
    else:
        beside = named.rsplit("/", 1)[-1] or "base"
        candidates = [folder / named, Path(named), folder.parent / beside, folder.parent / "base"]
    for candidate in candidates:
        if candidate.resolve() != folder.resolve() and (candidate / "config.json").exists():
            return candidate.resolve()
    if re.fullmatch(r"haoranxu/X-ALMA-13B-Group[1-8]", str(name)):
        return fetch(HUB_BASE).resolve()
    if HUB_ID.fullmatch(named):
        return fetch(named).resolve()
    raise FileNotFoundError(
        f"can't find the base of {name}: its adapter_config.json names {named or 'none'!r}; say where the base lies"
    )
