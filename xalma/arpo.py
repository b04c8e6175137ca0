"""Adaptive Rejection Preference Optimization (ARPO): the loss, and a TRL trainer for any pairs.

X-ALMA §4. In translation the rejected answer is often nearly as good as the chosen one; pushing it
down with full force also pushes down the chosen style (over-rejection). ARPO weighs the rejected
term by tau, which is small while the two answers are about equally likely:

    L   = mean[-log sigmoid(beta * S_w - tau * beta * S_l)] + nll_weight * NLL(y_w)
    tau = min(exp(eta * z) - 1, 1),   z = | S_w / |y_w| - S_l / |y_l| |,   eta = 1.5

S: summed answer log-probability (end-of-sequence token included). NLL: mean over all chosen answer
tokens of the batch, so it is about 1/length weaker than -S_w. No reference model.

Choices where paper and released code differ:
- eta and eta_scale: the paper's 1.5 and 1.0 are the default. The released code computes
  0.9 * exp(0.4 * z) - 1, i.e. eta 0.4, eta_scale 0.9, which is -0.1 at z = 0 (the rejected answer
  is then rewarded) and saturates at z = 1.996 instead of 0.462: `ARPOConfig.from_preset("released-code")`.
- The gradient flows through tau, as in the released code (the paper's readable part does not say);
  `detach_penalty=True` stops it. This matters: S_l is negative, so the loss falls as tau grows, and
  the gradient through tau drives z up whichever of the two answers is ahead.
- `clamp_min` bounds tau from below; neither paper nor code has such a bound.
- `clamp_min=1` fixes tau at 1, which is CPO; `eta=0` fixes tau at 0: SFT plus the chosen term.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from xalma.pairs import PairCollator, layout_for, sequence_logps

with warnings.catch_warnings():
    # We know that TRL's CPO is experimental; other users of trl.experimental should still be told.
    warnings.filterwarnings("ignore", message="You are importing from 'trl.experimental'")
    from trl.experimental.cpo import CPOConfig, CPOTrainer

PRESETS: dict[str, dict[str, float]] = {
    "paper": {"eta": 1.5, "eta_scale": 1.0},  # X-ALMA §5.3; fe1ixxu/ALMA issue 82
    "released-code": {"eta": 0.4, "eta_scale": 0.9},  # fe1ixxu/ALMA utils/cpo_config.py
}
# Histogram edges of tau and z; values outside count in the first or last bin.
TAU_EDGES = tuple(round(-0.10 + 0.05 * i, 2) for i in range(23))  # -0.10 ... 1.00
Z_EDGES = tuple(round(0.05 * i, 2) for i in range(41))  # 0.00 ... 2.00


def arpo_loss(
    chosen_logps: torch.Tensor,
    rejected_logps: torch.Tensor,
    chosen_lengths: torch.Tensor,
    rejected_lengths: torch.Tensor,
    *,
    beta: float = 0.1,
    eta: float = 1.5,
    eta_scale: float = 1.0,
    clamp_min: float | None = None,
    detach_penalty: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns (losses, tau, z), each (B,): losses without the NLL term, weights, distances.

    *_logps: (B,) summed answer log-probability in nats. *_lengths: (B,) answer tokens.
    tau = min(eta_scale * exp(eta * z) - 1, 1), for z >= 0; half precision is raised to float32.
    Raises: ValueError if eta < 0 or eta_scale <= 0. Source: X-ALMA §4 (ARPO), released code.

    >>> one = torch.ones(1)
    >>> losses, tau, z = arpo_loss(-10 * one, -30 * one, 10 * one, 20 * one)
    >>> round(z.item(), 3), round(tau.item(), 3), round(losses.item(), 3)  # tau: exp(.75) - 1 > 1
    (0.5, 1.0, 0.127)
    """
    if eta < 0 or eta_scale <= 0:
        raise ValueError(f"eta={eta} and eta_scale={eta_scale}: eta must be >= 0, eta_scale > 0.")
    if chosen_logps.dtype in (torch.float16, torch.bfloat16):
        chosen_logps, rejected_logps = chosen_logps.float(), rejected_logps.float()
    # An answer cut to nothing has log-probability 0 and length 0: let its average be 0, not NaN.
    chosen_avg = chosen_logps / chosen_lengths.clamp(min=1)
    rejected_avg = rejected_logps / rejected_lengths.clamp(min=1)
    z = (chosen_avg - rejected_avg).abs()
    # Capped before the exponential: no overflow, and gradient 0 (not inf * 0) once tau is 1.
    exponent = (eta * z).clamp(max=math.log(2 / eta_scale))
    tau = (eta_scale * torch.expm1(exponent) + (eta_scale - 1)).clamp(max=1)
    if clamp_min is not None:
        tau = tau.clamp(min=clamp_min)
    weight = tau.detach() if detach_penalty else tau
    losses = -F.logsigmoid(beta * chosen_logps - weight * beta * rejected_logps)
    return losses, tau, z


def histogram(values: torch.Tensor, edges: tuple[float, ...]) -> torch.Tensor:
    """Returns (len(edges) - 1,) counts of `values` (B,) between `edges`; what lies outside is in the first or last."""
    bins = torch.tensor(edges[1:-1], device=values.device, dtype=values.dtype)
    found = torch.bucketize(values.detach(), bins, right=True)
    return torch.bincount(found, minlength=len(edges) - 1)


@dataclass
class ARPOConfig(CPOConfig):
    """TRL's CPO arguments plus ARPO's; TRL's defaults (bf16, gradient checkpointing) stay.

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
        self.efficient = args.efficient and self.use_dpo_data_collator
        if self.efficient:
            self.data_collator = PairCollator(self.pad_token_id, layout_for(self.model))
        self.histograms: list[dict[str, Any]] = []
        self._counts: dict[str, torch.Tensor] = {}

    def get_batch_loss_metrics(
        self, model: torch.nn.Module, batch: Mapping[str, Any], train_eval: str = "train"
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Returns the scalar loss and the batch's metrics, all averaged over processes."""
        chosen, rejected, n_chosen, n_rejected, nll = self._forward(model, batch)
        args = self.args
        losses, tau, z = arpo_loss(
            chosen, rejected, n_chosen, n_rejected, beta=args.beta, eta=args.eta,
            eta_scale=args.eta_scale, clamp_min=args.clamp_min, detach_penalty=args.detach_penalty,
        )  # fmt: skip
        loss = losses.mean() + args.nll_weight * nll
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
                name: self.accelerator.reduce(count, reduction="sum").tolist() for name, count in self._counts.items()
            }
            self.histograms.append({"step": self.state.global_step, **counts})
            self._counts = {}
        super().log(logs, start_time)

    def _forward(self, model: torch.nn.Module, batch: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
        """(chosen sums, rejected sums, chosen lengths, rejected lengths), each (B,), and NLL."""
        if self.efficient:
            with self.accelerator.autocast():
                chosen, rejected = sequence_logps(model, batch)
            lengths = batch["chosen_lengths"], batch["rejected_lengths"]
            return chosen, rejected, *lengths, -chosen.sum() / lengths[0].sum().clamp(min=1)
        chosen, rejected, _, _, nll = self.concatenated_forward(model, batch)[:5]
        labels = (batch["chosen_labels"], batch["rejected_labels"])
        return chosen, rejected, *((part[:, 1:] != -100).sum(1) for part in labels), nll

    def _count(self, name: str, values: torch.Tensor, edges: tuple[float, ...]) -> None:
        counts = histogram(values, edges)
        self._counts[name] = self._counts[name] + counts if name in self._counts else counts
