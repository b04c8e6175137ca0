"""Safetensors checkpoints of one file or of many shards, read and written a tensor at a time.

A 13-billion-parameter base with eight modules is 58 GB: to load it for rewriting needs that much memory. Here
only headers are read, and one tensor lives at a time. The format is a length (8 bytes, little-endian), a JSON header
with type, shape and place of each tensor, and the bytes; safetensors' own `save_file` wants all tensors of a file at
once, so the writer is ours; the reader is theirs, and what goes into which shard is said by huggingface_hub.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open

from xalma.files import COPY_AGAIN, read_json

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Entry:
    """What a header says of a tensor: its file, dtype ("BF16"), shape and size in bytes."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def read_header(file: Path) -> dict[str, Entry]:
    """The tensors of one safetensors file, in the order of their bytes, without reading them.

    Raises FileNotFoundError for no file, ValueError for one that is truncated or something else.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: copy or download it again")
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size - 8:
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, row in header.items():
            if not all(type(n) is int and n >= 0 for n in (*row["shape"], *row["data_offsets"])):
                raise ValueError(f"shape or place of {name} are no whole numbers")
        rows = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        end = max((row["data_offsets"][1] for _, row in rows), default=0)
        if size != 8 + length + end:
            raise ValueError(f"{size:,} bytes where {8 + length + end:,} belong")
        return {
            name: Entry(
                file, row["dtype"], tuple(row["shape"]), row["data_offsets"][1] - row["data_offsets"][0]
            )
            for name, row in rows
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(
            f"{file} is truncated or no safetensors file ({error}): copy or download it again"
        ) from None


def refuse_pickles(folder: Path) -> None:
    """Raises ValueError, naming the file, for a folder whose weights are pickles."""
    if pickles := sorted(
        file for kind in ("*.bin*", "*.pt", "*.pth", "*.ckpt") for file in folder.glob(kind)
    ):
        raise ValueError(
            f"{pickles[0]} is a pickle, which can run any code when read: xalma reads safetensors only"
        )


def read_headers(folder: Path, stem: str = "model") -> dict[str, Entry]:
    """The tensors of `stem`.safetensors, or of the shards that `stem`.safetensors.index.json lists.

    Raises FileNotFoundError, naming it, for a missing file; ValueError for a truncated shard, a tensor that the index
    lists and the shard lacks, and for weights that are pickles only.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if not index.exists():
        if not single.exists():
            refuse_pickles(folder)
        return read_header(single)
    places: dict[str, str] = read_json(index, COPY_AGAIN, keys=("weight_map",))["weight_map"]
    try:
        for file in set(places.values()):
            if Path(file).name != file:
                raise ValueError(f"it names {file!r}, which is no file of its own folder")
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{index} is no index of safetensors shards ({error}): copy or download it again"
        ) from None
    files = {file: read_header(folder / file) for file in dict.fromkeys(places.values())}
    for name, file in places.items():
        if name not in files[file]:
            raise ValueError(f"{folder / file} lacks the tensor {name} that {index.name} lists in it")
    return {name: entry for entries in files.values() for name, entry in entries.items() if name in places}


def read_tensors(entries: Mapping[str, Entry]) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of `entries`, file by file in the order of their bytes; keep none and one lives at a time."""
    names: dict[Path, list[str]] = {}
    for name, entry in entries.items():
        names.setdefault(entry.file, []).append(name)
    for file, inside in names.items():
        try:
            with safe_open(file, "pt") as tensors:
                for name in inside:
                    yield name, tensors.get_tensor(name)
        except SafetensorError as error:
            raise ValueError(f"{file} can't be read ({error}): copy or download it again") from None


def parse_size(text: str) -> int:
    """Bytes of "5GB", "200MB" or "64KB". Raises ValueError for anything else."""
    number = text[:-2].strip()
    unit = text[-2:].upper()
    if unit not in UNITS or not number.replace(".", "", 1).isdigit() or not float(number):
        raise ValueError(f"bad size {text!r}: write it as 5GB, 200MB or 64KB")
    return int(float(number) * UNITS[unit])


def write_tensors(
    folder: Path,
    plan: Mapping[str, Entry],
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    stem: str = "model",
    max_shard_size: int = 5 * 10**9,
) -> None:
    """Write `tensors`, in any order, as `stem`.safetensors or as shards of at most max_shard_size bytes with an index.

    plan: name -> Entry with dtype, shape and size of each (its file does not matter). A tensor above the limit gets
    a shard of its own. Raises ValueError if a tensor is not as planned, or one is missing.
    """
    split = split_state_dict_into_shards_factory(
        plan,
        get_storage_size=lambda entry: entry.nbytes,
        filename_pattern=stem + "{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    with ExitStack() as stack:
        places = {}
        for file, names in split.filename_to_tensors.items():
            stream = stack.enter_context((folder / file).open("wb"))
            header = _write_header(stream, {name: plan[name] for name in names})
            places |= {name: (stream, offset) for name, offset in header.items()}
        for name, tensor in tensors:
            data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            given = tuple(tensor.shape), data.nbytes
            if name not in places or given != (plan[name].shape, plan[name].nbytes):
                raise ValueError(
                    f"the tensor {name} was not to be written here, or not in this shape or type"
                )
            stream, offset = places.pop(name)
            stream.seek(offset)
            stream.write(data)
        if places:
            raise ValueError(f"{len(places)} tensors never came, {next(iter(places))} for one")
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        text = json.dumps(index, indent=1)
        (folder / f"{stem}.safetensors.index.json").write_text(text, encoding="utf-8")


def _write_header(stream, part: Mapping[str, Entry]) -> dict[str, int]:
    """Writes the header of a shard; returns where in the file each tensor goes."""
    width = {name: entry.nbytes // max(1, torch.Size(entry.shape).numel()) for name, entry in part.items()}
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(part, key=lambda name: (-width[name], name)):  # wide types first: all stay aligned
        entry = part[name]
        places = [offset, offset + entry.nbytes]
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": places}
        offset += entry.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    start = 8 + len(text)
    return {name: start + header[name]["data_offsets"][0] for name in part}
