"""Figures of both papers, redrawn from `xalma.published`: printed numbers only; ours apart.

A number we could not read with certainty is hatched or open; one that could not be read is not drawn, and that is
said.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from xalma.languages import ARROWS, GROUP_NAMES
from xalma.paper.figures.style import DIRECTION_COLOURS, GROUP_COLOURS, INK, PALE, subplots
from xalma.paper.tables import save_figure
from xalma.published import published

OURS, THEIRS, ACCENT = GROUP_COLOURS[6], GROUP_COLOURS[5], GROUP_COLOURS[1]


def alma_figure() -> Figure:
    """ALMA's means over five languages: COMET-22 and BLEU of every system that prints both, a panel per direction."""
    fig, axes = subplots(1, 2, (11.0, 5.2), sharey=True)
    systems = None
    for ax, (direction, table) in zip(axes, {"en-xx": "a", "xx-en": "b"}.items(), strict=True):
        cells = published(table).query("group_or_lang == 'avg'")
        wide = cells.pivot(index="system", columns="metric", values="value").dropna()
        systems = list(wide.sort_values("COMET-22").index) if systems is None else systems
        wide = wide.reindex(systems)
        y = np.arange(len(systems))
        ax.hlines(y, 60, 98, color=PALE)  # to the end: a line that stopped at its dot would be a bar from 60
        for i, (system, row) in enumerate(wide.dropna().reindex(systems).iterrows()):
            comet, text = row["COMET-22"], f"{row['COMET-22']:.1f}  (BLEU {row['BLEU']:.1f})"
            if comet == comet:  # not NaN
                face = INK if str(system).startswith("ALMA") else "white"
                ax.plot(comet, i, "o", ms=8, mec=INK, mfc=face)
                ax.text(comet + 0.6, i, text, va="center", fontsize=8)
        ax.set(
            title=ARROWS[direction],
            xlabel="COMET-22, mean of five languages, as printed",
            yticks=y,
            xlim=(60, 98),
        )
        ax.set_yticklabels(systems)
        ax.grid(False)
    for label, face in (("ALMA", INK), ("other systems", "white")):
        axes[0].plot([], [], "o", ms=8, mec=INK, mfc=face, label=label)
    axes[0].legend(loc="lower right")
    return fig


def mono_parallel_figure() -> Figure:
    """ALMA's monolingual × parallel data as dots, without (open) and with (filled) monolingual text."""
    cells = published("c")
    parts = cells["subset"].str.extract(r"mono=(?P<mono>\w+);parallel=(?P<parallel>[\w-]+)")
    cells = pd.concat([cells, parts], axis=1)
    kinds = list(dict.fromkeys(cells["parallel"]))
    fig, axes = subplots(2, 2, (9.5, 5.4), sharex=True, sharey="row")
    for row, metric in zip(axes, ("BLEU", "COMET-22"), strict=True):
        for ax, (direction, colour) in zip(row, DIRECTION_COLOURS.items(), strict=True):
            panel = cells[(cells["metric"] == metric) & (cells["direction"] == direction)]
            for mono, face in {"no": "white", "yes": colour}.items():
                values = panel[panel["mono"] == mono].set_index("parallel")["value"].reindex(kinds)
                ax.plot(
                    range(len(kinds)),
                    values,
                    "o",
                    ms=8,
                    mec=colour,
                    mfc=face,
                    label=f"monolingual text: {mono}",
                )
                for x, value in enumerate(values):
                    if value == value:  # not NaN
                        ax.annotate(
                            f"{value:.1f}",
                            (x, value),
                            xytext=(8, 0),
                            textcoords="offset points",
                            va="center",
                            fontsize=8,
                        )
            ax.set(title=ARROWS[direction], xticks=range(len(kinds)))
            ax.set_xticklabels([f"parallel:\n{kind}" for kind in kinds], fontsize=8)
            ax.margins(x=0.2, y=0.15)
        row[0].set_ylabel(f"{metric}, as printed")
    axes[0][0].legend(loc="lower right")
    return fig


def xalma_figure() -> Figure:
    """X-ALMA's COMET-22 by group, less that of the best other system, a panel per direction; All filled, High open."""
    fig, axes = subplots(1, 2, (10.5, 4.2), sharey=True, sharex=True)
    for ax, (direction, table) in zip(axes, {"en-xx": "e", "xx-en": "f"}.items(), strict=True):
        cells = published(table)
        colour = DIRECTION_COLOURS[direction]
        for subset, face, shift in (("All", colour, -0.12), ("High", "white", 0.12)):
            side = cells[cells["subset"] == subset].pivot_table(
                index="group_or_lang", columns="system", values="value"
            )
            others = side[[name for name in side if not name.startswith("X-ALMA")]]
            gain = side["X-ALMA"] - others.max(axis=1)
            best = others.idxmax(axis=1)
            groups = side.index.str.removeprefix("group").astype(int)
            ax.plot(gain, groups + shift, "o", mec=colour, mfc=face, label=subset)
            for y, value, name in zip(groups + shift, gain, best, strict=True):
                ax.annotate(
                    name, (value, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=7
                )
        ax.axvline(0, color=INK, lw=1)
        ax.set(title=ARROWS[direction], xlabel="COMET-22: X-ALMA − best other system (named)")
        ax.set_yticks(
            list(GROUP_NAMES), [f"{g} {name.split(' (')[0]}" for g, name in GROUP_NAMES.items()], fontsize=8
        )
        ax.grid(True, axis="x")
        ax.margins(x=0.2)
    axes[0].invert_yaxis()
    axes[0].legend(loc="upper right", title="FLORES-200, as printed")
    return fig


def methods_figure() -> Figure:
    """X-ALMA's Table 5: BLEU, COMET-22 and XCOMET-XL of each preference method, a panel per metric."""
    cells = published("g")
    methods = list(dict.fromkeys(cells["system"]))[::-1]
    fig, axes = subplots(1, 3, (11.5, 4.8), sharey=True)
    for ax, metric in zip(axes, ("BLEU", "COMET-22", "XCOMET-XL"), strict=True):
        for k, (direction, colour) in enumerate(list(DIRECTION_COLOURS.items())[::-1]):
            side = cells[(cells["metric"] == metric) & (cells["direction"] == direction)]
            side = side.set_index("system").reindex(methods)
            _bars(ax, np.arange(len(methods)) + (k - 0.5) * 0.4, side, 0.4, colour)
        ax.set(title=metric, xlabel=f"{metric}, Group 6, as printed", yticks=range(len(methods)))
        ax.set_yticklabels(methods)
        ax.set_xlim(right=1.22 * ax.get_xlim()[1])
    patches = [
        Patch(color=colour, label=ARROWS[direction]) for direction, colour in DIRECTION_COLOURS.items()
    ]
    unsure = Patch(facecolor="white", edgecolor="0.4", label="unsure digit", hatch="///")
    fig.legend(handles=[*patches, unsure], loc="outside lower center", ncols=3)
    return fig


def stages_figure(ours: pd.DataFrame | None = None) -> Figure:
    """X-ALMA's ablation of stages, COMET-22 on Group 6; `ours` (system, direction, value), BLEU, has a panel."""
    cells = published("h")
    cells = cells[cells["table"] == "h_ablation_stages"]
    stages = list(dict.fromkeys(cells["system"]))
    has_ours = ours is not None and len(ours) > 0
    fig, axes = subplots(1, 2 if has_ours else 1, (11.0 if has_ours else 6.5, 4.2), squeeze=False)
    panels = [(axes[0][0], cells, "COMET-22, Group 6", "X-ALMA, as printed")]
    if has_ours:
        shown = ours.assign(shown=ours["value"].map("{:.1f}".format), confidence="seed")
        panels.append((axes[0][1], shown, "BLEU, Group 6", "Ours, another metric and model"))
    for ax, frame, label, title in panels:
        sides = {
            direction: frame[frame["direction"] == direction].set_index("system").reindex(stages)
            for direction in DIRECTION_COLOURS
        }
        first, second = (side["value"].to_numpy(dtype=float) for side in sides.values())
        for direction, colour in DIRECTION_COLOURS.items():
            above = (first >= second) == (
                direction == "en-xx"
            )  # the higher number over its point, the lower below
            _dots(ax, sides[direction], colour, ARROWS[direction], above)
        ax.set(title=title, ylabel=label, xticks=range(len(stages)), xlim=(-0.6, len(stages) - 0.4))
        ax.set_xticklabels([_short(stage) for stage in stages], fontsize=8)
        ax.margins(y=0.15)
    axes[0][0].legend(loc="lower right", title="open: a digit is unsure", title_fontsize=8)
    return fig


def _dots(ax: Axes, side: pd.DataFrame, colour: str, label: str, above: np.ndarray) -> None:
    """A printed column as dots with their numbers, open where a digit is unsure; "not readable" where there is none."""
    ax.plot(range(len(side)), side["value"], color=colour, lw=0.8, label=label)
    for x, (value, shown, confidence) in enumerate(
        side[["value", "shown", "confidence"]].itertuples(index=False)
    ):
        if value == value:  # not NaN
            ax.plot(x, value, "o", mec=colour, mfc="white" if confidence == "unsure" else colour)
            ax.annotate(
                shown,
                (x, value),
                xytext=(0, 7 if above[x] else -14),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        else:  # on the axis, wherever that begins
            at = x + (0.12 if label == ARROWS["xx-en"] else -0.12)
            ax.text(
                at,
                0.02,
                "not readable",
                transform=ax.get_xaxis_transform(),
                rotation=90,
                ha="center",
                va="bottom",
                fontsize=7,
                color=colour,
            )


def _bars(ax: Axes, at: np.ndarray, side: pd.DataFrame, width: float, colour: str) -> None:
    """Bars of a printed column: hatched where a digit is unsure; "not readable" where there is no number."""
    values = side["value"].to_numpy(dtype=float)
    unsure = (side["confidence"] == "unsure").to_numpy() & ~np.isnan(values)
    bars = ax.barh(at, np.nan_to_num(values), width, color=colour, edgecolor="white", lw=0.3)
    for bar, is_unsure in zip(bars, unsure, strict=True):
        bar.set_hatch("///" if is_unsure else "")
    texts = [f" {shown}" if isinstance(shown, str) and shown else "" for shown in side["shown"]]
    for y, value, text in zip(at, values, texts, strict=True):
        missing = np.isnan(value)
        label = " not readable" if missing and text == "" else text
        ax.text(0 if missing else value, y, label, va="center", fontsize=7, color="0.5" if missing else INK)


def _short(stage: str) -> str:
    words = {"pre-training stage ": "pre ", "post-training stage ": "post ", " (": "\n("}
    for word, short in words.items():
        stage = stage.replace(word, short)
    return stage


def write_figures(folder: str | Path, ours: pd.DataFrame | None = None) -> dict[str, Figure]:
    """Draw every figure of the papers that we hold numbers of into `folder`, PNG and PDF; returns them by name.

    The files hold no date, software or host: the same figure, the same bytes.
    """
    figures = {
        "paper_alma": alma_figure(),
        "paper_alma_mono_parallel": mono_parallel_figure(),
        "paper_xalma": xalma_figure(),
        "paper_methods": methods_figure(),
        "paper_ablation_stages": stages_figure(ours),
    }
    for name, fig in figures.items():
        save_figure(fig, Path(folder) / f"{name}.png")
        fig.set_layout_engine("none")  # it is laid out now; to do it again for the PDF would take as long
        save_figure(fig, Path(folder) / f"{name}.pdf")
    return figures
