"""The loop against transformers' own loss, against itself with the batch in parts, and against chance."""

from __future__ import annotations

import copy
import shutil
from itertools import islice

import pytest
import torch
from smooth import SMOOTH, assert_same_gradients, assert_same_training, difference, largest, trained_weights
from torch.nn.functional import cross_entropy

from xalma.corpora.registry import open_corpus
from xalma.data.batches import RowBatches, sizes
from xalma.data.collate import IGNORE, IsolatedDocuments, PadCollator
from xalma.models.adapters import attach_adapter
from xalma.models.losses import answer_nats, evaluate_loss, labelled_loss
from xalma.training import stages
from xalma.training.objectives import Labelled
from xalma.training.trainer import TrainingRun, train


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
    model = attach_adapter(base, 6, rank=4, alpha=8, dropout=0.0) if adapter else base
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
    assert labelled_loss(base, batch, 2 * n).item() == pytest.approx(
        labelled_loss(base, batch).item() / 2, rel=1e-6
    )


def test_bfloat16_is_near_float32(base):
    batch = PadCollator(0)(rows())
    mixed = labelled_loss(base, batch, bf16=True)
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(labelled_loss(base, batch).item(), rel=0.02)
    assert mixed.item() != labelled_loss(base, batch).item()


def trained(
    base, micro, *, batch: int, micro_batch: int, steps: int = 3, seed: int = 0, compiled=False, data=None
):
    model = copy.deepcopy(base)
    p = micro.but(
        stage4_batch_size=batch,
        micro_batch=micro_batch,
        stage4_schedule="constant",
        warmup_ratio=0.0,
        torch_compile=compiled,
    )
    log = train(model, data or rows(8), p, p.stage(4), steps=steps, seed=seed, pad_token_id=0, label="test")
    return model, log


def test_accumulating_in_parts_is_one_batch(base, micro, handed_over):
    """Eight rows at once or one at a time: the mean is over all their tokens, not over means."""
    _, log = trained(base, micro, batch=8, micro_batch=8, steps=1)
    _, log_parts = trained(base, micro, batch=8, micro_batch=1, steps=1)
    assert [row["loss"] for row in log_parts] == pytest.approx([row["loss"] for row in log], abs=1e-3)
    whole, parts = handed_over
    assert_same_gradients(whole, parts)
    for row in rows(8):
        trained(base, micro, batch=1, micro_batch=1, steps=1, data=[row])
    means = {name: torch.stack([found[name] for found in handed_over[2:]]).mean(0) for name in whole}
    assert difference(whole, means) > 0.01 * largest(whole), "the test must see a mean of means"


def test_training_in_parts_goes_on_as_it_began(base, micro):
    """The same over three updates: optimizer and schedule count batches, not parts."""
    whole, _ = trained(base, micro.but(**SMOOTH), batch=8, micro_batch=8)
    parts, _ = trained(base, micro.but(**SMOOTH), batch=8, micro_batch=1)
    assert_same_training(*(trained_weights(model) for model in (whole, parts, base)))


def test_the_logged_loss_is_the_mean_over_labelled_tokens(base, micro):
    """First update of the whole set: the loss before any change, for padded rows and for packed blocks."""
    _, log = trained(base, micro, batch=8, micro_batch=4, steps=1)
    assert log[0]["loss"] == pytest.approx(evaluate_loss(base, rows(8), 0), abs=1e-4)


def test_the_logged_loss_of_packed_blocks(base, tokenizer, micro):
    p = micro.but(stage1_tokens=8 * micro.block_tokens, stage1_batch_size=8)
    corpus = open_corpus(p)
    blocks = lambda: stages.packed({"fi": lambda: corpus.monolingual("fi")}, tokenizer, p, 1)  # noqa: E731
    expected = evaluate_loss(base, list(blocks()), 0)
    log = train(base, blocks(), p, p.stage(1), steps=1, seed=0, pad_token_id=0, label="test")
    assert log[0]["loss"] == pytest.approx(expected, abs=1e-4)


def test_same_seed_same_losses_and_weights(base, micro):
    (a, log_a), (b, log_b), (_, log_c) = (
        trained(base, micro, batch=2, micro_batch=2, steps=6, seed=seed) for seed in (1, 1, 2)
    )
    assert [row["loss"] for row in log_a] == [row["loss"] for row in log_b]
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert [row["loss"] for row in log_a] != [row["loss"] for row in log_c], "the seed decides the order"


@pytest.mark.long
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch compiles for a CPU with a C++ compiler: g++ is not here"
)
def test_compiled_layers_are_the_same_training(base, micro):
    """To rounding; twice compiled, to the last bit; and afterwards the model is as it was before, not compiled."""
    p = micro.but(**SMOOTH)
    plain, log = trained(base, p, batch=4, micro_batch=2, steps=8)
    (once, log_once), (again, log_again) = (
        trained(base, p, batch=4, micro_batch=2, steps=8, compiled=True) for _ in range(2)
    )
    assert [row["loss"] for row in log_once] == pytest.approx([row["loss"] for row in log], abs=1e-3)
    assert [row["loss"] for row in log_once] == [row["loss"] for row in log_again]
    assert_same_training(*(trained_weights(model) for model in (plain, once, base)))
    assert all(torch.equal(x, y) for x, y in zip(once.parameters(), again.parameters(), strict=True))
    assert all(layer._compiled_call_impl is None for layer in once.base_model.layers)


def test_the_loss_falls(base, micro):
    before = evaluate_loss(base, rows(8), 0)
    model, log = trained(base, micro, batch=8, micro_batch=8, steps=25)
    assert evaluate_loss(model, rows(8), 0) < 0.8 * before
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["step"] == 25
    assert log[-1]["seconds"] > 0


@torch.no_grad()
def summed_by_hand(model, row: dict) -> float:
    ids, labels = (torch.tensor([row[key]]) for key in ("input_ids", "labels"))
    return cross_entropy(
        model(ids).logits[0, :-1], labels[0, 1:], ignore_index=IGNORE, reduction="sum"
    ).item()


def test_what_an_answer_costs_is_its_rows_own_sum(base):
    """Rows of unequal length, in the order given, whatever they are batched with."""
    assert answer_nats(base, rows(7), 0, batch_size=3) == pytest.approx(
        [summed_by_hand(base, r) for r in rows(7)]
    )


def test_evaluate_loss_is_the_mean_over_tokens_not_batches(base):
    """Against one cross-entropy a row, summed by hand; batches of unequal size and length."""
    total = sum(summed_by_hand(base, row) for row in rows(7))
    count = sum(label != IGNORE for row in rows(7) for label in row["labels"][1:])
    base.train()
    assert evaluate_loss(base, rows(7), 0, batch_size=3) == pytest.approx(total / count, rel=1e-5)
    assert base.training, "the mode comes back as it was"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage2_batch_size": 20}, "stage2_batch_size=20 is no multiple of micro_batch=16"),
        (
            {"stage2_batch_size": 16},
            "which 2 processes can't share evenly: set micro_batch to a divisor of 8",
        ),
    ],
)
def test_a_batch_that_can_not_be_shared_is_one_sentence(micro, changes, message):
    assert sizes(micro.but(stage2_batch_size=64).stage(2), 2) == (64, 16)
    with pytest.raises(ValueError, match=message):
        sizes(micro.but(**changes).stage(2), 2)


def test_the_optimizer_is_the_profiles(base, micro):
    """Rates at given updates against the schedule's formula; vectors do not decay."""
    p = micro.but(
        stage2_learning_rate=0.5, stage2_schedule="linear", warmup_ratio=0.2, weight_decay=0.3, threads=1
    )
    run = TrainingRun(base, p, p.stage(2), 10, Labelled())
    decayed, free = run.optimizer.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert {x.ndim for x in decayed["params"]} == {2} and {x.ndim for x in free["params"]} == {1}
    assert decayed["betas"] == (0.9, micro.adam_beta2)
    rates = []
    for _ in range(10):
        rates.append(run.schedule.get_last_lr()[0])
        run.optimizer.step()
        run.schedule.step()
    assert rates == pytest.approx([0.0, 0.25, *(0.5 * (10 - i) / 8 for i in range(2, 10))])


def test_batches_hold_rows_of_like_length(micro):
    many = rows(640)
    stream = islice(RowBatches(many, 16, 0, PadCollator(0)), 40)
    found = [(b["attention_mask"].sum().item(), b["input_ids"].numel()) for b in stream]
    assert sum(used for used, _ in found) == sum(len(row["input_ids"]) for row in many)
    assert sum(used for used, _ in found) / sum(room for _, room in found) > 0.8  # shuffled it is 0.62


@pytest.mark.parametrize("logits", [600, 5 * 600, 2**27])
def test_logits_in_chunks_are_the_same_loss_and_gradients(base, monkeypatch, logits):
    batch = PadCollator(0)(rows())
    whole = labelled_loss(base, batch)
    expected = gradients(base, whole)
    monkeypatch.setattr("xalma.models.losses.LOGITS", logits)
    parts = labelled_loss(base, batch)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-6)
    for name, found in gradients(base, parts).items():
        torch.testing.assert_close(found, expected[name], atol=1e-6, rtol=1e-4)


def test_recomputed_activations_change_nothing(base, micro):
    plain, log = trained(base, micro, batch=8, micro_batch=4)
    again, log_again = trained(base, micro.but(gradient_checkpointing=True), batch=8, micro_batch=4)
    assert [row["loss"] for row in log] == [row["loss"] for row in log_again]
    assert all(torch.equal(x, y) for x, y in zip(plain.parameters(), again.parameters(), strict=True))


DOCUMENTS = [[5, 6, 7, 8, 9], [20, 21], [33, 34, 35, 36, 37, 38]]


def packed_documents(documents):
    """One block of whole documents, BOS 1 and EOS 2 around each, as IsolatedDocuments collates it."""
    ids = torch.tensor([i for document in documents for i in (1, *document, 2)])
    return IsolatedDocuments(1, 2)([{"input_ids": ids, "labels": ids.clone()}])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_documents_in_a_block_have_the_losses_they_have_alone(base, attention):
    base.set_attn_implementation(attention)
    packed = packed_documents(DOCUMENTS)
    n = sum(len(document) + 1 for document in DOCUMENTS)
    assert int((packed["labels"][:, 1:] != IGNORE).sum()) == n, "every token but each document's first"
    alone = [packed_documents([document]) for document in DOCUMENTS]
    total = sum(labelled_loss(base, batch, 1).item() for batch in alone)
    assert labelled_loss(base, packed).item() == pytest.approx(total / n, abs=1e-5)
    crossing = {key: value for key, value in packed.items() if key != "position_ids"}
    assert abs(labelled_loss(base, crossing).item() - total / n) > 1e-4, "the test must see what crosses"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_changed_document_changes_no_other_loss_at_all(base, attention, changed):
    base.set_attn_implementation(attention)
    other = [[41 + i for i in range(len(d))] if k == changed else d for k, d in enumerate(DOCUMENTS)]
    ends = [sum(len(d) + 2 for d in DOCUMENTS[: k + 1]) for k in range(3)]
    for k, document in enumerate(DOCUMENTS):
        losses = []
        for documents in (DOCUMENTS, other):
            batch = packed_documents(documents)
            only = torch.full_like(batch["labels"], IGNORE)
            place = slice(ends[k] - len(document) - 1, ends[k])
            only[:, place] = batch["labels"][:, place]
            losses.append(labelled_loss(base, {**batch, "labels": only}).item())
        assert (losses[0] != losses[1]) == (k == changed)


def test_a_stage_can_isolate_its_documents(base, tokenizer, micro, tmp_path):
    p = micro.but(stage1_tokens=8 * micro.block_tokens, stage1_batch_size=8, isolate_documents=True)
    corpus = open_corpus(p)
    blocks = stages.packed({"fi": lambda: corpus.monolingual("fi")}, tokenizer, p, 1)
    rows_ = [{key: row[key] for key in ("input_ids", "labels")} for row in blocks]
    expected = labelled_loss(
        base, IsolatedDocuments(tokenizer.bos_token_id, tokenizer.eos_token_id)(rows_)
    ).item()
    blocks = stages.packed({"fi": lambda: corpus.monolingual("fi")}, tokenizer, p, 1)
    log = stages.train_blocks(base, blocks, tokenizer, p, 1, "test", tmp_path)["log"]
    assert log[0]["loss"] == pytest.approx(expected, abs=1e-4)


def test_a_diverging_run_stops_with_advice(base, micro):
    with torch.no_grad():
        next(base.parameters()).fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="the loss is not a number; lower stage4_learning_rate"):
        trained(base, micro, batch=8, micro_batch=8, steps=2)
