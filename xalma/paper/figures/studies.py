"""Figures of notebooks 08 and 09: rejection weights and gradients, what training did to a pair, bars with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xalma.evaluation.records import Record
from xalma.languages import ARROWS
from xalma.paper.figures.style import (
    CHOSEN,
    DIRECTION_COLOURS,
    INK,
    METHOD_COLOURS,
    PALE,
    REJECTED,
    subplots,
)
from xalma.paper.studies.over_rejection import N_TOKENS, above_baseline, tau_curve
from xalma.paper.studies.seeds import LEAST_BLEU, SFT, summary
from xalma.paper.studies.study import Study
from xalma.paper.studies.style import label_of, last_logps, split_name
from xalma.preference.method_specs import METHODS

_STYLES = {"ARPO detached": "--", "ARPO released code": ":"}
PRESET_LABELS = {"paper": "paper: exp(1.5 z) − 1", "released-code": "released code: 0.9 exp(0.4 z) − 1"}
BAR_DIRECTIONS = {
    direction: (ARROWS[direction], colour, shift)
    for (direction, colour), shift in zip(DIRECTION_COLOURS.items(), (-0.19, 0.19), strict=True)
}  # name, colour, shift


def colour_of_method(label: str) -> str:
    """The colour of a method's family: "DPO+BC" has DPO's."""
    return next((colour for family, colour in METHOD_COLOURS.items() if label.startswith(family)), INK)


def tau_curves(seen: Sequence[float] | None = None) -> Figure:
    """ARPO's rejection weight against the distance of the two answers, for both presets.

    seen: distances z of pairs of ours (batch means); a band marks where nine in ten of them lie.
    """
    fig, ax = subplots(size=(8, 3.6))
    z = np.linspace(0, 2.5, 501)
    for preset, style in zip(PRESET_LABELS, ("-", "--"), strict=True):
        ax.plot(
            z, tau_curve(preset, z.tolist()), style, color=METHOD_COLOURS["ARPO"], label=PRESET_LABELS[preset]
        )
    ax.axhline(1, color=METHOD_COLOURS["CPO"], linewidth=1)
    ax.axhline(0, color=METHOD_COLOURS["SFT"], linewidth=1)
    ax.annotate("τ = 1: as CPO", (2.45, 1.02), ha="right", va="bottom", fontsize=9)
    ax.annotate("τ = 0: rejected answer left alone", (2.45, 0.02), ha="right", va="bottom", fontsize=9)
    ax.axhspan(-0.15, 0, color=PALE)
    ax.annotate("τ < 0: rejected answer rewarded", (2.45, -0.08), ha="right", va="center", fontsize=9)
    if seen is not None and len(seen):
        low, high = np.quantile(seen, [0.05, 0.95])
        ax.axvspan(low, high, color=CHOSEN, alpha=0.15, label="our pairs (batch means of z, 5 to 95 %)")
    ax.set(
        xlim=(0, 2.5), ylim=(-0.15, 1.15), title="How hard ARPO rejects, by how far apart the two answers are"
    )
    ax.set(
        xlabel="z, distance of the average log-probabilities (nats per token)", ylabel="rejection weight τ"
    )
    ax.legend(loc="center right")
    return fig


# Which methods share a row of `gradient_curves`.
_GRADIENT_ROWS = (
    ("CPO", "ARPO detached", "ARPO"),
    ("DPO", "KTO", "SimPO", "ORPO", "ARPO released code"),
)


def gradient_curves(frame: pd.DataFrame) -> Figure:
    """`over_rejection.gradient_frame`: the push on the chosen (left) and on the rejected answer (right).

    Above, CPO against ARPO with and without a gradient through tau; below, the other methods. The likelihood term's own
    push is 1 / N_TOKENS.
    """
    fig, axes = subplots(2, 2, size=(10, 6.6), sharey="row", sharex=True)
    frame = frame[frame["difference"] <= 1.2]
    for line, labels, corner in zip(axes, _GRADIENT_ROWS, ("lower right", "upper right"), strict=True):
        for ax, side in zip(line, ("chosen", "rejected"), strict=True):
            for label in labels:
                rows = frame[frame["label"] == label]
                # the kink of |z| at 0 is a jump, not a line
                for part in (rows[rows["difference"] < 0], rows[rows["difference"] > 0]):
                    ax.plot(
                        part["difference"],
                        part[side],
                        _STYLES.get(label, "-"),
                        color=colour_of_method(label),
                        label=label if part["difference"].iloc[0] > 0 else None,
                    )
            ax.axhline(0, color=INK, linewidth=1)
            ax.axvline(0, color=INK, linewidth=1, linestyle=":")
            ax.set_title(f"push on the {side} answer")
        line[0].axhline(
            1 / N_TOKENS, color=METHOD_COLOURS["SFT"], linestyle="-.", label="likelihood term (BC)"
        )
        line[0].set_ylabel("push on the summed log-prob\n(minus the gradient)")
        line[1].legend(*line[0].get_legend_handles_labels(), loc=corner, fontsize=8)
    note = {"xycoords": "data", "fontsize": 8, "ha": "left", "arrowprops": {"arrowstyle": "->", "color": INK}}
    axes[0][0].annotate(
        "jump: beyond 0 the gradient\nthrough τ pulls them apart", (0.02, 0.21), xytext=(0.5, 0.2), **note
    )
    axes[0][0].annotate("τ = 1: ARPO is CPO", (0.47, 0.03), xytext=(0.6, 0.1), **note)
    for ax in axes[1]:
        ax.set_xlabel("difference of average log-probabilities,\nchosen − rejected (nats per token)")
    return fig


def probe_curves(frame: pd.DataFrame, n_pairs: int = 16) -> Figure:
    """`over_rejection.probe_frame` as one small panel per method: average log-probs of both answers against updates."""
    labels = list(dict.fromkeys(frame["label"]))
    n_columns = min(5, len(labels))
    n_rows = -(-len(labels) // n_columns)
    fig, axes = subplots(
        n_rows, n_columns, size=(10, 0.9 + 2 * n_rows), sharex=True, sharey=True, squeeze=False
    )
    for ax, label in zip(axes.flat, labels, strict=False):
        rows = frame[frame["label"] == label]
        for side, colour in (("chosen", CHOSEN), ("rejected", REJECTED)):
            by_step = rows.groupby("step")[f"{side}_avg_logp"]
            mean = by_step.mean()
            ax.plot(mean.index, mean, color=colour, label=side)
            if rows["seed"].nunique() > 1:
                ax.fill_between(
                    mean.index, by_step.min(), by_step.max(), color=colour, alpha=0.2, linewidth=0
                )
            ax.axhline(mean.iloc[0], color=colour, linewidth=0.8, linestyle=":")
        ax.set_title(label, fontsize=10)
    for ax in axes.flat[len(labels) :]:
        ax.set_axis_off()
    n_seeds = frame["seed"].nunique()
    fig.supxlabel("updates", fontsize=10)
    fig.supylabel("average log-probability (nats per token)", fontsize=10)
    note = f"{n_pairs} fixed pairs" + (f", mean and range of {n_seeds} seeds" if n_seeds > 1 else "")
    fig.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside upper right",
        ncols=2,
        title=note,
        title_fontsize=9,
    )
    return fig


def tau_lines(frame: pd.DataFrame, baseline: str) -> Figure:
    """`over_rejection.tau_frame` of several variants of ARPO, small multiples: a column per variant, above z minus that
    of `baseline`, below tau, both means of each batch over the seeds.

    A seed has the same batches for all, so that the difference in z is what training did, not what was drawn.
    """
    frame = above_baseline(frame, baseline)
    frame = frame[frame["label"] != baseline]
    labels = list(dict.fromkeys(frame["label"]))
    fig, axes = subplots(
        2, len(labels), (max(4.0, 1.9 * len(labels)), 4.4), sharex=True, sharey="row", squeeze=False
    )
    for column, label in zip(axes.T, labels, strict=True):
        for ax, name in zip(column, ("z", "tau"), strict=True):
            mean = frame[frame["label"] == label].groupby("step")[name].mean()
            ax.plot(mean.index, mean, color=METHOD_COLOURS["ARPO"])
            ax.axhline(0, color=INK, linewidth=0.8)
        column[0].set_title(fill(label, 14), fontsize=9)
    axes[0][0].set_ylabel(f"z − z of\n{baseline}\n(nats per token)")
    axes[1][0].set_ylabel("mean τ")
    fig.supxlabel("updates", fontsize=10)
    return fig


def rate_curves(records: Iterable[Record], probes: pd.DataFrame, title: str) -> Figure:
    """Notebook 08, "too hard": BLEU, content and length against the learning rate, a row per direction class; below,
    the log-probabilities of fixed pairs after training. Dotted: the SFT module that all start from.

    records: of `style_study`; probes: `style_probes`. Points are means over the seeds there are.
    """
    frame = summary(records)
    logps = last_logps(probes)
    frame = frame.join(frame["system"].map(split_name).apply(pd.Series).set_axis(["method", "rate"], axis=1))
    ends = logps.drop(SFT).join(
        logps.drop(SFT)
        .index.to_series()
        .map(split_name)
        .apply(pd.Series)
        .set_axis(["method", "rate"], axis=1)
    )
    fig, axes = subplots(3, 3, size=(10, 7.6), sharex=True)
    for row, (direction, arrow) in zip(axes, ARROWS.items(), strict=False):
        for ax, (metric, name) in zip(row, RATE_PANELS, strict=True):
            here = frame[chosen_rows(frame, metric, direction)]
            _over_rates(ax, here[here["rate"] > 0], "mean", here.loc[here["system"] == SFT, "mean"].item())
            ax.set(title=arrow, ylabel=name, ylim=(0, None))
    for ax, side in zip(axes[2], ("chosen", "rejected"), strict=False):
        _over_rates(ax, ends, side, logps.loc[SFT, side])
        ax.set(title=f"{side} answers", ylabel="log p, nats per token")
    axes[2][2].set_axis_off()
    axes[1][2].xaxis.set_tick_params(labelbottom=True)
    axes[2][2].legend(*axes[0][0].get_legend_handles_labels(), loc="center", title="dotted: SFT, the start")
    for ax in axes[:2].flat:
        ax.set_xlabel("")
    fig.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return fig


RATE_PANELS = [
    ("bleu", "BLEU"),
    ("content", "content score, %"),
    ("length_ratio", "length, % of the reference"),
]


def _over_rates(ax: Axes, rows: pd.DataFrame, column: str, start: float) -> None:
    """One line per method over the learning rate, one point per method for a single rate; the start is dotted."""
    methods = [name for name in METHODS if name in set(rows["method"])]
    rates = sorted(set(rows["rate"]))
    for i, method in enumerate(methods):
        line = rows[rows["method"] == method].sort_values("rate")
        label = label_of(method)
        across = line["rate"] if len(rates) > 1 else [i] * len(line)
        ax.plot(across, line[column], "o-", color=colour_of_method(label), markersize=5, label=label)
    ax.axhline(start, color=INK, linestyle=":", linewidth=1.2)
    if len(rates) > 1:
        ax.set_xscale("log")
        ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
        ax.minorticks_off()
        ax.set_xlabel("learning rate")
    else:
        ax.set_xticks(range(len(methods)), [label_of(method).split()[0] for method in methods])
        ax.set_xlabel(f"learning rate {rates[0]:g}")


def eta_sweep(frame: pd.DataFrame, beside: pd.DataFrame, panels: Sequence[tuple[str, str]]) -> Figure:
    """`preference_tables.sweep_frame` at the paper's η_scale of 1: a panel per (metric, axis label), η across, the
    direction classes as points side by side.

    beside: `seeds.summary` of CPO, whose mean runs through as a dotted line: tau = 1.
    """
    fig, axes = subplots(1, len(panels), size=(10, 3.6), squeeze=False)
    for ax, (metric, axis_label) in zip(axes[0], panels, strict=True):
        for direction, (arrow, colour, shift) in BAR_DIRECTIONS.items():
            rows = frame[chosen_rows(frame, metric, direction) & (frame["eta_scale"] == 1.0)].sort_values(
                "eta"
            )
            at = np.arange(len(rows)) + shift / 2
            ax.errorbar(at, rows["mean"], yerr=rows["half"], fmt="o", color=colour, capsize=3, label=arrow)
            ax.set_xticks(range(len(rows)), [f"{eta:g}" for eta in rows["eta"]])
            cpo = beside.loc[chosen_rows(beside, metric, direction), "mean"].item()
            ax.axhline(cpo, color=colour, linestyle=":", linewidth=1.2, label=f"{arrow}, CPO")
        ax.set(xlabel="η (0 never rejects)", ylabel=axis_label)
    title = "mean over seeds, bar: 95 % interval" if frame["half"].notna().any() else None
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, title=title)
    return fig


def difference_dots(
    table: pd.DataFrame, column: str, title: str, *, rows_are: str = "method", measure: str = "BLEU"
) -> Figure:
    """Differences from a baseline as dots with their intervals, a panel per direction class, a row per method.

    table: `rows_are`, direction (en→xx or xx→en), `column`, its ±. One scale for both panels.
    """
    methods = list(dict.fromkeys(table[rows_are]))
    fig, axes = subplots(1, 2, (10, 1.4 + 0.3 * len(methods)), sharex=True, sharey=True)
    for ax, (arrow, colour, _) in zip(axes, BAR_DIRECTIONS.values(), strict=True):
        rows = table[table["direction"] == arrow].set_index(rows_are).reindex(methods)
        ax.errorbar(
            rows[column], range(len(methods)), xerr=rows[f"{column} ±"], fmt="o", color=colour, capsize=3
        )
        ax.axvline(0, color=INK, linewidth=1)
        ax.set_yticks(range(len(methods)), methods)
        ax.grid(True, axis="x")
        ax.set(title=arrow, xlabel=f"{measure} {column}")
    axes[0].invert_yaxis()
    fig.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return fig


def chosen_rows(frame: pd.DataFrame, metric: str, direction: str) -> pd.Series:
    """Which rows of a summary are of this metric and direction class."""
    return (frame["metric"] == metric) & (frame["direction"] == direction)


def module_bars(records: Iterable[Record], labels: Mapping[str, str], title: str) -> Figure:
    """Notebook 09: BLEU of each system as bars, a panel per direction class, whiskers: 95 % over seeds.

    labels: the records' stage -> name, in order.
    """
    frame = summary(records)
    fig, axes = subplots(1, 2, size=(10, 1.3 + 0.5 * len(labels)), sharex=True, sharey=True)
    for ax, (direction, (arrow, colour, _)) in zip(axes, BAR_DIRECTIONS.items(), strict=True):
        rows = frame[chosen_rows(frame, "bleu", direction)].set_index("system").reindex(list(labels))
        half = None if rows["half"].isna().all() else rows["half"]
        bars = ax.barh(
            range(len(labels)),
            rows["mean"],
            0.6,
            xerr=half,
            color=colour,
            error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 2},
        )
        ax.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
        ax.set_yticks(range(len(labels)), list(labels.values()))
        ax.set(title=arrow, xlabel="BLEU")
        ax.grid(True, axis="x")
        ax.grid(False, axis="y")
        ax.margins(x=0.12)
        ax.set_xlim(0, None)
    axes[0].invert_yaxis()
    fig.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return fig


def study_figure(study: Study, table: pd.DataFrame) -> Figure:
    """`module_bars` of a study's BLEU; where no system reaches `LEAST_BLEU`, `difference_dots` of its bits per byte.

    table: `study_table` of it.
    """
    if table["BLEU"].max() >= LEAST_BLEU:
        return module_bars(study.records, study.labels, f"{study.title}: BLEU")
    baseline = study.labels[study.baseline]
    title = f"{study.title}: bits per byte minus the baseline's ({baseline}); left is better"
    return difference_dots(table, "bits − baseline", title, rows_are="system", measure="bits per byte:")


ALMA_COLOURS = {"no": "#BBBBBB", "yes": "#555555"}  # not those of the directions, which are the panels
LABELS = {"BLEU": "BLEU, mean over languages", "bits/byte": "bits per byte (less is better)"}


def quality_figure(table: pd.DataFrame) -> Figure:
    """`alma.quality_table` as bars, ours alone: a column per direction, BLEU above, bits per byte below.

    Random weights are left out: where they stay near 0, a bar of their own shows nothing.
    """
    table = table[table["monolingual"].isin(ALMA_COLOURS)]
    fig, axes = subplots(2, 2, size=(10, 6.4), sharey="row", sharex=True)
    for row, (label, title) in zip(axes, LABELS.items(), strict=True):
        for ax, arrow in zip(row, ARROWS.values(), strict=True):
            for shift, (mono, rows) in zip(
                (-0.2, 0.2), table.groupby("monolingual", sort=False), strict=True
            ):
                positions = [i + shift for i in range(len(rows))]
                bars = ax.bar(
                    positions,
                    rows[f"our {label} {arrow}"],
                    0.38,
                    color=ALMA_COLOURS[mono],
                    label=f"monolingual text: {mono}",
                )
                ax.bar_label(bars, fmt="%.1f" if label == "BLEU" else "%.2f", fontsize=8, color=INK)
            ax.set_xticks(range(len(rows)), rows["bitext"])
        row[0].set_ylabel(title)
    for ax, arrow in zip(axes[0], ARROWS.values(), strict=True):
        ax.set_title(arrow)
    for ax in axes[1]:
        ax.set_xlabel("bitext of stage 2")
    axes[0][0].legend(loc="upper left")
    return fig


def amount_figure(table: pd.DataFrame) -> Figure:
    """`alma.amount_table` as lines: BLEU and bits per byte after stage 2 against monolingual tokens of stage 1."""
    fig, axes = subplots(1, 2, size=(10, 3.8))
    for ax, (label, title) in zip(axes, LABELS.items(), strict=True):
        for arrow, colour in zip(ARROWS.values(), DIRECTION_COLOURS.values(), strict=True):
            ax.plot(
                table["monolingual tokens"], table[f"our {label} {arrow}"], "o-", color=colour, label=arrow
            )
        ax.set(xlabel="tokens of monolingual text in stage 1", ylabel=title)
        read = table["monolingual tokens"]
        ax.set_xticks(read, [f"{n / 1e6:.2g} M" if n else "0" for n in read])
    axes[0].set_ylim(0, 1.05 * axes[0].get_ylim()[1])
    axes[0].legend(loc="best")
    return fig
