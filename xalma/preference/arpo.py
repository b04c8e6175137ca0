"""Adaptive Rejection Preference Optimization (ARPO): the loss. `arpo_trainer` has it as a TRL trainer for any pairs.

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

import torch
import torch.nn.functional as F

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
        chosen_logps = chosen_logps.float()
        rejected_logps = rejected_logps.float()
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
