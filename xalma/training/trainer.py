"""The training loop of all stages: the same updates on one device or on many, and resumable after any of them.

An update is a batch of `<stage>_batch_size` sequences or pairs in micro-batches, its loss a mean over the whole of it
(`objectives`); processes take the micro-batches in turn: losses and weights do not depend on how many there are.
The loop is ours, not transformers' Trainer: that one draws the order of later epochs anew after a resume, skips data
by reading it, loses the losses since the last log, and calls the model so that logits are made where there is no
label (in SFT two thirds of the positions). Optimizer, schedule, sharding and storage are torch's and transformers'.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, get_scheduler

from xalma.data.batches import sizes, stream_of
from xalma.models.fp8 import fp8_base
from xalma.models.losses import plain_model
from xalma.profiles import Profile, StageSettings
from xalma.runtime import device, mixed_precision, seed_everything
from xalma.training.checkpoints import Checkpoints
from xalma.training.distributed import (
    accumulating,
    collect,
    distribute,
    mean,
    rank,
    sharded,
    world_size,
)
from xalma.training.monitor import Meter, view
from xalma.training.objectives import Labelled, Objective
from xalma.training.plan import flops_per_token


class Worker(torch.nn.Module):
    """What a process runs: batch in, (1 + M,) loss and sums to be logged out, so that DDP and FSDP2 see one forward."""

    def __init__(self, model: torch.nn.Module, objective: Objective, bf16: bool) -> None:
        super().__init__()
        self.model, self.objective, self.bf16 = model, objective, bf16

    def forward(self, batch: dict[str, torch.Tensor], counts: torch.Tensor) -> torch.Tensor:
        loss, sums = self.objective.loss(self.model, batch, counts, self.bf16)
        return torch.cat([loss[None], sums])


def train(
    model: PreTrainedModel,
    rows: Any,
    p: Profile,
    stage: StageSettings,
    *,
    steps: int,
    seed: int,
    pad_token_id: int,
    label: str,
    checkpoints: Path | None = None,
    borders: tuple[int, int] | None = None,
    objective: Objective | None = None,
    probe: Sequence[dict[str, Any]] = (),
) -> list[dict[str, Any]] | None:
    """Train `model`'s trainable parameters in place for `steps` updates; returns the log, one dict per logged step.
    Of several processes only the first has the trained weights and the log: the others get None.

    stage: `p.stage(number)`; p: how it runs on this machine.
    rows: a list of tokenised rows (grouped by length) or pairs, or a stream of packed blocks, taken as it comes.
    borders: BOS and EOS, if documents in a block must not see each other.
    checkpoints: a folder for the state in between, every `checkpoint_steps` updates; what it holds is gone on from.
    objective: None is `Labelled`, cross-entropy. probe: rows whose measures are logged, as {"kind": "probe", …}, before
    training and eight times during it.
    Raises FloatingPointError if the loss stops being a number.
    """
    batch_size, micro = sizes(stage, world_size())
    if p.threads:
        torch.set_num_threads(p.threads)
    seed_everything(seed + rank())  # each process drops out units of its own
    run = TrainingRun(model, p, stage, steps, objective or Labelled(borders))
    in_fp8 = fp8_base(run.trained, p.base_precision == "fp8")
    with settings(run.trained, p), in_fp8, dropout(run.trained, run.objective.dropout):
        collate = run.objective.collator(run.trained, pad_token_id)
        stream = stream_of(rows, micro, seed, collate)
        fixed = [collate(probe[start : start + micro]) for start in range(0, len(probe), micro)]
        kept = Checkpoints(checkpoints, p.checkpoint_steps) if checkpoints else None
        if not _went_on(run, stream, kept):
            run.log_probe(fixed)
        started = time.perf_counter() - run.seconds
        taken = iter(stream)
        with Meter(label, steps, run.step, p, run.flops(), checkpoints) as meter, _watched(p):
            while run.step < steps:
                parts = list(islice(taken, batch_size // micro))
                row = run.update(parts)
                run.log_probe(fixed)
                if row:
                    run.log.append(_checked(row, label, stage))
                meter.step(sum(n_read(part) for part in parts), run.recent_loss)
                if row:
                    meter.log(row)
                if kept and kept.due(run.step) and run.step < steps:
                    _checked({"loss": mean(run.window)[0].item()}, label, stage)
                    run.seconds = time.perf_counter() - started
                    kept.save(run.step, run.tensors_state(), run.state_dict() | {"data": stream.state_dict()})
    collect(run.trained, model)
    if rank():
        return None
    run.log[-1]["seconds"] = time.perf_counter() - started
    return run.log


def _watched(p: Profile) -> AbstractContextManager:
    """The live view; the first process speaks for all."""
    return nullcontext() if rank() else view(p)


def _went_on(run: TrainingRun, stream: Any, kept: Checkpoints | None) -> bool:
    """Take up the newest state that an earlier run kept; False where there is none."""
    if not kept or not (folder := kept.newest()):
        return False
    state = kept.load(folder, run.tensors_state())
    run.load_state_dict(state)
    stream.load_state_dict(state["data"])
    return True


class TrainingRun:
    """Model, optimizer, schedule and log of one training, and all of their state."""

    def __init__(
        self, model: PreTrainedModel, p: Profile, stage: StageSettings, steps: int, objective: Objective
    ) -> None:
        self.p, self.stage, self.objective, self.steps = p, stage, objective, steps
        self.every = max(1, steps // 50)
        self.worker, self.trained = self.wrap(Worker(model, objective, mixed_precision(p.mixed_precision)))
        self.worker.train()
        named = [(name, x) for name, x in self.trained.named_parameters() if x.requires_grad]
        groups = [  # norms and biases, the vectors, do not decay
            {"params": [x for _, x in named if x.ndim > 1], "weight_decay": stage.weight_decay},
            {"params": [x for _, x in named if x.ndim <= 1], "weight_decay": 0.0},
        ]
        self.names = {x: name for name, x in named}
        groups = [group for group in groups if group["params"]]  # a module has no vectors
        self.optimizer = torch.optim.AdamW(
            groups, stage.learning_rate, betas=(0.9, stage.adam_beta2), eps=1e-8, fused=True
        )
        self.schedule = get_scheduler(
            stage.schedule, self.optimizer, math.ceil(stage.warmup_ratio * steps), steps
        )
        self.step, self.n_window, self.seconds = 0, 0, 0.0
        # loss and sums since the last logged step, (1 + M,) after one
        self.window = torch.zeros(1, device=device())
        self.log: list[dict[str, Any]] = []

    def wrap(self, worker: Worker) -> tuple[torch.nn.Module, torch.nn.Module]:
        """(worker on this process's device, sharded or replicated; what to save and optimise of it)."""
        shard = sharded(worker.model, self.p)
        return distribute(worker, lambda m: plain_model(m).get_decoder().layers, shard, worker.bf16)

    def update(self, parts: Sequence[dict[str, torch.Tensor]]) -> dict[str, float]:
        """One update on a whole batch, of which this process takes its share; returns the log's row if one is due."""
        counts = self._counts(parts)
        mine = parts[rank() :: world_size()]
        for i, part in enumerate(mine):
            with accumulating(self.worker, last=i == len(mine) - 1):
                # gradients are averaged over processes, as is the window: what is wanted is the sum over all parts
                sums = self.worker(to_device(part), counts) * world_size()
                sums[0].backward()
            self.window = self.window + sums.detach()
        norm = self.apply()
        rate = self.schedule.get_last_lr()[0]
        self.schedule.step()
        self.step, self.n_window = self.step + 1, self.n_window + 1
        if self.step % self.every:
            return {}
        window = mean(self.window).cpu()
        n = self.n_window
        self.window = torch.zeros_like(self.window)
        self.n_window = 0
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        loss = round(window[0].item() / n, 4)
        row = {"step": self.step, "loss": loss, "learning_rate": rate, "grad_norm": norm.item()}
        return row | self.objective.measures(window[1:])

    @torch.no_grad()
    def log_probe(self, fixed: Sequence[dict[str, torch.Tensor]]) -> None:
        """Log the measures of fixed batches, if it is time to; every process computes them all."""
        if fixed and (self.step % max(1, self.steps // 8) == 0 or self.step == self.steps):
            counts = self._counts(fixed)
            sums = sum(self.worker(to_device(part), counts)[1:] for part in fixed)
            # FSDP2 leaves its root whole until the backward pass, and here is none
            if hasattr(self.worker, "reshard"):
                self.worker.reshard()
            self.log.append({"kind": "probe", "step": self.step} | self.objective.measures(sums.cpu()))

    def _counts(self, parts: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
        """(K,) what the terms of the loss are divided by. Integers: FSDP2 would round others to bfloat16."""
        return sum(self.objective.counts(part) for part in parts).to(device())

    def apply(self) -> torch.Tensor:
        """Change the weights by the gradients, clipped; returns the norm they had."""
        norm = torch.nn.utils.clip_grad_norm_(self.names, self.stage.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def recent_loss(self) -> float:
        """Mean loss of this process since the last logged step, or that step's."""
        return self.window[0].item() / self.n_window if self.n_window else self.log[-1]["loss"]

    def tensors_state(self) -> dict[str, torch.Tensor]:
        """What is trained and AdamW's two moments and step of it, by name: the tensors themselves, not copies."""
        tensors = {}
        for x, name in self.names.items():
            slots = self.optimizer.state[x]
            if not slots:  # before its first step AdamW has none
                slots |= {"step": torch.zeros((), device=x.device)}
                slots |= {key: torch.zeros_like(x) for key in ("exp_avg", "exp_avg_sq")}
            tensors |= {f"weight.{name}": x.detach()} | {
                f"{key}.{name}": value for key, value in slots.items()
            }
        return tensors

    def state_dict(self) -> dict[str, Any]:
        """The state that is not in tensors; `window` is this process's own, which only the mean is logged of."""
        schedule = {key: self.schedule.state_dict()[key] for key in ("last_epoch", "_step_count", "_last_lr")}
        return {
            "step": self.step,
            "window": mean(self.window).tolist(),
            "n_window": self.n_window,
            "log": self.log,
            "seconds": self.seconds,
            "schedule": schedule,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of `state_dict`, with the tensors already filled."""
        self.step, self.n_window, self.log = state["step"], state["n_window"], state["log"]
        self.seconds = state["seconds"]
        self.window = torch.tensor(state["window"], device=device())
        self.schedule.load_state_dict(self.schedule.state_dict() | state["schedule"])
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate

    def flops(self) -> float:
        """Operations a trained token costs."""
        config = plain_model(self.trained).config
        n_trained = sum(x.numel() for x in self.names)
        n = sum(x.numel() for x in self.trained.parameters())
        return flops_per_token(
            n, n_trained, config.num_hidden_layers, config.hidden_size, self.p.block_tokens
        )


@contextmanager
def settings(model: torch.nn.Module, p: Profile) -> Iterator[None]:
    """Inside, the profile's choices of speed and memory, none of which changes what is computed but for rounding."""
    plain = plain_model(model)
    before = plain.config._attn_implementation
    precision = torch.get_float32_matmul_precision()
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32 for what is not bfloat16
    if p.attention != "auto":
        plain.set_attn_implementation(p.attention)
    if p.gradient_checkpointing:
        plain.gradient_checkpointing_enable({"use_reentrant": False})
    if p.torch_compile:  # layer by layer: all are one program, and the loss's changing shapes stay outside
        for layer in plain.get_decoder().layers:
            layer.compile()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        if p.attention != "auto":
            plain.set_attn_implementation(before)
        if p.gradient_checkpointing:
            plain.gradient_checkpointing_disable()
        for layer in plain.get_decoder().layers if p.torch_compile else ():
            layer._compiled_call_impl = None  # torch has no public way back


@contextmanager
def dropout(model: torch.nn.Module, on: bool) -> Iterator[None]:
    """Inside, no unit is dropped unless `on`; not by `eval`, which would switch off gradient checkpointing too."""
    before = [] if on else [(m, m.p) for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    for module, _ in before:
        module.p = 0.0
    try:
        yield
    finally:
        for module, share in before:
            module.p = share


def n_read(batch: dict[str, torch.Tensor]) -> int:
    """Tokens of a batch, padding aside."""
    if "pair" in batch:
        return int((batch["pair"] >= 0).sum())
    return int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()


def to_device(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.to(device()) for key, value in batch.items()}


def _checked(row: dict[str, float], label: str, stage: StageSettings) -> dict[str, float]:
    if not math.isfinite(row["loss"]):
        field = f"stage{stage.number}_learning_rate"
        raise FloatingPointError(
            f"{label}: the loss is not a number; lower {field}, now {stage.learning_rate}"
        )
    return row
