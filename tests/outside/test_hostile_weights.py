"""Weights that mean harm: no code of theirs is run or asked about, and no name in them leads out of their folder."""

from __future__ import annotations

import ast
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from test_arpo import tiny_model, tiny_tokenizer

from xalma.models.backbone import load_base
from xalma.models.layouts import open_checkpoint
from xalma.models.safetensors_io import read_header
from xalma.runtime import REPOSITORY
from xalma.systems.decoding import open_model, open_tokenizer

OPENERS = (load_base, open_checkpoint, open_model)


def calls(tree: ast.AST) -> list[ast.Call]:
    """Calls of `….from_pretrained(…)`."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call for call in found if isinstance(call.func, ast.Attribute) and call.func.attr == "from_pretrained"
    ]


def test_every_from_pretrained_refuses_remote_code():
    """In the package, benchmarks left out: written at each call, so that transformers never asks."""
    n = 0
    for file in sorted((REPOSITORY / "xalma").rglob("*.py")):
        for call in calls(ast.parse(file.read_text(encoding="utf-8"))):
            told = {word.arg: word.value for word in call.keywords}
            value = told.get("trust_remote_code")
            assert isinstance(value, ast.Constant) and value.value is False, f"{file}:{call.lineno}"
            n += 1
    assert n >= 7, "the search no longer finds them"


@pytest.fixture
def base(tmp_path) -> Path:
    folder = tmp_path / "base"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("opened", OPENERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors"])
def test_links_out_of_the_folder_are_refused(base, tmp_path, name, opened):
    shutil.move(base / name, tmp_path / name)
    (base / name).symlink_to(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} is a link that leads out of its folder"):
        opened(str(base))


def test_links_of_the_hubs_cache_are_read(base, tmp_path):
    """snapshots/<commit>/file -> blobs/<hash>, as huggingface_hub lays a repository out."""
    blobs, snapshot = tmp_path / "repository" / "blobs", tmp_path / "repository" / "snapshots" / "abc"
    shutil.copytree(base, blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(os.path.relpath(file, snapshot))
    ids = torch.tensor([[1, 40, 2]])
    assert torch.equal(load_base(snapshot)[0](ids).logits, load_base(base)[0](ids).logits)


@pytest.mark.parametrize("opened", OPENERS, ids=lambda f: f.__name__)
def test_custom_generate_is_refused(base, opened):
    (base / "custom_generate").mkdir()
    (base / "custom_generate" / "generate.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(ValueError, match="custom_generate is code, and xalma runs no code of a checkpoint"):
        opened(str(base))


@pytest.mark.parametrize("value", ["../outside.model", "ABSOLUTE"])
def test_a_tokenizer_file_elsewhere_is_refused(base, tmp_path, value):
    (tmp_path / "outside.model").write_text("secret")
    value = str(tmp_path / "outside.model") if value == "ABSOLUTE" else value
    file = base / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_file": value}))
    for opened in (load_base, open_tokenizer):
        with pytest.raises(
            ValueError, match=r"tokenizer_config\.json: vocab_file .* leads out of its folder"
        ):
            opened(str(base))


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/hostname", "sub/model.safetensors", 7])
def test_shards_elsewhere_are_refused(base, tmp_path, name):
    shutil.copy(base / "model.safetensors", tmp_path)
    (base / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"model.norm.weight": name}})
    )
    with pytest.raises(
        ValueError, match=r"model\.safetensors\.index\.json is no index of safetensors shards"
    ):
        open_checkpoint(base)


@pytest.mark.parametrize("offsets", [[0, 4.0], [0.0, 4], ["0", "4"], [-4, 4], [0], [True, 4]])
def test_headers_with_other_than_whole_numbers(tmp_path, offsets):
    text = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": offsets}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4)
    with pytest.raises(ValueError, match=r"x\.safetensors is truncated or no safetensors file"):
        read_header(tmp_path / "x.safetensors")


def test_a_bases_sampling_does_not_reach_greedy_decoding(base):
    file = base / "generation_config.json"
    file.write_text(
        json.dumps({"do_sample": True, "repetition_penalty": 9.0, "transformers_version": "4.57.6"})
    )
    own = load_base(base)[0].generation_config
    assert (own.do_sample, own.repetition_penalty) == (False, 1.0)
