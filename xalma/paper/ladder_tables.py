"""The ladder of stages as tables: by group, and by direction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from difflib import get_close_matches

import pandas as pd

from xalma.evaluation.records import Record, direction_class, group_means
from xalma.languages import GROUP_NAMES, known_languages
from xalma.paper.tables import mark_doubtful

STAGES = ("base", "stage1", "stage2", "stage3", "stage4", "stage5")


def ladder_table(
    records: Iterable[Record], metric: str = "bleu", stages: Sequence[str] = STAGES
) -> pd.DataFrame:
    """Means per group and direction class, one column per stage (those of `stages` with records).

    Columns group, direction, n (directions averaged), then the stages; the last two rows, "all",
    average all directions, not groups. A cell is empty (NaN) unless every direction of its row was
    scored in that stage, so that no two numbers of a row average different languages. Seeds are
    averaged. Raises ValueError for no such metric, several profiles, or a stage that `stages` does
    not list.
    """
    chosen = _of_metric(records, metric, stages)
    present = [stage for stage in stages if any(r.stage == stage for r in chosen)]
    means = group_means(chosen)
    by_group = _rows(means, chosen, present, ["group", "direction"])
    by_group["group"] = [f"{group} {GROUP_NAMES[group]}" for group in by_group["group"]]
    # Sums over groups, since each group's mean weighs as many directions as it has.
    means["mean"] *= means["n_directions"]
    totals = means.groupby(["stage", "direction"], sort=False)[["mean", "n_directions"]].sum().reset_index()
    totals["mean"] /= totals["n_directions"]
    overall = _rows(totals, chosen, present, ["direction"])
    overall.insert(0, "group", "all")
    return _doubted(pd.concat([by_group, overall], ignore_index=True), chosen, present)


def direction_table(
    records: Iterable[Record], metric: str = "bleu", stages: Sequence[str] = STAGES
) -> pd.DataFrame:
    """One row per direction (en-xx first, in the order of the language table), one column per stage.

    Columns direction, group, n (segments), then the stages; NaN where a stage was not scored. Seeds
    are averaged. Raises ValueError as `ladder_table` does, and for segment counts that differ
    between stages.
    """
    chosen = _of_metric(records, metric, stages)
    present = [stage for stage in stages if any(r.stage == stage for r in chosen)]
    frame = pd.DataFrame(map(asdict, chosen))
    uneven = frame.groupby("direction")["n"].nunique()
    if (uneven > 1).any():
        name = uneven[uneven > 1].index[0]
        raise ValueError(
            f"{name} was scored on different numbers of segments: score every stage on one test set"
        )
    wide = frame.pivot_table(index=["direction", "n"], columns="stage", values="value").reset_index()
    wide.insert(1, "group", [direction_class(direction)["group"] for direction in wide["direction"]])
    codes = list(known_languages())
    order = [(not d.startswith("en-"), *map(codes.index, d.split("-"))) for d in wide["direction"]]
    wide = wide.iloc[sorted(range(len(wide)), key=order.__getitem__)]
    wide = wide[["direction", "group", "n", *present]].rename_axis(columns=None).reset_index(drop=True)
    return _doubted(wide, chosen, present)


def text_bits_table(records: Iterable[Record], before: str, after: str) -> pd.DataFrame:
    """One row per language: bits per byte of held-out sentences with nothing before them, in two stages.

    English, whose sentences stand in every pair, is the mean over the languages they are paired with. Columns language,
    the two stages, change. Raises ValueError where a stage has no such records.
    """
    records = [record for record in records if record.stage in (before, after)]
    table = direction_table(records, "text_bits", (before, after))
    if missing := {before, after} - set(table):
        raise ValueError(f"no text_bits of {', '.join(sorted(missing))}: evaluate that stage first")
    table["language"] = [known_languages()[direction.split("-")[1]].name for direction in table["direction"]]
    table = table.groupby("language", sort=False)[[before, after]].mean().reset_index()
    return table.assign(change=table[after] - table[before])


def _doubted(table: pd.DataFrame, chosen: list[Record], stages: Sequence[str]) -> pd.DataFrame:
    """‡ in the columns of stages whose scores are no independent ones."""
    cells = {(row, stage): (stage, chosen[0].metric) for row in table.index for stage in stages}
    return mark_doubtful(table, chosen, cells)


def _of_metric(records: Iterable[Record], metric: str, stages: Sequence[str]) -> list[Record]:
    records = list(records)
    chosen = [record for record in records if record.metric == metric]
    if not chosen:
        found = ", ".join(sorted({record.metric for record in records})) or "none"
        raise ValueError(f"no records of metric {metric!r}: there are records of {found}")
    profiles = sorted({record.profile for record in chosen})
    if len(profiles) > 1:
        raise ValueError(
            f"records of several profiles ({', '.join(profiles)}) in one table: make one table each"
        )
    for stage in sorted({record.stage for record in chosen} - set(stages)):
        near = get_close_matches(stage, stages, n=3) or list(stages)
        raise ValueError(
            f"records of {stage!r}, which is no column here: pass stages=(...) with it; near: {', '.join(near)}"
        )
    return chosen


def _rows(means: pd.DataFrame, records: list[Record], stages: list[str], keys: list[str]) -> pd.DataFrame:
    """`keys`, n, one column per stage: NaN where it lacks a direction that another stage has."""
    frame = pd.DataFrame([{**direction_class(r.direction), "name": r.direction} for r in records])
    n = frame.groupby(keys)["name"].nunique().rename("n")
    means = means.merge(n.reset_index(), on=keys)
    whole = means[means["n_directions"] == means["n"]]
    wide = whole.pivot(index=keys, columns="stage", values="mean").reindex(index=n.index, columns=stages)
    return pd.concat([n, wide], axis=1).reset_index()
