"""Figures of notebook 12: the ladder on a real base with its intervals, and the preference methods beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xalma.paper.figures.style import HIGHLIGHT, INK, subplots, use_style
from xalma.paper.figures.training import STAGE_LABELS

AFTER = STAGE_LABELS | {"sft+": "4+\nmore SFT"}

_SHOWN = re.compile(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]\*?°?")


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
    fig, axes = subplots(1, 2, (10.0, 4.6), sharey=True)
    for ax, (side, rows) in zip(axes, table.groupby("direction", sort=False), strict=True):
        ends = []  # (height, x, name) of each grey line's end
        for _, row in rows.iterrows():
            places = [i for i, name in enumerate(names) if parsed(row[name])]
            values = [parsed(row[names[i]]) or (0.0, 0.0, 0.0) for i in places]
            middle = [value[0] for value in values]
            if row["group"] == "all":
                errors = [[abs(value[k] - value[0]) for value in values] for k in (1, 2)]
                ax.errorbar(
                    places, middle, errors, fmt="o-", color=INK, lw=2, zorder=4, label="all, 95 % interval"
                )
            elif values:
                ax.plot(places, middle, color="0.7", lw=1)
                name = "High" if str(row["group"]).startswith("all") else str(row["group"]).split()[0]
                ends.append((middle[-1], places[-1], name))
        ax.set_xticks(range(len(names)), [AFTER.get(name, name) for name in names])
        ax.set_title(side.replace("-", "→"))
        _name_ends(ax, ends)
    high = any(str(group).startswith("all,") for group in table["group"])
    label = "a group (its number)" + ", or all High languages" * high
    axes[0].plot([], [], color="0.7", lw=1, label=label)
    axes[0].set_ylabel(metric)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def _name_ends(ax: Axes, ends: Sequence[tuple[float, int, str]]) -> None:
    """Each line's name at its end; names that would lie on each other stand evenly around their middle."""
    low, high = ax.get_ylim()
    gap = 0.036 * (high - low)
    piles: list[tuple[int, list[float], list[str]]] = []  # where, heights, names
    for height, x, name in sorted(ends, key=lambda end: (end[1], end[0])):
        piles.append((x, [height], [name]))
        while len(piles) > 1 and piles[-2][0] == x and _edge(piles[-1], -gap) < _edge(piles[-2], gap) + gap:
            _, heights, names = piles.pop()
            piles[-1] = (x, piles[-1][1] + heights, piles[-1][2] + names)
    for pile in piles:
        for i, name in enumerate(pile[2]):
            at = (pile[0], _edge(pile, -gap) + i * gap)
            ax.annotate(
                name, at, xytext=(6, 0), textcoords="offset points", va="center", fontsize=8, color="0.3"
            )


def _edge(pile: tuple[int, list[float], list[str]], gap: float) -> float:
    """The highest name's place in a pile, the lowest one's for a negative gap."""
    heights = pile[1]
    return sum(heights) / len(heights) + (len(heights) - 1) / 2 * gap


def method_label(name: str) -> str:
    """A method as papers write it: arpo-detach is ARPO-detach, simpo+bc SimPO+BC."""
    kind, variant = re.fullmatch(r"(\w+)(.*)", name).groups()
    return {"simpo": "SimPO"}.get(kind, kind.upper()) + variant.replace("+bc", "+BC")


def methods_dots(table: pd.DataFrame, by: str = "rate", label: str = "learning rate {}") -> Figure | None:
    """What each method adds to SFT in BLEU and in chrF++, with intervals; None for no rows.

    by: the column that gives a method its several dots; label: what the legend calls its values.
    """
    use_style()
    columns = {"bleu, less stage 4": "BLEU − SFT", "chrf++, less stage 4": "chrF++ − SFT"}
    if not set(columns) <= set(table):
        return None
    table = table[table["rate"].astype(bool)]
    methods = list(dict.fromkeys(table["method"]))
    rates = list(dict.fromkeys(table[by]))
    if not methods:
        return None
    fig, axes = subplots(1, 2, (10.0, 1.3 + 0.33 * len(methods)), sharey=True)
    for ax, (column, change) in zip(axes, columns.items(), strict=True):
        for i, rate in enumerate(rates):
            rows = table[table[by] == rate]
            values = [parsed(cell) for cell in rows[column]]
            at = [methods.index(name) + 0.24 * (i - (len(rates) - 1) / 2) for name in rows["method"]]
            middle = [value[0] for value in values]
            errors = [[abs(value[k] - value[0]) for value in values] for k in (1, 2)]
            ax.errorbar(
                middle,
                at,
                xerr=errors,
                fmt="os^D"[i % 4],
                color=(INK, HIGHLIGHT)[i % 2],
                ms=5,
                label=label.format(rate),
            )
        ax.axvline(0, color=INK, lw=1, zorder=0)
        ax.set_yticks(range(len(methods)), [method_label(name) for name in methods])
        ax.set_xlabel(change)
        ax.grid(True, axis="x")
    axes[0].invert_yaxis()
    fig.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, title="95 % intervals"
    )
    return fig
