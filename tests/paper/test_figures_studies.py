"""Figures hold what the frames hold, with labelled axes and no missing glyphs."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from xalma.evaluation.records import Record
from xalma.paper.figures import studies
from xalma.paper.figures.style import METHOD_COLOURS
from xalma.paper.studies.over_rejection import gradient_frame
from xalma.paper.studies.study import Study, study_table
from xalma.paper.tables import save_figure


def drawn(fig, tmp_path) -> list:
    """The axes of a figure, after a save that must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert save_figure(fig, tmp_path / "figure.png").stat().st_size > 1000
    return fig.axes


def test_tau_curves(tmp_path):
    (ax,) = drawn(studies.tau_curves(), tmp_path)
    paper, code = ax.lines[:2]
    assert paper.get_ydata()[[0, -1]].tolist() == [0.0, 1.0]
    assert code.get_ydata()[0] == pytest.approx(-0.1)
    assert ax.get_xlabel() and ax.get_ylabel()


def test_gradient_curves_break_at_zero(tmp_path):
    frame = gradient_frame()
    axes = drawn(studies.gradient_curves(frame), tmp_path)
    curves = [line for ax in (axes[1], axes[3]) for line in ax.lines if len(line.get_xdata()) > 2]
    assert len(curves) == 2 * frame["label"].nunique()
    for line in curves:
        x = np.asarray(line.get_xdata())
        assert (x < 0).all() or (x > 0).all()


@pytest.mark.parametrize(("n_labels", "n_seeds"), [(1, 1), (10, 1), (6, 3)])
def test_probe_curves_have_a_panel_a_method(tmp_path, n_labels, n_seeds):
    rows = [
        {
            "label": f"M{i}",
            "seed": seed,
            "step": step,
            "chosen_avg_logp": -1.0 - seed,
            "rejected_avg_logp": -2.0 - step,
        }
        for i in range(n_labels)
        for seed in range(n_seeds)
        for step in (0, 2, 4)
    ]
    axes = drawn(studies.probe_curves(pd.DataFrame(rows)), tmp_path)
    shown = [ax for ax in axes if ax.axison]
    assert len(shown) == n_labels
    assert shown[0].lines[0].get_ydata().tolist() == [-1.0 - (n_seeds - 1) / 2] * 3  # the mean of the seeds


def test_tau_lines_are_means_of_seeds(tmp_path):
    frame = pd.DataFrame(
        {"label": label, "seed": seed, "step": step, "z": seed + more * step, "tau": 0.2 * seed}
        for label, more in (("ARPO", 0.3), ("ARPO eta 0", 0.1), ("ARPO detached", 0.0))
        for seed in (0, 1)
        for step in (1, 2)
    )
    z, _, tau, _ = drawn(studies.tau_lines(frame, "ARPO eta 0"), tmp_path)
    assert z.get_title() == "" and z.get_title(loc="left") == "ARPO"
    assert z.lines[0].get_ydata().tolist() == pytest.approx([0.2, 0.4])  # the seeds' own level is gone
    assert tau.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.1])


def test_eta_sweep_has_the_papers_scale_and_cpo(tmp_path):
    both = ("en-xx", "xx-en")
    points = [(1.0, 0.0), (1.0, 1.5), (0.9, 0.4)]
    frame = pd.DataFrame(
        {"direction": d, "metric": "bleu", "mean": eta, "half": 0.5, "eta": eta, "eta_scale": scale}
        for d in both
        for scale, eta in points
    )
    beside = pd.DataFrame({"direction": d, "metric": "bleu", "mean": 7.0} for d in both)
    (ax,) = drawn(studies.eta_sweep(frame, beside, [("bleu", "BLEU")]), tmp_path)
    assert [bars.lines[0].get_ydata().tolist() for bars in ax.containers] == 2 * [[0.0, 1.5]]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1.5"]
    assert sum(set(line.get_ydata()) == {7.0} for line in ax.lines) == 2


@pytest.mark.parametrize(
    ("label", "family"), [("DPO+BC", "DPO"), ("ARPO detached", "ARPO"), ("SFT (continued)", "SFT")]
)
def test_a_family_shares_a_colour(label, family):
    assert studies.colour_of_method(label) == METHOD_COLOURS[family]


def test_module_bars_have_a_bar_per_module_and_direction(tmp_path):
    """Notebook 09: own module, another's, none, as BLEU means over the directions of a class."""
    records = [
        Record("tiny", stage, direction, "bleu", value, 60, "sig")
        for stage, values in {"own": (70.0, 80.0, 50.0), "none": (0.0, 1.0, 2.0)}.items()
        for direction, value in zip(("en-fi", "en-ja", "fi-en"), values, strict=True)
    ]
    out, into = drawn(studies.module_bars(records, {"own": "own module", "none": "no module"}, "T"), tmp_path)
    assert [[bar.get_width() for bar in ax.patches] for ax in (out, into)] == [[75.0, 0.5], [50.0, 2.0]]
    assert [tick.get_text() for tick in out.get_yticklabels()] == ["own module", "no module"]
    assert out.get_xlim() == into.get_xlim() and out.get_xlim()[0] == 0


@pytest.mark.parametrize(("best", "shown"), [(1.0, "BLEU"), (0.9, "bits per byte: bits − baseline")])
def test_a_study_is_shown_in_bits_where_no_system_reaches_one_bleu(tmp_path, best, shown):
    values = {
        "bleu": {"all": (best, 0.2), "less": (0.1, 0.0)},
        "bits_per_byte": {"all": (1.0, 2.0), "less": (1.5, 1.75)},
        **{key: {"all": (0.0, 0.0), "less": (0.0, 0.0)} for key in ("chrf", "off_target", "empty")},
    }
    records = [
        Record("tiny", stage, direction, metric, value, 60, "sig")
        for metric, stages in values.items()
        for stage, pair in stages.items()
        for direction, value in zip(("en-fi", "fi-en"), pair, strict=True)
    ]
    labels = {"all": {"system": "all stages"}, "less": {"system": "one less"}}
    study = Study("s", "Stages", "all", labels, records)
    fig = studies.study_figure(study, study_table(study))
    out, into = drawn(fig, tmp_path)
    assert out.get_xlabel() == shown and fig.get_suptitle().startswith("Stages: ")
    if best < 1:
        assert out.containers[0].lines[0].get_xdata().tolist() == [0.0, 0.5]
        assert into.containers[0].lines[0].get_xdata().tolist() == [0.0, -0.25]
        assert "(all stages)" in fig.get_suptitle()
    else:
        assert [bar.get_width() for bar in out.patches] == [1.0, 0.1]


def test_difference_dots_have_an_interval_each(tmp_path):
    table = pd.DataFrame(
        {
            "method": ["CPO", "ARPO"] * 2,
            "direction": ["en→xx"] * 2 + ["xx→en"] * 2,
            "− SFT": [1.0, -2.0, 0.5, 0.0],
            "− SFT ±": [0.1, 0.2, 0.3, 0.4],
        }
    )
    left, _ = drawn(studies.difference_dots(table, "− SFT", "Title"), tmp_path)
    assert left.containers[0].lines[0].get_xdata().tolist() == [1.0, -2.0]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["CPO", "ARPO"]


def test_difference_dots_of_systems_name_their_measure(tmp_path):
    """The long form of notebook 09, one seed: no interval, and the baseline at 0."""
    table = pd.DataFrame(
        {
            "system": ["all stages", "without stage 1"] * 2,
            "direction": ["en→xx"] * 2 + ["xx→en"] * 2,
            "bits − baseline": [0.0, 0.3, 0.0, 0.1],
            "bits − baseline ±": float("nan"),
        }
    )
    fig = studies.difference_dots(table, "bits − baseline", "T", rows_are="system", measure="bits per byte:")
    axes = drawn(fig, tmp_path)
    assert [ax.containers[0].lines[0].get_xdata().tolist() for ax in axes] == [[0.0, 0.3], [0.0, 0.1]]
    assert (
        axes[0].get_xlabel() == "bits per byte: bits − baseline" and axes[0].get_xlim() == axes[1].get_xlim()
    )
