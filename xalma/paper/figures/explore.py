"""Sliders for a figure in a live notebook; in executed copies, and without ipywidgets, the picture alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from xalma.data.mixing import sampling_probabilities
from xalma.languages import ARROWS, LANGUAGES
from xalma.paper.figures.style import CHOSEN, DIRECTION_COLOURS, INK, REJECTED, by_group, colour_of, subplots
from xalma.preference.arpo import arpo_loss
from xalma.progress import STATUS_VARIABLE


def sliders(draw: Callable[..., Figure], **choices: Any) -> Figure | None:
    """A figure whose arguments have sliders, where somebody can move them; else `draw` with its default values.

    choices: argument -> (least, most, step) for a slider, or a list for a menu, as ipywidgets' `interact` takes them.
    Where notebooks are executed by `xalma run`, nobody moves anything: the picture stands alone.
    """
    if os.environ.get(STATUS_VARIABLE):
        return draw()
    try:
        from ipywidgets import fixed, interact
    except ImportError:
        print("sliders need ipywidgets: pip install ipywidgets")
        return draw()
    others = {
        name: fixed(of.default) for name, of in signature(draw).parameters.items() if name not in choices
    }
    interact(draw, **choices, **others)  # each begins at `draw`'s default value
    return None


def shares_explorer(sizes: Mapping[str, float], budget: float) -> Callable[..., Figure]:
    """`draw(temperature, cap)` of a corpus: share of the tokens and epochs of each language under both rules.

    sizes: tokens of each language; budget: tokens to be read.
    """
    codes = by_group(sizes)

    def draw(temperature: float = 5.0, cap: float = 4.0) -> Figure:
        rules = {
            f"temperature {temperature:g}": sampling_probabilities(
                sizes, "temperature", temperature=temperature
            ),
            f"UniMax, cap {cap:g}": sampling_probabilities(sizes, "unimax", budget=budget, cap=cap),
        }
        fig, axes = subplots(2, 1, (10.5, 4.6), sharex=True)
        for (rule, shares), marker in zip(rules.items(), "os", strict=True):
            colours = [colour_of(code) for code in codes]
            axes[0].scatter(codes, [100 * shares[code] for code in codes], c=colours, marker=marker, s=26)
            epochs = [shares[code] * budget / sizes[code] for code in codes]
            axes[1].scatter(codes, epochs, c=colours, marker=marker, s=26)
            axes[0].scatter([], [], color=INK, marker=marker, label=rule)
        for ax, label in zip(axes, ("share of the tokens (percent)", "epochs"), strict=True):
            ax.set_yscale("log")
            ax.set_ylabel(label)
        axes[1].axhline(1, color=INK, linewidth=0.8, linestyle="--")
        axes[1].tick_params(axis="x", labelsize=8)
        axes[1].margins(x=0.01)
        axes[1].set_xlabel("language, in the order of the groups; dashed: each text is read once")
        fig.legend(loc="outside upper right", ncols=2)
        return fig

    return draw


def tau_explorer(
    eta: float = 1.5, eta_scale: float = 1.0, difference: float = 0.2, detach: bool = False
) -> Figure:
    """τ over z, and the push on both answers of a pair over the difference of their average log-probabilities.

    difference: chosen minus rejected, nats per token: where the marks stand. detach: no gradient through τ.
    The pair has 16 tokens each, the chosen answer an average log-probability of −1.
    """
    fig, (left, right) = subplots(1, 2, (10.5, 3.8))
    z = torch.linspace(0, 2.5, 251, dtype=torch.float64)
    one = torch.ones_like(z)
    _, tau, _ = arpo_loss(0 * z, -z, one, one, eta=eta, eta_scale=eta_scale)
    left.plot(z, tau, color=INK)
    apart = torch.tensor([-abs(difference)])
    here = arpo_loss(0 * apart, apart, one[:1], one[:1], eta=eta, eta_scale=eta_scale)[1].item()
    left.plot(abs(difference), here, "o", color=INK)
    left.axhline(0, color=INK, linewidth=0.8)
    left.annotate(f"τ = {here:.2f}", (abs(difference), here), xytext=(8, -12), textcoords="offset points")
    left.set(
        xlabel="z (nats per token)",
        ylabel="τ",
        ylim=(-0.3, 1.1),
        title=f"τ: η = {eta:g}, scale {eta_scale:g}",
    )
    d = torch.arange(-0.9, 1.5, 0.01, dtype=torch.float64) + 0.005
    chosen = torch.full_like(d, -16.0).requires_grad_()
    rejected = (16 * (-1 - d)).requires_grad_()
    n = torch.full_like(d, 16)
    losses = arpo_loss(chosen, rejected, n, n, detach_penalty=detach, eta=eta, eta_scale=eta_scale)[0]
    for grad, colour, name in zip(
        torch.autograd.grad(losses.sum(), (chosen, rejected)),
        (CHOSEN, REJECTED),
        ("chosen", "rejected"),
        strict=True,
    ):
        right.plot(d, -grad, color=colour, label=name)
    right.axvline(difference, color=INK, linewidth=0.8, linestyle=":")
    right.axhline(0, color=INK, linewidth=0.8)
    right.set(
        xlabel="average log p, chosen − rejected (nats per token)",
        ylabel="push on the summed log p",
        ylim=(-0.4, 0.4),
        title=f"τ {'detached' if detach else 'with its gradient'}",
    )
    right.legend()
    return fig


def collapse_explorer(summary: pd.DataFrame, methods: Sequence[str]) -> Callable[..., Figure]:
    """`draw(rate)`: BLEU and length of each method at a learning rate.

    summary: rows of method, rate, metric, direction, mean.
    """
    rates = sorted(set(summary["rate"]))

    def draw(rate: float = rates[-1]) -> Figure:
        fig, axes = subplots(1, 2, (10, 3.4))
        at = np.arange(len(methods))
        for ax, (metric, label) in zip(
            axes, (("bleu", "BLEU"), ("length_ratio", "length, % of the reference")), strict=True
        ):
            for shift, (direction, colour) in zip((-0.2, 0.2), DIRECTION_COLOURS.items(), strict=True):
                kept = summary[
                    (summary["metric"] == metric)
                    & (summary["direction"] == direction)
                    & (summary["rate"] == rate)
                ]
                values = kept.set_index("method")["mean"].reindex(list(methods))
                ax.bar(at + shift, values, 0.38, color=colour, label=ARROWS[direction])
            ax.set_xticks(at, methods)
            ax.set(ylabel=label, title=f"learning rate {rate:g}")
        axes[0].legend()
        return fig

    return draw


def gate_explorer(draw_idea: Callable[[str], Figure]) -> Callable[..., Figure]:
    """`draw(language)`: the idea in one picture, for a language by its English name."""
    codes = {language.name: code for code, language in LANGUAGES.items() if code != "en"}

    def draw(language: str = "Japanese") -> Figure:
        return draw_idea(f"en-{codes[language]}")

    return draw
