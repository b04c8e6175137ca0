"""From adapters to the all-modules checkpoint and back, bit for bit, a tensor at a time (`xalma.models.layouts`).

Needs no more memory than two tensors, whatever the model's size, and as much disk as the result. The adapters layout is
written as base/ and group1/ … group8/; tokenizer and configuration go along, `auto_map` and code never do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from xalma.files import TO, check_new, new_directory
from xalma.languages import PAPER_GROUPS
from xalma.models.layouts import ADAPTERS, ALL_MODULES, ALL_MODULES_SCALE, PROJECTIONS, Checkpoint
from xalma.models.safetensors_io import write_tensors
from xalma.progress import progress

if TYPE_CHECKING:
    from peft import LoraConfig

DROPOUT = 0.05  # of the released adapters; the all-modules layout does not keep it
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
                   "chat_template*", "generation_config.json")  # fmt: skip


def convert(
    checkpoint: Checkpoint,
    out: str | Path,
    layout: str | None = None,
    groups: Sequence[int] | None = None,
    max_shard_size: int = 5 * 10**9,
) -> Path:
    """Writes `checkpoint` in `layout` (default: the one it is not in) to the new folder `out`, and returns that.

    groups: whose modules; default the papers' eight, and the added ones that are there. max_shard_size: bytes a file.
    Raises ValueError for a group that is missing and for what the layout can't hold, OSError for a folder that is
    there or a full disk; nothing is written then.
    """
    out = check_new(out)
    layout = layout or (ALL_MODULES if checkpoint.layout == ADAPTERS else ADAPTERS)
    groups = tuple(groups) if groups else tuple(sorted({*PAPER_GROUPS, *checkpoint.groups}))
    checkpoint.check_groups(groups)
    if layout not in (ADAPTERS, ALL_MODULES):
        raise ValueError(f"unknown layout {layout!r}: use {ADAPTERS} or {ALL_MODULES}")
    if layout == ALL_MODULES:
        _check_all_modules(checkpoint)
    needed = checkpoint.nbytes_of(groups)
    free = shutil.disk_usage(next(path for path in out.absolute().parents if path.exists())).free
    if needed > free:
        raise OSError(
            f"{out} needs {needed / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB left: choose another"
        )
    write = write_all_modules if layout == ALL_MODULES else write_adapters
    with new_directory(out, TO) as folder, progress(needed // 10**6, f"convert to {layout}, MB") as bar:
        write(checkpoint, folder, groups, max_shard_size, bar.update)
    return out


def _check_all_modules(checkpoint: Checkpoint) -> None:
    """Raises ValueError for modules the released loader would misread: it knows seven projections and scale 2."""
    names = {layer.rsplit(".", 1)[-1] for layer in checkpoint.layers}
    if names != set(PROJECTIONS):
        raise ValueError(
            f"the all-modules layout holds modules on {', '.join(PROJECTIONS)}; "
            f"those beside {checkpoint.base} are on {', '.join(sorted(names)) or 'nothing'}"
        )
    layers = [
        name for name in checkpoint.base_entries if name.endswith(tuple(f"{p}.weight" for p in PROJECTIONS))
    ]
    if len(layers) != len(checkpoint.layers):
        raise ValueError(
            f"the all-modules layout holds modules on every layer; those beside {checkpoint.base} are on "
            f"{len(checkpoint.layers)} of {len(layers)} projections"
        )
    if checkpoint.scale != ALL_MODULES_SCALE:
        raise ValueError(
            f"the all-modules layout has scale 2 and no place to say another: the modules beside {checkpoint.base} "
            f"have scale {checkpoint.scale:g}; train with lora_alpha = 2 × lora_rank"
        )


def write_all_modules(
    checkpoint: Checkpoint, folder: Path, groups: Sequence[int], max_shard_size: int, done
) -> None:
    """One checkpoint of base and modules into `folder`; done: called with the MB written so far a tensor."""
    plan = dict(checkpoint.base_entries)
    for group in groups:
        plan |= {_merged_name(*side, group): entry for side, (_, entry) in checkpoint.modules[group].items()}

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        yield from checkpoint.base_tensors()
        for group in groups:
            for layer, side, tensor in checkpoint.module_tensors(group):
                yield _merged_name(layer, side, group), tensor

    write_tensors(folder, plan, _counted(tensors(), done), max_shard_size=max_shard_size)
    _write_model_files(checkpoint, folder)


def write_adapters(
    checkpoint: Checkpoint, folder: Path, groups: Sequence[int], max_shard_size: int, done
) -> None:
    """base/ and a PEFT adapter a group into `folder`."""
    base = folder / "base"
    base.mkdir()
    tensors = _counted(checkpoint.base_tensors(), done)
    write_tensors(base, checkpoint.base_entries, tensors, max_shard_size=max_shard_size)
    _write_model_files(checkpoint, base)
    for group in groups:
        adapter = folder / f"group{group}"  # a checkpoint may hold groups that no language here belongs to
        adapter.mkdir()
        plan = {adapter_key(*side): entry for side, (_, entry) in checkpoint.modules[group].items()}
        tensors = (
            (adapter_key(layer, side), tensor) for layer, side, tensor in checkpoint.module_tensors(group)
        )
        # peft reads one file only
        write_tensors(adapter, plan, _counted(tensors, done), stem="adapter_model", max_shard_size=2**62)
        stems = [name.removesuffix(".weight") for name in checkpoint.base_entries]
        kind = adapter_config(checkpoint.rank, checkpoint.scale, checkpoint.layers, "../base", stems)
        kind.save_pretrained(adapter)


def _merged_name(layer: str, side: str, group: int) -> str:
    return f"{layer.removesuffix('_proj')}_lora_{side}.{group}.weight"


def adapter_key(layer: str, side: str) -> str:
    """What peft calls the A or B of a layer in an adapter's file."""
    return f"base_model.model.{layer}.lora_{side}.weight"


def adapter_config(
    rank: int, scale: float, layers: Iterable[str], base: str, stems: Iterable[str]
) -> LoraConfig:
    """adapter_config.json of a module on these layers; base: folder, seen from the adapter's, or hub id.

    stems: full names of all layers of the base. Where some have a name in common with `layers` and no module, all
    names are written whole.
    """
    from peft import LoraConfig

    layers = set(layers)
    alpha = scale * rank
    ends = {layer.rsplit(".", 1)[-1] for layer in layers}
    alone = all(stem in layers for stem in stems if stem.rsplit(".", 1)[-1] in ends)
    return LoraConfig(
        r=rank,
        lora_alpha=round(alpha) if abs(alpha - round(alpha)) < 1e-6 else alpha,
        lora_dropout=DROPOUT,
        bias="none",
        target_modules=sorted(ends if alone else layers),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    )


def _write_model_files(checkpoint: Checkpoint, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(checkpoint.config(), indent=2) + "\n", encoding="utf-8")
    for pattern in TOKENIZER_FILES:
        for file in checkpoint.base.glob(pattern):
            if file.suffix in (".json", ".model", ".txt", ".jinja"):  # never .py
                shutil.copyfile(file, folder / file.name)


def _counted(tensors: Iterator[tuple[str, torch.Tensor]], done) -> Iterator[tuple[str, torch.Tensor]]:
    """The same, telling `done` of every whole MB."""
    rest = 0
    for name, tensor in tensors:
        rest += tensor.nbytes
        yield name, tensor
        done(rest // 10**6)
        rest %= 10**6
