"""What an update minimises: how rows are collated, what the terms of the loss are divided by, the loss, what is logged.

Each term is a sum over the tokens or pairs of a whole batch, divided by their number in the whole batch. A micro-batch
gives its own sums over those same numbers, so that its parts add up to the loss of the batch: an update depends neither
on how the batch is cut nor on how many processes share it.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from xalma.data.batches import Collate
from xalma.data.collate import IGNORE, IsolatedDocuments, PadCollator
from xalma.models.losses import labelled_loss
from xalma.preference.arpo import TAU_EDGES, Z_EDGES, arpo_loss, histogram
from xalma.preference.packed_pairs import PairCollator, layout_for, sequence_logps

Batch = dict[str, torch.Tensor]


class Objective(Protocol):
    """What `train` needs to know of a loss. dropout: whether units are dropped while training."""

    dropout: bool

    def collator(self, model: torch.nn.Module, pad_token_id: int) -> Collate:
        """From rows to a batch, for this model's attention."""

    def counts(self, batch: Batch) -> torch.Tensor:
        """(K,) integers: what the terms are divided by, once they are summed over the whole batch."""

    def loss(
        self, model: torch.nn.Module, batch: Batch, counts: torch.Tensor, bf16: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(this micro-batch's part of the loss, a scalar in float32; (M,) sums for `measures`, without gradient)."""

    def measures(self, sums: torch.Tensor) -> dict[str, Any]:
        """What is logged of sums over any number of batches."""


class Labelled:
    """Stages 1 to 4: mean cross-entropy over labelled tokens. borders: as in `train`."""

    dropout = True

    def __init__(self, borders: tuple[int, int] | None = None) -> None:
        self.borders = borders

    def collator(self, model: torch.nn.Module, pad_token_id: int) -> Collate:
        return IsolatedDocuments(*self.borders) if self.borders else PadCollator(pad_token_id)

    def counts(self, batch: Batch) -> torch.Tensor:
        return (batch["labels"][:, 1:] != IGNORE).sum()[None]

    def loss(
        self, model: torch.nn.Module, batch: Batch, counts: torch.Tensor, bf16: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        loss = labelled_loss(model, batch, counts[0], bf16)
        return loss, loss.new_zeros(0)

    def measures(self, sums: torch.Tensor) -> dict[str, Any]:
        return {}


class Arpo:
    """Stage 5: ARPO over the pairs of a batch, plus `nll_weight` times the token-mean NLL of its chosen answers.

    options: of `arpo_loss`. Dropout is off, as in the released code (utils/cpo_trainer.py, disable_dropout). One update
    is one of `ARPOTrainer` on the whole batch; the tests hold one against the other.
    """

    dropout = False
    MEANS = ("tau", "z", "chosen_avg_logp", "rejected_avg_logp", "margin", "accuracy")  # over pairs
    # pairs, sums, NLL and its tokens, histograms
    SIZES = 1, len(MEANS), 2, len(TAU_EDGES) - 1, len(Z_EDGES) - 1

    def __init__(self, nll_weight: float = 1.0, **options: Any) -> None:
        self.nll_weight, self.options = nll_weight, options

    def collator(self, model: torch.nn.Module, pad_token_id: int) -> Collate:
        return PairCollator(pad_token_id, layout_for(model))

    def counts(self, batch: Batch) -> torch.Tensor:
        lengths = batch["chosen_lengths"]
        return torch.stack([lengths.new_tensor(len(lengths)), lengths.sum()])

    def loss(
        self, model: torch.nn.Module, batch: Batch, counts: torch.Tensor, bf16: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = batch["chosen_lengths"], batch["rejected_lengths"]
        with torch.autocast(lengths[0].device.type, dtype=torch.bfloat16, enabled=bf16):
            chosen, rejected = sequence_logps(model, batch)  # (B,) each, in float32
        losses, tau, z = arpo_loss(chosen, rejected, *lengths, **self.options)
        n_pairs, n_tokens = counts
        loss = losses.sum() / n_pairs - self.nll_weight * chosen.sum() / n_tokens.clamp(min=1)
        return loss, self._sums(chosen, rejected, *lengths, tau, z)

    @torch.no_grad()
    def _sums(self, chosen, rejected, n_chosen, n_rejected, tau, z) -> torch.Tensor:
        chosen_avg, rejected_avg = chosen / n_chosen.clamp(min=1), rejected / n_rejected.clamp(min=1)
        margin = chosen_avg - rejected_avg
        each = torch.stack([tau, z, chosen_avg, rejected_avg, margin, (margin > 0).to(z)])  # (6, B)
        nll = torch.stack([-chosen.sum(), n_chosen.sum().to(z)])
        return torch.cat(
            [z.new_full((1,), len(z)), each.sum(1), nll, histogram(tau, TAU_EDGES), histogram(z, Z_EDGES)]
        )

    def measures(self, sums: torch.Tensor) -> dict[str, Any]:
        n_pairs, totals, nll, taus, zs = sums.double().split(self.SIZES)
        means = dict(zip(self.MEANS, (totals / n_pairs).tolist(), strict=True))
        counts = {"tau_counts": taus.round().int().tolist(), "z_counts": zs.round().int().tolist()}
        return means | {"nll_loss": (nll[0] / nll[1].clamp(min=1)).item()} | counts
