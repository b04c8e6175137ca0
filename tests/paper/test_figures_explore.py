"""Pictures with sliders: what they show at a setting, and that they stand alone where nobody can move a slider."""

from __future__ import annotations

import math
import sys

import pandas as pd
import pytest
from matplotlib.figure import Figure

from xalma.paper.figures import explore
from xalma.progress import STATUS_VARIABLE


def test_tau_explorer_marks_the_formulas_value():
    left, right = explore.tau_explorer(eta=1.5, difference=0.2).axes
    assert left.texts[0].get_text() == f"τ = {math.exp(0.3) - 1:.2f}"
    pushes = {line.get_label(): line for line in right.lines}
    detached = {line.get_label(): line for line in explore.tau_explorer(detach=True).axes[1].lines}
    x, y = pushes["rejected"].get_data()
    near = min(range(len(x)), key=lambda i: abs(x[i] - 0.005))
    assert (
        y[near] < -0.1 and abs(detached["rejected"].get_ydata()[near]) < 0.01
    )  # the gradient through tau, or none


def test_shares_explorer_follows_temperature_and_cap():
    draw = explore.shares_explorer({"en": 1000.0, "fi": 10.0}, budget=100)
    share, _ = draw(temperature=1, cap=2).axes
    by_rule = [dots.get_offsets()[:, 1].tolist() for dots in share.collections if len(dots.get_offsets())]
    assert by_rule[0] == pytest.approx([100 * 1000 / 1010, 100 * 10 / 1010])
    assert by_rule[1] == pytest.approx([80, 20])  # Finnish is capped at twice its 10 tokens


def test_collapse_explorer_shows_one_rate():
    rows = [
        ("DPO", rate, metric, direction, 100 * rate)
        for rate in (0.1, 0.2)
        for metric in ("bleu", "length_ratio")
        for direction in ("en-xx", "xx-en")
    ]
    draw = explore.collapse_explorer(
        pd.DataFrame(rows, columns=["method", "rate", "metric", "direction", "mean"]), ["DPO"]
    )
    assert [bar.get_height() for bar in draw(0.1).axes[0].patches] == [10, 10]
    assert draw().axes[0].get_title(loc="left") == "learning rate 0.2"


def test_sliders_are_the_picture_alone_where_nobody_moves_a_slider(monkeypatch, capsys):
    monkeypatch.setenv(STATUS_VARIABLE, "x")
    assert isinstance(explore.sliders(explore.tau_explorer, eta=(0.0, 5.0, 0.1)), Figure)
    monkeypatch.delenv(STATUS_VARIABLE)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert isinstance(explore.sliders(explore.tau_explorer, eta=(0.0, 5.0, 0.1)), Figure)
    assert "pip install ipywidgets" in capsys.readouterr().out


def test_sliders_start_at_the_defaults_of_the_picture(monkeypatch):
    pytest.importorskip("ipywidgets")
    monkeypatch.delenv(STATUS_VARIABLE, raising=False)
    asked = []

    def draw(eta: float = 1.5, eta_scale: float = 1.0, detach: bool = False, lang: str = "b") -> Figure:
        asked.append((eta, eta_scale, detach, lang))
        return Figure()

    explore.sliders(draw, eta=(0.0, 5.0, 0.1), detach=[True, False], lang=["a", "b"])
    made = {widget.description: widget for widget in draw.widget.children[:-1]}
    assert made.keys() == {"eta", "detach", "lang"} and made["eta"].max == 5.0
    made["eta"].value = 2.0
    assert asked == [(1.5, 1.0, False, "b"), (2.0, 1.0, False, "b")]  # the scale is fixed


def test_gate_explorer_names_a_language():
    from xalma.paper.figures.corpus import idea

    texts = {text.get_text() for text in explore.gate_explorer(idea)("German").axes[0].texts}
    assert any("group 1" in text for text in texts)
