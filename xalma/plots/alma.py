"""Figures of notebook 11: bitext quality with and without monolingual text, and how much of the latter is enough."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from xalma.plots import INK, subplots
from xalma.seeds import DIRECTIONS

COLOURS = {"no": "#BBBBBB", "yes": "#4477AA"}
LABELS = {"BLEU": "BLEU, mean over languages", "bits/byte": "bits a byte (less is better)"}


def quality_figure(table: pd.DataFrame) -> Figure:
    """`alma.quality_table` as bars, ours alone: a column a direction, BLEU above, bits a byte below."""
    fig, axes = subplots(2, 2, size=(10, 6.4), sharey="row", sharex=True)
    for row, (label, title) in zip(axes, LABELS.items(), strict=True):
        for ax, arrow in zip(row, DIRECTIONS.values(), strict=True):
            for shift, (mono, rows) in zip((-0.2, 0.2), table.groupby("monolingual", sort=False), strict=True):
                places = [place + shift for place in range(len(rows))]
                bars = ax.bar(places, rows[f"our {label} {arrow}"], 0.38, color=COLOURS[mono],
                              label=f"monolingual text: {mono}")  # fmt: skip
                ax.bar_label(bars, fmt="%.1f" if label == "BLEU" else "%.2f", fontsize=8, color=INK)
            ax.set_xticks(range(len(rows)), rows["bitext"])
        row[0].set_ylabel(title)
    for ax, arrow in zip(axes[0], DIRECTIONS.values(), strict=True):
        ax.set_title(arrow)
    for ax in axes[1]:
        ax.set_xlabel("bitext of stage 2")
    axes[0][0].legend(loc="upper left")
    return fig


def amount_figure(table: pd.DataFrame) -> Figure:
    """`alma.amount_table` as lines: BLEU and bits a byte after stage 2 against monolingual tokens of stage 1."""
    fig, axes = subplots(1, 2, size=(10, 3.8))
    for ax, (label, title) in zip(axes, LABELS.items(), strict=True):
        for arrow, colour in zip(DIRECTIONS.values(), ("#4477AA", "#CCBB44"), strict=True):
            ax.plot(table["monolingual tokens"], table[f"our {label} {arrow}"], "o-", color=colour, label=arrow)
        ax.set(xlabel="tokens of monolingual text in stage 1", ylabel=title)
        ax.set_xticks(table["monolingual tokens"])
        ax.xaxis.set_major_formatter(EngFormatter(places=1, sep=""))
    axes[0].set_ylim(0, None)
    axes[0].legend(loc="best")
    return fig
