"""Figures of the five stages: learning curves, the ladder of scores, a heat map of directions, and ARPO's tau.

Tidy rows in (`report.log_rows`, `results.Record`), a matplotlib Figure out; nothing is computed here but means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from xalma.evaluation.records import IN_BITS, Record
from xalma.languages import ARROWS, GROUP_NAMES, LANGUAGES, other_side, parse_direction
from xalma.paper.figures.style import GROUP_COLOURS, INK, subplots
from xalma.paper.ladder_tables import STAGES, direction_table, ladder_table
from xalma.preference.arpo import arpo_loss

STAGE_LABELS = {
    "base": "0\nbase",
    "stage1": "1\nmono",
    "stage2": "2\nmodules",
    "stage3": "3\npseudo",
    "stage4": "4\nSFT",
    "stage5": "5\nARPO",
}
STAGE_TITLES = {
    1: "Stage 1: base, monolingual",
    2: "Stage 2: modules, monolingual",
    3: "Stage 3: pseudo-monolingual",
    4: "Stage 4: SFT (answers only)",
    5: "Stage 5: ARPO",
}
INSTRUMENTS = {  # title -> metric and stages: what a stage is measured with, from the stage before it on
    "Held-out text alone\n(bits per byte, less is better)": ("text_bits", ("base", "stage1", "stage2")),
    "Gain from the own partner\n(bits per byte)": ("partner_gain", ("base", "stage1", "stage2", "stage3")),
    "BLEU after one example pair,\nwithout a prompt": ("one_shot_bleu", ("stage2", "stage3", "stage4")),
    "BLEU with the prompt": ("bleu", ("stage4", "stage5")),
}


def learning_curves(logs: pd.DataFrame) -> Figure:
    """One panel per stage, one line per group: training loss (nats per token) against updates. logs: `report.log_rows`.

    Raises ValueError for a log without training rows.
    """
    logs = logs[logs["kind"] == "train"]
    stages = sorted(logs["stage"].unique())
    if not stages:
        raise ValueError("no training rows in this log: read it with xalma.paper.report.log_rows")
    fig, axes = _panels(len(stages), columns=3)
    for ax, stage in zip(axes, stages, strict=True):
        rows = logs[logs["stage"] == stage]
        for group, part in rows.groupby("group"):
            ax.plot(
                part["step"], part["loss"], color=_colour(group), label=_name(group), marker=_marker(part)
            )
        kind = "ARPO loss (nats)" if stage == 5 else "training loss (nats per token)"
        ax.set(xlabel="updates", ylabel=kind, title=STAGE_TITLES[stage])
        ax.xaxis.get_major_locator().set_params(integer=True)
    _legend(fig, axes)
    return fig


def ladder_figure(records: Iterable[Record]) -> Figure:
    """What each stage is for, measured as it can be: a column of panels per row of `INSTRUMENTS` that has records.

    en→xx above, xx→en below; one line per group and a dashed one for the mean over directions. Raises ValueError for
    records of none of them.
    """
    records = list(records)
    found = [
        (name, columns, kept)
        for name, columns in INSTRUMENTS.items()
        if (kept := _instrument(records, *columns))
    ]
    if not found:
        raise ValueError("no records to draw a ladder of: evaluate the stages first")
    fig, axes = _panels(2 * len(found), columns=len(found), height=3.2)
    for i, (name, (metric, stages), kept) in enumerate(found):
        _ladder_column((axes[i], axes[i + len(found)]), kept, metric, stages)
        axes[i].set_title(name)
    for row, title in enumerate(ARROWS.values()):
        axes[row * len(found)].set_ylabel(f"{title}\n{_segments(records)} segments per direction")
    _legend(fig, axes)
    return fig


def _instrument(records: Sequence[Record], metric: str, stages: Sequence[str]) -> list[Record]:
    """Its records. After an example pair, BLEU up to stage 3 is the stages' own, and stage 4's a metric apart."""
    kept = [record for record in records if record.stage in stages and record.metric == metric]
    if metric == "one_shot_bleu":
        own = [r for r in records if r.metric == "bleu" and r.stage in stages and r.stage < "stage4"]
        kept += [replace(record, metric=metric) for record in own]
    return kept


def _segments(records: Sequence[Record]) -> str:
    counts = sorted({record.n for record in records})
    return "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))


def _ladder_column(axes: Sequence[Axes], records: list[Record], metric: str, stages: Sequence[str]) -> None:
    table = ladder_table(records, metric)
    stages = [stage for stage in stages if stage in table]
    for ax, direction in zip(axes, ARROWS, strict=True):
        rows = table[table["direction"] == direction]
        for _, row in rows.iterrows():
            is_mean = row["group"] == "all"
            if is_mean and len(rows) == 2:  # one group: its line is the mean
                continue
            group = 0 if is_mean else int(row["group"].split()[0])
            ax.plot(stages, row[stages], color=_colour(group), marker="o", ls="--" if is_mean else "-",
                    label="mean of all" if is_mean else row["group"])  # fmt: skip
        _write_values(ax, stages, rows[rows["group"] == "all"].iloc[0][stages], 2 if metric in IN_BITS else 1)
        ax.set_xticks(range(len(stages)), [STAGE_LABELS[stage] for stage in stages])
        ax.margins(x=0.12)
        least = 0.1 if metric in IN_BITS else 1
        ax.set_ylim(
            bottom=min(0, 1.15 * table[stages].min().min()), top=max(least, 1.15 * table[stages].max().max())
        )


def direction_heatmap(
    records: Iterable[Record], metric: str = "bleu", stages: Sequence[str] = STAGES
) -> Figure:
    """Score of each direction after each of `stages`: languages down (groups apart), one panel per side."""
    table = direction_table([record for record in records if record.stage in stages], metric)
    stages = [stage for stage in stages if stage in table]
    codes = [code for code in LANGUAGES if f"en-{code}" in set(table["direction"])]
    codes.sort(key=lambda code: LANGUAGES[code].group)
    top = max(1.0, table[stages].max().max())
    fig, axes = _panels(2, columns=2, height=1.2 + 0.26 * len(codes), sharey=True)
    for ax, title in zip(axes, ARROWS.values(), strict=True):
        outward = table["direction"].map(lambda d: parse_direction(d)[0] == "en") == (title == "en→xx")
        side = table[outward].copy()
        side.index = [other_side(*parse_direction(direction)) for direction in side["direction"]]
        values = side.reindex(codes)[stages].to_numpy(dtype=float)
        image = ax.imshow(values, aspect="auto", cmap="viridis", vmin=0, vmax=top)
        for (i, j), value in [((i, j), values[i, j]) for i in range(len(codes)) for j in range(len(stages))]:
            if value == value:  # not NaN
                colour = "black" if value > 0.6 * top else "white"
                ax.text(j, i, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
        for i in range(1, len(codes)):
            if LANGUAGES[codes[i]].group != LANGUAGES[codes[i - 1]].group:
                ax.axhline(i - 0.5, color="white", lw=4)
        ax.set(title=title, xlabel="after stage", xticks=range(len(stages)), yticks=range(len(codes)))
        ax.set_xticklabels([STAGE_LABELS[stage] for stage in stages])
        ax.set_yticklabels([f"{LANGUAGES[code].name} ({LANGUAGES[code].group})" for code in codes])
        ax.grid(False)
    axes[0].set_ylabel("language (group)")
    fig.colorbar(image, ax=axes, label="BLEU" if metric == "bleu" else metric, shrink=0.9, aspect=40)
    return fig


def tau_figure(variants: Mapping[str, Mapping[str, float]]) -> Figure:
    """tau against z by `xalma.arpo_loss`; variants: name -> its eta and eta_scale, such as `arpo.PRESETS`."""
    fig, (ax,) = _panels(1, columns=1)
    distance = torch.linspace(0, 2.4, 241)
    one = torch.ones_like(distance)
    for (name, options), style in zip(variants.items(), ("-", "--", ":", "-.") * len(variants), strict=False):
        # answers of one token, one certain and the other z nats less likely
        _, tau, z = arpo_loss(0 * one, -distance, one, one, **options)
        values = ", ".join(f"{key} = {value:g}" for key, value in options.items())
        ax.plot(z, tau, ls=style, label=f"{name} ({values})")
    ax.axhline(0, color="0.6", lw=0.8)
    ax.set(
        xlabel="z: distance of the average log-probabilities (nats per token)",
        ylabel="tau: weight of the rejected answer",
    )
    _legend(fig, [ax])
    return fig


def arpo_figure(logs: pd.DataFrame) -> Figure:
    """What ARPO does while it trains: mean z, mean tau, and the log-probabilities of fixed pairs. logs: stage 5's."""
    fig, axes = _panels(3, columns=3)
    for group, rows in logs.groupby("group"):
        train, probe = rows[rows["kind"] == "train"], rows[rows["kind"] == "probe"]
        for ax, column in zip(axes, ("z", "tau"), strict=False):
            ax.plot(
                train["step"], train[column], color=_colour(group), label=_name(group), marker=_marker(train)
            )
        for side, style in (("chosen", "-"), ("rejected", "--")):
            values = probe[f"{side}_avg_logp"]
            axes[2].plot(probe["step"], values, color=_colour(group), ls=style)
    axes[0].set(xlabel="updates", ylabel="z, batch mean (nats per token)", title="How far apart")
    axes[1].set(
        xlabel="updates", ylabel="tau, batch mean", title="Weight of the rejected answer", ylim=(-0.05, 1.05)
    )
    axes[2].set(xlabel="updates", ylabel="log-probability (nats per token)", title="Fixed pairs of training")
    axes[2].legend(
        handles=[Line2D([], [], color=INK, ls=s, label=n) for n, s in (("chosen", "-"), ("rejected", "--"))]
    )
    for ax in axes:
        ax.xaxis.get_major_locator().set_params(integer=True)
    _legend(fig, axes[:1])
    return fig


def _panels(
    n: int, columns: int, height: float = 3.4, sharey: bool | str = False
) -> tuple[Figure, Sequence[Axes]]:
    """A figure of n panels, at most `columns` in a row, empty places taken away."""
    columns = min(n, columns)
    rows = -(-n // columns)
    width = {1: 6.4, 2: 5.4, 4: 3.5}.get(columns, 4.3)
    fig, grid = subplots(rows, columns, (width * columns, height * rows), squeeze=False, sharey=sharey)
    axes = list(grid.flat)
    for ax in axes[n:]:
        ax.remove()
    return fig, axes[:n]


def _legend(fig: Figure, axes: Sequence[Axes]) -> None:
    """One legend under all panels, where it covers no line."""
    found = {
        label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    fig.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(3, len(found)))


def _write_values(ax: Axes, stages: Sequence[str], values: pd.Series, decimals: int) -> None:
    """The mean beside its point, above the line."""
    for x, value in enumerate(values):
        if value == value:
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
            ax.annotate(
                f"{value:.{decimals}f}", (x, value), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=9,
                bbox=box,
            )  # fmt: skip


def _colour(group: int) -> str:
    return GROUP_COLOURS[group] if group else INK  # the base, and means over groups


def _name(group: int) -> str:
    return f"{group} {GROUP_NAMES[group]}" if group else "base, all languages"


def _marker(rows: pd.DataFrame) -> str | None:
    return "o" if len(rows) < 3 else None  # a line of one or two points is hard to see
