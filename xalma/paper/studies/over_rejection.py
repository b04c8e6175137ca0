"""What the rejected answer does to a model: each method's gradient on a pair, and the logs of what training did.

`pair_losses` are the preference terms of `methods.METHODS` for one pair at the start of training, where policy and
reference model are the same, so that DPO's and KTO's log-ratios are zero. Training itself goes through TRL's trainers;
these formulas are for the picture, and the tests hold them against TRL's. X-ALMA §4 explains over-rejection in words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import logsigmoid

from xalma.paper.studies.preference_methods import MethodSetup, system_folder
from xalma.paper.studies.seeds import half_width, seeds_of
from xalma.preference.arpo import PRESETS, TAU_EDGES, arpo_loss
from xalma.preference.method_specs import METHODS
from xalma.profiles import Profile
from xalma.runs import read_log

N_TOKENS = 16  # of each answer in `gradient_frame`
PairLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def pair_losses() -> dict[str, PairLoss]:
    """Preference term by label: (chosen_logps, rejected_logps, lengths), each (B,), -> losses (B,).

    logps: summed, in nats; lengths: answer tokens, the same for both answers of a pair.
    """
    dpo, simpo, orpo, cpo = (METHODS[name].beta for name in ("dpo", "simpo", "orpo", "cpo"))
    kto, gamma = METHODS["kto"].beta, METHODS["simpo"].options["simpo_gamma"]

    def ratio(logps: torch.Tensor) -> torch.Tensor:
        return logps - logps.detach()  # log-ratio to a reference that is still the same model

    def odds(average: torch.Tensor) -> torch.Tensor:
        return average - torch.log(-torch.expm1(average))  # log p / (1 - p)

    return {
        "DPO": lambda c, r, n: -logsigmoid(dpo * (ratio(c) - ratio(r))),
        # KTO averages over single answers, two to a pair
        "KTO": lambda c, r, n: (2 - torch.sigmoid(kto * ratio(c)) - torch.sigmoid(-kto * ratio(r))) / 2,
        "SimPO": lambda c, r, n: -logsigmoid(simpo * (c - r) / n - gamma),
        "ORPO": lambda c, r, n: -orpo * logsigmoid(odds(c / n) - odds(r / n)),
        "CPO": lambda c, r, n: -logsigmoid(cpo * (c - r)),
        "ARPO": lambda c, r, n: arpo_loss(c, r, n, n, **PRESETS["paper"])[0],
        "ARPO detached": lambda c, r, n: arpo_loss(c, r, n, n, **PRESETS["paper"], detach_penalty=True)[0],
        "ARPO released code": lambda c, r, n: arpo_loss(c, r, n, n, **PRESETS["released-code"])[0],
    }


def gradient_frame() -> pd.DataFrame:
    """By autograd: label, difference, chosen, rejected; a row for each method and each similarity of the two answers.

    difference: average log-prob of chosen minus that of rejected, nats per token; 0 is "equally likely".
    chosen, rejected: minus the gradient on each summed log-prob: above 0 it is pushed up. The chosen answer's average
    is held at -1; both have N_TOKENS.
    """
    differences = [
        x / 50 + 0.01 for x in range(-45, 125)
    ]  # both sides of 0, not 0 itself: |z| has a kink there
    d = torch.tensor(differences, dtype=torch.float64)
    n = torch.full_like(d, N_TOKENS)
    rows = []
    for label, loss in pair_losses().items():
        chosen = (-n).requires_grad_()
        rejected = ((-1 - d) * n).requires_grad_()
        up, down = torch.autograd.grad(loss(chosen, rejected, n).sum(), (chosen, rejected))
        frame = {
            "label": label,
            "difference": differences,
            "chosen": (-up).tolist(),
            "rejected": (-down).tolist(),
        }
        rows.append(pd.DataFrame(frame))
    return pd.concat(rows, ignore_index=True)


def tau_curve(preset: str, z: Sequence[float]) -> list[float]:
    """tau of the preset ("paper" or "released-code") at each distance z, as `arpo_loss` computes it."""
    distance = torch.tensor(z, dtype=torch.float64)
    one = torch.ones_like(distance)
    return arpo_loss(torch.zeros_like(distance), -distance, one, one, **PRESETS[preset])[1].tolist()


def probe_frame(p: Profile, group: int, chosen: Sequence[MethodSetup]) -> pd.DataFrame:
    """Fixed pairs during training: system, label, seed, step, chosen_avg_logp, rejected_avg_logp (nats per token).

    Raises FileNotFoundError for a system that is not trained yet.
    """
    rows = []
    for system in chosen:
        for seed in seeds_of(p):
            log = read_log(system_folder(p, group, system, seed))
            keys = ("step", "chosen_avg_logp", "rejected_avg_logp")
            rows += [
                {"system": system.name, "label": system.label, "seed": seed}
                | {key: entry[key] for key in keys}
                for entry in log
                if entry["kind"] == "probe"
            ]
    return pd.DataFrame(rows)


def tau_frame(p: Profile, group: int, chosen: Sequence[MethodSetup]) -> pd.DataFrame:
    """ARPO's log, for those of `chosen` that are ARPO: label, seed, step, mean tau and z, tau_counts, z_counts (pairs).

    Empty where none is. Raises FileNotFoundError for a system that is not trained yet.
    """
    rows = []
    for system in (system for system in chosen if system.method == "arpo"):
        for seed in seeds_of(p):
            log = read_log(system_folder(p, group, system, seed))
            kept = ("step", "tau", "z", "tau_counts", "z_counts")
            rows += [
                {"label": system.label, "seed": seed} | {key: entry[key] for key in kept}
                for entry in log
                if "tau_counts" in entry
            ]
    return pd.DataFrame(rows)


def above_baseline(frame: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """`tau_frame` with z less that of the system `baseline` in the same update of the same seed: on the same pairs.

    Raises ValueError where `baseline` is not in the frame.
    """
    if baseline not in set(frame["label"]):
        raise ValueError(
            f"no system {baseline!r} to compare z with: there are {', '.join(frame['label'].unique())}"
        )
    start = frame[frame["label"] == baseline].set_index(["seed", "step"])["z"]
    less = start.reindex(pd.MultiIndex.from_frame(frame[["seed", "step"]])).to_numpy()
    return frame.assign(z=frame["z"] - less)


def tau_table(frame: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """One row a label of `tau_frame`: mean z and tau of all updates, and what share of the pairs lies below 0 and at 1.

    z above: mean z of the second half of training less that of `baseline` on the same pairs, nats per token.
    """
    above = above_baseline(frame, baseline)
    rows = []
    below_0 = sum(edge <= 0 for edge in TAU_EDGES[1:])  # bins that end at 0 or before
    for label, part in frame.groupby("label", sort=False):
        counts = np.sum(part["tau_counts"].tolist(), axis=0)
        late = above[(above["label"] == label) & (above["step"] > above["step"].max() / 2)]
        rows.append(
            {
                "method": label,
                "mean z": part["z"].mean(),
                f"z above {baseline}": late["z"].mean(),
                "mean τ": part["tau"].mean(),
                "τ below 0, % of pairs": 100 * counts[:below_0].sum() / counts.sum(),
                "τ above 0.95, % of pairs": 100 * counts[-1] / counts.sum(),
            }
        )
    return pd.DataFrame(rows)


def push_table(frame: pd.DataFrame) -> pd.DataFrame:
    """First and last measurement of `probe_frame`, mean over seeds: method, then each answer before, after, change, ±.

    ±: half the 95 % interval of the mean change over seeds, NaN below three seeds.
    """
    ends = frame.groupby(["label", "seed"], sort=False)
    first = ends.first()
    last = ends.last()
    table = pd.DataFrame(index=pd.Index(list(dict.fromkeys(frame["label"])), name="method"))
    for side in ("chosen", "rejected"):
        before, after = first[f"{side}_avg_logp"], last[f"{side}_avg_logp"]
        for name, values in (("before", before), ("after", after), ("change", after - before)):
            table[f"{side} {name}"] = values.groupby(level="label").mean()
        table[f"{side} ±"] = (
            (after - before).groupby(level="label").agg(lambda changes: half_width(list(changes)))
        )
    return table.reset_index()
