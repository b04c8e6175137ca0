"""Stage 5's update against ARPOTrainer's, a closed form, and itself in parts; what is logged against counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from smooth import SMOOTH, assert_same_gradients, assert_same_training, trained_weights
from test_arpo import loss_and_grads, tiny_model, tiny_rows, tiny_tokenizer, trainer_for

from xalma.preference.arpo import PRESETS, TAU_EDGES, Z_EDGES, histogram
from xalma.preference.packed_pairs import tokenize_pair
from xalma.profiles import TINY
from xalma.training.objectives import Arpo, Labelled
from xalma.training.trainer import Worker, dropout, train

BETA = 0.1  # of ARPOTrainer's config, TRL's default
PROFILE = TINY.but(threads=1, mixed_precision="off", warmup_ratio=0.0, stage5_learning_rate=5e-3)


def pairs(n: int = 8, seed: int = 0) -> list[dict[str, list[int]]]:
    return [tokenize_pair(tiny_tokenizer(), row, 512) for row in tiny_rows(n, seed)]


def adapted(dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A PEFT model whose adapter changes the output, as after SFT; some of its pairs have tau 1."""
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear")
    base = tiny_model(dtype=dtype)
    base.lm_head.weight.data *= 20
    model = get_peft_model(base, config, adapter_name="group6").to(dtype)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def update(objective: Arpo, model: torch.nn.Module, parts: list, bf16: bool = False):
    """(loss, gradients, sums) of one batch given in parts, as `train.Run.update` takes them."""
    collate, worker = objective.collator(model, 0), Worker(model, objective, bf16)
    batches = [collate(part) for part in parts]
    counts = sum(objective.counts(batch) for batch in batches)
    found = sum(worker(batch, counts) for batch in batches)
    trained = [p for p in model.parameters() if p.requires_grad]
    return found[0].detach(), torch.autograd.grad(found[0], trained), found[1:].detach()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options", [PRESETS["paper"], PRESETS["released-code"], {"detach_penalty": True}, {"nll_weight": 0.3}]
)
def test_an_update_is_arpo_trainers(tmp_path, options, dtype):
    """Loss and gradients of the same batch; in float64 RMSNorm is still float32."""
    model = adapted(dtype=dtype)
    expected, theirs = loss_and_grads(trainer_for(tmp_path, model, tiny_rows(8), **options), model)
    loss, ours, _ = update(Arpo(beta=BETA, **options), model, [pairs()])
    close = {torch.float32: 1e-4, torch.float64: 1e-6}[
        dtype
    ]  # of the largest element: float32 rounds at 6e-8
    torch.testing.assert_close(loss, expected.detach(), rtol=close, atol=0)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=close * largest(theirs))


def test_an_update_is_the_papers_formula():
    """One sequence at a time through the plain model, X-ALMA §4 in Python's own arithmetic."""
    model, terms, nll, n_tokens = adapted(dtype=torch.float64), [], 0.0, 0
    for pair in pairs():
        summed, length = {}, {}
        for side in ("chosen", "rejected"):
            ids, labels = pair[f"{side}_input_ids"], pair[f"{side}_labels"]
            with torch.no_grad():
                logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            places = [j for j, label in enumerate(labels) if label != -100]
            summed[side], length[side] = sum(logps[j - 1, ids[j]].item() for j in places), len(places)
        z = abs(summed["chosen"] / length["chosen"] - summed["rejected"] / length["rejected"])
        tau = min(math.exp(1.5 * z) - 1, 1)
        terms.append(math.log1p(math.exp(-BETA * (summed["chosen"] - tau * summed["rejected"]))))
        nll, n_tokens = nll - summed["chosen"], n_tokens + length["chosen"]
    loss, _, _ = update(Arpo(beta=BETA), model, [pairs()])
    assert loss.item() == pytest.approx(sum(terms) / 8 + nll / n_tokens, rel=1e-6)


@pytest.mark.parametrize("cut", [[1] * 8, [3, 3, 2], [7, 1]])
def test_parts_of_any_size_are_the_whole_batch(cut):
    rows, parts = pairs(), []
    for size in cut:
        parts.append(rows[:size])
        rows = rows[size:]
    objective, model = Arpo(beta=BETA), adapted(dtype=torch.float64)  # a sum of parts is rounded otherwise
    whole, expected, logged = update(objective, model, [pairs()])
    loss, grads, sums = update(objective, model, parts)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    torch.testing.assert_close(grads, expected, rtol=1e-6, atol=1e-6 * largest(expected))
    torch.testing.assert_close(sums, logged, rtol=1e-5, atol=1e-5)


def largest(gradients) -> float:
    return max(gradient.abs().max().item() for gradient in gradients)


def plain(measures: dict) -> dict[str, float]:
    """Without the histograms."""
    return {key: value for key, value in measures.items() if not isinstance(value, list)}


def trained(model: torch.nn.Module, steps: int = 3, probe: int = 0, **changes):
    p = PROFILE.but(**{"stage5_batch_size": 8, **changes})
    rows = pairs()
    log = train(
        model,
        rows,
        p,
        p.stage(5),
        steps=steps,
        seed=0,
        pad_token_id=0,
        label="test",
        objective=Arpo(beta=BETA),
        probe=rows[:probe],
    )
    return log, trained_weights(model)


def test_training_in_parts_is_training_on_the_whole_batch(handed_over):
    """Gradients of one update, and three updates in which they decide."""
    (log,), _ = trained(adapted(), micro_batch=8, steps=1)
    (log_parts,), _ = trained(adapted(), micro_batch=1, steps=1)
    assert log_parts["loss"] == pytest.approx(log["loss"], abs=1e-4)
    assert_same_gradients(*handed_over)
    whole, parts = (trained(adapted(), micro_batch=n, **SMOOTH)[1] for n in (8, 1))
    assert_same_training(whole, parts, trained_weights(adapted()))


def test_training_lowers_the_loss_and_the_base_stays():
    model = adapted()
    base = {name: x.detach().clone() for name, x in model.named_parameters() if not x.requires_grad}
    log, _ = trained(model, steps=12)
    assert log[-1]["loss"] < log[0]["loss"] and log[-1]["nll_loss"] < log[0]["nll_loss"]
    assert [row["step"] for row in log] == list(range(1, 13))
    assert all(torch.equal(x, base[name]) for name, x in model.named_parameters() if not x.requires_grad)


def test_recomputed_activations_change_nothing():
    (log, kept), (log_again, again) = (trained(adapted(), gradient_checkpointing=on) for on in (False, True))
    assert [row["loss"] for row in log] == [row["loss"] for row in log_again]
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_no_unit_is_dropped_in_preference_training():
    (log, without), (log_dropped, dropped) = (trained(adapted(share)) for share in (0.0, 0.5))
    assert [row["loss"] for row in log] == [row["loss"] for row in log_dropped]
    assert all(torch.equal(without[name], dropped[name]) for name in without)
    model = adapted(0.5)
    trained(model)
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.5}, "as it was"
    with dropout(model, Labelled.dropout):
        assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.5}, (
            "stages 1 to 4 have it"
        )


def test_bfloat16_products_and_a_float32_loss():
    objective, model = Arpo(beta=BETA), adapted()
    exact, mixed = (update(objective, model, [pairs()], bf16)[0] for bf16 in (False, True))
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(exact.item(), rel=0.02) and mixed.item() != exact.item()


def test_what_is_logged_is_counted_by_hand(tmp_path):
    """Means and histograms over the pairs of a batch, against ARPOTrainer's metrics and numpy's histogram."""
    model = adapted(dtype=torch.float64)
    trainer = trainer_for(tmp_path, model, tiny_rows(8))
    _, theirs = trainer.get_batch_loss_metrics(model, next(iter(trainer.get_train_dataloader())))
    objective = Arpo(beta=BETA)
    sums = update(objective, model, [pairs()])[2]
    ours = objective.measures(sums)
    names = {"tau": "tau", "z": "z", "nll_loss": "nll_loss", "margin": "avg_logps/margin",
             "accuracy": "avg_logps/accuracy", "chosen_avg_logp": "avg_logps/chosen",
             "rejected_avg_logp": "avg_logps/rejected"}  # fmt: skip
    for name, there in names.items():
        assert ours[name] == pytest.approx(theirs[there], rel=1e-5, abs=1e-6), name
    assert ours["tau_counts"] == trainer._counts["tau"].tolist() and sum(ours["tau_counts"]) == 8
    twice = objective.measures(2 * sums)  # of two such batches: the same means, twice the pairs
    assert plain(twice) == pytest.approx(plain(ours))
    assert twice["z_counts"] == [2 * n for n in ours["z_counts"]] and sum(ours["z_counts"]) == 8


@pytest.mark.parametrize("edges", [TAU_EDGES, Z_EDGES])
def test_histogram(edges):
    values = torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 - 0.5
    expected, _ = np.histogram(values.clamp(edges[0], edges[-1]), bins=edges)
    assert histogram(values, edges).tolist() == expected.tolist()


def test_probes_are_before_eight_times_during_and_after():
    log, _ = trained(adapted(dtype=torch.float64), steps=20, probe=5, stage5_batch_size=4, micro_batch=2)
    probes = [row for row in log if row.get("kind") == "probe"]
    assert [row["step"] for row in probes] == [*range(0, 21, 2)]
    assert {sum(row["tau_counts"]) for row in probes} == {5}
    model, objective = adapted(dtype=torch.float64), Arpo(beta=BETA)
    first = objective.measures(update(objective, model, [pairs()[:5]])[2])
    assert plain({key: probes[0][key] for key in first}) == pytest.approx(plain(first), rel=1e-5)
    assert probes[-1]["margin"] > probes[0]["margin"]
    assert "loss" in log[-1] and "kind" not in log[-1], (
        "the last row is a training row: `seconds` is filed there"
    )


def test_probing_changes_nothing():
    (log, without), (log_probed, probed) = (trained(adapted(), probe=n) for n in (0, 8))
    rows = [row for row in log_probed if "kind" not in row]
    assert [row["loss"] for row in log] == [row["loss"] for row in rows] and len(log_probed) > len(rows)
    assert all(torch.equal(without[name], probed[name]) for name in without)
