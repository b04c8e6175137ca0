"""Shards against safetensors' own reader and writer; whatever is cut or lost is named."""

from __future__ import annotations

import json

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file

from xalma.models.safetensors_io import parse_size, read_headers, read_tensors, write_tensors

TENSORS = {  # odd sizes, mixed types, none and a single number: all that alignment can trip over
    "a.weight": torch.arange(15, dtype=torch.float32).reshape(3, 5),
    "b.weight": torch.arange(7, dtype=torch.bfloat16) / 3,
    "c.count": torch.tensor(41),
    "d.empty": torch.zeros(0, 4),
    "e.flags": torch.tensor([True, False, True]),
    "f.weight": torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).to(torch.float16),
}


@pytest.fixture
def source(tmp_path):
    """The tensors in one file, by safetensors' own writer."""
    folder = tmp_path / "source"
    folder.mkdir()
    save_file(TENSORS, folder / "model.safetensors")
    return folder


def assert_same(found: dict[str, torch.Tensor]) -> None:
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_reads_what_safetensors_wrote(source):
    entries = read_headers(source)
    assert {name: entry.shape for name, entry in entries.items()} == {
        n: tuple(t.shape) for n, t in TENSORS.items()
    }
    assert {name: entry.nbytes for name, entry in entries.items()} == {
        n: t.nbytes for n, t in TENSORS.items()
    }
    assert_same(dict(read_tensors(entries)))


def test_reads_shards_that_the_hub_library_wrote(tmp_path):
    state = {name: tensor for name, tensor in TENSORS.items() if tensor.numel()}
    save_torch_state_dict(state, tmp_path, max_shard_size=30)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    found = dict(read_tensors(read_headers(tmp_path)))
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("limit", [10**9, 60, 48, 1])
@pytest.mark.parametrize("backwards", [False, True])
def test_safetensors_reads_what_was_written(source, tmp_path, limit, backwards):
    """In any order, in any number of shards, none above the limit but a tensor that is; the index is transformers'."""
    entries, out = read_headers(source), tmp_path / "out"
    out.mkdir()
    tensors = sorted(read_tensors(entries), reverse=backwards, key=lambda pair: pair[0])
    write_tensors(out, entries, tensors, max_shard_size=limit)
    files = sorted(out.glob("*.safetensors"))
    parts = [load_file(file) for file in files]
    assert_same({name: tensor for part in parts for name, tensor in part.items()})
    sizes = [sum(tensor.nbytes for tensor in part.values()) for part in parts]
    alone = [sum(tensor.nbytes > 0 for tensor in part.values()) == 1 for part in parts]
    assert all(size <= limit or single for size, single in zip(sizes, alone, strict=True))
    index = out / "model.safetensors.index.json"
    assert index.exists() == (len(files) > 1)
    if index.exists():
        told = json.loads(index.read_text())
        assert told["metadata"]["total_size"] == sum(tensor.nbytes for tensor in TENSORS.values())
        assert told["weight_map"] == {
            name: file.name for file, part in zip(files, parts, strict=True) for name in part
        }
    else:
        assert files[0].name == "model.safetensors"


def test_every_cut_of_a_file_is_refused(source):
    """A truncated download, wherever it stopped, and one with bytes too many."""
    file = source / "model.safetensors"
    whole = file.read_bytes()
    for n in [*range(0, len(whole), 7), len(whole) - 1]:
        file.write_bytes(whole[:n])
        with pytest.raises(ValueError, match=r"model\.safetensors is truncated or no safetensors file"):
            read_headers(source)
    file.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="is truncated or no"):
        read_headers(source)


@pytest.mark.parametrize(
    ("spoil", "kind", "why"),
    [
        (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, r"model\.safetensors is missing"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            ValueError,
            r"pytorch_model\.bin is a pickle, which can run any code",
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a.weight": "part.safetensors"}}'
            ),
            FileNotFoundError,
            r"part\.safetensors is missing",
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text(
                '{"weight_map": {"z": "model.safetensors"}}'
            ),
            ValueError,
            r"source/model\.safetensors lacks the tensor z",
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight'),
            ValueError,
            r"index\.json can't be",
        ),
    ],
    ids=["no file", "pickle", "no shard", "no tensor", "cut index"],
)
def test_what_is_missing_is_named(source, spoil, kind, why):
    spoil(source)
    with pytest.raises(kind, match=why) as caught:
        read_headers(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t | {"g": torch.zeros(1)}, "g was not to be written"),
        (
            lambda t: t | {"a.weight": torch.zeros(5, 3)},
            r"a\.weight was not to be written here, or not in this shape",
        ),
        (lambda t: t | {"a.weight": torch.zeros(3, 5, dtype=torch.float64)}, "not in this shape or type"),
        (lambda t: {n: x for n, x in t.items() if n != "c.count"}, r"1 tensors never came, c\.count for one"),
    ],
)
def test_the_writer_keeps_to_its_plan(source, tmp_path, change, why):
    with pytest.raises(ValueError, match=why):
        write_tensors(tmp_path, read_headers(source), change(TENSORS).items())


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("1.5 MB", 1_500_000), ("64kb", 64_000)])
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["5", "GB", "-1GB", "0GB", "5TB", "", "1.2.3MB"])
def test_bad_sizes(text):
    with pytest.raises(ValueError, match="bad size"):
        parse_size(text)
