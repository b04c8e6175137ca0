"""What `module_serving.py` and `scaling.py` measured, as tables, sentences and figures.

Nothing is measured here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from xalma.paper import save_figure, write_table
from xalma.paper.figures import style

COMMAND = "python benchmarks/module_serving.py --out results/benchmarks/module_serving.json"
WAY_LABELS = {
    "merged": "(a) one merged model, one language",
    "replayed": "(a) with its steps replayed as a CUDA graph",
    "in_turn": "one merged model per group, in turn",
    "gated": "(b) xalma's bank, one mixed batch",
    "adapter_names": "(c) PEFT adapter_names, one mixed batch",
    "rebuilt": "(d) W + 2BA rebuilt each step, in turn",
}
_COLOURS = {
    "merged": "#777777", "replayed": "#228833", "in_turn": "#BBBBBB", "gated": "#EE6677", "adapter_names": "#4477AA",
    "rebuilt": "#CCBB44",
}  # fmt: skip
_COLUMNS = {
    "groups": "groups in the batch", "prefill_tokens_per_s": "prefill, tokens/s", "first_token_ms": "first token, ms",
    "decode_tokens_per_s": "decode, tokens/s", "step_ms": "step in generate, ms",
    "forward_step_ms": "step, model alone, ms", "floor_ms": "floor, ms", "times_floor": "step over floor",
    "peak_mib": "peak memory, MiB",
}  # fmt: skip


def serving_table(record: dict[str, Any]) -> pd.DataFrame:
    """One row per way and number of groups; speeds in tokens/s of the whole batch, times in ms, memory in MiB.

    The floor is the time to read the base and the batch's modules once; a step is timed in `generate` and without it.
    Memory speed is measured beside each step, and "step over floor" is the median of these pairs.
    """
    frame = pd.DataFrame(record["rows"])
    table = frame[["way", *_COLUMNS]].rename(columns=_COLUMNS).assign(way=frame["way"].map(WAY_LABELS))
    return table.astype({"floor, ms": float, "step over floor": float})


def serving_note(record: dict[str, Any]) -> str:
    """What was measured on what, for under a table or figure."""
    o, machine = record["options"], record["hardware"]
    where = machine["gpu"] or f"{machine['cpu']}, {o['threads']} threads"
    rates = record["bandwidth_gb_per_s"]
    rows = o.get("prefill_rows", o["batch"])
    prompt = o.get("prefill_prompt", o["prompt"])
    prefill = "" if (rows, prompt) == (o["batch"], o["prompt"]) else f", for prefill {rows} of {prompt}"
    return (
        f"Random weights, {o['layers']} layers of {o['hidden']}, rank {o['rank']}, {o['dtype']}; batch {o['batch']}, "
        f"prompts of {o['prompt']} tokens{prefill}; {where}, {min(rates):.0f} to {max(rates):.0f} GB/s read; commit "
        f"{record['commit'][:10]}; `{record.get('command', COMMAND)}`."
    )


def step_column(record: dict[str, Any]) -> str:
    """Which step counts: on a GPU that of `generate`, where steps are replayed; on a CPU the model's alone, which is
    timed step by step, while a step in `generate` is a difference of two long times, and noisier.
    """
    return "step_ms" if record["hardware"]["gpu"] else "forward_step_ms"


def serving_sentence(record: dict[str, Any]) -> str:
    """The ratios that count, at the most groups measured and at one."""
    row = {(r["way"], r["groups"]): r for r in record["rows"]}
    step = {key: r[step_column(record)] for key, r in row.items()}
    prefill = {key: r["prefill_tokens_per_s"] for key, r in row.items()}
    most = max(groups for _, groups in row)
    bank, times = step["gated", most], row["gated", most]["times_floor"]
    text = (
        f"With {most} groups in a batch a decoding step of the bank takes {bank:.0f} ms, {times:.2f} times the "
        f"time to read its weights once; PEFT's mixed batch takes {step['adapter_names', most] / bank:.2f} times as "
        f"long, rebuilding weights language by language {step['rebuilt', most] / bank:.0f} times. With one group the "
        f"bank takes {step['gated', 1] / step['merged', 1]:.2f} times the step of a merged model"
    )
    if ("replayed", 1) not in row:
        return f"{text}."
    return (
        f"{text} as transformers decodes with it, {step['gated', 1] / step['replayed', 1]:.2f} times that of one with "
        f"replays. A mixed batch's prompts are read at {prefill['gated', most] / prefill['merged', most]:.0%} of a "
        f"merged model's speed. Recording the graph takes {row['gated', most]['recording_ms']:.0f} ms per call."
    )


def write_serving(record: dict[str, Any], stem: Path) -> None:
    """Writes <stem>.csv, .md and .png from what was measured."""
    note = f"{serving_sentence(record)} {serving_note(record)}"
    write_table(serving_table(record), stem, record["what"], note)
    save_figure(serving_figure(record), stem.with_suffix(".png"))


def serving_figure(record: dict[str, Any]) -> Figure:
    """Milliseconds of a decoding step for the whole batch, and peak memory, against the groups in it."""
    frame = pd.DataFrame(record["rows"])
    column = step_column(record)
    fig, (steps, memory) = style.subplots(1, 2, size=(10.5, 4.2), width_ratios=(3, 2))
    for size, (way, rows) in zip(range(13, 1, -2), frame.groupby("way", sort=False), strict=False):
        line = {
            "marker": "o",
            "markersize": size,
            "color": _COLOURS[way],
        }  # a rim shows what lies under a dot
        steps.plot(rows["groups"], rows[column], label=WAY_LABELS[way], **line)
        if way != "in_turn":  # its memory is that of as many models as it has groups, and was not measured
            memory.plot(rows["groups"], rows["peak_mib"], **line)
    bank = frame[frame["way"] == "gated"]
    floor = {"color": style.INK, "linewidth": 1.2, "label": "floor: reading (b)'s weights once"}
    steps.plot(bank["groups"], bank["floor_ms"], "--", **floor)
    n = record["options"]["batch"]
    steps.set(yscale="log", ylabel="ms for all rows", title=f"One decoding step, {n} rows")
    memory.set(ylim=(0, None), ylabel="MiB above an empty process", title="Peak memory")
    steps.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    steps.yaxis.set_major_formatter("{x:g}")
    for ax in (steps, memory):
        ax.set(xscale="log", xlabel="language groups in the batch")
        ax.set_xticks(sorted(frame["groups"].unique()), sorted(frame["groups"].unique()))
        ax.minorticks_off()
    fig.legend(loc="outside lower center", ncols=2)
    return fig


SCALING_COMMAND = "python benchmarks/scaling.py --out results/benchmarks/scaling.json"
AXES = {"data": (1, 2, 4, 8), "groups": (1, 2, 4, 8), "languages": (5, 10, 20, 49)}
SCALING_COLOURS = {"data": "#4477AA", "groups": "#EE6677", "languages": "#228833"}
LINEAR = 1.1  # an exponent up to here counts as linear: timings on a shared machine are no better


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log seconds against log size over the three upper points: there, fixed costs count least."""
    return float(np.polyfit(np.log(sizes[-3:]), np.log(seconds[-3:]), 1)[0])


def scaling_table(record: dict[str, Any]) -> pd.DataFrame:
    """One row per step and what grows: seconds at both ends, times the size and the seconds, exponent, the claim."""
    rows = []
    for (step, axis), part in _series(record):
        sizes = part["size"].tolist()
        seconds = part["seconds"].tolist()
        slope = exponent(sizes, seconds)
        rows.append(
            {
                "step": step,
                "grows": axis,
                "from": sizes[0],
                "to": sizes[-1],
                "seconds, smallest": seconds[0],
                "seconds, largest": seconds[-1],
                "times the size": sizes[-1] / sizes[0],
                "times the seconds": seconds[-1] / seconds[0],
                "exponent": slope,
                "claim": "linear or better" if slope <= LINEAR else "worse, because: not looked into",
            }
        )
    return pd.DataFrame(rows)


def scaling_sentence(record: dict[str, Any]) -> str:
    """How many of the steps grow linearly or slower, and which do not."""
    table = scaling_table(record)
    worse = table[table["exponent"] > LINEAR]
    named = "; ".join(
        f"{row.step} with {row.grows}, exponent {row.exponent:.2f}" for row in worse.itertuples()
    )
    flat = table.loc[table["exponent"].idxmin()]
    return (
        f"{len(table) - len(worse)} of {len(table)} costs grow linearly or slower (exponent at most {LINEAR} over the "
        f"three upper points). Growing faster: {named or 'none'}. The flattest is {flat['step']} with {flat['grows']}: "
        f"{flat['times the size']:.3g} times as many take {flat['times the seconds']:.2f} times the seconds."
    )


def scaling_note(record: dict[str, Any]) -> str:
    """What was measured on what, for under a table or figure."""
    o, machine = record["options"], record["hardware"]
    where = machine["gpu"] or f"{machine['cpu']}, {o['threads']} thread{'s' if o['threads'] > 1 else ''}"
    scale = "" if o["scale"] == 1 else f", amounts times {o['scale']:g}"
    return (
        f"Text: {record['text']}; the fastest of {o['repeats']} runs per point{scale}; {where}; commit "
        f"{record['commit'][:10]}; `{SCALING_COMMAND}`."
    )


def scaling_figure(record: dict[str, Any]) -> Figure:
    """A panel per step: seconds against times the smallest size, a line for each thing that grows."""
    steps = list(dict.fromkeys(row["step"] for row in record["rows"]))
    n_rows = -(-len(steps) // 3)
    fig, grid = style.subplots(n_rows, 3, (11.0, 0.6 + 2.6 * n_rows), squeeze=False, sharex=True)
    panels = dict(zip(steps, grid.flat, strict=False))
    for (step, axis), part in _series(record):
        factor = part["size"] / part["size"].iloc[0]
        panels[step].plot(factor, part["seconds"], "o-", color=SCALING_COLOURS[axis], label=f"more {axis}")
        first = part["seconds"].iloc[0]
        panels[step].plot(
            factor, first * factor, "--", color=style.INK, linewidth=0.8, alpha=0.6, label="linear"
        )
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
        label: handle
        for ax in panels.values()
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    found["linear"] = found.pop("linear")  # last
    fig.legend(found.values(), found.keys(), loc="outside lower center", ncols=4)
    return fig


def _series(record: dict[str, Any]) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    frame = pd.DataFrame(record["rows"], columns=["step", "axis", "size", "seconds"])
    return list(frame.groupby(["step", "axis"], sort=False))
