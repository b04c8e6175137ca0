"""Figures of the five stages: learning curves, the ladder of scores, a heat map of directions, held-out loss, ARPO.

Tidy rows in (`report.log_rows`, `results.Record`), a matplotlib Figure out; nothing is computed here but means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xalma.evaluation.records import IN_BITS, Record
from xalma.languages import ARROWS, GROUP_NAMES, LANGUAGES, other_side, parse_direction
from xalma.paper.figures.style import CHOSEN, DIRECTION_COLOURS, GROUP_COLOURS, INK, REJECTED, subplots
from xalma.paper.ladder_tables import STAGES, direction_table, ladder_table

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

    From 20 points on the line is a running mean of five, over the pale points. Raises ValueError for a log
    without training rows.
    """
    logs = logs[logs["kind"] == "train"]
    stages = sorted(logs["stage"].unique())
    if not stages:
        raise ValueError("no training rows in this log: read it with xalma.paper.report.log_rows")
    fig, axes = _panels(len(stages), columns=3)
    for ax, stage in zip(axes, stages, strict=True):
        rows = logs[logs["stage"] == stage]
        for group, part in rows.groupby("group"):
            _with_mean(ax, part["step"], part["loss"], _colour(group), _name(group))
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
            ax.plot(
                stages,
                row[stages],
                color=_colour(group),
                marker="o",
                ls="--" if is_mean else "-",
                label="mean of all" if is_mean else row["group"],
            )
        _write_values(ax, stages, rows[rows["group"] == "all"].iloc[0][stages], 2 if metric in IN_BITS else 1)
        ax.set_xticks(range(len(stages)), [STAGE_LABELS[stage] for stage in stages])
        ax.margins(x=0.12)
        least = 0.1 if metric in IN_BITS else 1
        ax.set_ylim(
            bottom=min(0, 1.15 * table[stages].min().min()), top=max(least, 1.15 * table[stages].max().max())
        )


def direction_heatmap(records: Iterable[Record], stages: Sequence[str] = STAGES) -> Figure:
    """BLEU of each direction after each of `stages`: languages down (groups apart), one panel per side."""
    table = direction_table([record for record in records if record.stage in stages], "bleu")
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
    fig.colorbar(image, ax=axes, label="BLEU", shrink=0.9, aspect=40)
    return fig


def arpo_figure(logs: pd.DataFrame) -> Figure:
    """What ARPO does while it trains: z and tau (batch means), and per group the log-probabilities of fixed pairs.

    logs: stage 5's. The last panels show the change since before training, in nats per token.
    """
    groups = list(dict.fromkeys(logs["group"]))
    fig, axes = _panels(2 + len(groups), columns=2, height=2.9)
    for group, rows in logs.groupby("group"):
        train = rows[rows["kind"] == "train"]
        for ax, column in zip(axes, ("z", "tau"), strict=False):
            _with_mean(ax, train["step"], train[column], _colour(group), _name(group))
    axes[0].set(xlabel="updates", ylabel="z (nats per token)", title="How far apart")
    axes[1].set(xlabel="updates", ylabel="τ", title="Weight of the rejected")
    for ax in axes[:2]:
        ax.set_ylim(min(0, ax.get_ylim()[0]), 1.2 * ax.get_ylim()[1])
    for ax, group in zip(axes[2:], groups, strict=True):
        probe = logs[(logs["group"] == group) & (logs["kind"] == "probe")]
        for side, colour in (("chosen", CHOSEN), ("rejected", REJECTED)):
            values = probe[f"{side}_avg_logp"]
            ax.plot(
                probe["step"],
                values - values.iloc[0],
                color=colour,
                label=f"{side} answers",
                marker="o",
                ms=3,
            )
        ax.axhline(0, color=INK, lw=0.8, ls=":")
        ax.set(xlabel="updates", ylabel="Δ log p (nats per token)", title=f"Group {group}: fixed pairs")
    for ax in axes:
        ax.xaxis.get_major_locator().set_params(integer=True)
    _legend(fig, axes)
    return fig


def language_dots(table: pd.DataFrame, before: str, after: str, titles: tuple[str, str]) -> Figure:
    """`text_bits_table`: bits per byte of each language before (open) and after (filled) a stage, an arrow between.

    titles: what the two stages are called in the legend.
    """
    fig, ax = subplots(size=(8.0, 1.2 + 0.3 * len(table)))
    codes = {language.name: code for code, language in LANGUAGES.items()}
    places = 2 if (table[after] - table[before]).abs().max() >= 0.05 else 3
    for y, row in enumerate(table.itertuples(index=False)):
        colour = _colour(LANGUAGES[codes[row.language]].group)
        old = getattr(row, before)
        new = getattr(row, after)
        ax.annotate("", (new, y), (old, y), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.5})
        ax.plot(old, y, "o", mfc="white", mec=colour)
        ax.plot(new, y, "o", color=colour)
        change = f"{new - old:+.{places}f}"
        ax.annotate(
            change, (max(old, new), y), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8
        )
    for label, face in zip(titles, ("white", INK), strict=True):
        ax.plot([], [], "o", mfc=face, mec=INK, label=label)
    ax.set_yticks(range(len(table)), table["language"])
    ax.invert_yaxis()
    ax.margins(x=0.1)
    ax.grid(True, axis="x")
    ax.set(xlabel="bits per byte of held-out sentences (less is better)", title="Held-out loss by language")
    ax.legend(loc="best")
    return fig


def partner_lines(records: Iterable[Record]) -> Figure:
    """The partner gain after each stage, a line per direction class, a pale one per direction."""
    stages = STAGES[:4]  # before SFT
    table = direction_table([r for r in records if r.stage in stages], "partner_gain")
    found = [stage for stage in stages if stage in table]
    fig, ax = subplots(size=(7.0, 3.4))
    for direction, colour in DIRECTION_COLOURS.items():
        outward = table["direction"].str.startswith("en-") == (direction == "en-xx")
        for _, row in table[outward].iterrows():
            ax.plot(found, row[found], color=colour, lw=0.7, alpha=0.4)
        mean = table.loc[outward, found].mean()
        ax.plot(found, mean, color=colour, marker="o", label=f"{ARROWS[direction]}, mean")
    ax.axhline(0, color=INK, lw=0.8)
    ax.set_xticks(range(len(found)), [STAGE_LABELS[stage] for stage in found])
    ax.set(ylabel="bits per byte", title="Partner gain: bits that the right other half saves")
    ax.legend()
    return fig


def _with_mean(ax: Axes, steps: pd.Series, values: pd.Series, colour: str, label: str) -> None:
    """A line; from 20 points on a running mean of five, over the points themselves, pale."""
    if len(steps) >= 20:
        ax.plot(steps, values, color=colour, lw=0.7, alpha=0.35)
        values = values.rolling(5, center=True, min_periods=1).mean()
    ax.plot(steps, values, color=colour, label=label, marker="o" if len(steps) < 3 else None)


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
                f"{value:.{decimals}f}",
                (x, value),
                xytext=(0, 9),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                bbox=box,
                zorder=5,
            )


def _colour(group: int) -> str:
    return GROUP_COLOURS[group] if group else INK  # the base, and means over groups


def _name(group: int) -> str:
    return f"{group} {GROUP_NAMES[group]}" if group else "base, all languages"
