"""ARPO as a TRL trainer: a drop-in for `CPOTrainer`, for any rows of prompt, chosen and rejected.

The loss is `arpo.arpo_loss`; stage 5 has it in xalma's own loop (`objectives.Arpo`), which can be resumed. TRL's CPO is
experimental and changes from version to version: it is imported here and nowhere else.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from transformers.utils import is_torch_bf16_gpu_available

from xalma.preference.arpo import PRESETS, TAU_EDGES, Z_EDGES, arpo_loss, histogram
from xalma.preference.packed_pairs import PairCollator, layout_for, sequence_logps

with warnings.catch_warnings():
    # We know that TRL's CPO is experimental; other users of trl.experimental should still be told.
    warnings.filterwarnings("ignore", message="You are importing from 'trl.experimental'")
    from trl.experimental.cpo import CPOConfig, CPOTrainer


@dataclass
class ARPOConfig(CPOConfig):
    """TRL's CPO arguments plus ARPO's; TRL's defaults, such as gradient checkpointing, stay, except that of bf16.

    bf16: left out, True on a GPU that has bfloat16 and False elsewhere, where TRL's default stops at once.
    eta, eta_scale, clamp_min, detach_penalty: see `arpo_loss`. nll_weight: weight of the token-mean
    NLL of the chosen answers (TRL's `cpo_alpha`). efficient: packed pairs that share their prefix;
    False is TRL's padded, concatenated forward (same losses, slower).
    Raises: ValueError for CPO options that have no meaning in ARPO.
    """

    eta: float = field(default=1.5, metadata={"help": "Steepness of tau in z."})
    eta_scale: float = field(default=1.0, metadata={"help": "Factor on exp(eta * z)."})
    clamp_min: float | None = field(default=None, metadata={"help": "Lower bound of tau."})
    detach_penalty: bool = field(default=False, metadata={"help": "No gradient through tau."})
    nll_weight: float = field(default=1.0, metadata={"help": "Weight of the NLL of chosen."})
    efficient: bool = field(default=True, metadata={"help": "Packed pairs instead of padding."})

    def __post_init__(self) -> None:
        if self.loss_type != "sigmoid" or self.label_smoothing or self.alpha:
            raise ValueError(
                f"loss_type={self.loss_type!r}, label_smoothing={self.label_smoothing}, "
                f"alpha={self.alpha}: ARPO knows only 'sigmoid', 0 and 0; leave them out."
            )
        if self.cpo_alpha not in (1.0, self.nll_weight):
            raise ValueError(f"cpo_alpha={self.cpo_alpha}: ARPO calls this weight nll_weight.")
        self.cpo_alpha = self.nll_weight
        if self.bf16 is None:
            self.bf16 = not self.fp16 and not self.use_cpu and is_torch_bf16_gpu_available()
        self.remove_unused_columns = False  # the collator needs TRL's token columns
        super().__post_init__()

    @classmethod
    def from_preset(cls, preset: str, **kwargs: Any) -> ARPOConfig:
        """Returns a config with the tau of "paper" or "released-code"; `kwargs` as for `ARPOConfig`, and they win.

        Raises: ValueError for another preset.
        """
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r} of ARPO: use one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[preset], **kwargs})


class ARPOTrainer(CPOTrainer):
    """Drop-in TRL trainer for rows of prompt, chosen, rejected (strings).

    Takes what TRL's `CPOTrainer` takes, with an `ARPOConfig`. A `data_collator` of your own means
    the plain forward and must then give TRL's padded batches.
    An update does not depend on how its batch is accumulated: the terms of the loss are divided by the pairs and the
    chosen tokens of the whole batch, over all its parts and processes.
    `histograms`: for each log of training {"step", "tau", "z"}, counts between TAU_EDGES, Z_EDGES.
    """

    _tag_names: ClassVar = ["trl", "arpo"]
    _name = "ARPO"
    _paper: ClassVar = {
        "title": "X-ALMA: Plug & Play Modules and Adaptive Rejection for Quality Translation at Scale",
        "id": "2410.03115",
    }

    def __init__(self, model: Any = None, args: ARPOConfig | None = None, *more: Any, **kwargs: Any):
        args = ARPOConfig() if args is None else args
        if not isinstance(args, ARPOConfig):
            raise TypeError(f"ARPOTrainer needs an ARPOConfig, got {type(args).__name__}.")
        super().__init__(model, args, *more, **kwargs)
        if self.compute_metrics is not None or self.preprocess_logits_for_metrics is not None:
            raise ValueError(
                "compute_metrics: a pair has no single prediction to measure, leave it out; eval_rewards/accuracies, "
                "eval_avg_logps/margin and the like are logged at each evaluation."
            )
        self.efficient = args.efficient and self.use_dpo_data_collator
        if self.efficient:
            if args.generate_during_eval:
                raise ValueError(
                    "generate_during_eval needs TRL's padded batches: set efficient=False in ARPOConfig."
                )
            self.data_collator = PairCollator(self.pad_token_id, layout_for(self.model))
        self._divisors: torch.Tensor | None = None  # of the update that is being made
        self.histograms: list[dict[str, Any]] = []
        self._counts: dict[str, torch.Tensor] = {}

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list, Any]:
        """The batches of an update, and (2,) the number of its pairs and of its chosen tokens, over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.zeros(2, dtype=torch.long, device=device)
        for batch in batches:
            lengths = self._lengths(batch)[0]
            counts += torch.stack([torch.tensor(len(lengths), device=device), lengths.sum().to(device)])
        return batches, self.accelerator.reduce(counts, reduction="sum")

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """As TRL's; num_items_in_batch: from `get_batch_samples`, None for a batch that is an update of its own."""
        self._divisors = num_items_in_batch
        try:
            return super().compute_loss(model, inputs, return_outputs)
        finally:
            self._divisors = None

    def get_batch_loss_metrics(
        self, model: torch.nn.Module, batch: Mapping[str, Any], train_eval: str = "train"
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Returns the scalar loss and the batch's metrics, these averaged over processes."""
        chosen, rejected, logits, auxiliary = self._forward(model, batch)
        n_chosen, n_rejected = self._lengths(batch)
        args = self.args
        losses, tau, z = arpo_loss(
            chosen,
            rejected,
            n_chosen,
            n_rejected,
            beta=args.beta,
            eta=args.eta,
            eta_scale=args.eta_scale,
            clamp_min=args.clamp_min,
            detach_penalty=args.detach_penalty,
        )
        loss = self._total(losses, chosen, n_chosen) + auxiliary
        nll = -chosen.sum() / n_chosen.sum().clamp(min=1)
        with torch.no_grad():
            chosen_avg = chosen / n_chosen.clamp(min=1)
            rejected_avg = rejected / n_rejected.clamp(min=1)
            metrics = {
                "tau": tau,
                "z": z,
                "avg_logps/chosen": chosen_avg,
                "avg_logps/rejected": rejected_avg,
                "avg_logps/margin": chosen_avg - rejected_avg,
                "avg_logps/accuracy": (chosen_avg > rejected_avg).float(),
                "logps/chosen": chosen,
                "logps/rejected": rejected,
                "rewards/chosen": args.beta * chosen,
                "rewards/rejected": args.beta * rejected,
                "rewards/margins": args.beta * (chosen - rejected),
                "rewards/accuracies": (chosen > rejected).float(),
                "logits/chosen": logits[0],
                "logits/rejected": logits[1],
                "nll_loss": nll,
            }
            if train_eval == "train":
                self._count("tau", tau, TAU_EDGES)
                self._count("z", z, Z_EDGES)
            means = torch.stack([value.detach().float().mean() for value in metrics.values()])
            means = self.accelerator.reduce(means, reduction="mean").tolist()
        prefix = "eval_" if train_eval == "eval" else ""
        return loss, {prefix + name: mean for name, mean in zip(metrics, means, strict=True)}

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict,
        prediction_loss_only: bool,
        ignore_keys: Any = None,
    ) -> tuple[torch.Tensor, None, None]:
        """Returns (loss, None, None): a pair has no single logits tensor to hand to metrics."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            loss, metrics = self.get_batch_loss_metrics(model, inputs, train_eval="eval")
        self.store_metrics(metrics, train_eval="eval")
        return loss.detach(), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs as TRL does, and keeps the histograms of tau and z since the last log."""
        if "loss" in logs and self._counts:
            counts = {
                name: self.accelerator.reduce(count, reduction="sum").tolist()
                for name, count in self._counts.items()
            }
            self.histograms.append({"step": self.state.global_step, **counts})
            self._counts = {}
        super().log(logs, start_time)

    def _forward(
        self, model: torch.nn.Module, batch: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | float]:
        """(chosen sums, rejected sums, each (B,), mean logits of both (2,), the router's loss or 0)."""
        if self.efficient:
            with self.accelerator.autocast():
                chosen, rejected, logits = sequence_logps(model, batch, mean_logits=True)
            return chosen, rejected, logits, 0.0
        found = self.concatenated_forward(model, batch)
        logits = torch.stack([part.detach().float().mean() for part in found[2:4]])
        return *found[:2], logits, self.aux_loss_coef * found[5] if self.aux_loss_enabled else 0.0

    def _lengths(self, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Answer tokens of chosen and of rejected, each (B,)."""
        if "chosen_lengths" in batch:
            return batch["chosen_lengths"], batch["rejected_lengths"]
        first = 0 if self.is_encoder_decoder else 1  # a decoder predicts no first token
        chosen, rejected = (
            (batch[f"{side}_labels"][:, first:] != -100).sum(1) for side in ("chosen", "rejected")
        )
        return chosen, rejected

    def _total(self, losses: torch.Tensor, chosen: torch.Tensor, n_chosen: torch.Tensor) -> torch.Tensor:
        """The batch's part of the loss. Trainer divides it by the parts of an update, and processes by their number."""
        if self._divisors is None:
            return losses.mean() - self.args.nll_weight * chosen.sum() / n_chosen.sum().clamp(min=1)
        n_pairs, n_tokens = self._divisors
        whole = losses.sum() / n_pairs - self.args.nll_weight * chosen.sum() / n_tokens.clamp(min=1)
        return whole * self.current_gradient_accumulation_steps * self.accelerator.num_processes

    def _count(self, name: str, values: torch.Tensor, edges: tuple[float, ...]) -> None:
        counts = histogram(values, edges)
        self._counts[name] = self._counts[name] + counts if name in self._counts else counts
