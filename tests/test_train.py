"""The loop against transformers' own loss, against itself with the batch in parts, and against chance."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from xalma import stages
from xalma.collate import IGNORE, PadCollator
from xalma.data import open_corpus
from xalma.modules import attach_module
from xalma.train import StageTrainer, evaluate_loss, labelled_loss, train, training_arguments


def rows(n: int = 16, seed: int = 0) -> list[dict[str, list[int]]]:
    """Rows of 4 to 19 ids with about half the labels ignored."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i in range(n):
        ids = torch.randint(3, 600, (4 + i % 16,), generator=generator).tolist()
        border = len(ids) // 2
        found.append({"input_ids": ids, "labels": [IGNORE] * border + ids[border:]})
    return found


def gradients(model, loss) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("adapter", [False, True], ids=["base", "module"])
def test_loss_and_gradients_are_transformers_own(base, adapter):
    model = attach_module(base, 6, rank=4, alpha=8, dropout=0.0) if adapter else base
    if adapter:  # with B = 0 the gradient of A is zero
        torch.nn.init.normal_(next(p for n, p in model.named_parameters() if "lora_B" in n), std=0.1)
    batch = PadCollator(0)(rows())
    ours = labelled_loss(model, batch)
    theirs = model(**batch, use_cache=False).loss
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    a, b = gradients(model, ours), gradients(model, theirs)
    assert a.keys() == b.keys() and len(a) > 0
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-4)


def test_the_divisor_can_be_given(base):
    batch = PadCollator(0)(rows(4))
    n = int((batch["labels"][:, 1:] != IGNORE).sum())
    assert labelled_loss(base, batch, 2 * n).item() == pytest.approx(labelled_loss(base, batch).item() / 2, rel=1e-6)


def test_bfloat16_is_near_float32(base):
    batch = PadCollator(0)(rows())
    mixed = labelled_loss(base, batch, bf16=True)
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(labelled_loss(base, batch).item(), rel=0.02)
    assert mixed.item() != labelled_loss(base, batch).item()


def trained(base, micro, *, batch: int, micro_batch: int, steps: int = 3, seed: int = 0):
    model = copy.deepcopy(base)
    p = micro.but(stage4_batch_size=batch, micro_batch=micro_batch, stage4_schedule="constant", warmup_ratio=0.0)
    log = train(model, rows(8), p, "stage4", steps=steps, seed=seed, pad_token_id=0, label="test")
    return model, log


def test_accumulating_in_parts_is_one_batch(base, micro):
    """Eight rows at once or one at a time: the mean is over all their tokens, not over means."""
    whole, log = trained(base, micro, batch=8, micro_batch=8)
    parts, log_parts = trained(base, micro, batch=8, micro_batch=1)
    assert [row["loss"] for row in log_parts] == pytest.approx([row["loss"] for row in log], abs=1e-3)
    moved = 0.0
    for (name, a), b, start in zip(whole.named_parameters(), parts.parameters(), base.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-3, msg=name)
        moved = max(moved, (a - start).abs().max().item())
    assert moved > 1e-3, "with nothing learned the comparison says nothing"


def test_the_logged_loss_is_the_mean_over_labelled_tokens(base, micro):
    """First update of the whole set: the loss before any change, for padded rows and for packed blocks."""
    _, log = trained(base, micro, batch=8, micro_batch=4, steps=1)
    assert log[0]["loss"] == pytest.approx(evaluate_loss(base, rows(8), 0), abs=1e-4)


def test_the_logged_loss_of_packed_blocks(base, tokenizer, micro):
    p = micro.but(stage1_tokens=8 * micro.block_tokens, stage1_batch_size=8)
    corpus = open_corpus(p)
    blocks = lambda: stages.packed({"fi": lambda: corpus.monolingual("fi")}, tokenizer, p, 1)  # noqa: E731
    expected = evaluate_loss(base, list(blocks()), 0)
    log = train(base, blocks(), p, "stage1", steps=1, seed=0, pad_token_id=0, label="test")
    assert log[0]["loss"] == pytest.approx(expected, abs=1e-4)


def test_same_seed_same_losses_and_weights(base, micro):
    (a, log_a), (b, log_b), (_, log_c) = (
        trained(base, micro, batch=2, micro_batch=2, steps=6, seed=seed) for seed in (1, 1, 2)
    )
    assert [row["loss"] for row in log_a] == [row["loss"] for row in log_b]
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert [row["loss"] for row in log_a] != [row["loss"] for row in log_c], "the seed decides the order"


def test_the_loss_falls(base, micro):
    before = evaluate_loss(base, rows(8), 0)
    model, log = trained(base, micro, batch=8, micro_batch=8, steps=25)
    assert evaluate_loss(model, rows(8), 0) < 0.8 * before
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["step"] == 25
    assert log[-1]["seconds"] > 0


def test_evaluate_loss_is_the_mean_over_tokens_not_batches(base):
    """Against one cross-entropy a row, summed by hand; batches of unequal size and length."""
    total = count = 0.0
    with torch.no_grad():
        for row in rows(7):
            ids, labels = (torch.tensor([row[key]]) for key in ("input_ids", "labels"))
            loss = cross_entropy(base(ids).logits[0, :-1], labels[0, 1:], ignore_index=IGNORE, reduction="sum")
            total, count = total + loss.item(), count + int((labels[0, 1:] != IGNORE).sum())
    base.train()
    assert evaluate_loss(base, rows(7), 0, batch_size=3) == pytest.approx(total / count, rel=1e-5)
    assert base.training, "the mode comes back as it was"


def test_arguments_are_the_profiles(micro):
    p = micro.but(
        stage2_batch_size=64, micro_batch=16, stage2_learning_rate=0.5, stage2_schedule="linear", clip_norm=2.0
    )
    args = training_arguments(p, "stage2", steps=1000, seed=7)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (16, 4)
    assert (args.learning_rate, args.lr_scheduler_type, args.max_steps, args.seed) == (0.5, "linear", 1000, 7)
    assert (args.warmup_steps, args.max_grad_norm, args.adam_beta2) == (50, 2.0, 0.98)
    with pytest.raises(ValueError, match="stage2_batch_size=20 is no multiple of micro_batch=16"):
        training_arguments(p.but(stage2_batch_size=20), "stage2", steps=1, seed=0)


def test_batches_hold_rows_of_like_length(base, micro):
    many = rows(640)
    trainer = StageTrainer(
        model=base,
        args=training_arguments(micro, "stage4", steps=1, seed=0),
        train_dataset=many,
        data_collator=PadCollator(0),
    )
    sizes = [(b["attention_mask"].sum().item(), b["input_ids"].numel()) for b in trainer.get_train_dataloader()]
    assert sum(used for used, _ in sizes) == sum(len(row["input_ids"]) for row in many)
    assert sum(used for used, _ in sizes) / sum(room for _, room in sizes) > 0.8  # shuffled it is 0.62


def test_a_diverging_run_stops_with_advice(base, micro):
    with torch.no_grad():
        next(base.parameters()).fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="the loss is not a number; lower stage4_learning_rate"):
        trained(base, micro, batch=8, micro_batch=8, steps=2)
