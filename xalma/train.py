"""The training loop of stages 1 to 4: transformers' Trainer with two changes.

Logits are computed only where there is a label (in SFT about a third of the positions), and progress goes to one bar.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from xalma.collate import IGNORE, PadCollator
from xalma.profiles import Profile
from xalma.runtime import mixed_precision, progress, seed_everything


def labelled_loss(
    model: torch.nn.Module, batch: dict[str, torch.Tensor], n_tokens: Any = None, bf16: bool = False
) -> torch.Tensor:
    """Mean cross-entropy in nats over labelled tokens; equals `model(**batch).loss`, without the other logits.

    batch: input_ids and labels, each (B, T), padded on the right: a causal model needs no mask then, as no token that
    counts sees padding. n_tokens: the divisor when a batch is accumulated in parts; None for this batch's own count.
    bf16: matrix products in bfloat16, the loss in float32.
    """
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    targets = batch["labels"][:, 1:]
    keep = targets != IGNORE
    with torch.autocast(batch["labels"].device.type, dtype=torch.bfloat16, enabled=bf16):
        hidden = plain.base_model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state  # (B, T, D)
        logits = plain.get_output_embeddings()(hidden[:, :-1][keep])  # (labelled, V)
    total = cross_entropy(logits.float(), targets[keep], reduction="sum")
    return total / (keep.sum() if n_tokens is None else n_tokens)


class StageTrainer(Trainer):
    """Trainer with `labelled_loss`, and batches of rows of like length where rows are padded."""

    mixed = False  # bfloat16 matrix products; `labelled_loss` enters autocast itself, Trainer's wraps only `forward`

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # type: ignore[override]
        loss = labelled_loss(model, inputs, num_items_in_batch, self.mixed)
        return (loss, None) if return_outputs else loss

    def _get_train_sampler(self, train_dataset=None):  # type: ignore[override]
        rows = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(row["input_ids"]) for row in rows]
        return LikeLengths(lengths, self.args.per_device_train_batch_size, self.args.seed)


class LikeLengths(torch.utils.data.Sampler):
    """Row indices in a new random order each epoch, in which the rows of a batch are of like length.

    transformers' own length grouping takes the batches of fifty from long to short, which shows as a saw-tooth in the
    loss; here the batches are shuffled again.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size = torch.tensor(lengths), batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self.lengths), generator=self.generator)
        batches: list[torch.Tensor] = []
        for pool in order.split(50 * self.batch_size):
            batches += pool[self.lengths[pool].argsort(stable=True)].split(self.batch_size)
        for i in torch.randperm(len(batches), generator=self.generator).tolist():
            yield from batches[i].tolist()


class _ShowProgress(TrainerCallback):
    def __init__(self, label: str) -> None:
        self.label = label

    def on_train_begin(self, args, state, control, **kwargs):
        self.context = progress(state.max_steps, self.label)
        self.bar = self.context.__enter__()

    def on_step_end(self, args, state, control, **kwargs):
        loss = next((row["loss"] for row in reversed(state.log_history) if "loss" in row), None)
        self.bar.update(1, "" if loss is None else f"loss {loss:.3f}")

    def on_train_end(self, args, state, control, **kwargs):
        self.context.__exit__(None, None, None)


def training_arguments(p: Profile, stage: str, *, steps: int, seed: int, kind: type = TrainingArguments, **more: Any):
    """TrainingArguments (or a TRL config class, as `kind`) with the profile's values of `stage` ("stage1" …)."""
    batch = getattr(p, f"{stage}_batch_size")
    micro = min(batch, p.micro_batch)
    if batch % micro:
        raise ValueError(f"{stage}_batch_size={batch} is no multiple of micro_batch={micro}: change one of the two")
    on_cuda = torch.cuda.is_available()
    return kind(
        output_dir=more.pop("output_dir", tempfile.gettempdir()), max_steps=steps, seed=seed, data_seed=seed,
        per_device_train_batch_size=micro, gradient_accumulation_steps=batch // micro,
        learning_rate=getattr(p, f"{stage}_learning_rate"),
        lr_scheduler_type=getattr(p, f"{stage}_schedule"), warmup_steps=math.ceil(p.warmup_ratio * steps),
        weight_decay=p.weight_decay, max_grad_norm=p.clip_norm, adam_beta2=p.adam_beta2, optim="adamw_torch_fused",
        use_cpu=not on_cuda, logging_steps=max(1, steps // 50),
        logging_nan_inf_filter=False, save_strategy="no", report_to="none", disable_tqdm=True,
        remove_unused_columns=False, dataloader_pin_memory=on_cuda, **more,
    )  # fmt: skip


def train(
    model: PreTrainedModel, rows: Any, p: Profile, stage: str, *, steps: int, seed: int, pad_token_id: int, label: str
) -> list[dict[str, float]]:
    """Train `model`'s trainable parameters in place for `steps` updates; returns the log, one dict a logged step.

    rows: a list of {"input_ids", "labels"} (padded, grouped by length) or PackedBlocks (streamed as they come).
    Raises FloatingPointError if the loss stops being a number.
    """
    if p.threads:
        torch.set_num_threads(p.threads)
    seed_everything(seed)
    logging.getLogger("transformers.trainer").setLevel(logging.ERROR)  # its advice on token ids is settled here
    trainer = StageTrainer(
        model=model, args=training_arguments(p, stage, steps=steps, seed=seed), train_dataset=rows,
        data_collator=PadCollator(pad_token_id), callbacks=[_ShowProgress(label)],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.mixed = mixed_precision(p.mixed_precision)
    started = time.perf_counter()
    trainer.train()
    log = [
        {key: row[key] for key in ("step", "loss", "learning_rate", "grad_norm") if key in row}
        for row in trainer.state.log_history
        if "loss" in row
    ]
    if any(not math.isfinite(row["loss"]) for row in log):
        rate = getattr(p, f"{stage}_learning_rate")
        raise FloatingPointError(f"{label}: the loss is not a number; lower {stage}_learning_rate, now {rate}")
    log[-1]["seconds"] = time.perf_counter() - started
    return log


@torch.inference_mode()
def evaluate_loss(
    model: PreTrainedModel, rows: Sequence[dict[str, Any]], pad_token_id: int, batch_size: int = 64
) -> float:
    """Mean loss in nats a labelled token over all `rows` of {"input_ids", "labels"}."""
    collate, was_training = PadCollator(pad_token_id), model.training
    model.eval()
    total, count = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = {k: v.to(model.device) for k, v in collate(rows[start : start + batch_size]).items()}
        n = int((batch["labels"][:, 1:] != IGNORE).sum())
        total += float(labelled_loss(model, batch)) * n
        count += n
    model.train(was_training)
    return total / count
