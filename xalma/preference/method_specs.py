"""The rows of the comparison: each method's TRL trainer, its config and options, and what all methods share.

The paper's values for these methods could not be read; every value here names its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pandas as pd
import torch
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from xalma.preference.arpo_trainer import ARPOConfig, ARPOTrainer, CPOConfig, CPOTrainer
from xalma.preference.grpo import GRPO_OPTIONS, GatedGRPOConfig, GatedGRPOTrainer

from trl.experimental.orpo import ORPOConfig, ORPOTrainer  # isort: skip  (arpo_trainer silences the warning)

BC_WEIGHT = 1.0  # CPO paper and released code: cpo_alpha 1.0 [repo:utils/cpo_trainer.py]
BETA = 0.1  # [repo:runs/cpo_ft.sh]; DPO, KTO, ORPO: TRL's default and the papers' usual value

COMMON: Mapping[str, Any] = MappingProxyType(
    {
        "lr_scheduler_type": "inverse_sqrt",  # [repo:runs/cpo_ft.sh]
        "weight_decay": 0.01,  # [repo:runs/cpo_ft.sh]
        "max_grad_norm": 1.0,  # [repo:runs/mono_ft.sh]
        "max_length": 512,  # tokens [repo:runs/cpo_ft.sh]
        "optim": "adamw_torch",  # our choice
    }
)


@dataclass(frozen=True)
class Method:
    """One row of the comparison. `options` go to the TRL config `config` of `trainer`."""

    label: str
    trainer: type
    config: type
    bc: bool
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    beta: float | None = BETA
    needs_reference: bool = False


class _KTOWithBC(KTOTrainer):
    """KTO plus token-mean NLL of the chosen answers (TRL has no such option), in one forward."""

    def _compute_loss(self, model: Any, inputs: dict, return_outputs: bool) -> torch.Tensor:
        outputs = []

        def recorded(**kwargs: Any) -> Any:
            outputs.append(model(**kwargs))
            return outputs[-1]

        loss = super()._compute_loss(recorded, inputs, False)
        # The policy's forward on (x, y) is the last one: the KL term's mismatched pairs come first.
        chosen = inputs["label"].bool()
        logps = outputs[-1].log_probs[chosen]  # (B, T), 0 outside the answer
        nll = -logps.sum() / inputs["completion_mask"][chosen, 1:].sum().clamp(min=1)
        self._metrics["train"]["nll_loss"].append(nll.item())
        return loss + BC_WEIGHT * nll


# TRL's "sft" loss type is the token-mean NLL of the chosen answers.
_DPO_BC = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, BC_WEIGHT]}
# SimPO's beta and margin: Meng et al. 2024, Llama-3-Base: beta 2.0, gamma/beta 0.5 [memory, M].
_SIMPO = {"loss_type": "simpo", "simpo_gamma": 1.0}
_KTO = {"desirable_weight": 1.0, "undesirable_weight": 1.0}  # KTO paper: equal for balanced data

METHODS: dict[str, Method] = {
    "sft": Method(
        "SFT (continued)",
        SFTTrainer,
        SFTConfig,
        True,
        "chosen answers only",
        {"completion_only_loss": True},
        None,
    ),
    "dpo": Method("DPO", DPOTrainer, DPOConfig, False, "arXiv 2305.18290", {}, BETA, True),
    "dpo+bc": Method("DPO+BC", DPOTrainer, DPOConfig, True, "arXiv 2305.18290", _DPO_BC, BETA, True),
    "simpo": Method(
        "SimPO", CPOTrainer, CPOConfig, False, "arXiv 2405.14734", {**_SIMPO, "cpo_alpha": 0.0}, 2.0
    ),
    "simpo+bc": Method(
        "SimPO+BC",
        CPOTrainer,
        CPOConfig,
        True,
        "arXiv 2405.14734",
        {**_SIMPO, "cpo_alpha": BC_WEIGHT},
        2.0,
    ),
    "kto": Method("KTO", KTOTrainer, KTOConfig, False, "arXiv 2402.01306", _KTO, BETA, True),
    "kto+bc": Method("KTO+BC", _KTOWithBC, KTOConfig, True, "arXiv 2402.01306", _KTO, BETA, True),
    "orpo": Method("ORPO", ORPOTrainer, ORPOConfig, True, "arXiv 2403.07691; its lambda 0.1 is TRL's beta"),
    "cpo": Method(
        "CPO",
        CPOTrainer,
        CPOConfig,
        True,
        "arXiv 2401.08417",
        {"loss_type": "sigmoid", "cpo_alpha": BC_WEIGHT},
    ),
    "arpo": Method("ARPO", ARPOTrainer, ARPOConfig, True, "X-ALMA §4", {"nll_weight": BC_WEIGHT}),
    "grpo": Method(
        "GRPO",
        GatedGRPOTrainer,
        GatedGRPOConfig,
        False,
        "arXiv 2402.03300; language gate × reward",
        GRPO_OPTIONS,
        None,
    ),
}
OF_PAIRS = tuple(name for name in METHODS if name != "grpo")  # Table 5's, and continued SFT


def method_table() -> pd.DataFrame:
    """Each method's own settings in a row: trainer, BC weight, beta, other options, reference model, source.

    What all share is `COMMON`, `WARMUP_SHARE` and the arguments of `train_preference`.
    """
    rows = []
    for spec in METHODS.values():
        # BC is one switch, however the trainers spell it: it has a column of its own
        spelt = ("cpo_alpha", "nll_weight", "loss_weights")
        own = ", ".join(f"{key}={value}" for key, value in spec.options.items() if key not in spelt)
        rows.append(
            {
                "method": spec.label,
                "trainer": spec.trainer.__name__.lstrip("_"),
                "BC weight": BC_WEIGHT if spec.bc else 0.0,
                "beta": spec.beta,
                "other options": own,
                "reference model": spec.needs_reference,
                "source": spec.source,
            }
        )
    return pd.DataFrame(rows)
