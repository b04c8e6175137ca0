"""Records of notebook 08 read back: means with intervals, tables beside the paper's, and computed sentences.

± is half a 95 % t-interval of the mean over seeds, from three seeds on; the paper prints no spread. Our columns are
BLEU and chrF, since COMET's weights are a download; the paper's BLEU and COMET-22 have columns of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd

from xalma.comparisons import System
from xalma.evaluation.records import Record
from xalma.published import published
from xalma.seeds import DIRECTIONS, LEAST_BLEU, SFT, cells_of, on_seeds

# our name -> the paper's, table g; continued SFT is not in it
PAPER_METHODS = {
    SFT: "XALMA (only SFT)", "dpo": "+DPO", "dpo+bc": "+DPO+BC", "simpo": "+SimPO", "simpo+bc": "+SimPO+BC",
    "kto": "+KTO", "kto+bc": "+KTO+BC", "orpo": "+ORPO", "cpo": "+CPO", "arpo": "+ARPO (Final X-ALMA)",
}  # fmt: skip


def method_labels(chosen: Sequence[System]) -> dict[str, str]:
    """Label by system name, the SFT module first: the rows of a comparison in order."""
    return {SFT: "SFT, the start"} | {system.name: system.label for system in chosen}


def variant_labels(chosen: Sequence[System], variants: Sequence[System]) -> dict[str, str]:
    """Label by system name for ARPO's variants, with what they lie between: continued SFT, CPO and ARPO itself."""
    beside = [system for system in chosen if system.name in ("sft", "cpo", "arpo")]
    return method_labels([*beside, *variants])


def preference_table(records: Iterable[Record], labels: Mapping[str, str]) -> pd.DataFrame:
    """One row a direction class and method: the paper's BLEU and COMET-22 as printed, then our scores with ±."""
    ours = {"our BLEU": "bleu", "our chrF": "chrf"}
    return _rows(
        records, labels, ours,
        lambda name, direction: {
            f"paper {metric}": printed("g", direction, PAPER_METHODS.get(name), metric)
            for metric in ("BLEU", "COMET-22")
        },
    )  # fmt: skip


def drift_table(records: Iterable[Record], labels: Mapping[str, str]) -> pd.DataFrame:
    """One row a direction class and method: how far its outputs went from the SFT output, their length and faults.

    chrF to SFT output: 100 is no change. length: characters, percent of the reference's. off-target, empty: percent.
    """
    ours = {"chrF to SFT output": "drift_chrf", "length %": "length_ratio", "off-target %": "off_target",
            "empty %": "empty"}  # fmt: skip
    return _rows(records, labels, ours)


def preference_findings(records: Iterable[Record], labels: Mapping[str, str]) -> list[str]:
    """Sentences on what the records say: ARPO against its start, methods without BC, order against the paper's."""
    found, sentences = cells_of(records), []
    n_seeds = int(found["n_seeds", "max"])
    for direction, arrow in DIRECTIONS.items():
        start = found[SFT, direction][0]["bleu"]
        if start < LEAST_BLEU:
            sentences.append(
                f"{arrow}: the SFT model itself has {start:.1f} BLEU, too little for methods to differ in."
            )
            continue
        if "arpo" in labels:
            mean, half = found["arpo", direction]
            sentences.append(_against(f"ARPO, {arrow}", "SFT", mean["bleu"] - start, half["bleu"]))
        bare = {labels[n]: found[n, direction][0]["bleu"] for n in ("dpo", "simpo", "kto") if n in labels}
        if bare:
            listed = ", ".join(f"{label} {value:.1f}" for label, value in bare.items())
            sentences.append(f"Without behaviour cloning, {arrow}: {listed} BLEU, from {start:.1f} at the start.")
        agreement = _rank_agreement(found, labels, direction)
        if agreement is not None:
            rho, n = agreement
            sentences.append(
                f"The order of methods by BLEU, {arrow}, agrees with the paper's to a rank correlation of {rho:.2f} "
                f"over {n} methods (1: same order, 0: none)."
            )
    return [*sentences, on_seeds(n_seeds)]


def drift_findings(records: Iterable[Record], labels: Mapping[str, str]) -> list[str]:
    """Sentences on style drift: how near each method's output stays to the SFT output, nearest first."""
    found, sentences = cells_of(records), []
    for direction, arrow in DIRECTIONS.items():
        drift = {label: found[name, direction][0]["drift_chrf"] for name, label in labels.items() if name != SFT}
        listed = [f"{label} {drift[label]:.1f}" for label in sorted(drift, key=drift.__getitem__, reverse=True)]
        sentences.append(f"{arrow}, chrF of the output to the SFT output: {', '.join(listed)}.")
    return [*sentences, on_seeds(int(found["n_seeds", "max"]))]


def push_findings(table: pd.DataFrame) -> list[str]:
    """Sentences on `rejection.push_table`: where the answers became less or more likely by more than the interval."""
    return [f"The {side} answers became {_moved(table, side)}." for side in ("chosen", "rejected")]


def _moved(table: pd.DataFrame, side: str) -> str:
    change, half = table[f"{side} change"], table[f"{side} ±"]
    if half.isna().all():
        return "more or less likely by what the table says, from too few seeds for an interval"
    kinds = {"less likely": change < -half, "more likely": change > half}
    kinds["neither, within the interval,"] = ~(kinds["less likely"] | kinds["more likely"])
    return "; ".join(
        f"{what} with: " + (", ".join(f"{r['method']} ({r[f'{side} change']:+.2f})" for _, r in table[rows].iterrows()))
        for what, rows in kinds.items() if rows.any()
    )  # fmt: skip


def _against(what: str, other: str, difference: float, half: float) -> str:
    text = f"{what}: {difference:+.2f} BLEU against {other}"
    if pd.isna(half):
        return f"{text}, from too few seeds for an interval."
    return f"{text} (± {half:.2f}), " + (
        "more than the interval." if abs(difference) > half else "within the interval."
    )


def printed(table: str, direction: str, system: str | None, metric: str) -> str:
    cells = published(table).query("direction == @direction and system == @system and metric == @metric")
    return cells["shown"].iloc[0] if len(cells) else ""


def _rows(
    records: Iterable[Record],
    labels: Mapping[str, str],
    columns: Mapping[str, str],
    before: Callable[[str, str], dict[str, str]] = lambda name, direction: {},
) -> pd.DataFrame:
    """One row a direction class and method: what `before` gives, then each column's metric with its ±."""
    found, rows = cells_of(records), []
    for direction, arrow in DIRECTIONS.items():
        for name, label in labels.items():
            mean, half = found[name, direction]
            row = {"direction": arrow, "method": label, **before(name, direction)}
            for column, metric in columns.items():
                row |= {column: mean[metric], f"{column.removeprefix('our ')} ±": half[metric]}
            rows.append(row)
    return pd.DataFrame(rows)


def _rank_agreement(found: Mapping, labels: Mapping[str, str], direction: str) -> tuple[float, int] | None:
    """(Spearman's correlation of our and the paper's BLEU, methods); None for fewer than three, or all equal."""
    cells = published("g").query("direction == @direction and metric == 'BLEU'").set_index("system")["value"]
    both = pd.DataFrame([
        {"ours": found[name, direction][0]["bleu"], "paper": cells[PAPER_METHODS[name]]}
        for name in labels if name in PAPER_METHODS
    ]).dropna()  # fmt: skip
    if len(both) < 3 or both["ours"].nunique() == 1:
        return None
    ranks = both.rank()
    return float(ranks["ours"].corr(ranks["paper"])), len(both)
