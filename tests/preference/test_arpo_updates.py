"""ARPOTrainer's updates: the same however a batch is accumulated, finite, and logged under TRL's names."""

from __future__ import annotations

import math

import pytest
import torch
from datasets import Dataset
from test_arpo import settings, tiny_model, tiny_rows, tiny_tokenizer, trainer_for
from transformers import TrainerCallback

from xalma.preference.arpo_trainer import ARPOConfig, ARPOTrainer, CPOConfig
from xalma.preference.arpo_trainer import CPOTrainer as TRLCPOTrainer

# Answers of 1, 1, 1 and 12 words: a mean over each part's own tokens would weigh them otherwise.
WORDS = (1, 1, 1, 12)
ROWS = [{"prompt": f"p{i}:", "chosen": " ab" * n, "rejected": " cd" * (5 - i)} for i, n in enumerate(WORDS)]


class Gradients(TrainerCallback):
    """Copies of the gradients that the optimiser is about to use."""

    def on_pre_optimizer_step(self, args, state, control, *, model, **_):
        self.found = [parameter.grad.clone() for parameter in model.parameters()]


def one_update(tmp_path, rows, size: int, parts: int, **options) -> tuple[float, list[torch.Tensor]]:
    """(logged loss, gradients when the optimiser steps) of one update through Trainer's own loop."""
    gradients = Gradients()
    cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts, "max_steps": 1}
    options |= {"max_grad_norm": 0.0, "learning_rate": 0.0}
    trainer = trainer_for(tmp_path, tiny_model(dtype=torch.float64), rows, **cut, **options)
    trainer.add_callback(gradients)
    trainer.train()
    loss = next(log["loss"] for log in trainer.state.log_history if "loss" in log)
    return loss, gradients.found


@pytest.mark.parametrize("efficient", [True, False])
def test_accumulated_parts_are_one_batch(tmp_path, efficient):
    """4, 2 × 2, 1 × 4, and 3 rows as 2 + 1: loss and gradient of the whole batch."""
    for rows, cuts in ((ROWS, ((2, 2), (1, 4))), (ROWS[1:], ((2, 2), (1, 3)))):
        loss, gradients = one_update(tmp_path, rows, len(rows), 1, efficient=efficient)
        for size, parts in cuts:
            found = one_update(tmp_path, rows, size, parts, efficient=efficient)
            assert found[0] == pytest.approx(loss, abs=2e-4)  # Trainer logs four digits
            torch.testing.assert_close(found[1], gradients, rtol=1e-5, atol=1e-6)


def test_the_whole_batch_is_the_loss_written_out(tmp_path):
    """The divisor is the chosen tokens of all parts: the loss from log-probabilities of single rows."""
    from xalma.preference.arpo import arpo_loss
    from xalma.preference.packed_pairs import pair_logps

    found = pair_logps(tiny_model(dtype=torch.float64), tiny_tokenizer(), ROWS, batch_size=1)
    values = [found[f"{side}_{what}"] for what in ("logps", "lengths") for side in ("chosen", "rejected")]
    expected = arpo_loss(*values)[0].mean() - found["chosen_logps"].sum() / found["chosen_lengths"].sum()
    assert one_update(tmp_path, ROWS, 1, 4)[0] == pytest.approx(expected.item(), abs=2e-4)


@pytest.mark.parametrize("efficient", [True, False])
def test_answers_that_are_all_cut_give_a_number(tmp_path, efficient):
    """max_length takes every answer: no token to learn, and the preference term is that of a tie."""
    rows = [{"prompt": "p" * 40, "chosen": " ab", "rejected": " cd"}] * 4
    trainer = trainer_for(tmp_path, tiny_model(), rows, efficient=efficient, max_length=16)
    loss, metrics = trainer.get_batch_loss_metrics(trainer.model, next(iter(trainer.get_train_dataloader())))
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
    assert metrics["nll_loss"] == 0 and all(map(math.isfinite, metrics.values()))


def test_mean_logits_are_trls(tmp_path):
    """Rows of one length, so that TRL's mean holds no padding; and all of TRL's names are logged."""
    texts = (("ab:", " cd ef", " gh ij"), ("kl:", " mn op", " mn qr"))
    rows = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in texts]
    model = tiny_model()
    options = settings(tmp_path, remove_unused_columns=False)
    trl = TRLCPOTrainer(
        model, CPOConfig(**options), train_dataset=Dataset.from_list(rows), processing_class=tiny_tokenizer()
    )
    expected = trl.get_batch_loss_metrics(model, next(iter(trl.get_train_dataloader())))[1]
    for efficient in (True, False):
        trainer = trainer_for(tmp_path, model, rows, efficient=efficient)
        found = trainer.get_batch_loss_metrics(model, next(iter(trainer.get_train_dataloader())))[1]
        assert expected.keys() <= found.keys()
        for name in ("logits/chosen", "logits/rejected"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6)


def test_the_routers_loss_is_added_as_in_trl(tmp_path):
    from test_architectures import model_of

    rows, model = (
        tiny_rows(4),
        model_of("mixtral", output_router_logits=True, router_aux_loss_coef=0.5).double(),
    )
    options = settings(tmp_path, remove_unused_columns=False)
    trl = TRLCPOTrainer(
        model, CPOConfig(**options), train_dataset=Dataset.from_list(rows), processing_class=tiny_tokenizer()
    )
    ours = trainer_for(tmp_path, model, rows, clamp_min=1.0, efficient=False)
    losses = [
        t.get_batch_loss_metrics(model, next(iter(t.get_train_dataloader())))[0].item() for t in (trl, ours)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "more", "why"),
    [
        ({}, {"compute_metrics": lambda _: {}}, "compute_metrics: a pair has no single prediction"),
        (
            {},
            {"preprocess_logits_for_metrics": lambda *_: None},
            "compute_metrics: a pair has no single prediction",
        ),
        (
            {"generate_during_eval": True, "report_to": ["none"]},
            {},
            r"generate_during_eval|Comet|Weights and Biases",
        ),
    ],
)
def test_what_has_no_meaning_is_refused_at_construction(tmp_path, options, more, why):
    with pytest.raises(ValueError, match=why):
        ARPOTrainer(
            tiny_model(),
            ARPOConfig(**settings(tmp_path, **options)),
            train_dataset=Dataset.from_list(tiny_rows(4)),
            processing_class=tiny_tokenizer(),
            **more,
        )
