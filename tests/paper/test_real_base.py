"""The experiment on a real base, on a tiny random Gemma and a pack of random token ids."""

from __future__ import annotations

import gzip
import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from real_base import run as realbase
from real_base.decoding import decode, price
from real_base.preference_objectives import OBJECTIVES, method_loss
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GenerationConfig, LlamaConfig, LlamaForCausalLM

from xalma.profiles import load_profile
from xalma.runtime import device

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.4,
    "num_attention_heads": 4, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
TINY = {
    "groups": "4,6", "only_languages": "fr,ja,zh", "module_languages": "4:fr,6:ja+zh", "dtype": "float32",
    "threads": "1",
    "mixed_precision": "off", "block_tokens": "16", "micro_batch": "4", "lora_rank": "4", "lora_alpha": "8",
    "stage1_tokens": "256", "stage1_batch_size": "8", "stage2_tokens": "128", "stage2_batch_size": "4",
    "stage3_tokens": "128", "stage3_batch_size": "4", "sft_pairs": "6", "stage4_batch_size": "4", "stage5_pairs": "3",
    "stage5_batch_size": "4", "test_pairs": "3", "max_new_tokens": "6", "generation_batch": "8",
    "ablation_share": "0.5",
}  # fmt: skip


def gemma(**changes) -> Gemma3ForCausalLM:
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        **SIZES | changes,
        num_hidden_layers=4,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=12,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )
    return Gemma3ForCausalLM(config).eval()


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=3, num_key_value_heads=2)).eval()


@pytest.mark.parametrize("read_at_once", [2**17, 40])
@pytest.mark.parametrize("make", [gemma, llama])
def test_decoding_is_generates_and_a_price_is_the_log_probability(monkeypatch, make, read_at_once) -> None:
    """Prompts longer and shorter than the window, in batches with padding, which are read whole or in parts."""
    monkeypatch.setattr("real_base.decoding.PROMPT_TOKENS", read_at_once)
    model, generator = make(), torch.Generator().manual_seed(1)
    prompts = [[2, *torch.randint(4, 97, (n,), generator=generator).tolist()] for n in (3, 9, 30, 17, 5)]
    limits = [20, 25, 20, 22, 3]
    found = decode(model, prompts, limits, {1, 7}, 0, 3)
    for ids, limit, mine in zip(prompts, limits, found, strict=True):
        config = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=[1, 7], pad_token_id=0)
        one = torch.tensor([ids])
        theirs = model.generate(input_ids=one, attention_mask=torch.ones_like(one), generation_config=config)
        theirs = theirs[0, len(ids) :].tolist()
        assert mine == theirs[: next((i for i, t in enumerate(theirs) if t in (1, 7)), limit)]
    rows = [(ids, [*mine, 5]) for ids, mine in zip(prompts, found, strict=True)]
    for (ids, answer), nats in zip(rows, price(model, rows, 0, tokens=60), strict=True):
        with torch.no_grad():
            logps = model(input_ids=torch.tensor([ids + answer])).logits[0].log_softmax(-1)
        expected = -sum(logps[len(ids) - 1 + i, token].item() for i, token in enumerate(answer))
        assert nats == pytest.approx(expected, rel=1e-4)


def test_sampled_tokens_have_the_probabilities_of_the_model() -> None:
    """1,500 draws of a prompt's next token, within 5 standard deviations; at 8, for this model is very sure at 1."""
    model, ids, n = gemma(), [2, 5, 9, 30], 1500
    torch.manual_seed(3)
    drawn = decode(model, [ids] * n, [1] * n, {1}, 0, 500, temperature=8.0)
    with torch.no_grad():
        expected = (model(input_ids=torch.tensor([ids])).logits[0, -1] / 8.0).softmax(-1)
    # id 1 ends a row, so that it is left out of the answer
    found = torch.bincount(torch.tensor([row[0] if row else 1 for row in drawn]), minlength=97) / n
    spread = (expected * (1 - expected) / n).sqrt()
    assert ((found - expected).abs() <= 5 * spread + 1 / n).all()
    assert expected.max() < 0.9, "else greedy decoding would pass too"
    torch.manual_seed(3)
    assert decode(model, [ids] * n, [1] * n, {1}, 0, 500, temperature=8.0) == drawn


@pytest.mark.gpu
@pytest.mark.parametrize("make", [gemma, llama])
def test_replayed_decoding_is_plain_decoding(make) -> None:
    """Long enough to be recorded on a GPU; the CPU decodes the same."""
    model, generator = make(), torch.Generator().manual_seed(2)
    prompts = [[2, *torch.randint(4, 97, (n,), generator=generator).tolist()] for n in (4, 11, 25)]
    on_cpu = decode(model, prompts, [40, 30, 40], {1}, 0, 3)
    model.to(device())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="a decoding step can't be recorded")
        assert decode(model, prompts, [40, 30, 40], {1}, 0, 3) == on_cpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fused_norm_is_gemmas_with_its_gradients(dtype) -> None:
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

    norm, found = Gemma3RMSNorm(16).to(dtype), []
    torch.manual_seed(0)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 5, 16, dtype=dtype)
    for forward in (Gemma3RMSNorm.forward, realbase.fused_norm):
        given = x.clone().requires_grad_()
        out = forward(norm, given)
        gradients = torch.autograd.grad(out.float().square().sum(), (given, norm.weight))
        found.append([one.float() for one in (out, *gradients)])
        assert out.dtype == dtype
    rounding = 1e-5 if dtype == torch.float32 else 2**-7
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rounding, atol=rounding)


def test_losses_of_methods_by_hand() -> None:
    chosen, rejected, n, m = torch.tensor([-4.0]), torch.tensor([-9.0]), torch.tensor([2]), torch.tensor([3])
    references = torch.tensor([-5.0]), torch.tensor([-8.0])
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    odds = lambda x: x - np.log(1 - np.exp(x))  # noqa: E731
    expected = {
        "cpo": -np.log(sigmoid(0.1 * 5)),
        "dpo": -np.log(sigmoid(0.1 * 2)),
        "simpo": -np.log(sigmoid(2 * (-2 + 3) - 1)),
        "orpo": -0.1 * np.log(sigmoid(odds(-2) - odds(-3))),
        "kto": 2 - sigmoid(0.1 * 1) - sigmoid(0.1 * 1),  # z: the rejected answer lost, so 0
    }
    for name in OBJECTIVES:
        found = method_loss(name, chosen, rejected, n, m, references)
        assert found.item() == pytest.approx(expected[name.removesuffix("+bc")], rel=1e-5), name


@pytest.fixture(scope="module")
def tiny_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of random ids of three languages, with a random Gemma."""
    from safetensors.torch import save_file

    folder, rng = tmp_path_factory.mktemp("pack"), np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}

    def add(name: str, lengths: list[int]) -> None:
        arrays[name] = rng.integers(4, 97, sum(lengths)).astype(np.uint16)
        arrays[f"{name}|ends"] = np.cumsum(lengths).astype(np.uint32)

    codes = ("fr", "ja", "zh")
    for code in ("en", *codes):
        add(f"mono.{code}", [40, 50, 30])
        add(f"flores.{code}", [3, 4, 5, 6])
    for code in codes:
        for name, lengths in (
            ("bitext", [4, 6, 5, 7]),
            ("sft", [3, 4, 3, 5, 4, 3, 4, 5]),
            ("shots", [2, 3, 2, 2]),
        ):
            for side in ("en", "xx"):
                add(f"{name}.{code}.{side}", lengths)
        add(f"frame.{code}", [3, 2, 3, 2, 1, 1, 1, 1])
    for side in ("src", "ref"):
        add(f"wmt23.en-ja.{side}", [4, 5])
    np.savez_compressed(folder / "ids.npz", **arrays)
    np.save(folder / "kept.npy", np.arange(97))
    index = {"languages": list(codes), "bos": 2, "eos": 1, "pad": 0, "line_ends": [3], "wmt": {"en-ja": 2}}
    (folder / "index.json").write_text(json.dumps(index))
    model = gemma()
    model.config.save_pretrained(folder)
    save_file(
        {n: x.detach().to(torch.bfloat16).contiguous() for n, x in model.named_parameters()},
        folder / "base.safetensors",
    )
    return folder


def lines(path: Path) -> list[dict]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


def test_all_tasks_run_and_a_second_run_has_nothing_to_do(tiny_pack: Path, tmp_path: Path) -> None:
    p = load_profile("real", **TINY)
    for kind in ("claimed", "done", "failed"):
        (tmp_path / kind).mkdir()
    run = realbase.Run(p, tiny_pack, tmp_path, tmp_path)
    wanted = [t for t in realbase.real_tasks(p) if t.name.count(".") < 3 or t.name.endswith(".1")]
    realbase.work_through(run, wanted, float("inf"))
    failed = [line for line in lines(tmp_path / "log.jsonl") if line["event"] == "failed"]
    assert not failed, failed[0]["trace"]
    found = [one for form in ("few-shot", "prompted") for one in lines(tmp_path / f"ladder-{form}.jsonl.gz")]
    asked = {(one["system"], one["direction"], one["form"]) for one in found if one["set"] == "flores"}
    forms = {
        "base": ["few-shot"],
        "stage4": ["few-shot", "prompted"],
        "stage5": ["prompted"],
        "sft+": ["prompted"],
    }
    for system, names in forms.items():
        assert {(s, d, f) for s, d, f in asked if s == system} == {
            (system, d, f) for c in ("fr", "ja", "zh") for d in (f"en-{c}", f"{c}-en") for f in names
        }
    assert all(len(one["ids"]) == len(one["nats"]) == 3 for one in found if one["set"] == "flores")
    assert {one["direction"] for one in found if one["set"] == "wmt23"} == {"en-ja"}
    studied = {one["system"] for one in lines(tmp_path / "studies.jsonl.gz")}
    without = {f"without stage {n}" for n in (1, 2, 3)}
    assert {"own", "wide", "shared", "dense", "cpo@1", "dpo+bc@1", "arpo-released@1", *without} <= studied
    before = (tmp_path / "log.jsonl").read_bytes()
    realbase.work_through(run, wanted, float("inf"))
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_one_form_alone_is_measured_if_asked(tiny_pack: Path, tmp_path: Path) -> None:
    """As in runs with other seeds, whose early stages are trained and not measured."""
    p = load_profile("real", **TINY)
    for kind in ("claimed", "done", "failed"):
        (tmp_path / kind).mkdir()
    run = realbase.Run(p, tiny_pack, tmp_path, tmp_path, "prompted")
    wanted = realbase.chosen(realbase.real_tasks(p), "base.g6,g6")
    realbase.work_through(run, wanted, float("inf"))
    assert not [line for line in lines(tmp_path / "log.jsonl") if line["event"] == "failed"]
    assert not (tmp_path / "ladder-few-shot.jsonl.gz").exists()
    systems = {one["system"] for one in lines(tmp_path / "ladder-prompted.jsonl.gz")}
    assert systems == {"stage4", "stage5", "sft+"}


def test_pairs_of_samples_have_the_best_and_the_worst(monkeypatch, tiny_pack: Path, tmp_path: Path) -> None:
    """Against a scorer of its own: unigram to 4-gram F2 by hand. Another seed takes other sources."""
    from real_base import tasks

    def f2(ids: list[int], reference: list[int]) -> float:
        scores = []
        for n in range(1, 5):
            mine, theirs = (Counter(zip(*(x[i:] for i in range(n)), strict=False)) for x in (ids, reference))
            if not mine or not theirs:
                continue
            hit = (mine & theirs).total()
            precision, recall = hit / mine.total(), hit / theirs.total()
            scores.append((precision, recall))
        precision, recall = np.mean(scores, axis=0)
        return 100 * 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0

    for ids, reference in (([5, 6, 7, 8], [5, 6, 9, 8]), ([5, 6], [6, 5, 7]), ([9, 9, 9], [5, 6, 7])):
        assert tasks.chrf_of_ids(ids, reference) == pytest.approx(f2(ids, reference), abs=0.01)
    p = load_profile("real", **TINY | {"sft_pairs": "6", "stage5_pairs": "3"})
    run = realbase.Run(p, tiny_pack, tmp_path, tmp_path)
    references = {
        tuple(tasks.prompt(run, direction, source)): target.tolist()
        for code in ("ja", "zh")
        for a, b in tasks.sft_pairs(run, code, 6)
        for direction, source, target in ((f"en-{code}", a, b), (f"{code}-en", b, a))
    }
    rng = np.random.default_rng(0)

    def drawn(model, prompts, limits, stops, pad, batch_size, temperature) -> list[list[int]]:
        """Mixtures of the reference's ids and another one; all of one source's are the same."""
        assert temperature > 0 and len(prompts) == tasks.SAMPLES * len({tuple(one) for one in prompts})
        answers = [rng.choice([*references[tuple(one)], 3], 4).tolist() for one in prompts]
        return [[3] if tuple(one) == tied else ids for one, ids in zip(prompts, answers, strict=True)]

    monkeypatch.setattr(tasks, "decode", drawn)
    monkeypatch.setattr(tasks, "module_on", lambda *_, **__: None)
    monkeypatch.setattr(tasks, "base_model", lambda *_, **__: None)
    monkeypatch.setattr(tasks, "plain_copy", lambda model: model)
    tied, sources = next(iter(references)), {}
    for seed in (0, 1):
        work = tmp_path / str(seed)
        work.mkdir()
        rows = tasks.pairs_of(realbase.Run(p.but(seed=seed), tiny_pack, work, work, pairs="samples"), 6)
        sources[seed] = {tuple(row["chosen_input_ids"][: row["chosen_labels"].count(-100)]) for row in rows}
        for row in rows:
            asked = row["chosen_labels"].count(-100)
            reference = references[tuple(row["chosen_input_ids"][:asked])]
            better, worse = (row[f"{side}_input_ids"][asked:-1] for side in ("chosen", "rejected"))
            assert f2(better, reference) > f2(worse, reference)
    assert len(sources[0]) > 3 and len(sources[1]) > 3 and not sources[0] & sources[1]
    assert tied not in sources[0], "none of its samples is better than another"


def test_french_reads_as_much_in_group_2_as_in_group_4(monkeypatch, tiny_pack: Path, tmp_path: Path) -> None:
    """Counted for two groups of three languages, French among them, and for the papers' groups of 7 and 6."""
    from real_base import tasks

    for second, fourth in (("es+it", "fr+id+ms"), ("ca+es+gl+it+pt+ro", "fr+id+mg+ms+th+vi")):
        spoken = ",".join((second + "+" + fourth).split("+"))
        chosen = {"groups": "2,4", "only_languages": spoken, "module_languages": f"2:{second},4:{fourth}"}
        p = load_profile("real", **TINY | chosen | {"stage2_tokens": 16 * 840, "stage3_tokens": 16 * 840})
        run, counts = realbase.Run(p, tiny_pack, tmp_path, tmp_path), {"g4": {}, "french": {}}

        def fit(run, model, rows, number, label, counts=counts) -> None:
            counts[label.split(".")[0]].update(rows)

        def blocks(run, kind, codes, tokens, skip=0) -> list[tuple[str, int]]:
            return [(kind, round(tokens / len(codes)))]

        changed = {"fit": fit, "blocks": blocks, "prompted_rows": lambda run, codes, n: [("sft", n)]}
        for name in ("base_model", "module_on", "save_module", "measure", "both_sets"):
            changed[name] = lambda *_, **__: None
        for name, function in changed.items():
            monkeypatch.setattr(tasks, name, function)
        tasks.ladder(run, 4)
        tasks.french(run)
        assert counts["french"] == counts["g4"] and set(counts["g4"]) == {"mono", "bitext", "sft"}
