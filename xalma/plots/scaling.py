"""What grows with what: the committed benchmark of every step's cost as a table, a sentence and a figure.

`benchmarks/scaling.py` makes the file; nothing is measured here, and where there is none that is said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from xalma.files import read_json
from xalma.plots import INK, subplots
from xalma.runtime import home

COMMAND = "python benchmarks/scaling.py --out results/benchmarks/scaling.json"
AXES = {"data": (1, 2, 4, 8), "groups": (1, 2, 4, 8), "languages": (5, 10, 20, 49)}
COLOURS = {"data": "#4477AA", "groups": "#EE6677", "languages": "#228833"}
LINEAR = 1.1  # an exponent up to here counts as linear: timings on a shared machine are no better
# What is known of steps that grow faster than linearly.
WHY_WORSE: dict[tuple[str, str], str] = {}


def read_scaling(path: str | Path | None = None) -> dict[str, Any]:
    """The benchmark's record; one without rows where there is no file, of which the sentence says so."""
    path = Path(path or home() / "results" / "benchmarks" / "scaling.json")
    return read_json(path, f"make it again with {COMMAND}", keys=("rows",)) if path.is_file() else {"rows": []}


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log seconds against log size over the three upper points: there, fixed costs count least."""
    return float(np.polyfit(np.log(sizes[-3:]), np.log(seconds[-3:]), 1)[0])


def scaling_table(record: dict[str, Any]) -> pd.DataFrame:
    """One row a step and what grows: seconds at both ends, times the size and the seconds, exponent, and the claim."""
    rows = []
    for (step, axis), part in _series(record):
        sizes, seconds = part["size"].tolist(), part["seconds"].tolist()
        slope = exponent(sizes, seconds)
        why = WHY_WORSE.get((step, axis), "not looked into")
        rows.append({
            "step": step, "grows": axis, "from": sizes[0], "to": sizes[-1],
            "seconds, smallest": seconds[0], "seconds, largest": seconds[-1],
            "times the size": sizes[-1] / sizes[0], "times the seconds": seconds[-1] / seconds[0], "exponent": slope,
            "claim": "linear or better" if slope <= LINEAR else f"worse, because: {why}",
        })  # fmt: skip
    return pd.DataFrame(rows)


def scaling_sentence(record: dict[str, Any]) -> str:
    """How many of the steps grow linearly or slower, and which do not."""
    if not record["rows"]:
        return f"Not measured here: `{COMMAND}` measures it, in minutes."
    table = scaling_table(record)
    worse = table[table["exponent"] > LINEAR]
    named = "; ".join(f"{row.step} with {row.grows}, exponent {row.exponent:.2f}" for row in worse.itertuples())
    flat = table.loc[table["exponent"].idxmin()]
    return (
        f"{len(table) - len(worse)} of {len(table)} costs grow linearly or slower (exponent at most {LINEAR} over the "
        f"three upper points). Growing faster: {named or 'none'}. The flattest is {flat['step']} with {flat['grows']}: "
        f"{flat['times the size']:.3g} times as many take {flat['times the seconds']:.2f} times the seconds."
    )


def scaling_note(record: dict[str, Any]) -> str:
    """What was measured on what, for under a table or figure; "" where nothing was."""
    if not record["rows"]:
        return ""
    o, machine = record["options"], record["hardware"]
    where = machine["gpu"] or f"{machine['cpu']}, {o['threads']} thread{'s' if o['threads'] > 1 else ''}"
    scale = "" if o["scale"] == 1 else f", amounts times {o['scale']:g}"
    return (
        f"Text: {record['text']}; the fastest of {o['repeats']} runs a point{scale}; {where}; commit "
        f"{record['commit'][:10]}; `{COMMAND}`."
    )


def scaling_figure(record: dict[str, Any]) -> Figure | None:
    """A panel a step: seconds against times the smallest size, a line for each thing that grows. None without rows."""
    steps = list(dict.fromkeys(row["step"] for row in record["rows"]))
    if not steps:
        return None
    n_rows = -(-len(steps) // 3)
    fig, grid = subplots(n_rows, 3, (11.0, 0.6 + 2.6 * n_rows), squeeze=False, sharex=True)
    panels = dict(zip(steps, grid.flat, strict=False))
    for (step, axis), part in _series(record):
        factor = part["size"] / part["size"].iloc[0]
        panels[step].plot(factor, part["seconds"], "o-", color=COLOURS[axis], label=f"more {axis}")
        first = part["seconds"].iloc[0]
        panels[step].plot(factor, first * factor, "--", color=INK, linewidth=0.8, alpha=0.6, label="linear")
    for step, ax in panels.items():
        ax.set(title=step.capitalize(), xscale="log", yscale="log")
        ax.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.tick_params(labelbottom=True)
        ax.minorticks_off()
    for ax in grid.flat[len(steps) :]:
        ax.remove()
    for row in grid:
        row[0].set_ylabel("seconds")
    for ax in list(panels.values())[-3:]:
        ax.set_xlabel("times the smallest size")
    found = {
        label: handle for ax in panels.values() for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    found["linear"] = found.pop("linear")  # last
    fig.legend(found.values(), found.keys(), loc="outside lower center", ncols=4)
    return fig


def _series(record: dict[str, Any]) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    frame = pd.DataFrame(record["rows"], columns=["step", "axis", "size", "seconds"])
    return list(frame.groupby(["step", "axis"], sort=False))
