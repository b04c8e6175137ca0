"""Layouts of modules: each is read as what it holds, both are written bit for bit, and whatever is broken is named."""

from __future__ import annotations

import gc
import json
import re
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from xalma.cli.main import main
from xalma.models import convert as conversion
from xalma.models import layouts
from xalma.models.backbone import train_tokenizer
from xalma.models.convert import convert
from xalma.models.layouts import ADAPTERS, ALL_MODULES, open_checkpoint

RANK = 4
IDS = torch.tensor([[1, 40, 41, 42, 300, 301, 2]])
CONFIG = LlamaConfig(
    vocab_size=320,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)


def released_state(groups=range(1, 9)) -> dict[str, torch.Tensor]:
    """A random state dict as haoranxu/X-ALMA's, spelled out by hand from the released modeling_xalma.py."""
    torch.manual_seed(0)
    state = {
        name: tensor.to(torch.bfloat16) for name, tensor in LlamaForCausalLM(CONFIG).state_dict().items()
    }
    for name, weight in list(state.items()):
        if name.endswith("_proj.weight"):
            short, (n_out, n_in) = name.removesuffix("_proj.weight"), weight.shape
            for group in groups:
                state[f"{short}_lora_A.{group}.weight"] = (torch.randn(RANK, n_in) / 8).to(torch.bfloat16)
                state[f"{short}_lora_B.{group}.weight"] = (torch.randn(n_out, RANK) / 8).to(torch.bfloat16)
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return released_state()


@pytest.fixture(scope="module")
def released(state, tmp_path_factory) -> Path:
    """An all-modules checkpoint in shards, by the hub's own writer, with a tokenizer and remote code beside it."""
    folder = tmp_path_factory.mktemp("released") / "X-ALMA"
    folder.mkdir()
    save_torch_state_dict(state, folder, max_shard_size="15KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 5
    config = CONFIG.to_dict() | {
        "architectures": ["XALMAForCausalLM"],
        "model_type": "llama",
        "rms_norm_eps": 1e-5,
        "auto_map": {"AutoModelForCausalLM": "modeling_xalma.XALMAForCausalLM"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_xalma.py").write_text("raise SystemExit('remote code was run')")
    train_tokenizer(["a b c"], 300).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapters(released, tmp_path_factory) -> Path:
    """The same as a base and eight adapters."""
    return convert(
        open_checkpoint(released), tmp_path_factory.mktemp("adapters") / "out", max_shard_size=30_000
    )


@pytest.fixture
def copied(released, adapters, tmp_path) -> dict[str, Path]:
    """Copies of both that a test may spoil."""
    return {
        ALL_MODULES: Path(shutil.copytree(released, tmp_path / "all")),
        ADAPTERS: Path(shutil.copytree(adapters, tmp_path / "parts")),
    }


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("layout", [ALL_MODULES, ADAPTERS])
def test_both_layouts_say_the_same(released, adapters, state, layout):
    checkpoint = open_checkpoint(released if layout == ALL_MODULES else adapters)
    assert (checkpoint.layout, checkpoint.groups) == (layout, (1, 2, 3, 4, 5, 6, 7, 8))
    assert (checkpoint.rank, checkpoint.scale) == (RANK, 2.0)
    assert checkpoint.layers[:8] == tuple(f"model.layers.0.self_attn.{p}_proj" for p in "qkvo") + tuple(
        f"model.layers.{n}.{p}_proj"
        for n, p in ((0, "mlp.gate"), (0, "mlp.up"), (0, "mlp.down"), (1, "self_attn.q"))
    )
    assert_same(dict(checkpoint.base_tensors()), {n: t for n, t in state.items() if "_lora_" not in n})
    for group in (1, 8):
        sides = {(layer, side): tensor for layer, side, tensor in checkpoint.module_tensors(group)}
        short = {layer: layer.removesuffix("_proj") for layer in checkpoint.layers}
        assert_same(
            sides, {(n, s): state[f"{short[n]}_lora_{s}.{group}.weight"] for n in short for s in "AB"}
        )
    assert checkpoint.nbytes == sum(tensor.nbytes for tensor in state.values())


def test_several_adapters_by_name_or_by_group(adapters):
    for source in (
        [adapters / "group3", str(adapters / "group6")],
        {3: adapters / "group3", 6: str(adapters / "group6")},
    ):
        checkpoint = open_checkpoint(source)
        assert (checkpoint.groups, checkpoint.base) == ((3, 6), adapters / "base")
    assert open_checkpoint(adapters / "group6").groups == (6,)


def test_a_base_alone(adapters):
    checkpoint = open_checkpoint(adapters / "base")
    assert (checkpoint.groups, checkpoint.rank, checkpoint.layers) == ((), 0, ())


def test_round_trip_is_bit_exact(released, adapters, state, tmp_path):
    """All modules to adapters and back: the same tensors, the same config but for the code it asked for."""
    back = convert(open_checkpoint(adapters), tmp_path / "back", max_shard_size=50_000)
    assert_same(tensors_of(back), state)
    assert not list(back.rglob("*.py"))
    told, kept = (json.loads((folder / "config.json").read_text()) for folder in (released, back))
    assert told.pop("auto_map")
    assert kept == told | {"architectures": ["LlamaForCausalLM"]}
    shards = list(back.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert all(file.stat().st_size < 50_000 + 10_000 for file in shards)  # the limit, and a header
    assert (
        AutoTokenizer.from_pretrained(back).vocab_size == AutoTokenizer.from_pretrained(released).vocab_size
    )


def test_one_file_is_what_safetensors_would_write(released, state, tmp_path):
    folder = convert(open_checkpoint(released), tmp_path / "same", ALL_MODULES)
    save_file(state, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    ours, theirs = folder / "model.safetensors", tmp_path / "theirs.safetensors"
    assert ours.stat().st_size == theirs.stat().st_size
    assert_same(load_file(ours), load_file(theirs))


@pytest.mark.parametrize("group", [1, 6])
def test_adapters_are_what_peft_reads(adapters, state, group):
    """Base and adapter by peft alone give the logits of the released formula, W + 2BA, written out."""
    base = AutoModelForCausalLM.from_pretrained(adapters / "base", dtype=torch.float32)
    plain = LlamaForCausalLM(LlamaConfig.from_pretrained(adapters / "base")).eval()
    weights = {name: tensor.float() for name, tensor in state.items() if "_lora_" not in name}
    for name in weights:
        if name.endswith("_proj.weight"):
            short = name.removesuffix("_proj.weight")
            a, b = (state[f"{short}_lora_{side}.{group}.weight"].float() for side in "AB")
            weights[name] = weights[name] + 2 * b @ a
    plain.load_state_dict(weights)
    with torch.no_grad():
        without = base.eval()(IDS).logits
        found = PeftModel.from_pretrained(base, adapters / f"group{group}").eval()(IDS).logits
        torch.testing.assert_close(found, plain(IDS).logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, without, atol=1e-2)


def test_a_stage_folder_goes_to_all_modules_and_back(ladder, finished, tmp_path):
    """xalma's own folders are the adapters layout; the adapter comes back as it was."""
    for source in (finished[5], finished[5].parent):
        checkpoint = open_checkpoint(source)
        assert (checkpoint.layout, checkpoint.groups, checkpoint.scale) == (ADAPTERS, (6,), 2.0)
        assert checkpoint.base == ladder[1].resolve()
    together = convert(checkpoint, tmp_path / "together", groups=[6])
    apart = convert(open_checkpoint(together), tmp_path / "apart", groups=[6])
    files = [folder / "adapter_model.safetensors" for folder in (finished[5], apart / "group6")]
    assert_same(load_file(files[1]), load_file(files[0]))
    assert_same(tensors_of(apart / "base"), tensors_of(ladder[1]))


def test_a_ninth_group_goes_along(tmp_path):
    """Groups above the papers' eight are only asked for where they are."""
    folder = tmp_path / "nine"
    folder.mkdir()
    state = released_state(range(1, 10))
    save_torch_state_dict(state, folder)
    CONFIG.save_pretrained(folder)
    out = convert(open_checkpoint(folder), tmp_path / "out")
    assert (out / "group9").is_dir()
    assert_same(tensors_of(convert(open_checkpoint(out), tmp_path / "back")), state)


@pytest.mark.parametrize("layout", [ALL_MODULES, ADAPTERS])
def test_no_more_than_two_tensors_live_at_once(released, adapters, tmp_path, monkeypatch, layout):
    """Counts the bytes of all tensors that were read and not yet freed, and finds none read on opening."""
    live, peak, largest, count = 0, 0, 0, 0

    def freed(nbytes):
        nonlocal live
        live -= nbytes

    def counted(entries, read=layouts.read_tensors):
        nonlocal live, peak, largest, count
        for name, tensor in read(entries):
            weakref.finalize(tensor, freed, tensor.nbytes)
            live, largest, count = live + tensor.nbytes, max(largest, tensor.nbytes), count + 1
            peak = max(peak, live)
            yield name, tensor

    monkeypatch.setattr(layouts, "read_tensors", counted)
    checkpoint = open_checkpoint(released if layout == ALL_MODULES else adapters)
    assert count == 0
    convert(checkpoint, tmp_path / "out", max_shard_size=30_000)
    assert count == len(checkpoint.base_entries) + 8 * 2 * len(checkpoint.layers)
    assert largest <= peak <= 2 * largest
    assert checkpoint.nbytes > 3 * peak, "the test must have more to hold than it may"


def private_mib() -> float:
    """MiB of this process that are no pages of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_stays_where_it_was(tmp_path, monkeypatch):
    """400 MB through the system's own eyes: the private memory grows by less than the largest tensors."""
    config = LlamaConfig(vocab_size=8000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=2)
    state = LlamaForCausalLM(config).state_dict()
    for name, weight in list(state.items()):
        if name.endswith("_proj.weight"):
            for group in range(1, 9):
                short, (n_out, n_in) = name.removesuffix("_proj.weight"), weight.shape
                state[f"{short}_lora_A.{group}.weight"] = torch.zeros(128, n_in)
                state[f"{short}_lora_B.{group}.weight"] = torch.zeros(n_out, 128)
    (tmp_path / "all").mkdir()
    save_torch_state_dict(state, tmp_path / "all", max_shard_size="100MB")
    config.save_pretrained(tmp_path / "all")
    largest = max(tensor.nbytes for tensor in state.values()) / 2**20
    del state
    gc.collect()
    peak, before = 0.0, private_mib()

    def watched(entries, read=layouts.read_tensors):
        nonlocal peak
        for pair in read(entries):
            peak = max(peak, private_mib())
            yield pair
            peak = max(peak, private_mib())

    monkeypatch.setattr(layouts, "read_tensors", watched)
    checkpoint = open_checkpoint(tmp_path / "all")
    assert checkpoint.nbytes / 2**20 > 300
    convert(checkpoint, tmp_path / "out", max_shard_size=10**8)
    assert peak - before < 2 * largest, f"{peak - before:.0f} MiB for a largest tensor of {largest:.0f} MiB"


# --- what is refused ---


def edit(file: Path, change) -> None:
    """Write the tensors of a file again, changed; the index too, where there is one."""
    before = load_file(file)
    after = change(dict(before))
    save_file(after, file, metadata={"format": "pt"})
    index = file.parent / "model.safetensors.index.json"
    if index.exists():
        told = json.loads(index.read_text())
        gone = before.keys() - after.keys()
        told["weight_map"] = {name: f for name, f in told["weight_map"].items() if name not in gone}
        told["weight_map"] |= {name: file.name for name in after}
        index.write_text(json.dumps(told))


def edit_json(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def shard_with(folder: Path, name: str) -> Path:
    return next(file for file in sorted(folder.glob("*.safetensors")) if name in load_file(file))


def without(part: str):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


def narrowed(name: str):
    return lambda tensors: tensors | {name: tensors[name][:, :-1].contiguous()}


Q_BASE, Q_A = "model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.q_lora_A.5.weight"
PEFT_A = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
BROKEN = {
    "truncated shard": (
        ALL_MODULES,
        lambda f: (s := shard_with(f, Q_A)).write_bytes(s.read_bytes()[:-10]),
        r"model-0\d+-of-0\d+\.safetensors is truncated",
    ),
    "missing shard": (
        ALL_MODULES,
        lambda f: shard_with(f, Q_A).unlink(),
        r"-of-0\d+\.safetensors is missing",
    ),
    "no A in all modules": (
        ALL_MODULES,
        lambda f: edit(shard_with(f, Q_A), without(Q_A)),
        r"\.safetensors lacks the A of model\.layers\.1\.self_attn\.q_proj for group 5",
    ),
    "wrong A in all modules": (
        ALL_MODULES,
        lambda f: edit(shard_with(f, Q_A), narrowed(Q_A)),
        r"safetensors: model\.layers\.1\.self_attn\.q_lora_A\.5\.weight has shape \(4, 31\), which does not fit rank 4",
    ),
    "no base tensor": (
        ALL_MODULES,
        lambda f: edit(shard_with(f, Q_BASE), without(Q_BASE)),
        r"index\.json lacks the tensor model\.layers\.1\.self_attn\.q_proj\.weight",
    ),
    "wrong base tensor": (
        ALL_MODULES,
        lambda f: edit(shard_with(f, Q_BASE), narrowed(Q_BASE)),
        r"safetensors: model\.layers\.1\.self_attn\.q_proj\.weight has shape \(32, 31\), config\.json asks for \(32, 3",
    ),
    "an unknown tensor": (
        ALL_MODULES,
        lambda f: edit(shard_with(f, Q_A), lambda t: t | {"router.weight": torch.zeros(2)}),
        r"safetensors holds router\.weight, which a llama model has not",
    ),
    "a module missing": (
        ALL_MODULES,
        lambda f: [
            edit(file, without("_A.8.")) or edit(file, without("_B.8.")) for file in f.glob("*.safetensors")
        ],
        r"no module of group 8 beside .*: it has 1, 2, 3, 4, 5, 6, 7; name the groups you want",
    ),
    "unknown model": (
        ALL_MODULES,
        lambda f: edit_json(f / "config.json", model_type="xalma"),
        r"config\.json: transformers has no causal language model of type 'xalma', and xalma runs no code",
    ),
    "no config": (ALL_MODULES, lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
    "cut config": (
        ALL_MODULES,
        lambda f: (f / "config.json").write_text('{"mod'),
        r"config\.json can.t be read",
    ),
    "truncated adapter": (
        ADAPTERS,
        lambda f: (s := f / "group4" / "adapter_model.safetensors").write_bytes(s.read_bytes()[:-1]),
        r"group4/adapter_model\.safetensors is truncated",
    ),
    "no A in an adapter": (
        ADAPTERS,
        lambda f: edit(f / "group4" / "adapter_model.safetensors", without(PEFT_A)),
        r"group4/adapter_model\.safetensors lacks the A of model\.layers\.1\.self_attn\.q_proj for group 4",
    ),
    "wrong A in an adapter": (
        ADAPTERS,
        lambda f: edit(f / "group4" / "adapter_model.safetensors", narrowed(PEFT_A)),
        r"group4/adapter_model\.safetensors: .*q_proj\.lora_A\.weight has shape \(4, 31\)",
    ),
    "more than linear layers": (
        ADAPTERS,
        lambda f: edit(f / "group4" / "adapter_model.safetensors", lambda t: t | {"x": torch.zeros(1)}),
        r"group4/adapter_model\.safetensors holds x, which is no LoRA matrix",
    ),
    "a group missing": (ADAPTERS, lambda f: shutil.rmtree(f / "group4"), r"no module of group 4 beside"),
    "pickled adapter": (
        ADAPTERS,
        lambda f: (f / "group4" / "adapter_model.safetensors").rename(f / "group4" / "adapter_model.bin"),
        r"group4/adapter_model\.bin is a pickle",
    ),
    "another rank": (
        ADAPTERS,
        lambda f: edit_json(f / "group4" / "adapter_config.json", r=8),
        r"don't belong together, their base, rank, scale or layers differ",
    ),
    "DoRA": (
        ADAPTERS,
        lambda f: edit_json(f / "group4" / "adapter_config.json", use_dora=True),
        r"group4/adapter_config\.json: a module is a plain LoRA without bias, this is one with use_dora",
    ),
    "bias": (
        ADAPTERS,
        lambda f: edit_json(f / "group4" / "adapter_config.json", bias="all"),
        r"group4/adapter_config\.json: .* one with bias 'all'",
    ),
    "no group in the name": (
        ADAPTERS,
        lambda f: (f / "group4").rename(f / "icelandic"),
        r"can't tell whose module .*icelandic holds",
    ),
    "no base": (ADAPTERS, lambda f: (f / "base").rename(f / "elsewhere"), r"can't find the base of .*group1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_checkpoints_are_refused_by_name(copied, tmp_path, capsys, name):
    """On the command line: exit code 2, one sentence with the file's name, and nothing written."""
    layout, spoil, why = BROKEN[name]
    spoil(copied[layout])
    assert main(["convert", "--from", str(copied[layout]), "--to", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(why, said), said
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"lora_alpha": 16},
            "has scale 2 and no place to say another: .* scale 4; train with lora_alpha = 2 × lora_rank",
        ),
        (
            {"target_modules": ["down_proj"]},
            r"holds .*, which is not on a linear layer that its configuration names",
        ),
    ],
)
def test_what_all_modules_cannot_hold(copied, tmp_path, changes, why):
    folder = copied[ADAPTERS]
    for file in folder.glob("group*/adapter_config.json"):
        edit_json(file, **changes)
    with pytest.raises(ValueError, match=why):
        convert(open_checkpoint(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fewer_layers_stay_adapters(copied, tmp_path):
    """ALMA's adapters are on down_proj alone: read, but no all-modules checkpoint."""
    folder = copied[ADAPTERS]
    for adapter in folder.glob("group*"):
        edit_json(adapter / "adapter_config.json", target_modules=["down_proj"])
        edit(
            adapter / "adapter_model.safetensors", lambda t: {n: x for n, x in t.items() if "down_proj" in n}
        )
    checkpoint = open_checkpoint(folder)
    assert checkpoint.layers == ("model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj")
    with pytest.raises(ValueError, match=r"holds modules on q_proj, .*; those beside .* are on down_proj"):
        convert(checkpoint, tmp_path / "out")


def test_a_folder_that_is_there_is_not_overwritten(released, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already: choose a new folder"):
        convert(open_checkpoint(released), tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_full_disk_is_told_before_and_a_failure_leaves_nothing(released, tmp_path, monkeypatch):
    checkpoint = open_checkpoint(released)
    with monkeypatch.context() as patch:
        patch.setattr(conversion.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
        with pytest.raises(OSError, match=r"needs 0\.0 GB and its disk has 0\.0 GB left"):
            convert(checkpoint, tmp_path / "out")

    def broken(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "_write_model_files", broken)
    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", ["nowhere", "no/such/folder", "../x"])
def test_neither_folder_nor_hub_id(source):
    with pytest.raises(
        FileNotFoundError, match="is neither a folder nor a hub id: write a hub id as owner/name"
    ):
        open_checkpoint(source)


def test_mapped_groups_are_checked(finished):
    with pytest.raises(ValueError, match="holds the module of group 6, not of group 3"):
        open_checkpoint({3: finished[5]})


def test_hub_repositories(copied, released, tmp_path, monkeypatch):
    """Released adapters lead to the released base, and their merged weights are not downloaded; no code ever is."""
    asked, hub = [], {"haoranxu/X-ALMA-13B-Pretrain": copied[ADAPTERS] / "base", "haoranxu/X-ALMA": released}
    for group in (1, 6):  # each repository a cache folder of its own, as the hub's client has them
        folder = hub[f"haoranxu/X-ALMA-13B-Group{group}"] = tmp_path / f"cache{group}" / "0123abcd"
        shutil.copytree(copied[ADAPTERS] / f"group{group}", folder)
        edit_json(folder / "adapter_config.json", base_model_name_or_path="XALMA-13B-Pretrain")

    def download(repo_id, allow_patterns):
        asked.append((repo_id, allow_patterns))
        return str(hub[repo_id])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert open_checkpoint([f"haoranxu/X-ALMA-13B-Group{group}" for group in (1, 6)]).groups == (1, 6)
    assert open_checkpoint("haoranxu/X-ALMA").groups == tuple(range(1, 9))
    assert {repo_id for repo_id, _ in asked} == set(hub)
    for repo_id, patterns in asked:
        assert not [pattern for pattern in patterns if pattern.endswith((".py", ".bin"))]
        assert "Group" not in repo_id or "*.safetensors" not in patterns


def test_an_unreachable_hub_is_one_sentence(monkeypatch):
    def offline(*args, **more):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(
        OSError, match=r"can't read haoranxu/X-ALMA from the hub \(ConnectionError: no route\)"
    ):
        open_checkpoint("haoranxu/X-ALMA")


def test_convert_on_the_command_line(adapters, released, tmp_path, capsys):
    arguments = [
        "convert",
        "--from",
        str(adapters / "group3"),
        str(adapters / "group6"),
        "--to",
        str(tmp_path / "two"),
    ]
    assert main([*arguments, "--groups", "3,6", "--max-shard-size", "40KB"]) == 0
    assert "adapters: groups (3, 6), rank 4" in capsys.readouterr().out
    assert open_checkpoint(tmp_path / "two").groups == (3, 6)
    assert main([*arguments, "--max-shard-size", "lots"]) == 2
    assert "bad size 'lots'" in capsys.readouterr().err
