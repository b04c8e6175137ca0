"""Figures of notebooks 00 to 02: the idea in one picture, what a corpus holds and costs, how languages are grouped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from xalma.languages import GROUP_NAMES, GROUPS, LANGUAGES, language
from xalma.paper.figures.style import (
    GROUP_COLOURS,
    INK,
    PALE,
    by_group,
    colour_of,
    group_borders,
    group_legend,
    subplots,
)

_STAGES = (
    ("1", "monolingual\ntext", "base"), ("2", "monolingual\ntext", "module"),
    ("3", "pseudo-mono-\nlingual bitext", "module"), ("4", "prompted\ntranslations", "module"),
    ("5", "preferences\n(ARPO)", "module"),
)  # fmt: skip
BASE_COLOUR = "#BBBBBB"


def _box(ax: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, **more) -> None:
    style = {"boxstyle": "round,pad=0,rounding_size=0.08", "linewidth": more.pop("linewidth", 1.0)}
    ax.add_patch(
        FancyBboxPatch((x, y), width, height, facecolor=colour, edgecolor=more.pop("edge", INK), **style)
    )
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", **more)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK) -> None:
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=colour, linewidth=1.6)
    )


def idea(direction: str = "en-ja") -> Figure:
    """X-ALMA in one picture: prompt, hard gate, frozen base with eight modules (one on), and the five stages below."""
    src, tgt = direction.split("-")
    on = language(src).group or language(tgt).group
    fig, ax = subplots(size=(9.5, 5.0))
    ax.set(xlim=(0, 12), ylim=(0, 6.7))
    ax.axis("off")
    _box(ax, 0.1, 4.6, 2.3, 1.2, f"prompt\n{language(src).name} to\n{language(tgt).name}", "white")
    gate = f"hard gate\nnon-English side:\ngroup {on}"
    _box(ax, 0.1, 2.6, 2.3, 1.2, gate, "white", edge=GROUP_COLOURS[on], linewidth=2)
    _arrow(ax, (1.25, 4.6), (1.25, 3.8), GROUP_COLOURS[on])
    frozen = "one base model, frozen after stage 1"
    _box(ax, 3.2, 4.6, 6.3, 1.2, frozen, BASE_COLOUR, fontsize=12, weight="bold")
    _arrow(ax, (2.4, 5.2), (3.2, 5.2))
    _box(ax, 10.2, 4.6, 1.7, 1.2, "translation", "white")
    _arrow(ax, (9.5, 5.2), (10.2, 5.2))
    for group in GROUPS:
        x, active = 3.2 + (group - 1) * 0.8, group == on
        _box(ax, x, 2.6, 0.7, 1.2, f"{group}", GROUP_COLOURS[group] if active else PALE, weight="bold",
             color="white" if active else "#888888", linewidth=2 if active else 0.8)  # fmt: skip
        if active:
            _arrow(ax, (x + 0.35, 3.8), (x + 0.35, 4.6), GROUP_COLOURS[on])
            _arrow(ax, (2.4, 3.2), (x if group == 1 else 3.12, 3.2), GROUP_COLOURS[on])
    note = "eight language-specific modules (LoRA), one for each group of languages; the gate switches one on"
    ax.text(3.2, 2.3, note, fontsize=9, va="center")
    ax.text(0.1, 6.35, "One question, one base, one module", fontsize=13, weight="bold", va="center")
    for i, (number, data, trained) in enumerate(_STAGES):
        x, is_base = 0.1 + i * 2.4, trained == "base"
        _box(ax, x, 0.2, 2.15, 1.3, f"stage {number}: {trained}\n{data}", BASE_COLOUR if is_base else GROUP_COLOURS[on],
             color=INK if is_base else "white", fontsize=9)  # fmt: skip
        if i:
            _arrow(ax, (x - 0.25, 0.85), (x, 0.85))
    ax.text(0.1, 1.78, "trained in five stages", fontsize=9, va="center", weight="bold")
    return fig


def group_sizes() -> Figure:
    """Languages of each group as coloured cells: the balance, and who sits where."""
    fig, ax = subplots(size=(8.0, 3.6))
    for group, codes in GROUPS.items():
        for i, code in enumerate(codes):
            ax.barh(group, 0.92, left=i, height=0.86, color=GROUP_COLOURS[group])
            ax.text(i + 0.46, group, f"{code}\n{language(code).script}", ha="center", va="center", fontsize=8,
                    color="white" if group not in (4, 5) else INK)  # fmt: skip
    ax.set_yticks(list(GROUPS), [f"{group} {name}" for group, name in GROUP_NAMES.items()])
    ax.invert_yaxis()
    ax.grid(False)
    ax.set(
        xlabel="languages (English, in every group, is not drawn)",
        title="Eight groups, 49 languages, their scripts",
    )
    return fig


def token_costs(sizes: pd.DataFrame) -> Figure:
    """Bars of `text_sizes`: tokens of each language next to English; hatched where the tokenizer never saw it."""
    sizes = sizes.set_index("language").loc[by_group(sizes["language"])]
    fig, ax = subplots(size=(10.0, 3.6))
    bars = ax.bar(sizes.index, sizes["x English"], color=[colour_of(code) for code in sizes.index], width=0.8)
    for bar, seen in zip(bars, sizes["in tokenizer"], strict=True):
        if not seen:
            bar.set(hatch="////", alpha=0.45, edgecolor=INK, linewidth=0.3)
    ax.axhline(1, color=INK, linewidth=1, linestyle="--")
    ax.tick_params(axis="x", labelsize=8)
    ax.margins(x=0.01)
    n = sizes["sentences"].min()
    ax.set(ylabel="tokens, English = 1", xlabel=f"language, in the order of the groups (n = {n} sentences each)",
           title="Tokens for the same content, next to English")  # fmt: skip
    seen = Patch(color="#777777", label="seen by the tokenizer")
    unseen = Patch(facecolor="#DDDDDD", hatch="////", label="not seen")
    ax.legend(handles=[seen] if sizes["in tokenizer"].all() else [seen, unseen], loc="upper left")
    return fig


def mixing_heatmap(mixing: pd.DataFrame) -> Figure:
    """Two heat maps of `mixing_rules`, rules by languages: share of tokens in percent, and epochs."""
    titles = ("Share of the tokens (percent)", "Times each sentence is read (epochs)")
    return _heatmaps(mixing, titles, 4.4, lambda cells: {"vmin": 0})


def _heatmaps(
    rules: pd.DataFrame,
    titles: tuple[str, str],
    height: float,
    scale: Callable[[pd.DataFrame], dict[str, Any]],
) -> Figure:
    """Rules by languages, tokens in percent above, epochs below. scale: cells -> options of `imshow`."""
    codes, names = by_group(rules["language"]), list(dict.fromkeys(rules["rule"]))
    fig, axes = subplots(2, 1, size=(10.5, height), sharex=True)
    for ax, column, factor, title in zip(axes, ("tokens", "epochs"), (100, 1), titles, strict=True):
        cells = factor * rules.pivot(index="rule", columns="language", values=column).loc[names, codes]
        fig.colorbar(ax.imshow(cells, aspect="auto", **scale(cells)), ax=ax, pad=0.01)
        ax.set_yticks(range(len(names)), names)
        ax.set_title(title)
        ax.grid(False)
        group_borders(ax, codes, "x")
    axes[1].set_xlabel("language, in the order of the groups")
    return fig


def corpus_sizes(sizes: pd.DataFrame) -> Figure:
    """Tokens of each language (rows) in some corpora (columns) as dots, a logarithmic scale."""
    codes = by_group(sizes.index)
    fig, ax = subplots(size=(10.5, 3.6))
    for name, marker in zip(sizes, "os^D", strict=False):
        colours = [colour_of(code) for code in codes]
        ax.scatter(codes, sizes.loc[codes, name], c=colours, marker=marker, s=28)
        ax.scatter([], [], color=INK, marker=marker, label=name)
    ax.set_yscale("log")
    ax.tick_params(axis="x", labelsize=8)
    ax.margins(x=0.01)
    ax.set(
        ylabel="tokens", xlabel="language, in the order of the groups", title="How much text a language has"
    )
    fig.legend(loc="outside upper right", ncols=sizes.shape[1])
    return fig


def sizes_heatmap(rules: pd.DataFrame, what: str) -> Figure:
    """Two heat maps of `rules_on_sizes`: share of tokens in percent, and epochs, on logarithmic scales.

    A language that a rule gives nothing is white.
    """

    def logarithmic(cells: pd.DataFrame) -> dict[str, Any]:
        shown = cells[cells > 0]
        return {"norm": LogNorm(shown.min(axis=None), shown.max(axis=None))}

    titles = (f"Share of the tokens (percent), {what}", f"Times the text is read (epochs), {what}")
    shown = rules.assign(**{name: rules[name].where(rules[name] > 0) for name in ("tokens", "epochs")})
    return _heatmaps(shown, titles, 5.2, logarithmic)


def share_bars(shares: pd.DataFrame) -> Figure:
    """Bars of `shares_by_rule`: percent of documents per language, one bar per rule."""
    fig, ax = subplots(size=(8.0, 3.4))
    width, shades = 0.8 / shares.shape[1], ["#332288", "#4477AA", "#88CCEE", "#BBBBBB"]
    for i, rule in enumerate(shares):
        ax.bar(
            np.arange(len(shares)) + i * width, shares[rule], width, label=rule, color=shades[i % len(shades)]
        )
    ax.set_xticks(np.arange(len(shares)) + 0.4 - width / 2, [language(code).name for code in shares.index])
    ax.set(ylabel="documents (percent)", title="Four ways to share a budget between ALMA's six languages")
    ax.set_ylim(0, 1.3 * shares.to_numpy().max())
    ax.legend(ncols=shares.shape[1], loc="upper right")
    ax.grid(axis="x", visible=False)
    return fig


def packing_strip(blocks: Sequence[Mapping[str, torch.Tensor]], bos_token_id: int) -> Figure:
    """Blocks as rows of tokens; the shade changes where a document begins, so that cuts at block ends show."""
    ids = np.stack([block["input_ids"].numpy() for block in blocks])  # (B, T)
    document = np.cumsum(ids.ravel() == bos_token_id).reshape(ids.shape)
    fig, ax = subplots(size=(9.0, 0.16 * len(blocks) + 1.3))
    ax.imshow(document % 3, aspect="auto", cmap="Blues", vmin=-1, vmax=3.2, interpolation="nearest",
              extent=(0, ids.shape[1], len(blocks) + 0.5, 0.5))  # fmt: skip
    for border in range(1, len(blocks)):
        ax.axhline(border + 0.5, color="white", linewidth=1.5)
    ax.grid(False)
    title = f"Packing without padding: documents that begin in {len(blocks)} blocks: {document.max()}"
    ax.set(xlabel="token in the block", ylabel="block", title=title)
    return fig


def token_accounting(tokens: Mapping[str, int]) -> Figure:
    """Bars of the tokens each language put into the blocks, with the even share as a line."""
    codes = by_group(tokens)
    total = sum(tokens.values())
    fig, ax = subplots(size=(8.0, 3.2))
    ax.bar(codes, [tokens[code] for code in codes], color=[colour_of(code) for code in codes])
    ax.axhline(total / len(codes), color=INK, linestyle="--", linewidth=1, label="an even share")
    ax.set(ylabel="tokens", xlabel="language", title=f"Whose tokens are in the blocks: {total:,} in all")
    ax.legend(loc="lower right", frameon=True)
    return fig


def length_ratios(pairs: pd.DataFrame, name: str) -> Figure:
    """Histograms of log2(characters of `name` / characters of English), aligned and misaligned pairs apart."""
    ratio = np.log2(pairs["other"].str.len() / pairs["English"].str.len())
    bins = np.linspace(ratio.min(), ratio.max() + 1e-9, 31)
    fig, ax = subplots(size=(8.0, 3.2))
    for wrong, label, colour in ((False, "aligned", "#44AA99"), (True, "misaligned", "#CC6677")):
        chosen = ratio[pairs["misaligned"] == wrong]
        if len(chosen):
            weights = np.full(len(chosen), 100 / len(chosen))
            ax.hist(
                chosen, bins, weights=weights, alpha=0.65, color=colour, label=f"{label} (n = {len(chosen)})"
            )
    ax.set(xlabel=f"length of {name} next to English, log2 of characters", ylabel="pairs (percent of their kind)",
           title="Does the length give a wrong pair away?")  # fmt: skip
    ax.legend()
    return fig


def similarity_heatmap(matrix: pd.DataFrame, n: int) -> Figure:
    """The matrix of `similarity_matrix`, sorted by group, group borders in white; `n` sentences per language."""
    codes = by_group(matrix.index)
    fig, ax = subplots(size=(8.8, 7.6))
    image = ax.imshow(matrix.loc[codes, codes], vmin=0, vmax=1)
    fig.colorbar(image, ax=ax, label="cosine of letter trigrams", shrink=0.8)
    group_borders(ax, codes)
    ax.tick_params(axis="x", rotation=90)
    ax.grid(False)
    ax.set(title=f"How alike the languages look, group by group (n = {n} sentences each)")
    group_legend(fig, loc="outside lower center", ncols=3)
    return fig


def group_affinity(affinity: pd.DataFrame, codes: Sequence[str]) -> Figure:
    """Dots of `group_similarity` for some languages: mean similarity to each group, the own group ringed."""
    fig, ax = subplots(size=(8.0, 0.42 * len(codes) + 1.9))
    for y, code in enumerate(codes):
        row = affinity.loc[code]
        ax.hlines(y, row.min(), row.max(), color=PALE, linewidth=2, zorder=1)
        ax.scatter(row, [y] * len(row), c=[GROUP_COLOURS[group] for group in row.index], s=55, zorder=2)
        ax.scatter(
            row[language(code).group], y, s=150, facecolor="none", edgecolor=INK, linewidth=1.5, zorder=3
        )
    ax.set_yticks(range(len(codes)), [LANGUAGES[code].name for code in codes])
    ax.set_ylim(len(codes) - 0.5, -0.5)
    ax.grid(False)
    ax.set(
        xlabel="mean similarity to the languages of a group",
        title="What each looks like; the paper's group is ringed",
    )
    group_legend(fig, loc="outside lower center", ncols=3)
    return fig


def groupings(lines: Sequence[str], title: str) -> Figure:
    """Groups made from scratch as rows of cells, coloured by the paper's group: a row of one colour is a group kept."""
    fig, ax = subplots(size=(8.0, 3.6))
    for y, line in enumerate(lines):
        for x, code in enumerate(sorted(line.split(), key=lambda code: language(code).group)):
            group = language(code).group
            ax.barh(y, 0.92, left=x, height=0.86, color=GROUP_COLOURS[group])
            ax.text(x + 0.46, y, code, ha="center", va="center", fontsize=9,
                    color="white" if group not in (4, 5) else INK)  # fmt: skip
    ax.set_yticks([])
    ax.invert_yaxis()
    ax.grid(False)
    ax.set(xlabel="languages of a group", title=title)
    group_legend(fig, loc="outside right center", fontsize=8)
    return fig


def chance_histogram(chance: np.ndarray, paper: float, swapped: float, scratch: float) -> Figure:
    """Mean similarity within groups: random groupings as a histogram; the paper's, swapped, new groups as lines."""
    fig, ax = subplots(size=(8.0, 3.2))
    ax.hist(
        chance, bins=30, color="#BBBBBB", label=f"random groupings of the same sizes (n = {len(chance):,})"
    )
    ax.axvline(paper, color="#332288", label="the paper's groups")
    ax.axvline(swapped, color="#CC6677", linestyle="--", label="after swaps for this measure alone")
    ax.axvline(scratch, color="#117733", linestyle=":", label="from scratch, for this measure alone")
    ax.set(
        xlabel="mean similarity within a group, over pairs",
        ylabel="groupings",
        title="The groups against chance",
    )
    ax.set_ylim(0, ax.get_ylim()[1] * 1.6)
    ax.legend(loc="upper right", frameon=True)
    return fig
