"""Four ways to serve X-ALMA's modules: the committed benchmark as a table, a sentence and a figure.

`benchmarks/module_serving.py` makes the file; nothing is measured here, and a machine that nobody measured on is said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from xalma.files import read_json
from xalma.plots import INK, subplots
from xalma.runtime import home

COMMAND = "python benchmarks/module_serving.py --out results/benchmarks/module_serving.json"
LABELS = {
    "merged": "(a) one merged model, one language",
    "replayed": "(a) with its steps replayed as a CUDA graph",
    "in_turn": "a merged model a group, in turn",
    "gated": "(b) xalma's bank, one mixed batch",
    "adapter_names": "(c) PEFT adapter_names, one mixed batch",
    "rebuilt": "(d) W + 2BA rebuilt each step, in turn",
}
COLOURS = {
    "merged": "#777777", "replayed": "#228833", "in_turn": "#BBBBBB", "gated": "#EE6677", "adapter_names": "#4477AA",
    "rebuilt": "#CCBB44",
}  # fmt: skip
COLUMNS = {
    "groups": "groups in the batch", "prefill_tokens_per_s": "prefill, tokens/s", "first_token_ms": "first token, ms",
    "decode_tokens_per_s": "decode, tokens/s", "step_ms": "step in generate, ms",
    "forward_step_ms": "step, model alone, ms", "floor_ms": "floor, ms", "times_floor": "step over floor",
    "peak_mib": "peak memory, MiB",
}  # fmt: skip


def read_serving(path: str | Path | None = None, name: str = "module_serving") -> dict[str, Any]:
    """The benchmark's record, the committed one of this name where no path is given.

    Raises FileNotFoundError, saying what makes it, where there is none.
    """
    path = Path(path or home() / "results" / "benchmarks" / f"{name}.json")
    if not path.is_file():
        raise FileNotFoundError(f"no benchmark at {path}: make it with {COMMAND}")
    return read_json(path, f"make it again with {COMMAND}")


def serving_table(record: dict[str, Any]) -> pd.DataFrame:
    """One row a way and count of groups; speeds in tokens/s of the whole batch, times in ms, memory in MiB.

    The floor is the time to read the base and the batch's modules once; a step is timed in `generate` and without it.
    Memory speed is measured beside each step, and "step over floor" is the median of these pairs.
    """
    frame = pd.DataFrame(record["rows"])
    table = frame[["way", *COLUMNS]].rename(columns=COLUMNS).astype({"floor, ms": float, "step over floor": float})
    return table.assign(way=frame["way"].map(LABELS))


def serving_note(record: dict[str, Any]) -> str:
    """What was measured on what, for under a table or figure."""
    o, machine = record["options"], record["hardware"]
    where = machine["gpu"] or f"{machine['cpu']}, {o['threads']} threads"
    rates = record["bandwidth_gb_per_s"]
    rows, prompt = o.get("prefill_rows", o["batch"]), o.get("prefill_prompt", o["prompt"])
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
        f"merged model's speed. Recording the graph takes {row['gated', most]['recording_ms']:.0f} ms a call."
    )


def serving_figure(record: dict[str, Any]) -> Figure:
    """Milliseconds of a decoding step for the whole batch, and peak memory, against the groups in it."""
    frame, column = pd.DataFrame(record["rows"]), step_column(record)
    fig, (steps, memory) = subplots(1, 2, size=(10.5, 4.2), width_ratios=(3, 2))
    for way, rows in frame.groupby("way", sort=False):
        steps.plot(rows["groups"], rows[column], "o-", color=COLOURS[way], label=LABELS[way])
        if way != "in_turn":  # its memory is that of as many models as it has groups, and was not measured
            memory.plot(rows["groups"], rows["peak_mib"], "o-", color=COLOURS[way])
    bank = frame[frame["way"] == "gated"]
    steps.plot(
        bank["groups"], bank["floor_ms"], "--", color=INK, linewidth=1.2, label="floor: reading (b)'s weights once"
    )
    n = record["options"]["batch"]
    steps.set(yscale="log", ylabel="ms for all rows", title=f"One decoding step, {n} rows")
    memory.set(ylim=(0, None), ylabel="MiB above an empty process", title="Peak memory")
    for ax in (steps, memory):
        ax.set(xscale="log", xlabel="language groups in the batch")
        ax.set_xticks(sorted(frame["groups"].unique()), sorted(frame["groups"].unique()))
        ax.minorticks_off()
    fig.legend(loc="outside lower center", ncols=2)
    return fig
