"""What is said about a run: its training logs as rows, sentences computed from results, and the index page.

Notebooks hold no measured number in their prose; where a number matters they show a sentence made here. Everything
written here is free of paths, dates and durations, so that two equal runs write equal files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_integer, is_numeric_dtype

from xalma.evaluation.records import IN_BITS, Record, group_means, off_target_label
from xalma.files import write_atomically
from xalma.languages import (
    ARROWS,
    GROUP_NAMES,
    adapter_name,
    group_of,
    language,
    other_side,
    parse_direction,
)
from xalma.paper.differences import bold_differences, compared, comparisons, differences_notes
from xalma.paper.tables import (
    mark_at,
    markdown,
    markdown_grid,
    notes_of,
    shown_cell,
    write_csv,
)
from xalma.profiles import Profile
from xalma.runs import BASE, read_log, read_run, results_folder, stage_folder
from xalma.training.ladder import own_rows

# What a log keeps of each logged step; durations would differ between two equal runs.
_LOGGED = ("kind", "step", "loss", "learning_rate", "grad_norm", "tau", "z", "nll_loss", "chosen_avg_logp",
           "rejected_avg_logp", "margin", "accuracy")  # fmt: skip
_INLINE_LINES = 70  # a table longer than this is linked from the index page, not printed in it
# tables and figures that open the index page
_FIRST = (
    "ladder_bleu", "ladder_text_bits", "ladder_partner_gain", "ladder_chrf", "ladder_off_target",
    "ladder_bits_per_byte",
)  # fmt: skip


def log_rows(p: Profile, number: int) -> pd.DataFrame:
    """The log of stage `number`, all groups: one row a logged step, columns stage, group (0: base), kind, step, loss …

    loss: nats per token since the row before; in stage 5 ARPO's. tau_full: share of pairs with tau over 0.95.
    Raises FileNotFoundError, naming the notebook that trains it, for a stage that is not there.
    """
    rows = []
    for group in (BASE,) if number <= 1 else p.group_numbers:
        for entry in read_log(stage_folder(p, number, group)):
            row = {"stage": number, "group": group, "kind": "train"} | {
                k: entry[k] for k in _LOGGED if k in entry
            }
            if counts := entry.get("tau_counts"):
                row["tau_full"] = counts[-1] / sum(counts)
            rows.append(row)
    return pd.DataFrame(rows)


def write_log(p: Profile, number: int) -> pd.DataFrame:
    """`log_rows`, also written to results/<profile>/logs/stage<number>.csv, which outlives the weights."""
    rows = log_rows(p, number)
    write_csv(results_folder(p) / "logs" / f"stage{number}.csv", rows)
    return rows


def read_logs(p: Profile) -> pd.DataFrame:
    """All logs under results/<profile>/logs, one below the other. Raises FileNotFoundError where there is none."""
    files = sorted((results_folder(p) / "logs").glob("stage*.csv"))
    if not files:
        raise FileNotFoundError(
            f"no training logs of profile {p.name}: run notebooks 03 to 07 first, or `xalma run`"
        )
    return pd.concat([pd.read_csv(file) for file in files], ignore_index=True)


def training_table(p: Profile, number: int) -> pd.DataFrame:
    """One row per group: updates, tokens or rows seen, first and last logged loss, held-out loss where measured."""
    log = log_rows(p, number)
    rows = []
    for group, part in log[log["kind"] == "train"].groupby("group"):
        run = read_run(stage_folder(p, number, group))
        row = {"group": "base" if group == BASE else f"{group} {GROUP_NAMES[group]}", "updates": run["steps"]}
        row |= {
            key.replace("_", " "): run[key] for key in ("tokens_seen", "rows", "rows_too_long") if key in run
        }
        row |= {"first logged loss": part["loss"].iloc[0], "last logged loss": part["loss"].iloc[-1]}
        row |= {
            f"dev loss {when}": run[f"dev_loss_{when}"]
            for when in ("before", "after")
            if f"dev_loss_{when}" in run
        }
        rows.append(row)
    return pd.DataFrame(rows)


def examples(p: Profile, group: int, folders: Mapping[str, str | Path]) -> pd.DataFrame:
    """The same three held-out sentences of a group in each notebook, with what the models in `folders` make of them.

    Each model is asked in the form its stage was taught (`own_rows`). folders: column name -> stage folder. Columns
    direction, source, reference, then one per folder.
    """
    first, *_, last = 2 * p.languages_of(group)  # one language is both
    outputs = {name: own_rows(p, folder, group) for name, folder in folders.items()}
    rows = []
    for i, direction in enumerate((f"en-{first}", f"{first}-en", f"en-{last}")):
        found = {
            name: [row for row in kept if row["direction"] == direction] for name, kept in outputs.items()
        }
        one = next(iter(found.values()))
        row = one[i % len(one)]
        rows.append(
            {key: row[key] for key in ("direction", "source", "reference")}
            | {name: kept[i % len(kept)]["output"] for name, kept in found.items()}
        )
    return compared(pd.DataFrame(rows), "reference", *folders)


def left_table(frame: pd.DataFrame, decimals: int = 2) -> str:
    """A table as Markdown: text on the left, so that sentences can be compared, numbers on the right.

    Floats get `decimals` places, whole numbers from 10,000 on commas, NaN is an empty cell; the index and columns
    without a value are left out. Directions are written as in figures, en→fi. Words that differ are bold where
    `differences.compared` asks for it.
    """
    frame = frame.dropna(axis=1, how="all") if len(frame) else frame
    columns = [frame.iloc[:, i] for i in range(frame.shape[1])]  # names may come twice
    right = [is_numeric_dtype(column) and not is_bool_dtype(column) for column in columns]
    if "direction" in frame:
        frame = frame.assign(direction=frame["direction"].astype(str).str.replace("-", "→"))
    shown = frame.map(lambda cell: _value(cell) if is_integer(cell) else _named(shown_cell(cell, decimals)))
    shown = shown.astype(str)
    for label, name in frame.attrs.get("marks", {}):
        if label in shown.index and name in shown:
            shown.loc[label, name] += mark_at(frame, label, name)
    cells = shown.map(markdown)
    for name, against in comparisons(frame).items():
        cells[name] = [bold_differences(*pair) for pair in zip(shown[name], shown[against], strict=True)]
    names = [markdown(_named(str(name))) for name in frame]
    return markdown_grid([names, ["---:" if side else ":---" for side in right], *cells.to_numpy().tolist()])


def _named(text: str) -> str:
    """Stages and direction classes as the prose writes them: stage 4, en→xx."""
    return re.sub(r"^stage(\d)$", r"stage \1", re.sub(r"\b(en-xx|xx-en)\b", lambda way: ARROWS[way[1]], text))


def show(frame: pd.DataFrame, decimals: int = 2) -> None:
    """Show `left_table` in a notebook."""
    from IPython.display import Markdown, display

    display(Markdown("\n\n".join([left_table(frame, decimals), *notes_of(frame), *differences_notes(frame)])))


def values_frame(p: Profile, pattern: str, scale: Profile | None = None) -> pd.DataFrame:
    """The profile's values whose names match `pattern`, beside those at the papers' scale and their source.

    With `scale`, beside that profile's values. A value that neither has is left out; where one of them has none, its
    cell says so.
    """
    rows = []
    for f in fields(p):
        here, there = (getattr(one, f.name, f.default) for one in (p, scale))
        if re.search(pattern, f.name) and (str(here) or str(there)):
            row = {"value": f.name, "this run": _value(here)}
            papers = {"papers' scale": _value(there), "where that is from": f.metadata["source"]}
            rows.append(row | ({f"profile {scale.name}": _value(there)} if scale else papers))
    return pd.DataFrame(rows)


def _value(value: Any) -> str:
    """A number from 10,000 on with commas; "(none)" for an empty text."""
    return (f"{value:,}" if is_integer(value) and abs(value) >= 10_000 else str(value)) or "(none)"


def profile_values(p: Profile, pattern: str, scale: Profile | None = None) -> None:
    """Show `values_frame` in a notebook."""
    show(values_frame(p, pattern, scale))


def continuations(rows: Mapping[str, Sequence[dict[str, Any]]]) -> tuple[pd.DataFrame, str]:
    """(one test sentence per direction with its continuations, how many of all continuations are right).

    rows: column name -> rows of `continue_test`. The n-th direction shows its n-th sentence, so that no sentence stands
    there for all. Right is a continuation that is its reference word for word.
    """
    *_, last = rows.values()
    at: dict[str, list[int]] = {}
    for i, row in enumerate(last):
        at.setdefault(row["direction"], []).append(i)
    table = pd.DataFrame(
        [
            {key: last[i][key] for key in ("direction", "source", "reference")}
            | {name: kept[i]["output"] for name, kept in rows.items()}
            for i in (found[n % len(found)] for n, found in enumerate(at.values()))
        ]
    )
    parts = [
        f"{name}, {sum(r['output'] == r['reference'] for r in kept)} of {len(kept)}"
        for name, kept in rows.items()
    ]
    return (
        compared(table, "reference", *rows),
        f"Continuations that are their reference word for word, of all test sentences: {'; '.join(parts)}.",
    )


def bullets(sentences: Iterable[str]) -> None:
    """Show sentences as a list in a notebook."""
    from IPython.display import Markdown, display

    display(Markdown("\n".join(f"- {sentence}" for sentence in sentences)))


def loss_sentence(table: pd.DataFrame) -> str:
    """What `training_table` says, in words: how far the loss fell, in nats per token, group by group."""
    dev = "dev loss after" in table
    columns = ("dev loss before", "dev loss after") if dev else ("first logged loss", "last logged loss")
    parts = [
        f"{row['group']} from {row[columns[0]]:.2f} to {row[columns[1]]:.2f}" for _, row in table.iterrows()
    ]
    where = "on held-out sentences" if dev else "on training text"
    return f"Loss {where}, nats per token: " + "; ".join(parts) + "."


def change_sentence(records: Iterable[Record], before: str, after: str, metric: str = "bleu") -> str:
    """How `metric` changed from one stage to another: mean per direction class, how many directions rose and fell.

    Directions are not counted where BLEU or chrF is below 1 in both stages: that is noise, no translation. Raises
    ValueError where the two stages share no direction.
    """
    chosen = [r for r in records if r.metric == metric and r.stage in (before, after)]
    values = pd.DataFrame([{"stage": r.stage, "direction": r.direction, "value": r.value} for r in chosen])
    if chosen:
        values = values.pivot_table(index="direction", columns="stage", values="value")
    if not {before, after} <= set(values.columns) or values.dropna().empty:
        raise ValueError(f"no {metric} of both {before!r} and {after!r}: evaluate both stages first")
    values = values.dropna()
    parts = []
    for name, outward in (("en→xx", True), ("xx→en", False)):
        side = values[values.index.str.startswith("en-") == outward]
        old = side[before].mean()
        new = side[after].mean()
        gain = (side[after] - side[before]).to_numpy()
        places = 4 if metric in IN_BITS else 2
        change = f"{name} {old:.{places}f} → {new:.{places}f}"
        if metric in ("bleu", "chrf") and max(old, new) < 1:
            parts.append(f"{change} (no translation yet)")
            continue
        counts = f"{np.sum(gain > 0)} of {len(gain)} directions up, {np.sum(gain < 0)} down"
        parts.append(f"{change} ({new - old:+.{places}f}; {counts})")
    labels = {
        "bleu": "BLEU",
        "chrf": "chrF",
        "off_target": off_target_label(chosen).capitalize(),
        "bits_per_byte": "Bits per byte of the reference",
        "text_bits": "Bits per byte of text alone",
        "partner_gain": "Partner gain, bits per byte",
    }
    label = labels.get(metric, metric)
    return f"{label}, mean over directions, {_named(before)} → {_named(after)}: " + "; ".join(parts) + "."


def group_scores(
    records: Iterable[Record], group: int, metric: str, names: Mapping[str, str]
) -> pd.DataFrame:
    """A group's mean in each stage of `names` (stage -> name shown): columns system, direction, value.

    No rows where the group has no records, so that the papers' numbers stand alone beside it.
    """
    means = group_means([record for record in records if record.metric == metric])
    rows = means[(means["group"] == group) & means["stage"].isin(list(names))]
    systems = rows["stage"].map(dict(names))
    return pd.DataFrame(
        {"system": systems, "direction": rows["direction"], "value": rows["mean"]}
    ).reset_index(drop=True)


def write_index(p: Profile, command: str) -> Path:
    """Write results/<profile>/README.md: tables printed, figures shown, what made them. Returns its path.

    Raises FileNotFoundError where no table was written yet.
    """
    folder = results_folder(p)
    tables = _ordered(folder / "tables", "*.md")
    figures = _ordered(folder / "figures", "*.png")
    if not tables:
        raise FileNotFoundError(f"no tables of profile {p.name}: run `xalma run --profile {p.name}` first")
    kept = (
        "[notebooks](notebooks/)" if p.corpus == "cldr" else "not committed, they show text that is not ours"
    )
    lines = [f"# Results of profile {p.name}", f"Made by `{command}`, written by notebook 10; do not edit by hand. "
             f"Executed notebooks: {kept}. Training logs: [logs](logs/)."]  # fmt: skip
    lines += ["## Figures", *(f"![{file.stem.replace('_', ' ')}](figures/{file.name})" for file in figures)]
    lines.append("## Tables")
    for file in tables:
        # this page is one folder higher
        text = file.read_text(encoding="utf-8").strip().replace("](../", "](")
        caption = text.splitlines()[0].strip("*")
        too_long = text.count("\n") > _INLINE_LINES
        lines.append(f"{caption}: [tables/{file.name}](tables/{file.name})" if too_long else text)
        lines.append(f"[CSV](tables/{file.stem}.csv)")
    return write_atomically(folder / "README.md", "\n\n".join(lines) + "\n")


def _ordered(folder: Path, pattern: str) -> list[Path]:
    rank = {name: i for i, name in enumerate((*_FIRST, "ladder", "directions"))}
    return sorted(folder.glob(pattern), key=lambda file: (rank.get(file.stem, len(rank)), file.stem))


def files_of(p: Profile, *words: str) -> list[str]:
    """Paths, relative to results/<profile>, of all tables, figures, logs and scores whose name begins with one of
    `words`; without words, all.

    Executed notebooks and costs are left out: they are there only after the first run.
    """
    folder = results_folder(p)
    found = (file for part in ("scores", "logs", "tables", "figures") for file in (folder / part).glob("*"))
    chosen = [file for file in found if not words or re.split(r"[_.]", file.name)[0] in words]
    return sorted(str(file.relative_to(folder)) for file in chosen)


def gate_table(directions: Iterable[str]) -> pd.DataFrame:
    """One row per direction: the side that decides, its group, and its module. Raises as `parse_direction` does."""
    rows = []
    for direction in directions:
        side = other_side(*parse_direction(direction))
        group = group_of(side)
        rows.append(
            {
                "direction": direction,
                "non-English side": language(side).name,
                "group": f"{group} {GROUP_NAMES[group]}",
                "module": adapter_name(group),
            }
        )
    return pd.DataFrame(rows)
