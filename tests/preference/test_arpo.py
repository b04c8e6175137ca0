"""arpo_loss against closed forms and TRL's CPO; the packed forward against the plain one."""

from __future__ import annotations

import doctest
import math
import os
import random

import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import xalma.preference.arpo
import xalma.preference.packed_pairs
from xalma.preference.arpo import PRESETS, TAU_EDGES, Z_EDGES, arpo_loss
from xalma.preference.arpo_trainer import ARPOConfig, ARPOTrainer, CPOConfig
from xalma.preference.arpo_trainer import CPOTrainer as TRLCPOTrainer
from xalma.preference.packed_pairs import (
    PairCollator,
    layout_for,
    pair_logps,
    sequence_logps,
    tokenize_pair,
    tokenize_pairs,
)

# tau worked out with 40 decimal digits: exp(1.5 z) - 1 and .9 exp(.4 z) - 1, both at most 1.
CLOSED_FORM = [
    ("paper", 0.0, 0.0),
    ("paper", 0.1, 0.16183424272828312),
    ("paper", 0.263, 0.4836421843425567),
    ("paper", 0.462, 0.9997056605411639),
    ("paper", 1.0, 1.0),
    ("paper", 1.996, 1.0),
    ("paper", 3.0, 1.0),
    ("released-code", 0.0, -0.1),
    ("released-code", 0.1, -0.0632703032268506),
    ("released-code", 0.263, -0.00016050277587735824),
    ("released-code", 0.462, 0.08268003845219099),
    ("released-code", 1.0, 0.34264222787714327),
    ("released-code", 1.996, 0.9997846191625157),
    ("released-code", 3.0, 1.0),
]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, with <pad>, <s>, </s>; adds no special tokens by itself."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def tiny_model(seed: int = 0, attention: str = "sdpa", dtype=torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).to(dtype)


def tiny_rows(n: int = 16, seed: int = 0) -> list[dict[str, str]]:
    """Prompt, chosen and a rejected that shares a random part of chosen's beginning."""
    rng = random.Random(seed)
    words = ("der", "die", "das", "Haus", "Tag", "vor", "Minuten", "Land", "und", "heute")
    text = lambda: " " + " ".join(rng.choices(words, k=rng.randint(1, 8)))  # noqa: E731
    rows = []
    for _ in range(n):
        chosen = text()
        rejected = chosen[: rng.randint(0, len(chosen))] + text()
        rows.append({"prompt": f"en-de:{text()}\n", "chosen": chosen, "rejected": rejected})
    return rows


def settings(tmp_path, **changes) -> dict:
    return {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 8,
        "max_steps": 2,
        "report_to": [],
        "save_strategy": "no",
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "logging_steps": 1,
        "disable_tqdm": True,
        **changes,
    }


def trainer_for(tmp_path, model, rows, **options) -> ARPOTrainer:
    # transformers and accelerate keep bf16 for all later trainers of a process
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    AcceleratorState._reset_state(reset_partial_state=True)
    return ARPOTrainer(
        model,
        ARPOConfig(**settings(tmp_path, **options)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
    )


def loss_and_grads(trainer, model) -> tuple[torch.Tensor, list[torch.Tensor]]:
    loss, _ = trainer.get_batch_loss_metrics(model, next(iter(trainer.get_train_dataloader())))
    parameters = [p for p in model.parameters() if p.requires_grad]
    return loss, torch.autograd.grad(loss, parameters)


def pair_at(z: float) -> tuple[torch.Tensor, ...]:
    """Summed log-probabilities and lengths whose averages lie z apart."""
    values = torch.tensor([[-0.5 * 7], [(-0.5 - z) * 11], [7], [11]], dtype=torch.float64)
    return tuple(values)


@pytest.mark.parametrize(("preset", "z", "tau"), CLOSED_FORM)
def test_closed_form(preset, z, tau):
    chosen, rejected, n_chosen, n_rejected = pair_at(z)
    losses, found_tau, found_z = arpo_loss(
        chosen, rejected, n_chosen, n_rejected, beta=0.1, **PRESETS[preset]
    )
    assert found_z.item() == pytest.approx(z, rel=1e-12, abs=1e-12)
    assert found_tau.item() == pytest.approx(tau, rel=1e-6, abs=1e-12)
    margin = 0.1 * (chosen.item() - tau * rejected.item())
    assert losses.item() == pytest.approx(math.log1p(math.exp(-margin)), rel=1e-6)


@pytest.mark.parametrize(("preset", "z"), [("paper", 0.4620981), ("released-code", 1.9962692)])
def test_saturation_point(preset, z):
    below = arpo_loss(*pair_at(z - 1e-4), **PRESETS[preset])[1].item()
    above = arpo_loss(*pair_at(z + 1e-4), **PRESETS[preset])[1].item()
    assert below < 1 and above == 1.0 and below > 1 - 1e-3


def test_released_code_changes_sign_at_its_root():
    root = math.log(1 / 0.9) / 0.4  # .2634
    signs = [arpo_loss(*pair_at(root + d), **PRESETS["released-code"])[1].item() for d in (-1e-6, 1e-6)]
    assert signs[0] < 0 < signs[1]


def test_small_z_keeps_its_digits_in_float32():
    one = torch.ones(1)
    tau = arpo_loss(-one * 0, -one * 1e-9, one, one)[1]
    assert tau.item() == pytest.approx(1.5e-9, rel=1e-6)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("clamp_min", [None, 0.0])
@pytest.mark.parametrize("preset", PRESETS)
def test_gradients_against_finite_differences(preset, clamp_min, detach):
    generator = torch.Generator().manual_seed(0)
    chosen = -30 * torch.rand(6, generator=generator, dtype=torch.float64)
    rejected = -30 * torch.rand(6, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([7, 9, 20, 12, 5, 30]), torch.tensor([8, 30, 19, 10, 40, 29])
    options = {**PRESETS[preset], "clamp_min": clamp_min}
    tau = arpo_loss(chosen, rejected, *lengths, **options)[1]

    def loss(c, r):
        if detach:  # the derivative with tau held at its value
            return -F.logsigmoid(0.1 * c - tau * 0.1 * r)
        return arpo_loss(c, r, *lengths, **options)[0]

    inputs = chosen.requires_grad_(), rejected.requires_grad_()
    assert torch.autograd.gradcheck(loss, inputs)
    found = torch.autograd.grad(
        arpo_loss(*inputs, *lengths, **options, detach_penalty=detach)[0].sum(), inputs
    )
    torch.testing.assert_close(found, torch.autograd.grad(loss(*inputs).sum(), inputs))


def test_gradient_through_tau_pushes_the_answers_apart_whichever_is_ahead():
    """Why detach_penalty exists: with rejected ahead, the gradient *lowers* chosen."""
    chosen, rejected = torch.tensor([-20.0]), torch.tensor([-19.0])
    lengths = torch.tensor([10]), torch.tensor([10])
    for detach, sign in ((False, -1), (True, 1)):
        leaf = chosen.clone().requires_grad_()
        arpo_loss(leaf, rejected, *lengths, detach_penalty=detach)[0].sum().backward()
        assert torch.sign(-leaf.grad).item() == sign, "direction of the update of chosen"


@pytest.mark.parametrize("z", [5.0, 1e3, 1e6])
def test_saturated_gradients_are_finite_and_those_of_cpo(z):
    chosen = torch.tensor([-3.0], requires_grad=True)
    rejected = torch.tensor([-3.0 - z * 10], requires_grad=True)
    ones = torch.tensor([10]), torch.tensor([10])
    losses, tau, _ = arpo_loss(chosen, rejected, *ones)
    losses.sum().backward()
    expected = 0.1 * torch.sigmoid(-(0.1 * (chosen - rejected))).detach()
    assert tau.item() == 1.0
    torch.testing.assert_close(-chosen.grad, expected)
    torch.testing.assert_close(rejected.grad, expected)


@pytest.mark.parametrize(("options", "tau"), [({"clamp_min": 1.0}, 1.0), ({"eta": 0.0}, 0.0)])
def test_limits_cpo_and_sft(options, tau):
    values = torch.tensor([-9.0, -30.0]), torch.tensor([-12.0, -8.0])
    losses, found, _ = arpo_loss(*values, torch.tensor([5, 6]), torch.tensor([7, 4]), **options)
    torch.testing.assert_close(found, torch.full((2,), tau))
    torch.testing.assert_close(losses, -F.logsigmoid(0.1 * values[0] - tau * 0.1 * values[1]))


@pytest.mark.parametrize("options", [{"eta": -1.0}, {"eta_scale": 0.0}])
def test_bad_options(options):
    with pytest.raises(ValueError, match="eta"):
        arpo_loss(*pair_at(0.1), **options)


def test_answers_cut_to_nothing_give_no_nan():
    zero = torch.zeros(1)
    assert torch.isfinite(arpo_loss(zero, zero, zero, zero)[0]).all()


def test_config_presets_and_refusals(tmp_path):
    paper = ARPOConfig(**settings(tmp_path)), ARPOConfig.from_preset("paper", **settings(tmp_path))
    assert {(config.eta, config.eta_scale) for config in paper} == {(1.5, 1.0)}
    code = ARPOConfig.from_preset("released-code", **settings(tmp_path, eta=0.5))
    assert (code.eta, code.eta_scale) == (0.5, 0.9)  # what is given wins
    with pytest.raises(ValueError, match="'code' of ARPO: use one of paper, released-code"):
        ARPOConfig.from_preset("code", **settings(tmp_path))
    assert ARPOConfig(**settings(tmp_path, nll_weight=0.5)).cpo_alpha == 0.5
    for bad in ({"loss_type": "simpo"}, {"label_smoothing": 0.1}, {"cpo_alpha": 0.3}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            ARPOConfig(**settings(tmp_path, **bad))
    with pytest.raises(TypeError, match="ARPOConfig"):
        ARPOTrainer(tiny_model(), CPOConfig(**settings(tmp_path)))


@pytest.mark.parametrize("efficient", [True, False])
def test_tau_one_is_trls_cpo(tmp_path, efficient):
    """Same batch, same loss and gradients as TRL's own CPO trainer; float64 to compare to 1e-6."""
    rows, model = tiny_rows(8), tiny_model(dtype=torch.float64)
    trl = TRLCPOTrainer(
        model,
        CPOConfig(**settings(tmp_path, remove_unused_columns=False)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
    )
    ours = trainer_for(tmp_path, model, rows, clamp_min=1.0, efficient=efficient)
    expected, found = loss_and_grads(trl, model), loss_and_grads(ours, model)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-6, atol=1e-7)  # RMSNorm is float32


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("preset", PRESETS)
def test_packed_equals_plain(tmp_path, preset, attention):
    model, rows = tiny_model(attention=attention), tiny_rows(8)
    plain, packed = (
        loss_and_grads(trainer_for(tmp_path, model, rows, efficient=e, **PRESETS[preset]), model)
        for e in (False, True)
    )
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-5)


def test_varlen_layout_equals_shared():
    """Restarting position ids, which flash attention reads, describe the same sequences.

    transformers turns them into a block mask for SDPA, so the CPU can check the layout itself.
    """
    model, tokenizer = tiny_model(), tiny_tokenizer()
    rows = [tokenize_pair(tokenizer, row, 512) for row in tiny_rows(6)]
    batch = PairCollator(0, "varlen")(rows)
    assert batch["input_ids"].shape == (
        1,
        sum(len(r[f"{s}_input_ids"]) for r in rows for s in ("chosen", "rejected")),
    )
    shared = sequence_logps(model, PairCollator(0)(rows))
    mask, xalma.preference.packed_pairs._attention_mask = (
        xalma.preference.packed_pairs._attention_mask,
        lambda *_: None,
    )
    try:
        varlen = sequence_logps(model, batch)
    finally:
        xalma.preference.packed_pairs._attention_mask = mask
    torch.testing.assert_close(varlen, shared, rtol=1e-5, atol=1e-4)


def test_padding_invariance():
    """A pair's log-probabilities do not depend on its company, and equal those of one plain row."""
    model, tokenizer, rows = tiny_model().eval(), tiny_tokenizer(), tiny_rows(9)
    together = pair_logps(model, tokenizer, rows, batch_size=9)
    alone = pair_logps(model, tokenizer, rows, batch_size=1)
    for name in together:
        torch.testing.assert_close(together[name], alone[name], rtol=1e-5, atol=1e-4)
    for i, row in enumerate(rows):
        for side in ("chosen", "rejected"):
            prompt = [1, *tokenizer(row["prompt"])["input_ids"]]
            ids = torch.tensor([[*prompt, *tokenizer(row[side])["input_ids"], 2]])
            logps = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
            expected = logps[len(prompt) - 1 :]
            assert together[f"{side}_lengths"][i] == len(expected)
            torch.testing.assert_close(together[f"{side}_logps"][i], expected.sum(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("chosen", "rejected"), [("ab", "ab"), ("ab", "abcd"), ("abcd", "ab"), ("", "ab"), ("xy", "")]
)
def test_packing_of_nested_and_empty_answers(chosen, rejected):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    row = {"prompt": "p:", "chosen": chosen, "rejected": rejected}
    found = pair_logps(model, tokenizer, [row])
    swapped = pair_logps(model, tokenizer, [row | {"chosen": rejected, "rejected": chosen}])
    torch.testing.assert_close(found["chosen_logps"], swapped["rejected_logps"])
    assert found["chosen_lengths"].item() == len(chosen) + 1


def test_packing_wastes_little():
    rows = [tokenize_pair(tiny_tokenizer(), row, 512) for row in tiny_rows(16)]
    batch = PairCollator(0)(rows)
    real = (batch["pair"] >= 0).float().mean().item()
    padded = 2 * 16 * max(len(r[f"{s}_input_ids"]) for r in rows for s in ("chosen", "rejected"))
    assert real > 0.85 and batch["input_ids"].numel() < 0.6 * padded


def test_chunked_head_equals_whole(monkeypatch):
    model = tiny_model()
    batch = PairCollator(0)([tokenize_pair(tiny_tokenizer(), row, 512) for row in tiny_rows(4)])
    results = []
    for size in (2**24, 259 * 7):
        monkeypatch.setattr("xalma.models.losses.LOGITS", size)
        logps = torch.cat(sequence_logps(model, batch))
        results.append((logps, *torch.autograd.grad(logps.sum(), list(model.parameters()))))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_tokenization_is_trls(tmp_path):
    rows = [*tiny_rows(6), {"prompt": "p" * 20, "chosen": "c" * 600, "rejected": ""}]
    trainer = trainer_for(tmp_path, tiny_model(), rows, max_length=64)
    for row, expected in zip(rows, trainer.train_dataset, strict=True):
        found = tokenize_pair(tiny_tokenizer(), row, 64)
        assert found == {name: expected[name] for name in found}


def test_a_chosen_side_that_does_not_fit_drops_the_pair_and_a_rejected_one_is_cut():
    tokenizer = tiny_tokenizer()
    rows = [
        {"prompt": "ab", "chosen": chosen, "rejected": rejected}
        for chosen, rejected in (
            ("cd", "efghij"),
            ("cdefg", "h"),
            ("cdef", "g"),
        )
    ]
    pairs, n_long = tokenize_pairs(
        rows, tokenizer, 1 + 2 + 5 + 1
    )  # BOS, prompt, the longest chosen answer, EOS
    assert n_long == 0 and len(pairs[0]["rejected_input_ids"]) == 9
    pairs, n_long = tokenize_pairs(rows, tokenizer, 8)
    assert n_long == 1
    assert [tokenizer.decode(pair["chosen_input_ids"]) for pair in pairs] == ["<s>abcd</s>", "<s>abcdef</s>"]
    assert [tokenizer.decode(pair["rejected_input_ids"]) for pair in pairs] == ["<s>abefghi", "<s>abg</s>"]
    with pytest.raises(ValueError, match="all 3 pairs are longer than max_length=4 tokens: raise max_length"):
        tokenize_pairs(rows, tokenizer, 4)


@pytest.mark.parametrize("options", [{"bf16": True}, {"gradient_checkpointing": True}])
def test_trls_default_arguments_keep_the_gradients(tmp_path, options):
    """bf16 autocast and gradient checkpointing are on by default in TRL's configs."""
    model, rows = tiny_model(), tiny_rows(8)
    expected = loss_and_grads(trainer_for(tmp_path, model, rows), model)
    trainer = trainer_for(tmp_path, model, rows, **options)
    trainer.train()
    found = trainer.state.log_history[0]
    assert found["loss"] == pytest.approx(expected[0].item(), rel=2e-2)
    norm = torch.stack([grad.norm() for grad in expected[1]]).norm().item()
    assert found["grad_norm"] == pytest.approx(norm, rel=5e-2 if "bf16" in options else 1e-4)


@pytest.mark.parametrize(
    ("options", "gpu", "expected"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"fp16": True}, True, False),
        ({"bf16": False}, True, False),
        ({"use_cpu": True}, True, False),
        ({"use_cpu": True, "bf16": True}, False, True),
    ],
)
def test_bf16_is_what_the_machine_has(tmp_path, monkeypatch, options, gpu, expected):
    """TRL's own default asks for bfloat16 on any machine, and transformers then refuses one without a GPU."""
    for module in ("xalma.preference.arpo_trainer", "transformers.training_args"):
        monkeypatch.setattr(f"{module}.is_torch_bf16_gpu_available", lambda: gpu)
    assert ARPOConfig(output_dir=str(tmp_path), **options).bf16 is expected


def test_docstring_example():
    assert doctest.testmod(xalma.preference.arpo) == (0, 3)


def test_unsupported_models_are_refused():
    model = tiny_model()
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match="efficient=False"):
        layout_for(model)


def test_training_lowers_the_loss_and_logs(tmp_path):
    model = get_peft_model(tiny_model(), LoraConfig(r=8, target_modules="all-linear"), adapter_name="group6")
    rows = tiny_rows(16)
    trainer = ARPOTrainer(
        model,
        ARPOConfig(
            **settings(tmp_path, max_steps=8, learning_rate=1e-2, logging_steps=2, detach_penalty=True)
        ),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:4]),
        processing_class=tiny_tokenizer(),
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"]
    assert after["eval_nll_loss"] < before["eval_nll_loss"]
    names = {"tau", "z", "nll_loss", "rewards/margins"}
    names |= {f"avg_logps/{name}" for name in ("chosen", "rejected", "margin", "accuracy")}
    first = next(e for e in trainer.state.log_history if "loss" in e)
    assert names <= set(first)
    assert first["avg_logps/margin"] == pytest.approx(
        first["avg_logps/chosen"] - first["avg_logps/rejected"], abs=2e-3
    )
    assert [h["step"] for h in trainer.histograms] == [2, 4, 6, 8]
    for entry in trainer.histograms:
        assert len(entry["tau"]) == len(TAU_EDGES) - 1 and len(entry["z"]) == len(Z_EDGES) - 1
        assert sum(entry["tau"]) == sum(entry["z"]) == 2 * 8
