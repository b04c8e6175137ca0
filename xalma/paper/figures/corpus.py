"""Figures of notebooks 00 to 02: the idea in one picture, what a corpus holds and costs, how languages are grouped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, Rectangle

from xalma.languages import GROUP_NAMES, GROUPS, LANGUAGES, language
from xalma.paper.figures.style import (
    CHOSEN,
    GROUP_COLOURS,
    HIGHLIGHT,
    INK,
    PALE,
    REJECTED,
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


# A sentence and its translation for the picture, in letters that matplotlib's own font has.
_SAID = {"en": "Good morning", "fi": "Hyvää huomenta", "ru": "Доброе утро", "fr": "Bonjour", "de": "Guten Morgen",
         "tr": "Günaydın", "es": "Buenos días", "vi": "Chào buổi sáng", "cs": "Dobré ráno"}  # fmt: skip


def idea(direction: str = "en-fi") -> Figure:
    """X-ALMA in one picture: prompt, hard gate, frozen base with eight modules (one on), and the five stages below."""
    src, tgt = direction.split("-")
    on = language(src).group or language(tgt).group
    fig, ax = subplots(size=(9.5, 5.0))
    ax.set(xlim=(0, 12), ylim=(0, 6.7))
    ax.axis("off")
    asked = f"{language(src).name} to {language(tgt).name}:\n“{_SAID.get(src, '…')}”"
    _box(ax, 0.1, 4.6, 2.3, 1.2, asked, "white")
    gate = f"hard gate\nnon-English side:\ngroup {on}"
    _box(ax, 0.1, 2.6, 2.3, 1.2, gate, "white", edge=GROUP_COLOURS[on], linewidth=2)
    _arrow(ax, (1.25, 4.6), (1.25, 3.8), GROUP_COLOURS[on])
    frozen = "one base model, frozen after stage 1"
    _box(ax, 3.2, 4.6, 6.3, 1.2, frozen, BASE_COLOUR, fontsize=12, weight="bold")
    _arrow(ax, (2.4, 5.2), (3.2, 5.2))
    _box(ax, 10.0, 4.6, 1.95, 1.2, f"{language(tgt).name}:\n“{_SAID.get(tgt, '…')}”", "white")
    _arrow(ax, (9.5, 5.2), (10.0, 5.2))
    for group in GROUPS:
        x, active = 3.2 + (group - 1) * 0.8, group == on
        _box(
            ax,
            x,
            2.6,
            0.7,
            1.2,
            f"{group}",
            GROUP_COLOURS[group] if active else PALE,
            weight="bold",
            color="white" if active else "#888888",
            linewidth=2 if active else 0.8,
        )
        if active:
            _arrow(ax, (x + 0.35, 3.8), (x + 0.35, 4.6), GROUP_COLOURS[on])
            _arrow(ax, (2.4, 3.2), (x if group == 1 else 3.12, 3.2), GROUP_COLOURS[on])
    note = "eight language-specific modules (LoRA), one per group of languages; the gate switches one on"
    ax.text(3.2, 2.3, note, fontsize=9, va="center")
    ax.text(0.1, 6.35, "One question, one base, one module", fontsize=13, weight="bold", va="center")
    for i, (number, data, trained) in enumerate(_STAGES):
        x, is_base = 0.1 + i * 2.4, trained == "base"
        _box(
            ax,
            x,
            0.2,
            2.15,
            1.3,
            f"stage {number}: {trained}\n{data}",
            BASE_COLOUR if is_base else GROUP_COLOURS[on],
            color=INK if is_base else "white",
            fontsize=9,
        )
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
            ax.text(
                i + 0.46,
                group,
                f"{code}\n{language(code).script}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if group not in (4, 5) else INK,
            )
    ax.set_yticks(list(GROUPS), [f"{group} {name}" for group, name in GROUP_NAMES.items()])
    ax.invert_yaxis()
    ax.grid(False)
    ax.set(
        xlabel="languages (English, in every group, is not drawn)",
        title="Eight groups, 49 languages, their scripts",
    )
    return fig


def token_costs(sizes: pd.DataFrame) -> Figure:
    """Bars of `text_sizes`: tokens of each language next to English; hatched where the tokenizer never saw it.

    Where no language is known to have been seen, as with a pretrained base's tokenizer, none is hatched.
    """
    sizes = sizes.set_index("language").loc[by_group(sizes["language"])]
    fig, ax = subplots(size=(10.0, 3.6))
    bars = ax.bar(sizes.index, sizes["x English"], color=[colour_of(code) for code in sizes.index], width=0.8)
    for bar, seen in zip(bars, sizes["in tokenizer"], strict=True):
        if not seen and sizes["in tokenizer"].any():
            bar.set(hatch="////", alpha=0.45, edgecolor=INK, linewidth=0.3)
    ax.axhline(1, color=INK, linewidth=1, linestyle="--")
    ax.tick_params(axis="x", labelsize=8)
    ax.margins(x=0.01)
    n = sizes["sentences"].min()
    ax.set(
        ylabel="tokens, English = 1",
        xlabel=f"language; colour: its group (n = {n} sentences each)",
        title="Tokens for the same content, next to English",
    )
    seen = Patch(color="#777777", label="seen by the tokenizer")
    unseen = Patch(facecolor="#DDDDDD", hatch="////", label="not seen")
    if 0 < sizes["in tokenizer"].sum() < len(sizes):
        ax.legend(handles=[seen, unseen], loc="upper left")
    return fig


def rules_scatter(rules: pd.DataFrame, chosen: Sequence[str], title: str) -> Figure:
    """Mixing rules (`mixing_rules`, `rules_on_sizes`): a panel per rule of `chosen`, a dot per language, the share of
    the tokens against the epochs. Written out: English, and the languages read most and least often.

    Scales are logarithmic where values differ by more than a factor of ten. A language that gets nothing has no dot.
    """
    rules = rules[(rules["tokens"] > 0) & rules["rule"].isin(list(chosen))]
    fig, axes = subplots(1, len(chosen), (2.75 * len(chosen), 3.6), sharex=True, sharey=True, squeeze=False)
    for ax, rule in zip(axes[0], chosen, strict=True):
        one = rules[rules["rule"] == rule].set_index("language")
        shares = 100 * one["tokens"]
        ax.scatter(one["epochs"], shares, c=[colour_of(code) for code in one.index], s=22, zorder=2)
        least, most = _extremes(one)
        for code in dict.fromkeys([*({"en"} & set(one.index)), least, most]):
            beside = shares[code] / shares.median()  # of dots on one line, one name above and one below
            above = beside > 1.05 or (beside > 0.95 and code != most)
            ax.annotate(
                language(code).name,
                (one["epochs"][code], shares[code]),
                fontsize=8,
                ha="center",
                xytext=(0, 6 if above else -13),
                textcoords="offset points",
            )
        ax.axvline(1, color=INK, linewidth=0.8, linestyle="--")
        ax.set_title(rule, fontsize=10)
        ax.grid(True, axis="both")
    for name, switch in (("tokens", axes[0][0].set_yscale), ("epochs", axes[0][0].set_xscale)):
        if rules[name].max() > 10 * rules[name].min():
            switch("log")
    for ax in axes[0]:
        ax.margins(0.2)
        ax.set_xlabel("epochs")
    axes[0][0].set_ylabel("share of the tokens (percent)")
    fig.suptitle(f"{title}; dashed: the text is read once", x=0.01, ha="left", fontsize=11, fontweight="bold")
    group_legend(fig, (0, *GROUP_NAMES), loc="outside lower center", ncols=3)
    return fig


def _extremes(one: pd.DataFrame) -> tuple[str, str]:
    """The languages read least and most often; of those that are read equally often, the largest and the smallest."""
    order = sorted(one.index, key=lambda code: (float(f"{one['epochs'][code]:.3g}"), -one["tokens"][code]))
    return order[0], order[-1]


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


def share_bars(shares: pd.DataFrame) -> Figure:
    """Bars of `shares_by_rule`: percent of documents per language, one bar per rule."""
    fig, ax = subplots(size=(8.0, 3.4))
    width, shades = 0.8 / shares.shape[1], ["#222222", "#666666", "#999999", "#CCCCCC"]
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


def packing_strip(
    blocks: Sequence[Mapping[str, torch.Tensor]], bos_token_id: int, codes: Sequence[str]
) -> Figure:
    """Blocks as rows of tokens, documents in the colour of their language's group, their codes written on them.

    codes: the language of each document, in the order in which they begin. A white line stands where one begins; a
    document may begin in one block and end in the next.
    """
    ids = np.stack([block["input_ids"].numpy() for block in blocks])  # (B, T)
    starts = ids == bos_token_id
    document = np.cumsum(starts.ravel()).reshape(ids.shape) - 1
    fig, ax = subplots(size=(9.0, 0.3 * len(blocks) + 1.5))
    for row, line in enumerate(document):
        for number in np.unique(line[line >= 0]):
            (at,) = np.nonzero(line == number)
            code = codes[number]
            ax.barh(
                row + 1,
                len(at),
                left=at[0],
                height=0.9,
                color=colour_of(code),
                edgecolor="white",
                linewidth=1.2,
            )
            if len(at) > 6:
                dark = language(code).group not in (4, 5)
                ax.text(
                    at[0] + len(at) / 2,
                    row + 1,
                    code,
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if dark else INK,
                )
    ax.set(xlim=(0, ids.shape[1]), ylim=(len(blocks) + 0.6, 0.4), yticks=range(1, len(blocks) + 1))
    ax.grid(False)
    title = f"Packing without padding: documents that begin in {len(blocks)} blocks: {starts.sum()}"
    ax.set(xlabel="token in the block", ylabel="block", title=title)
    group_legend(fig, sorted({language(code).group for code in codes}), loc="outside lower center", ncols=3)
    return fig


def token_accounting(tokens: Mapping[str, int]) -> Figure:
    """Bars of the tokens each language put into the blocks, with the even share as a line."""
    codes = by_group(tokens)
    total = sum(tokens.values())
    fig, ax = subplots(size=(8.0, 3.2))
    ax.bar(codes, [tokens[code] for code in codes], color=[colour_of(code) for code in codes])
    ax.axhline(total / len(codes), color=INK, linestyle="--", linewidth=1, label="an even share")
    ax.set(ylabel="tokens", xlabel="language", title=f"Whose tokens are in the blocks: {total:,} in all")
    ax.set_ylim(0, 1.15 * max(tokens.values()))
    ax.legend(loc="upper right")
    return fig


def length_ratios(pairs: pd.DataFrame, name: str) -> Figure:
    """Histograms of log2(characters of `name` / characters of English), aligned and misaligned pairs apart."""
    ratio = np.log2(pairs["other"].str.len() / pairs["English"].str.len())
    bins = np.linspace(ratio.min(), ratio.max() + 1e-9, 25)
    fig, ax = subplots(size=(8.0, 3.2))
    for wrong, label, colour in ((False, "aligned", CHOSEN), (True, "misaligned", REJECTED)):
        chosen = ratio[pairs["misaligned"] == wrong]
        if len(chosen):
            weights = np.full(len(chosen), 100 / len(chosen))
            ax.hist(
                chosen,
                bins,
                weights=weights,
                alpha=0.55,
                color=colour,
                label=f"{label} (n = {len(chosen):,})",
            )
    ax.set(
        xlabel=f"log2 of (characters of {name} / characters of English): 1 is twice as long",
        ylabel="pairs (percent of their kind)",
        title="Does the length give a wrong pair away?",
    )
    ax.legend()
    return fig


_SCRIPTS = {"Latn": "Latin", "Cyrl": "Cyrillic", "Deva": "Devanagari", "Arab": "Arabic"}


def similarity_heatmap(matrix: pd.DataFrame, n: int, script: str) -> Figure:
    """The matrix of `likeness` for the languages of one script ("Latn", "Cyrl" …), sorted by group; `n` sentences each.

    Languages of other scripts share no letters with them, so that their cells would all be 0.
    """
    codes = [code for code in by_group(matrix.index) if language(code).script == script]
    fig, ax = subplots(size=(2.8 + 0.26 * len(codes), 2.4 + 0.22 * len(codes)))
    values = matrix.loc[codes, codes].to_numpy(copy=True)
    np.fill_diagonal(values, np.nan)  # a language is equal to itself
    image = ax.imshow(values, vmin=np.nanmin(values), vmax=np.nanmax(values))
    fig.colorbar(image, ax=ax, label="cosine similarity of letter trigrams", shrink=0.8)
    group_borders(ax, codes)
    ax.tick_params(axis="x", rotation=90)
    ax.grid(False)
    ax.set_title(
        f"{_SCRIPTS.get(script, script)} script, group by group (n = {n:,} sentences per language)",
        fontsize=10,
    )
    group_legend(fig, sorted({language(code).group for code in codes}), loc="outside lower center", ncols=2)
    return fig


def group_affinity(affinity: pd.DataFrame, codes: Sequence[str]) -> Figure:
    """`group_similarity` as a strip: languages down, groups across; the paper's group framed, the highest in bold."""
    fig, ax = subplots(size=(8.0, 0.36 * len(codes) + 2.0))
    values = affinity.loc[list(codes)]
    image = ax.imshow(values, aspect="auto", vmin=0, cmap="Blues")
    for y, (code, row) in enumerate(values.iterrows()):
        for x, group in enumerate(values):
            weight = "bold" if row[group] == row.max() else "normal"
            dark = row[group] > 0.6 * values.to_numpy().max()
            ax.text(
                x,
                y,
                f"{row[group]:.2f}",
                ha="center",
                va="center",
                fontsize=8,
                weight=weight,
                color="white" if dark else INK,
            )
        own = list(values).index(language(str(code)).group)
        ax.add_patch(
            Rectangle((own - 0.48, y - 0.46), 0.96, 0.92, fill=False, edgecolor=HIGHLIGHT, linewidth=2)
        )
    ax.set_yticks(range(len(codes)), [LANGUAGES[code].name for code in codes])
    names = [f"{g}\n{fill(GROUP_NAMES[g].split(' (')[0], 11)}" for g in values]
    ax.set_xticks(range(values.shape[1]), names, fontsize=8)
    ax.grid(False)
    ax.set_title(
        "Mean similarity to each group. Frame: the paper's group. Bold: the most similar one.", fontsize=10
    )
    fig.colorbar(image, ax=ax, label="mean similarity", shrink=0.8)
    return fig


def chance_histogram(chance: np.ndarray, paper: float, swapped: float) -> Figure:
    """Mean similarity within groups: random groupings as a histogram; the paper's and swapped groups as lines."""
    fig, ax = subplots(size=(8.0, 3.0))
    counts, *_ = ax.hist(chance, bins=30, color="#BBBBBB")
    top = counts.max()
    ax.annotate(
        f"{len(chance):,} random groupings\nof the same sizes",
        (chance.mean(), top),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=9,
    )
    lines = ((paper, "the paper's\ngroups"), (swapped, "after swaps for\nthis measure"))
    for (value, label), colour, height in zip(lines, (INK, HIGHLIGHT), (0.95, 0.65), strict=True):
        ax.axvline(value, color=colour)
        ax.annotate(
            label,
            (value, height * top),
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            va="top",
        )
    ax.set(
        xlabel="mean similarity of two languages of one group",
        ylabel="groupings",
        title="The groups against chance",
    )
    ax.set_ylim(0, 1.35 * top)
    ax.set_xlim(right=max(paper, swapped) * 1.2)
    return fig
