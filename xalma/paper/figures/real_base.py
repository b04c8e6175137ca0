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


def methods_bars(table: pd.DataFrame, column: str) -> Figure | None:
    """A column of differences from stage 4 for each method and rate, with its interval; None for an empty table."""
    use_style()
    if column not in table:
        return None
    rows = [(f"{row['method']}, {row['rate']}", parsed(row[column])) for _, row in table.iterrows()]
    rows = [(name, value) for name, value in rows if value and "stage4" not in name]
    if not rows:
        return None
    fig, ax = subplots(1, 1, (7.5, 0.6 + 0.25 * len(rows)))
    at = range(len(rows))
    middle = [value[0] for _, value in rows]
    spread = [[abs(value[k] - value[0]) for _, value in rows] for k in (1, 2)]
    ax.errorbar(middle, at, xerr=spread, fmt="o", color="black")
    ax.axvline(0, color="0.6", lw=1)
    ax.set_yticks(at, [name for name, _ in rows])
    ax.invert_yaxis()
    ax.set_xlabel(column)
    return fig
