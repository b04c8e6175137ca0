"""One method minus another, seed by seed: the differences Table 5 is read for, and what ARPO's switches change.

A seed gives two methods the same pairs in the same order, so their difference varies less than either does. ± is half
a 95 % t-interval of its mean over seeds. The paper prints no spread, and none of ARPO's switches (notebook 08).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from xalma.comparisons import System
from xalma.evaluation.records import Record
from xalma.published import published
from xalma.seeds import DIRECTIONS, SFT, by_seed, paired, summary
from xalma.verdicts import PAPER_METHODS

# What Table 5 is read for: BC holds a method up, CPO falls below SFT, ARPO does not. Of continued SFT it says nothing.
DIFFERENCES = (
    ("dpo", SFT), ("simpo", SFT), ("kto", SFT), ("dpo+bc", "dpo"), ("simpo+bc", "simpo"), ("kto+bc", "kto"),
    ("orpo", SFT), ("cpo", SFT), ("arpo", SFT), ("arpo", "cpo"), ("arpo", "sft"), ("cpo", "sft"),
)  # fmt: skip
# One switch of ARPO turned: what it is, the system with it, the system without.
SWITCHES = (
    ("No gradient through τ, paper's preset", "arpo detached", "arpo"),
    ("No gradient through τ, released code", "arpo released code, detached", "arpo released code"),
    ("Clamped at 0, released code", "arpo released code, clamped", "arpo released code"),
    ("Clamped at 0, released code without gradient through τ", "arpo released code, clamped, detached",
     "arpo released code, detached"),
    ("Released code in place of the paper's preset", "arpo released code", "arpo"),
)  # fmt: skip


def difference_table(records: Iterable[Record], labels: Mapping[str, str]) -> pd.DataFrame:
    """One row a direction class and difference of two methods in BLEU: the paper's, ours with ±, and what it shows.

    shown: "as in the paper" or "the other way" where ours is larger than its interval, else "within the interval".
    """
    values, rows, names = by_seed(records).sort_index(), [], {**labels, SFT: "SFT"}
    for direction, arrow in DIRECTIONS.items():
        for one, other in DIFFERENCES:
            if one in labels and other in labels:
                mean, half = paired(values, one, other, direction)
                number, text = _paper_difference(direction, one, other)
                rows.append({
                    "direction": arrow, "difference in BLEU": f"{names[one]} − {names[other]}", "paper": text,
                    "ours": mean, "±": half, "shown": _shown(mean, half, number),
                })  # fmt: skip
    return pd.DataFrame(rows)


def switch_table(records: Iterable[Record], pushes: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """What each of ARPO's switches changes: BLEU with ±, and how far training moved both answers with and without it.

    pushes: `rejection.push_table` of the same systems; log-probabilities are averages, nats a token.
    """
    values, moved, rows = by_seed(records).sort_index(), pushes.set_index("method"), []
    for what, one, other in SWITCHES:
        if one not in labels or other not in labels:
            continue
        row: dict[str, object] = {"switch": what}
        for direction, arrow in DIRECTIONS.items():
            row[f"BLEU {arrow}"], row[f"± {arrow}"] = paired(values, one, other, direction)
        for side in ("chosen", "rejected"):
            row[f"{side} without"], row[f"{side} with"] = (
                moved.loc[labels[name], f"{side} change"] for name in (other, one)
            )
        rows.append(row)
    return pd.DataFrame(rows)


def sweep_frame(records: Iterable[Record], chosen: Sequence[System]) -> pd.DataFrame:
    """`summary` of ARPO without clamp and with the gradient through tau, by its eta and eta_scale: the eta sweep."""
    plain = {
        system.name: {key: system.options[key] for key in ("eta", "eta_scale")}
        for system in chosen
        if system.method == "arpo" and not system.options["detach_penalty"] and "clamp_min" not in system.options
    }
    frame = summary(records)
    frame = frame[frame["system"].isin(list(plain))]
    options = pd.DataFrame([plain[name] for name in frame["system"]], index=frame.index)
    return pd.concat([frame, options], axis=1).sort_values(["eta_scale", "eta"]).reset_index(drop=True)


def difference_findings(table: pd.DataFrame) -> list[str]:
    """Sentences on `difference_table`: which of the paper's differences are seen here, and which are not."""
    sentences = []
    for arrow, rows in table[table["paper"] != ""].groupby("direction", sort=False):
        parts = [
            f"{shown} in {len(part)}: {', '.join(part['difference in BLEU'])}"
            for shown, part in rows.groupby("shown", sort=False)
        ]
        sentences.append(f"{arrow}, of {len(rows)} differences that the paper prints: " + "; ".join(parts) + ".")
    return sentences


def switch_findings(table: pd.DataFrame) -> list[str]:
    """Sentences on `switch_table`: what each switch did to the rejected answers, and whether BLEU noticed."""
    sentences = []
    for _, row in table.iterrows():
        seen = [
            f"{arrow} {row[f'BLEU {arrow}']:+.2f} ± {row[f'± {arrow}']:.2f}"
            for arrow in DIRECTIONS.values()
            if abs(row[f"BLEU {arrow}"]) > row[f"± {arrow}"]
        ]
        sentences.append(
            f"{row['switch']}: rejected answers move by {row['rejected with']:+.3f} "
            f"nats a token instead of {row['rejected without']:+.3f}; "
            + (f"BLEU {', '.join(seen)}." if seen else "BLEU changes within its interval.")
        )
    return sentences


def apart(values: pd.Series, one: str, other: str, direction: str, metric: str) -> bool:
    """Whether two systems' difference over seeds is larger than its interval; False for too few seeds."""
    mean, half = paired(values, one, other, direction, metric)
    return abs(mean) > half


def _paper_difference(direction: str, one: str, other: str) -> tuple[float, str]:
    """(the paper's difference in BLEU, as text with "?" where a cell is unsure); (NaN, "") where a cell is missing."""
    cells = published("g").query("direction == @direction and metric == 'BLEU'").set_index("system")
    try:
        first, second = (cells.loc[PAPER_METHODS[name]] for name in (one, other))
    except KeyError:
        return float("nan"), ""
    gap = first["value"] - second["value"]
    unsure = "?" if "?" in first["shown"] + second["shown"] else ""
    return gap, "" if pd.isna(gap) else f"{gap:+.1f}{unsure}"


def _shown(ours: float, half: float, paper: float) -> str:
    if pd.isna(half):
        return "too few seeds"
    if abs(ours) <= half:
        return "within the interval"
    if pd.isna(paper):
        return "not in the paper"
    return "as in the paper" if ours * paper > 0 else "the other way"
