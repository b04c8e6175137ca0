"""Figures of both papers, redrawn from `xalma.published`: printed numbers only, one panel a metric; ours apart.

A number we could not read with certainty is drawn hatched; one that could not be read at all has no bar, and says so.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from xalma.languages import ARROWS, GROUP_NAMES
from xalma.paper.figures.style import GROUP_COLOURS, INK, PALE, subplots
from xalma.paper.tables import save_figure
from xalma.published import published

OURS, THEIRS, ACCENT = GROUP_COLOURS[6], GROUP_COLOURS[5], GROUP_COLOURS[1]
BASELINES = tuple(GROUP_COLOURS[group] for group in (3, 4, 5, 2, 7, 8))


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
        ax.hlines(y, 60, wide["COMET-22"], color=PALE)
        for i, (system, row) in enumerate(wide.dropna().reindex(systems).iterrows()):
            comet, text = row["COMET-22"], f"{row['COMET-22']:.1f}  (BLEU {row['BLEU']:.1f})"
            if comet == comet:  # not NaN
                ax.plot(comet, i, "o", ms=8, color=OURS if str(system).startswith("ALMA") else THEIRS)
                ax.text(comet + 0.6, i, text, va="center", fontsize=8)
        ax.set(
            title=ARROWS[direction],
            xlabel="COMET-22, mean of five languages, as printed",
            yticks=y,
            xlim=(60, 98),
        )
        ax.set_yticklabels(systems)
        ax.grid(False)
    return fig


def mono_parallel_figure() -> Figure:
    """ALMA's monolingual × parallel data: grouped bars of BLEU and COMET-22, both directions."""
    cells = published("c")
    parts = cells["subset"].str.extract(r"mono=(?P<mono>\w+);parallel=(?P<parallel>[\w-]+)")
    cells = pd.concat([cells, parts], axis=1)
    kinds = list(dict.fromkeys(cells["parallel"]))
    fig, axes = subplots(2, 2, (9.5, 6.0), sharex=True)
    for i, metric in enumerate(("BLEU", "COMET-22")):
        for j, direction in enumerate(("xx-en", "en-xx")):
            ax, width = axes[i][j], 0.38
            panel = cells[(cells["metric"] == metric) & (cells["direction"] == direction)]
            for k, (mono, colour) in enumerate({"no": THEIRS, "yes": OURS}.items()):
                side = panel[panel["mono"] == mono]
                values = side.set_index("parallel")["value"].reindex(kinds)
                bars = ax.bar(np.arange(len(kinds)) + (k - 0.5) * width, values, width, color=colour)
                ax.bar_label(bars, fmt="%.1f", fontsize=7.5)
            ax.set_ylim(*((0, 40) if metric == "BLEU" else (60, 92)))  # bars of COMET begin at 60
            ax.set(title=f"{ARROWS[direction]}", ylabel=f"{metric}, as printed", xticks=range(len(kinds)))
            ax.set_xticklabels([f"parallel:\n{kind}" for kind in kinds], fontsize=8)
    handles = [_patch(THEIRS, "no monolingual text"), _patch(OURS, "with monolingual text")]
    fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return fig


def xalma_figure() -> Figure:
    """X-ALMA's COMET-22 by group: a mark a system, All filled and High open, a panel per direction."""
    fig, axes = subplots(2, 1, (10.5, 8.0), sharex=True)
    for ax, (direction, table) in zip(axes, {"en-xx": "e", "xx-en": "f"}.items(), strict=True):
        cells = published(table)
        systems = list(dict.fromkeys(cells["system"]))
        for i, system in enumerate(systems):
            own = system.startswith("X-ALMA")
            colour = OURS if system == "X-ALMA" else ACCENT if own else BASELINES[i % len(BASELINES)]
            for subset, face in (("All", colour), ("High", "white")):
                side = cells[(cells["system"] == system) & (cells["subset"] == subset)]
                x = (
                    side["group_or_lang"].str.removeprefix("group").astype(int)
                    + (i - len(systems) / 2) * 0.09
                )
                ax.plot(x, side["value"], ls="", marker="D" if own else "o", ms=6 if own else 5, mec=colour, mfc=face,
                        label=system if subset == "All" else None)  # fmt: skip
        for group in range(1, 8):
            ax.axvline(group + 0.5, color=PALE)
        ax.set(title=ARROWS[direction], ylabel="COMET-22, FLORES-200, as printed", xticks=list(GROUP_NAMES))
        names = [fill(name.split(" (")[0], 16) for name in GROUP_NAMES.values()]
        ax.set_xticklabels([f"{group}\n{name}" for group, name in enumerate(names, 1)], fontsize=8)
    title = "filled: All, open: High; some cells are unsure, see the table"
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, title=title)
    return fig


def methods_figure() -> Figure:
    """X-ALMA's Table 5: BLEU, COMET-22 and XCOMET-XL of each preference method, a panel a metric, two bars a method."""
    cells = published("g")
    methods = list(dict.fromkeys(cells["system"]))[::-1]
    fig, axes = subplots(1, 3, (11.5, 4.8), sharey=True)
    for ax, metric in zip(axes, ("BLEU", "COMET-22", "XCOMET-XL"), strict=True):
        for k, (direction, colour) in enumerate({"xx-en": THEIRS, "en-xx": OURS}.items()):
            side = cells[(cells["metric"] == metric) & (cells["direction"] == direction)]
            side = side.set_index("system").reindex(methods)
            _bars(ax, np.arange(len(methods)) + (k - 0.5) * 0.4, side, 0.4, colour, horizontal=True)
        ax.set(title=metric, xlabel=f"{metric}, Group 6, as printed", yticks=range(len(methods)))
        ax.set_yticklabels(methods)
        ax.set_xlim(right=1.22 * ax.get_xlim()[1])
    fig.legend(handles=_direction_patches(), loc="outside lower center", ncols=3)
    return fig


def stages_figure(ours: pd.DataFrame | None = None, metric: str = "BLEU") -> Figure:
    """X-ALMA's ablation of stages, COMET-22 on Group 6; `ours` (system, direction, value) has a panel of its own."""
    cells = published("h")
    cells = cells[cells["table"] == "h_ablation_stages"]
    stages = list(dict.fromkeys(cells["system"]))
    has_ours = ours is not None and len(ours) > 0
    fig, axes = subplots(1, 2 if has_ours else 1, (11.0 if has_ours else 6.5, 4.2), squeeze=False)
    panels = [(axes[0][0], cells, "COMET-22, Group 6; the axis begins at 80", "X-ALMA, as printed")]
    if has_ours:
        shown = ours.assign(shown=ours["value"].map("{:.1f}".format), confidence="seed")
        panels.append(
            (axes[0][1], shown, f"{metric}, Group 6, n: see the table", "Ours, another metric and model")
        )
    for ax, frame, label, title in panels:
        for k, (direction, colour) in enumerate({"en-xx": OURS, "xx-en": THEIRS}.items()):
            side = frame[frame["direction"] == direction].set_index("system").reindex(stages)
            _bars(ax, np.arange(len(stages)) + (k - 0.5) * 0.4, side, 0.4, colour)
        ax.set(title=title, ylabel=label, xticks=range(len(stages)))
        ax.set_xticklabels([_short(stage) for stage in stages], fontsize=8)
    axes[0][0].set_ylim(80, 93)
    axes[0][0].legend(handles=_direction_patches(), loc="upper left")
    return fig


def golden_figure(table: pd.DataFrame) -> Figure:
    """Our BLEU against the printed one. table: columns system, direction, printed, ours."""
    fig, axes = subplots(1, 2, (10.0, 4.4))
    for i, (system, rows) in enumerate(table.groupby("system", sort=False)):
        colour = (OURS, ACCENT, THEIRS)[i % 3]
        axes[0].plot(rows["printed"], rows["ours"], ls="", marker="o", color=colour, label=system)
        axes[1].plot(rows["direction"], rows["ours"] - rows["printed"], ls="", marker="o", color=colour)
    ends = [table[["printed", "ours"]].min().min() - 2, table[["printed", "ours"]].max().max() + 2]
    axes[0].plot(ends, ends, color=INK, lw=0.8)
    axes[0].set(
        xlabel="BLEU, as printed by ALMA", ylabel="BLEU, scored here", title="Released outputs, WMT'22"
    )
    axes[0].legend()
    axes[1].axhspan(-0.15, 0.15, color=PALE)
    axes[1].set(ylabel="scored here − printed, BLEU", title="Difference (band: ± 0.15)")
    axes[1].tick_params(axis="x", labelrotation=60)
    return fig


def _bars(
    ax: Axes, at: np.ndarray, side: pd.DataFrame, width: float, colour: str, horizontal: bool = False
) -> None:
    """Bars of a printed column: hatched where a digit is unsure; "not readable" where there is no number."""
    values = side["value"].to_numpy(dtype=float)
    unsure = (side["confidence"] == "unsure").to_numpy() & ~np.isnan(values)
    draw = ax.barh if horizontal else ax.bar
    bars = draw(at, np.nan_to_num(values), width, color=colour, edgecolor="white", lw=0.3)
    for bar, is_unsure in zip(bars, unsure, strict=True):
        bar.set_hatch("///" if is_unsure else "")
    texts = [f" {shown}" if isinstance(shown, str) and shown else "" for shown in side["shown"]]
    for x, value, text in zip(at, values, texts, strict=True):
        missing = np.isnan(value)
        label = " not readable" if missing and text == "" else text
        grey = "0.5" if missing else INK
        if horizontal:
            ax.text(0 if missing else value, x, label, va="center", fontsize=7, color=grey)
        else:  # the note on a missing bar stands on the axis, wherever that begins
            place = (
                {"y": 0.01, "transform": ax.get_xaxis_transform(), "rotation": 90}
                if missing
                else {"y": value}
            )
            ax.text(x, s=label.strip(), ha="center", va="bottom", fontsize=7, color=grey, **place)


def _short(stage: str) -> str:
    words = {"pre-training stage ": "pre ", "post-training stage ": "post ", " (": "\n("}
    for word, short in words.items():
        stage = stage.replace(word, short)
    return stage


def _patch(colour: str, label: str, hatch: str = "") -> Patch:
    return Patch(facecolor=colour, edgecolor="0.4" if hatch else colour, label=label, hatch=hatch)


def _direction_patches() -> list[Patch]:
    return [_patch(OURS, "en→xx"), _patch(THEIRS, "xx→en"), _patch("white", "unsure digit", "///")]


def save_both(fig: Figure, stem: str | Path) -> list[Path]:
    """Write <stem>.png and <stem>.pdf without date, software or host: the same figure, the same bytes."""
    png = save_figure(fig, f"{stem}.png")
    fig.set_layout_engine("none")  # it is laid out now; to do it again for the PDF would take as long
    return [png, save_figure(fig, f"{stem}.pdf")]


def write_figures(folder: str | Path, ours: pd.DataFrame | None = None) -> dict[str, Figure]:
    """Draw every figure of the papers that we hold numbers of into `folder`, PNG and PDF; returns them by name."""
    figures = {
        "paper_alma": alma_figure(), "paper_alma_mono_parallel": mono_parallel_figure(), "paper_xalma": xalma_figure(),
        "paper_methods": methods_figure(), "paper_ablation_stages": stages_figure(ours),
    }  # fmt: skip
    for name, fig in figures.items():
        save_both(fig, Path(folder) / name)
    return figures
