"""Figures of notebook 12: the ladder on a real base with its intervals, and the preference methods beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from xalma.paper.figures.style import subplots, use_style

_SHOWN = re.compile(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]\*?")


def parsed(cell: str) -> tuple[float, float, float] | None:
    """(value, low, high) of a cell such as "12.30 [11.90, 12.70]"; None where nothing was measured."""
    found = _SHOWN.fullmatch(str(cell))
    return tuple(map(float, found.groups())) if found else None


def ladder_steps(table: pd.DataFrame, metric: str, stages: Sequence[str]) -> Figure | None:
    """Means over all languages and over each group after each stage, from and into English; None for an empty table."""
    use_style()
    names = [name for name in stages if name in table and any(parsed(cell) for cell in table[name])]
    if not names:
        return None
    fig, axes = subplots(1, 2, (10.0, 4.2), sharey=True)
    for ax, (side, rows) in zip(axes, table.groupby("direction", sort=False), strict=True):
        for _, row in rows.iterrows():
            points = [(i, parsed(row[name])) for i, name in enumerate(names) if parsed(row[name])]
            every = row["group"] == "all"
            places, values = [i for i, _ in points], [value for _, value in points]
            middle = [value[0] for value in values]
            ax.plot(
                places,
                middle,
                color="black" if every else "0.75",
                lw=2 if every else 1,
                zorder=3 if every else 1,
            )
            if every and values:
                low, high = ([abs(value[k] - value[0]) for value in values] for k in (1, 2))
                ax.errorbar(places, middle, [low, high], fmt="o", color="black", zorder=4)
            elif values:
                label = "High" if str(row["group"]).startswith("all") else str(row["group"]).split()[0]
                ax.annotate(label, (places[-1], middle[-1]), fontsize=7, color="0.4")
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
        ax.set_title(side.replace("-", "→"))
    axes[0].set_ylabel(metric)
    return fig


def methods_dots(table: pd.DataFrame) -> Figure | None:
    """What each method adds to SFT in BLEU and in chrF++, a dot per learning rate, with intervals; None for no rows."""
    use_style()
    columns = {"bleu, less stage 4": "BLEU, less SFT's", "chrf++, less stage 4": "chrF++, less SFT's"}
    if not set(columns) <= set(table):
        return None
    table = table[table["rate"].astype(bool)]
    methods, rates = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["rate"]))
    if not methods:
        return None
    fig, axes = subplots(1, 2, (10.0, 0.9 + 0.33 * len(methods)), sharey=True)
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        for i, rate in enumerate(rates):
            rows = table[table["rate"] == rate]
            values = [parsed(cell) for cell in rows[column]]
            at = [methods.index(name) + 0.24 * (i - (len(rates) - 1) / 2) for name in rows["method"]]
            middle = [value[0] for value in values]
            errors = [[abs(value[k] - value[0]) for value in values] for k in (1, 2)]
            ax.errorbar(middle, at, xerr=errors, fmt="os^D"[i % 4], ms=5, label=f"learning rate {rate}")
        ax.axvline(0, color="0.6", lw=1, zorder=0)
        ax.set_yticks(range(len(methods)), methods)
        ax.set_xlabel(label)
    axes[0].invert_yaxis()
    axes[0].legend(loc="lower left", fontsize=8)
    return fig
