"""The training loop of stages 1 to 4: the same updates on one device or on many, and resumable after any of them.

An update is a batch of `<stage>_batch_size` sequences in micro-batches, its loss the mean over all their labelled
tokens; processes take the micro-batches in turn, so that losses and weights do not depend on how many there are.
The loop is ours, not transformers' Trainer: that one draws the order of later epochs anew after a resume, skips data
by reading it, loses the losses since the last log, and calls the model so that logits are made where there is no
label (in SFT two thirds of the positions). Optimizer, schedule, sharding and storage are torch's and transformers'.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, get_scheduler

from xalma.batches import sizes, stream_of
from xalma.checkpoints import Checkpoints
from xalma.collate import IGNORE
from xalma.losses import labelled_loss, plain_model
from xalma.meter import Meter
from xalma.parallel import Follower, accumulating, by_deepspeed, collect, distribute, mean, rank, sharded, world_size
from xalma.plan import flops_per_token
from xalma.profiles import Profile
from xalma.runtime import device, mixed_precision, seed_everything


class Worker(torch.nn.Module):
    """What a process runs: batch in, loss out, so that DDP and FSDP2 see one forward."""

    def __init__(self, model: torch.nn.Module, bf16: bool) -> None:
        super().__init__()
        self.model, self.bf16 = model, bf16

    def forward(self, batch: dict[str, torch.Tensor], n_tokens: Any) -> torch.Tensor:
        return labelled_loss(self.model, batch, n_tokens, self.bf16)


def train(
    model: PreTrainedModel, rows: Any, p: Profile, stage: str, *, steps: int, seed: int, pad_token_id: int, label: str,
    checkpoints: Path | None = None, borders: tuple[int, int] | None = None,
) -> list[dict[str, float]]:  # fmt: skip
    """Train `model`'s trainable parameters in place for `steps` updates; returns the log, one dict a logged step.

    rows: a list of {"input_ids", "labels"} (padded, grouped by length) or a stream of packed blocks, taken as it comes.
    borders: BOS and EOS, if documents in a block must not see each other.
    checkpoints: a folder for the state in between, every `checkpoint_steps` updates; what it holds is gone on from.
    Raises FloatingPointError if the loss stops being a number; `Follower` in all processes but the first.
    """
    batch_size, micro = sizes(p, stage, world_size())
    if p.threads:
        torch.set_num_threads(p.threads)
    seed_everything(seed + rank())  # each process drops out units of its own
    stream = stream_of(rows, micro, seed, pad_token_id, borders)
    run = make_run(model, p, stage, steps)
    kept = Checkpoints(checkpoints, p.checkpoint_steps) if checkpoints else None
    if kept and (folder := kept.newest()):
        facts = kept.load(folder, run.tensors())
        run.go_on(facts)
        stream.load_state_dict(facts["data"])
    earlier, started = run.seconds, time.perf_counter()
    taken = iter(stream)
    with Meter(label, steps, run.step, p, run.flops(), checkpoints) as meter, settings(run.trained, p):
        while run.step < steps:
            parts = list(islice(taken, batch_size // micro))
            row = run.update(parts)
            if row:
                run.log.append(_checked(row, label, p, stage))
            meter.step(sum(n_read(part) for part in parts), run.recent_loss)
            if row:
                meter.log(row)
            if kept and kept.due(run.step) and run.step < steps:
                _checked({"loss": mean(run.window).item()}, label, p, stage)
                run.seconds = earlier + time.perf_counter() - started
                kept.save(run.step, run.tensors(), run.facts() | {"data": stream.state_dict()})
    run.finish(model)
    run.log[-1]["seconds"] = earlier + time.perf_counter() - started
    return run.log


class Run:
    """Model, optimizer, schedule and log of one training, and all of their state."""

    def __init__(self, model: PreTrainedModel, p: Profile, stage: str, steps: int) -> None:
        self.p, self.every = p, max(1, steps // 50)
        self.worker, self.trained = self.spread(Worker(model, mixed_precision(p.mixed_precision)))
        self.worker.train()
        named = [(name, x) for name, x in self.trained.named_parameters() if x.requires_grad]
        groups = [  # norms and biases, the vectors, do not decay
            {"params": [x for _, x in named if x.ndim > 1], "weight_decay": p.weight_decay},
            {"params": [x for _, x in named if x.ndim <= 1], "weight_decay": 0.0},
        ]
        self.names = {x: name for name, x in named}
        rate = getattr(p, f"{stage}_learning_rate")
        groups = [group for group in groups if group["params"]]  # a module has no vectors
        self.optimizer = torch.optim.AdamW(groups, rate, betas=(0.9, p.adam_beta2), eps=1e-8, fused=True)
        self.schedule = get_scheduler(
            getattr(p, f"{stage}_schedule"), self.optimizer, math.ceil(p.warmup_ratio * steps), steps
        )
        self.step, self.n_window, self.seconds = 0, 0, 0.0
        self.window = torch.zeros((), device=device())  # summed loss since the last logged step
        self.log: list[dict[str, float]] = []

    def spread(self, worker: Worker) -> tuple[torch.nn.Module, torch.nn.Module]:
        """(worker on this process's device, sharded or replicated; what to save and optimise of it)."""
        shard = sharded(worker.model, self.p)
        return distribute(worker, lambda m: plain_model(m).base_model.layers, shard, worker.bf16)

    def update(self, parts: Sequence[dict[str, torch.Tensor]]) -> dict[str, float]:
        """One update on a whole batch, of which this process takes its share; returns the log's row if one is due."""
        # gradients are averaged over processes, the loss is a mean over the tokens of all
        n_tokens = sum((part["labels"][:, 1:] != IGNORE).sum() for part in parts).to(device()) / world_size()
        mine = parts[rank() :: world_size()]
        for i, part in enumerate(mine):
            with accumulating(self.worker, last=i == len(mine) - 1):
                loss = self.worker({key: value.to(device()) for key, value in part.items()}, n_tokens)
                loss.backward()
            self.window = self.window + loss.detach()
        norm, rate = self.apply(), self.schedule.get_last_lr()[0]
        self.schedule.step()
        self.step, self.n_window = self.step + 1, self.n_window + 1
        if self.step % self.every:
            return {}
        loss = mean(self.window).item() / self.n_window
        self.window, self.n_window = torch.zeros_like(self.window), 0
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        return {"step": self.step, "loss": round(loss, 4), "learning_rate": rate, "grad_norm": norm.item()}

    def apply(self) -> torch.Tensor:
        """Change the weights by the gradients, clipped; returns the norm they had."""
        norm = torch.nn.utils.clip_grad_norm_(self.names, self.p.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def recent_loss(self) -> float:
        """Mean loss of this process since the last logged step, or that step's."""
        return self.window.item() / self.n_window if self.n_window else self.log[-1]["loss"] if self.log else math.nan

    def tensors(self) -> dict[str, torch.Tensor]:
        """What is trained and AdamW's two moments and step of it, by name: the tensors themselves, not copies."""
        found = {}
        for x, name in self.names.items():
            slots = self.optimizer.state[x]
            if not slots:  # before its first step AdamW has none
                slots |= {"step": torch.zeros((), device=x.device)}
                slots |= {key: torch.zeros_like(x) for key in ("exp_avg", "exp_avg_sq")}
            found |= {f"weight.{name}": x.detach()} | {f"{key}.{name}": value for key, value in slots.items()}
        return found

    def facts(self) -> dict[str, Any]:
        """The state that is not in tensors; `window` is this process's own sum, which only the mean is logged of."""
        schedule = {key: self.schedule.state_dict()[key] for key in ("last_epoch", "_step_count", "_last_lr")}
        return {"step": self.step, "window": mean(self.window).item(), "n_window": self.n_window, "log": self.log,
                "seconds": self.seconds, "schedule": schedule}  # fmt: skip

    def go_on(self, facts: dict[str, Any]) -> None:
        """Take up the state of `facts`, with `tensors` already filled."""
        self.step, self.n_window, self.log = facts["step"], facts["n_window"], facts["log"]
        self.seconds, self.window = facts["seconds"], self.window + facts["window"]
        self.schedule.load_state_dict(self.schedule.state_dict() | facts["schedule"])
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate

    def flops(self) -> float:
        """Operations a trained token costs."""
        config = plain_model(self.trained).config
        n_trained = sum(x.numel() for x in self.names)
        n = sum(x.numel() for x in self.trained.parameters())
        return flops_per_token(n, n_trained, config.num_hidden_layers, config.hidden_size, self.p.block_tokens)

    def finish(self, model: PreTrainedModel) -> None:
        """Weights of shards back into `model`; raises `Follower` in all processes but the first."""
        collect(self.trained, model)
        if rank():
            raise Follower


def make_run(model: PreTrainedModel, p: Profile, stage: str, steps: int) -> Run:
    """The training, by DeepSpeed where it is asked for."""
    if not by_deepspeed(model, p):
        return Run(model, p, stage, steps)
    from xalma.zero import ZeroRun

    return ZeroRun(model, p, stage, steps)


@contextmanager
def settings(model: torch.nn.Module, p: Profile) -> Iterator[None]:
    """Inside, the profile's choices of speed and memory, none of which changes what is computed but for rounding."""
    plain = plain_model(model)
    before = plain.config._attn_implementation
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32 for what is not bfloat16
    if p.attention != "auto":
        plain.set_attn_implementation(p.attention)
    if p.gradient_checkpointing:
        plain.gradient_checkpointing_enable({"use_reentrant": False})
    if p.torch_compile:  # layer by layer: all are one program, and the loss's changing shapes stay outside
        for layer in plain.base_model.layers:
            layer.compile()
    try:
        yield
    finally:
        if p.attention != "auto":
            plain.set_attn_implementation(before)
        if p.gradient_checkpointing:
            plain.gradient_checkpointing_disable()
        for layer in plain.base_model.layers if p.torch_compile else ():
            layer._compiled_call_impl = None  # torch has no public way back


def n_read(batch: dict[str, torch.Tensor]) -> int:
    """Tokens of a batch, padding aside."""
    return int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()


def _checked(row: dict[str, float], label: str, p: Profile, stage: str) -> dict[str, float]:
    if not math.isfinite(row["loss"]):
        rate = getattr(p, f"{stage}_learning_rate")
        raise FloatingPointError(f"{label}: the loss is not a number; lower {stage}_learning_rate, now {rate}")
    return row
