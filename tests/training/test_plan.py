"""Costs against numbers worked out by hand from LLaMA-2-13B's sizes and the papers' budgets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen3Config

from xalma.cli.main import main
from xalma.models.adapters import attach_adapter
from xalma.models.backbone import build_llama, train_tokenizer
from xalma.profiles import FULL, PROFILES, TINY
from xalma.runtime import REPOSITORY
from xalma.training import plan

N, MODULE = 13_015_864_320, 2_002_780_160  # LLaMA-2-13B; rank 512 on its seven projections (paper: 15 %)


@pytest.fixture
def unmeasured(monkeypatch):
    monkeypatch.setattr(plan, "_MEASURED", "results/no/such/file.json")


def test_the_papers_base_and_module():
    shape = plan.shape_of(FULL)
    assert shape.parameters == N
    assert shape.module(512) == MODULE


def test_counts_are_those_of_the_models_built():
    tokenizer = train_tokenizer(["some words to count"] * 3, 300)
    p = TINY.but(base="", vocab_size=len(tokenizer), hidden_size=48, layers=3, heads=2, lora_rank=5)
    model = build_llama(tokenizer, hidden_size=48, layers=3, heads=2, max_positions=32, seed=0)
    assert plan.shape_of(p).parameters == model.num_parameters()
    trained, _ = attach_adapter(model, 6, rank=5, alpha=5, dropout=0.0).get_nb_trainable_parameters()
    assert plan.shape_of(p).module(5) == trained


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (LlamaConfig, {"num_key_value_heads": 2}),
        (
            Qwen3Config,
            {"num_key_value_heads": 1, "head_dim": 32},
        ),  # heads wider than the stream; norms of heads
        (MistralConfig, {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    ],
)
def test_grouped_query_attention_is_counted(tmp_path, kind, more):
    """Against the models themselves, and a module's weights against peft's own."""
    config = kind(
        vocab_size=120,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **more,
    )
    config.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_config(config)
    norms = sum(x.numel() for name, x in model.named_parameters() if "q_norm" in name or "k_norm" in name)
    shape = plan.shape_of(FULL.but(base=str(tmp_path)))
    assert shape.parameters == model.num_parameters() - norms  # Qwen3's, a few numbers a layer, are left out
    trained, _ = attach_adapter(model, 6, rank=5, alpha=5, dropout=0.0).get_nb_trainable_parameters()
    assert shape.module(5) == trained
    sequences = FULL.generation_batch * FULL.beams * (plan.ASSUMED_ROW_TOKENS + FULL.max_new_tokens)
    kept = 2 * config.num_key_value_heads * model.model.layers[0].self_attn.head_dim * (3 + 1) * 2 * sequences
    assert plan.decoding_memory(FULL.but(base=str(tmp_path)))["keys and values"] == pytest.approx(
        kept / 2**30
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_planned_as_it_is(profile, monkeypatch, capsys):
    """Without a number of GPUs it takes as many as can share its batches."""
    monkeypatch.setattr(
        plan, "shape_of", lambda p, known=plan.shape_of: known(p if p.base == FULL.base else TINY)
    )
    assert main(["plan", "--profile", profile]) == 0
    assert f"on {plan.shareable(PROFILES[profile])} × h200" in capsys.readouterr().out


def test_how_many_can_share():
    assert (plan.shareable(FULL), plan.shareable(TINY.but(micro_batch=4)), plan.shareable(TINY)) == (8, 2, 1)


# 12 · 40 layers · 5120 · 512 positions = 1,258,291,200 operations of attention a token
@pytest.mark.parametrize(
    ("number", "tokens", "flops"),
    [
        (1, 20_000_000_000, 20e9 * (6 * N + 1_258_291_200)),
        (2, 10_000_000_000, 10e9 * (4 * N + 6 * MODULE + 1_258_291_200)),
        (3, 1_250_000_000, 1.25e9 * (4 * N + 6 * MODULE + 1_258_291_200)),
    ],
)
def test_full_stages(unmeasured, number, tokens, flops):
    cost = plan.stage_cost(FULL, number, 0 if number == 1 else 6, 8, "h200")
    assert cost["tokens"] == tokens
    assert cost["steps"] == tokens // 131_072  # 256 × 512
    assert cost["FLOPs"] == pytest.approx(flops, rel=1e-12)
    assert cost["days"] == pytest.approx(flops / (8 * 989e12 * 0.40) / 86_400)
    assert cost["GPU-hours"] == pytest.approx(8 * 24 * cost["days"])


def test_stage_5_runs_on_all_gpus(unmeasured):
    """Both directions of six languages, 4,000 pairs each, two answers of 128 tokens to a pair."""
    cost = plan.stage_cost(FULL, 5, 6, 8, "h200")
    assert cost["tokens"] == 12 * 4000 * 2 * 128
    assert cost["steps"] == 12 * 4000 // 128
    flops = cost["tokens"] * (4 * N + 6 * MODULE + 12 * 40 * 5120 * 128)
    assert cost["days"] == pytest.approx(flops / (8 * 989e12 * 0.40) / 86_400)
    assert plan.memory(FULL.but(sharding="full"), 5, 8)["frozen base"] == pytest.approx(2 * N / 8 / 2**30)


def test_memory_of_weights():
    """Full weights in float32 on eight GPUs: 16 bytes a parameter, an eighth each. A module: 16, its base 2."""
    gib = 2**30
    full, module = plan.memory(FULL, 1, 8), plan.memory(FULL, 2, 8)
    kept = ("trained weights", "gradients", "Adam's moments")
    assert sum(full[part] for part in kept) == pytest.approx(16 * N / 8 / gib)
    assert full["frozen base"] == 0
    assert sum(module[part] for part in kept) == pytest.approx(16 * MODULE / gib)
    assert module["frozen base"] == pytest.approx(2 * N / gib)
    assert "gathered shards" in full and "gathered shards" not in module
    shared = plan.memory(FULL.but(sharding="full"), 2, 8)
    assert shared["frozen base"] == pytest.approx(2 * N / 8 / gib)


def test_memory_of_a_base_in_fp8():
    """A byte less for each weight of the projections."""
    projections = 40 * (4 * 5120 * 5120 + 3 * 5120 * 13_824)
    p = FULL.but(gradient_checkpointing=True, micro_batch=2, block_tokens=512)
    plain, fp8 = (plan.memory(p.but(**changes), 2, 1) for changes in ({}, {"base_precision": "fp8"}))
    assert (plain["frozen base"] - fp8["frozen base"]) * 2**30 == pytest.approx(projections)


def test_memory_of_decoding():
    """Twenty sentences, five beams, 128 + 256 tokens; 40 layers and one copied, 5120 keys and values of 2 bytes."""
    found = plan.decoding_memory(FULL.but(generation_batch=20))
    assert found["keys and values"] == pytest.approx(20 * 5 * 384 * 41 * 2 * 5120 * 2 / 2**30)
    assert found["base"] == pytest.approx(2 * N / 2**30) and found["module"] == pytest.approx(
        4 * MODULE / 2**30
    )


def test_a_plan_that_fits(unmeasured):
    text = plan.plan_text(FULL, 8, "h200")
    assert "base 13.016 B parameters, a module 2.003 B" in text
    assert text.count("-> group") == 8
    assert "full weights 40% assumed" in text
    assert "20,000,000,000" in text


@pytest.mark.parametrize(
    ("changes", "gpus", "gpu", "advice"),
    [
        ({}, 1, "h200", "it fits with micro_batch=1 sharding=full on 2 GPUs"),
        ({}, 8, "l40s", "it fits with micro_batch=1 sharding=full"),
        # whatever is sharded, two layers are whole: 2 × 12 × 32,768² weights in bfloat16 are 48 GiB
        ({"base": "", "hidden_size": 32_768}, 8, "l40s", "no number of these GPUs helps"),
        ({"stage5_batch_size": 2, "sharding": "none"}, 8, "h100", "it fits with micro_batch=1 sharding=full"),
        ({"gradient_checkpointing": False}, 8, "h200", "it fits with gradient_checkpointing=true"),
        # no batch of the other stages is too small for sixteen
        (
            {"micro_batch": 8, "stage5_batch_size": 64},
            16,
            "h200",
            "stage 5: 16 GPUs can't share a batch of 64 evenly",
        ),
        ({"micro_batch": 8}, 8, "h100", "it fits with generation_batch=16"),
        ({"micro_batch": 8, "beams": 400}, 8, "h100", "take larger GPUs, fewer beams"),
        ({}, 7, "h200", "7 GPUs can't share a batch of 256 evenly: take a number of GPUs that divides 256"),
        (
            {"micro_batch": 32},
            16,
            "h200",
            "stage 1: 16 GPUs can't share a batch of 256 evenly: set micro_batch=16",
        ),
    ],
)
def test_a_plan_that_can_not_work_says_what_would(changes, gpus, gpu, advice):
    with pytest.raises(ValueError) as caught:
        plan.check_fits(FULL.but(**changes), gpus, gpu)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("gpus", "gpu", "message"), [(8, "h300", "unknown GPU 'h300'"), (0, "h200", "at least one")]
)
def test_bad_requests(gpus, gpu, message):
    with pytest.raises(ValueError, match=message):
        plan.plan_text(TINY, gpus, gpu)


def test_a_measured_utilisation_is_used_for_its_gpu_alone(tmp_path, monkeypatch):
    rows = [
        {"kind": "full", "system": "xalma", "model_flops": 0.5 * 989e12},
        {"kind": "full", "system": "trainer", "model_flops": 0.9 * 989e12},
    ]
    (tmp_path / "t.json").write_text(json.dumps({"hardware": {"gpu": "NVIDIA H200"}, "rows": rows}))
    monkeypatch.setattr(plan, "home", lambda: tmp_path)
    monkeypatch.setattr(plan, "_MEASURED", "t.json")
    assert plan.utilisation("h200", full=True) == (0.5, "measured (t.json)")
    assert plan.utilisation("h200", full=False)[1] == "assumed"
    assert plan.utilisation("a100", full=True)[1] == "assumed"


def test_the_graph_goes_to_the_clusters_scheduler():
    lines = plan.slurm_lines(FULL, 16, Path("stage.sbatch"), "--profile full").splitlines()
    assert len(lines) == 2 + 8 * 4
    made = set()
    for line in lines:
        name, _, command = line.partition("=$(")
        assert command.startswith("sbatch --parsable ") and command.endswith("--profile full)")
        needs = [word.removeprefix("--dependency=afterok:$") for word in command.split() if "afterok" in word]
        assert set(needs) <= made and len(needs) == (name != "s0")
        made.add(name)
    (stage2,) = [line for line in lines if line.startswith("g3s2=")]
    assert "afterok:$s1 --nodes=2 --gpus-per-node=8 stage.sbatch 2 --group 3" in stage2
    (stage5,) = [line for line in lines if line.startswith("g3s5=")]
    assert "afterok:$g3s4 --nodes=2 --gpus-per-node=8 stage.sbatch 5 --group 3" in stage5
    assert "--nodes=1 --gpus-per-node=1 stage.sbatch 0" in lines[0]


def test_the_command(unmeasured, capsys):
    assert main(["plan"]) == 0
    assert "8 × h200" in capsys.readouterr().out
    assert main(["plan", "--slurm", "--gpus", "16", "--set", "groups=6", "--set", "micro_batch=8"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert main(["plan", "--gpus", "1", "--gpu", "a100"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("xalma: stage 1 needs ") and said.count("\n") == 1


def test_the_memory_is_what_an_h200_took():
    """The committed measurement of a module at 13B's shape, and the formula for the same batch."""
    found = json.loads(
        (REPOSITORY / "results/benchmarks/training_throughput_h200.json").read_text(encoding="utf-8")
    )
    (row,), o = found["rows"], found["options"]
    p = FULL.but(micro_batch=o["micro"], block_tokens=row["length"], gradient_checkpointing=True)
    assert sum(plan.memory(p, 2, 1).values()) == pytest.approx(row["peak_mib"] / 1024, rel=0.02)
