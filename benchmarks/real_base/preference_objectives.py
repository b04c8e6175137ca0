"""The preference methods X-ALMA compares (Table 5) as objectives of our own loop, on packed pairs.

`methods` runs them through TRL's trainers; here a pair is read once for all of them, and nothing but torch is needed.
S: summed log-probability of an answer, n its tokens, R the same under the frozen reference, the model as it came in.

    cpo     -log sigmoid(beta (S_w - S_l))                                    arXiv 2401.08417
    dpo     -log sigmoid(beta ((S_w - R_w) - (S_l - R_l)))                    arXiv 2305.18290
    simpo   -log sigmoid(beta (S_w / n_w - S_l / n_l) - gamma)                arXiv 2405.14734, beta 2, gamma 1
    orpo    -0.1 log sigmoid(odds(S_w / n_w) - odds(S_l / n_l)) and the NLL    arXiv 2403.07691
    kto     1 - sigmoid(beta (S_w - R_w - z)) + 1 - sigmoid(beta (z - S_l + R_l))  arXiv 2402.01306

BC adds the token-mean NLL of the chosen answers. ORPO's NLL is over the answer, TRL's over the prompt too.
KTO's z is the mean of S - R over a micro-batch's rejected answers, no less than 0: the paper takes answers to other
prompts, which would be another forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from xalma.preference.packed_pairs import PairCollator, sequence_logps
from xalma.training.objectives import Arpo, Batch

BETA, SIMPO_BETA, SIMPO_GAMMA, ORPO_LAMBDA = 0.1, 2.0, 1.0, 0.1
# CPO and ORPO have an NLL of their own
OBJECTIVES = "cpo", "dpo", "dpo+bc", "simpo", "simpo+bc", "orpo", "kto", "kto+bc"
REFERENCE = ("dpo", "dpo+bc", "kto", "kto+bc")  # those that need `chosen_reference` and `rejected_reference`


def method_loss(
    name: str,
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    n_chosen: torch.Tensor,
    n_rejected: torch.Tensor,
    references: Sequence[torch.Tensor],
) -> torch.Tensor:
    """(B,) losses without BC; all arguments (B,), references those of chosen and rejected, for the methods with one."""
    kind = name.removesuffix("+bc")
    if kind == "cpo":
        return -logsigmoid(BETA * (chosen - rejected))
    a, b = chosen / n_chosen.clamp(min=1), rejected / n_rejected.clamp(min=1)
    if kind == "simpo":
        return -logsigmoid(SIMPO_BETA * (a - b) - SIMPO_GAMMA)
    if kind == "orpo":
        odds = lambda x: x - torch.log1p(-x.clamp(max=-1e-6).exp())  # noqa: E731
        return -ORPO_LAMBDA * logsigmoid(odds(a) - odds(b))
    won, lost = chosen - references[0], rejected - references[1]
    if kind == "dpo":
        return -logsigmoid(BETA * (won - lost))
    if kind == "kto":
        z = lost.mean().clamp(min=0).detach()
        return 2 - torch.sigmoid(BETA * (won - z)) - torch.sigmoid(BETA * (z - lost))
    raise ValueError(f"unknown method {name!r}: {', '.join(OBJECTIVES)}")


class Within(Arpo):
    """ARPO on pairs no longer than the window of any layer: there every layer sees what full attention would."""

    def collator(self, model: torch.nn.Module, pad_token_id: int) -> Callable[[list[dict]], Batch]:
        return PairCollator(pad_token_id, "shared")


class Preference(Within):
    """One of OBJECTIVES in ARPO's place; logs ARPO's measures, with tau as 1."""

    def __init__(self, name: str) -> None:
        super().__init__(1.0 if name in ("cpo", "orpo") or name.endswith("+bc") else 0.0)
        if name not in OBJECTIVES:
            raise ValueError(f"unknown method {name!r}: {', '.join(OBJECTIVES)}")
        self.name = name

    def collator(self, model: torch.nn.Module, pad_token_id: int) -> Callable[[list[dict]], Batch]:
        packed = super().collator(model, pad_token_id)

        def collate(rows: list[dict[str, Any]]) -> Batch:
            batch = packed(rows)
            if self.name in REFERENCE:
                for side in ("chosen", "rejected"):
                    batch[f"{side}_reference"] = torch.tensor([row[f"{side}_reference"] for row in rows])
            return batch

        return collate

    def loss(
        self, model: torch.nn.Module, batch: Batch, counts: torch.Tensor, bf16: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = batch["chosen_lengths"], batch["rejected_lengths"]
        with torch.autocast(lengths[0].device.type, dtype=torch.bfloat16, enabled=bf16):
            chosen, rejected = sequence_logps(model, batch)
        given = [
            batch[f"{side}_reference"] for side in ("chosen", "rejected") if f"{side}_reference" in batch
        ]
        losses = method_loss(self.name, chosen, rejected, *lengths, given)
        (n_pairs, n_tokens) = counts
        loss = losses.sum() / n_pairs - self.nll_weight * chosen.sum() / n_tokens.clamp(min=1)
        return loss, self._sums(chosen, rejected, *lengths, torch.ones_like(chosen), torch.zeros_like(chosen))
