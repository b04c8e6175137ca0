"""The picture of gradients agrees with TRL's losses; what training did to a pair is counted right."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from xalma.paper.studies.over_rejection import gradient_frame, pair_losses, push_table, tau_curve, tau_table
from xalma.preference.arpo import TAU_EDGES
from xalma.preference.method_specs import METHODS


def trl_self(method: str, **more) -> SimpleNamespace:
    spec = METHODS[method]
    return SimpleNamespace(
        alpha=0.0,
        beta=spec.beta,
        label_smoothing=0.0,
        loss_type=spec.options.get("loss_type"),
        simpo_gamma=spec.options.get("simpo_gamma"),
        accelerator=SimpleNamespace(device="cpu"),
        **more,
    )


LOGPS = (
    torch.tensor([-12.0, -3.0, -20.0]),
    torch.tensor([-9.0, -8.0, -19.5]),
    torch.tensor([10.0, 4.0, 16.0]),
)


@pytest.mark.parametrize(("label", "averaged"), [("CPO", False), ("SimPO", True)])
def test_pair_losses_are_trls_cpo(label, averaged):
    chosen, rejected, n = LOGPS
    scale = n if averaged else torch.ones_like(n)
    trainer = METHODS[label.lower()].trainer
    theirs = trainer.cpo_loss(trl_self(label.lower()), chosen / scale, rejected / scale)[0]
    assert pair_losses()[label](chosen, rejected, n).tolist() == pytest.approx(theirs.tolist(), rel=1e-5)


def test_pair_losses_are_trls_orpo():
    chosen, rejected, n = LOGPS
    theirs = METHODS["orpo"].trainer.odds_ratio_loss(trl_self("orpo"), chosen / n, rejected / n)[0]
    # TRL adds beta * log sigmoid to be subtracted; ours is the loss
    assert pair_losses()["ORPO"](chosen, rejected, n).tolist() == pytest.approx((-theirs).tolist(), rel=1e-5)


@pytest.mark.parametrize(("label", "push"), [("DPO", 0.1 / 2), ("KTO", 0.1 / 8)])
def test_methods_with_a_reference_do_not_see_similarity(label, push):
    frame = gradient_frame().query("label == @label")
    assert frame["chosen"].tolist() == pytest.approx([push] * len(frame))
    assert frame["rejected"].tolist() == pytest.approx([-push] * len(frame))


def test_what_the_picture_says_near_zero():
    near = gradient_frame().round({"difference": 2}).set_index(["label", "difference"])
    for side in (-0.05, 0.05):
        assert near.loc[("CPO", side), "rejected"] < -0.04
        assert abs(near.loc[("ARPO detached", side), "rejected"]) < 0.01
    assert near.loc[("ARPO", -0.05), "chosen"] < 0 < near.loc[("ARPO", -0.05), "rejected"]
    assert near.loc[("ARPO", 0.05), "rejected"] < near.loc[("CPO", 0.05), "rejected"]


@pytest.mark.parametrize("label", ["ARPO", "ARPO released code", "ORPO", "SimPO"])
def test_gradients_against_finite_differences(label):
    n, step = torch.tensor([16.0], dtype=torch.float64), 1e-5
    chosen, rejected = -1.0 * n, (-1.0 - 0.21) * n
    loss = pair_losses()[label]
    push = -(loss(chosen, rejected + step, n) - loss(chosen, rejected - step, n)) / (2 * step)
    frame = gradient_frame().round({"difference": 2}).query("label == @label and difference == 0.21")
    found = frame["rejected"].item()
    assert found == pytest.approx(push.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("preset", "z", "tau"),
    [
        ("paper", 0.0, 0.0),
        ("paper", 0.2, 0.349859),
        ("paper", 0.47, 1.0),
        ("released-code", 0.0, -0.1),
        ("released-code", 1.0, 0.342642),
        ("released-code", 2.0, 1.0),
    ],
)
def test_tau_curve(preset, z, tau):
    assert tau_curve(preset, [z]) == pytest.approx([tau], abs=1e-6)


def test_tau_table_counts_pairs_and_compares_z_on_the_same_ones():
    bins = len(TAU_EDGES) - 1
    below, at_zero, full = ([int(i == place) for i in range(bins)] for place in (1, 2, bins - 1))
    rows = [
        {"label": label, "seed": 0, "step": step, "z": step + more * step, "tau": 0.5, "tau_counts": counts}
        for label, more, counts in (("base", 0.0, at_zero), ("A", 0.1, below), ("B", 0.0, full))
        for step in (1, 2, 3, 4)
    ]
    table = tau_table(pd.DataFrame(rows), "base").set_index("method")
    assert table["τ below 0, % of pairs"].tolist() == [0.0, 100.0, 0.0]
    assert table["τ above 0.95, % of pairs"].tolist() == [0.0, 0.0, 100.0]
    assert table["z above base"].tolist() == pytest.approx([0.0, 0.35, 0.0])  # steps 3 and 4
    with pytest.raises(ValueError, match="no system 'C'"):
        tau_table(pd.DataFrame(rows), "C")


def test_push_table_by_hand():
    rows = [
        {
            "label": "A",
            "seed": seed,
            "step": step,
            "chosen_avg_logp": -1.0 + change * step,
            "rejected_avg_logp": -2.0,
        }
        for seed, change in enumerate((0.1, 0.2, 0.3))
        for step in (0, 1, 2)
    ]
    (row,) = push_table(pd.DataFrame(rows)).to_dict("records")
    assert row["method"] == "A" and row["chosen before"] == -1.0
    assert (row["chosen after"], row["chosen change"]) == pytest.approx((-0.6, 0.4))
    assert row["chosen ±"] == pytest.approx(4.303 * 0.2 / 3**0.5)  # Student's t of changes .2, .4, .6
    assert (row["rejected change"], row["rejected ±"]) == (0.0, 0.0)
    assert pd.isna(push_table(pd.DataFrame(rows[:3]))["chosen ±"].item())  # one seed
