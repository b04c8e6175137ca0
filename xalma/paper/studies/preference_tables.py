"""Records of notebook 08 read back: means with intervals, tables beside the paper's, and computed sentences.

± is half a 95 % t-interval of the mean over seeds, from three seeds on; the paper prints no spread. Our columns are
BLEU and chrF, since COMET's weights are a download; the paper's BLEU and COMET-22 have columns of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from xalma.evaluation.records import Record, off_target_label
from xalma.languages import ARROWS
from xalma.paper.studies.preference_methods import MethodSetup
from xalma.paper.studies.seeds import LEAST_BLEU, SFT, by_seed, cells_of, on_seeds, paired, summary
from xalma.paper.studies.study import rows_of
from xalma.paper.tables import mark_unnoticed
from xalma.published import published

# our name -> the paper's, table g; continued SFT is not in it
PAPER_METHODS = {
    SFT: "XALMA (only SFT)", "dpo": "+DPO", "dpo+bc": "+DPO+BC", "simpo": "+SimPO", "simpo+bc": "+SimPO+BC",
    "kto": "+KTO", "kto+bc": "+KTO+BC", "orpo": "+ORPO", "cpo": "+CPO", "arpo": "+ARPO (Final X-ALMA)",
}  # fmt: skip


def method_labels(chosen: Sequence[MethodSetup]) -> dict[str, str]:
    """Label by system name, the SFT module first: the rows of a comparison in order."""
    return {SFT: "SFT, the start"} | {system.name: system.label for system in chosen}


def variant_labels(chosen: Sequence[MethodSetup], variants: Sequence[MethodSetup]) -> dict[str, str]:
    """Label by system name for ARPO's variants, with what they lie between: continued SFT, CPO and ARPO itself."""
    beside = [system for system in chosen if system.name in ("sft", "cpo", "arpo")]
    return method_labels([*beside, *variants])


def preference_table(records: Iterable[Record], labels: Mapping[str, str]) -> pd.DataFrame:
    """One row per direction class and method: the paper's BLEU and COMET-22 as printed, then our scores with ±."""

    def before(name: str, direction: str) -> dict[str, str]:
        printed = {
            f"paper {metric}": printed_scores("g", direction, PAPER_METHODS.get(name), metric)
            for metric in ("BLEU", "COMET-22")
        }
        return {"method": labels[name]} | printed

    return rows_of(records, labels, before, {"our BLEU": "bleu", "our chrF": "chrf"})


def drift_table(records: Iterable[Record], labels: Mapping[str, str]) -> pd.DataFrame:
    """One row per direction class and method: how far its outputs went from the SFT output, their length and faults.

    chrF to SFT output: 100 is no change. length: characters, percent of the reference's. off-target, empty: percent.
    """
    records = list(records)
    ours = {
        "chrF to SFT output": "drift_chrf",
        "length %": "length_ratio",
        off_target_label(records): "off_target",
        "empty %": "empty",
    }
    return rows_of(records, labels, lambda name, _: {"method": labels[name]}, ours)


def preference_findings(records: Iterable[Record], labels: Mapping[str, str]) -> list[str]:
    """Sentences on what the records say: ARPO against its start, methods without BC, order against the paper's."""
    found = cells_of(records)
    sentences = []
    n_seeds = int(found["n_seeds", "max"])
    for direction, arrow in ARROWS.items():
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
            sentences.append(
                f"Without behaviour cloning, {arrow}: {listed} BLEU, from {start:.1f} at the start."
            )
        agreement = _rank_agreement(found, labels, direction)
        if agreement is not None:
            rho, n = agreement
            sentences.append(
                f"The order of methods by BLEU, {arrow}, agrees with the paper's to a rank correlation of {rho:.2f} "
                f"over {n} methods (1: same order, 0: none)."
            )
    return [*sentences, on_seeds(n_seeds)]


def push_findings(table: pd.DataFrame) -> list[str]:
    """Sentences on `over_rejection.push_table`: answers that became less or more likely by more than the interval."""
    return [f"The {side} answers became {_moved(table, side)}." for side in ("chosen", "rejected")]


def _moved(table: pd.DataFrame, side: str) -> str:
    change, half = table[f"{side} change"], table[f"{side} ±"]
    if half.isna().all():
        return "more or less likely by what the table says, from too few seeds for an interval"
    kinds = {"less likely": change < -half, "more likely": change > half}
    kinds["neither, within the interval,"] = ~(kinds["less likely"] | kinds["more likely"])
    return "; ".join(
        f"{what} with: "
        + (", ".join(f"{r['method']} ({r[f'{side} change']:+.2f})" for _, r in table[rows].iterrows()))
        for what, rows in kinds.items()
        if rows.any()
    )


def _against(what: str, other: str, difference: float, half: float) -> str:
    text = f"{what}: {difference:+.2f} BLEU against {other}"
    if pd.isna(half):
        return f"{text}, from too few seeds for an interval."
    return f"{text} (± {half:.2f}), " + (
        "more than the interval." if abs(difference) > half else "within the interval."
    )


def printed_scores(table: str, direction: str, system: str | None, metric: str) -> str:
    cells = published(table).query("direction == @direction and system == @system and metric == @metric")
    return cells["shown"].iloc[0] if len(cells) else ""


def _rank_agreement(found: Mapping, labels: Mapping[str, str], direction: str) -> tuple[float, int] | None:
    """(Spearman's correlation of our and the paper's BLEU, methods); None for fewer than three, or all equal."""
    cells = published("g").query("direction == @direction and metric == 'BLEU'").set_index("system")["value"]
    both = pd.DataFrame(
        [
            {"ours": found[name, direction][0]["bleu"], "paper": cells[PAPER_METHODS[name]]}
            for name in labels
            if name in PAPER_METHODS
        ]
    ).dropna()
    if len(both) < 3 or both["ours"].nunique() == 1:
        return None
    ranks = both.rank()
    return float(ranks["ours"].corr(ranks["paper"])), len(both)


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
    """One row per direction class and difference of two methods in BLEU: the paper's, ours with ±, and what it shows.

    shown: "as in the paper" or "the other way" where ours is larger than its interval, else "within the interval".
    """
    values = by_seed(records).sort_index()
    rows = []
    names = {**labels, SFT: "SFT"}
    for direction, arrow in ARROWS.items():
        for one, other in DIFFERENCES:
            if one in labels and other in labels:
                mean, half = paired(values, one, other, direction)
                number, text = _paper_difference(direction, one, other)
                rows.append(
                    {
                        "direction": arrow,
                        "difference in BLEU": f"{names[one]} − {names[other]}",
                        "paper": text,
                        "ours": mean,
                        "±": half,
                        "shown": _shown(mean, half, number),
                    }
                )
    return mark_unnoticed(pd.DataFrame(rows), {"ours": "bleu"})


def switch_table(records: Iterable[Record], pushes: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """What each of ARPO's switches changes: BLEU with ±, and how far training moved both answers with and without it.

    pushes: `over_rejection.push_table` of the same systems; log-probabilities are averages, nats per token.
    """
    values = by_seed(records).sort_index()
    moved = pushes.set_index("method")
    rows = []
    for what, one, other in SWITCHES:
        if one not in labels or other not in labels:
            continue
        row: dict[str, object] = {"switch": what}
        for direction, arrow in ARROWS.items():
            row[f"BLEU {arrow}"], row[f"± {arrow}"] = paired(values, one, other, direction)
        for side in ("chosen", "rejected"):
            row[f"{side} without"], row[f"{side} with"] = (
                moved.loc[labels[name], f"{side} change"] for name in (other, one)
            )
        rows.append(row)
    return mark_unnoticed(pd.DataFrame(rows), {f"BLEU {arrow}": "bleu" for arrow in ARROWS.values()})


def sweep_frame(records: Iterable[Record], chosen: Sequence[MethodSetup]) -> pd.DataFrame:
    """`summary` of ARPO without clamp and with the gradient through tau, by its eta and eta_scale: the eta sweep."""
    plain = {
        system.name: {key: system.options[key] for key in ("eta", "eta_scale")}
        for system in chosen
        if system.method == "arpo"
        and not system.options["detach_penalty"]
        and "clamp_min" not in system.options
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
        sentences.append(
            f"{arrow}, of {len(rows)} differences that the paper prints: " + "; ".join(parts) + "."
        )
    return sentences


def switch_findings(table: pd.DataFrame) -> list[str]:
    """Sentences on `switch_table`: what each switch did to the rejected answers, and whether BLEU noticed."""
    sentences = []
    for _, row in table.iterrows():
        seen = [
            f"{arrow} {row[f'BLEU {arrow}']:+.2f} ± {row[f'± {arrow}']:.2f}"
            for arrow in ARROWS.values()
            if abs(row[f"BLEU {arrow}"]) > row[f"± {arrow}"]
        ]
        sentences.append(
            f"{row['switch']}: rejected answers move by {row['rejected with']:+.3f} "
            f"nats per token instead of {row['rejected without']:+.3f}; "
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
