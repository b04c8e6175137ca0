"""Figures: tidy rows in, a matplotlib Figure out, all in one style; one file for each set of notebooks.

Every figure starts from `subplots` here, so that a notebook shows it once, as the last value of its cell. Figures carry
Latin letters only (codes and English names), but for those of tokens, which `letters` writes in any script.
"""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from xalma.languages import GROUP_NAMES, LANGUAGES, language

# Paul Tol's "muted" scheme, told apart by colour-blind readers too; English, in every group, is grey.
GROUP_COLOURS: dict[int, str] = {
    0: "#777777", 1: "#332288", 2: "#CC6677", 3: "#117733", 4: "#DDCC77",
    5: "#88CCEE", 6: "#AA4499", 7: "#44AA99", 8: "#999933",
}  # fmt: skip
INK, PALE = "#222222", "#E6E6E6"  # text and frames; backgrounds and things at rest
# A colour means one thing in every figure: a group above, a direction class, a kind of answer, or a method below.
DIRECTION_COLOURS = {"en-xx": "#4477AA", "xx-en": "#CCBB44"}
CHOSEN, REJECTED = "#004466", "#CC3311"
# ARPO and its variants share a colour, and a method with BC has that of the method without.
METHOD_COLOURS = {
    "SFT": "#AAAAAA", "DPO": "#222255", "KTO": "#66CCEE", "SimPO": "#228833", "ORPO": "#664400", "CPO": "#AA3377",
    "ARPO": "#EE6677",
}  # fmt: skip
HIGHLIGHT = "#EE7733"  # one thing beside the others, which are in ink
STYLE: dict[str, Any] = {
    "figure.dpi": 100, "savefig.dpi": 200, "figure.figsize": (8.0, 4.0), "figure.facecolor": "white",
    "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "text.color": INK,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": PALE, "axes.axisbelow": True,
    "lines.linewidth": 1.8, "image.cmap": "viridis",
}  # fmt: skip


def use_style() -> None:
    """Make the package's style matplotlib's default; each figure function here does it by itself."""
    plt.rcParams.update(STYLE)


def show_small() -> None:
    """In a notebook, show figures as `small_png` from here on; elsewhere nothing."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and hasattr(shell, "kernel"):
        shell.display_formatter.formatters["image/png"].for_type(Figure, small_png)


def small_png(fig: Figure) -> tuple[str, dict[str, int]]:
    """(base64 of a PNG with twice the points, the width and height to show it in): sharp, and a third of the bytes.

    A palette of 256 colours holds a figure; in full colours a notebook of ten figures takes two megabytes. The palette
    covers all colours (maximum coverage): one by their frequency would lose those of a legend beside a heat map.
    """
    drawn = BytesIO()
    packed = BytesIO()
    fig.savefig(drawn, format="png", dpi=2 * STYLE["figure.dpi"], bbox_inches="tight")
    full = Image.open(drawn).convert("RGB")
    palette = Image.Quantize.MAXCOVERAGE
    image = full.quantize(256, palette, dither=Image.Dither.NONE)
    image.save(packed, "png", optimize=True)
    shown = {"width": image.width // 2, "height": image.height // 2}
    return b64encode(packed.getvalue()).decode(), shown


def subplots(
    n_rows: int = 1, n_columns: int = 1, size: tuple[float, float] = (8.0, 4.0), **more: Any
) -> tuple:
    """(figure, axes) in the package's style; `size` in inches, `more` as for pyplot's `subplots`.

    The figure is closed at once: it can still be drawn on and saved, but a notebook shows it only when a cell ends
    with it, not a second time by itself.
    """
    use_style()
    fig, axes = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", **more)
    plt.close(fig)
    show_small()  # after pyplot, whose first figure sets IPython's own format
    return fig, axes


def colour_of(code: str) -> str:
    """The colour of the language's group; grey for English."""
    return GROUP_COLOURS[language(code).group]


def by_group(codes: Iterable[str]) -> list[str]:
    """The codes in the order of the language table: English, then group after group."""
    wanted = set(codes)
    return [code for code in LANGUAGES if code in wanted]


def group_legend(target: Axes | Figure, groups: Iterable[int] = tuple(GROUP_NAMES), **more: Any) -> None:
    """A legend of group numbers, names and colours on an axes or figure; `more` as for matplotlib's `legend`."""
    names = {0: "English"} | {g: f"{g} {name}" for g, name in GROUP_NAMES.items()}
    target.legend(handles=[Patch(color=GROUP_COLOURS[g], label=names[g]) for g in groups], **more)


def group_borders(ax: Axes, codes: list[str]) -> None:
    """Lines between groups where columns and rows of a picture are `codes`; ticks in group colours."""
    borders = [
        i - 0.5 for i in range(1, len(codes)) if language(codes[i]).group != language(codes[i - 1]).group
    ]
    for name, set_ticks, draw in (("x", ax.set_xticks, ax.axvline), ("y", ax.set_yticks, ax.axhline)):
        set_ticks(range(len(codes)), codes, fontsize=7.5)
        for label in ax.get_xticklabels() if name == "x" else ax.get_yticklabels():
            # darker: pale text is hard to read
            label.set_color([0.6 * part for part in to_rgb(colour_of(label.get_text()))])
        for border in borders:
            draw(border, color="white", linewidth=1.5)
