"""Records of notebooks 08 and 09 read back: means with intervals, tables beside the paper's, and computed sentences.

± is half a 95 % t-interval of the mean over seeds, from three seeds on; the paper prints no spread. Our columns are
BLEU and chrF, since COMET's weights are a download; the paper's BLEU and COMET-22 have columns of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, stdev

import pandas as pd

from xalma.comparisons import CHAINS, FULL, SFT, System
from xalma.evaluate import direction_class
from xalma.published import published
from xalma.results import Record

# Student's t, 97.5 %, for 2, 3, ... degrees of freedom; the last one serves for more, on the safe side.
T_975 = (4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120)
MIN_SEEDS = 3  # below this there is no interval
LEAST_BLEU = 1  # below this, differences in BLEU say nothing
DIRECTIONS = {"en-xx": "en→xx", "xx-en": "xx→en"}
# our name -> the paper's, table g; continued SFT is not in it
PAPER_METHODS = {
    SFT: "XALMA (only SFT)", "dpo": "+DPO", "dpo+bc": "+DPO+BC", "simpo": "+SimPO", "simpo+bc": "+SimPO+BC",
    "kto": "+KTO", "kto+bc": "+KTO+BC", "orpo": "+ORPO", "cpo": "+CPO", "arpo": "+ARPO (Final X-ALMA)",
}  # fmt: skip
# The paper's figure (table h) adds stage after stage; only its ends are chains of ours.
PAPER_CHAINS = {
    "base": "none (LLaMA-2)", "no-stage5": "post-training stage 1 (SFT)", FULL: "post-training stage 2 (ARPO)",
}  # fmt: skip


def summary(records: Iterable[Record]) -> pd.DataFrame:
    """Means over directions and seeds: system, direction ("en-xx", "xx-en"), metric, mean, half, n_seeds.

    half: half the 95 % interval of the mean over seeds, NaN below three seeds.
    """
    frame = pd.DataFrame([asdict(r) | {"class": direction_class(r.direction)["direction"]} for r in records])
    keys = ["stage", "class", "metric"]
    by_seed = frame.groupby([*keys, "seed"], sort=False)["value"].mean()
    rows = [
        dict(zip(("system", "direction", "metric"), key, strict=True))
        | {"mean": fmean(values), "half": half_width(list(values)), "n_seeds": len(values)}
        for key, values in by_seed.groupby(level=keys, sort=False)
    ]
    return pd.DataFrame(rows)


def half_width(values: Sequence[float]) -> float:
    """Half the 95 % t-interval of the mean; NaN for fewer than three values."""
    if len(values) < MIN_SEEDS:
        return float("nan")
    t = T_975[min(len(values) - MIN_SEEDS, len(T_975) - 1)]
    return t * stdev(values) / len(values) ** 0.5


def method_labels(chosen: Sequence[System]) -> dict[str, str]:
    """Label by system name, the SFT module first: the rows of a comparison in order."""
    return {SFT: "SFT, the start"} | {system.name: system.label for system in chosen}


def variant_labels(chosen: Sequence[System], variants: Sequence[System]) -> dict[str, str]:
    """Label by system name for ARPO's variants, with what they lie between: continued SFT, CPO and ARPO itself."""
    beside = [system for system in chosen if system.name in ("sft", "cpo", "arpo")]
    return method_labels([*beside, *variants])


def preference_table(records: Iterable[Record], labels: Mapping[str, str]) -> pd.DataFrame:
    """One row a direction class and method: the paper's BLEU and COMET-22 as printed, then ours with ±."""
    found = _cells(records)
    rows = []
    for direction, arrow in DIRECTIONS.items():
        for name, label in labels.items():
            mean, half = found[name, direction]
            rows.append({
                "direction": arrow, "method": label,
                "paper BLEU": _printed("g", direction, PAPER_METHODS.get(name), "BLEU"),
                "paper COMET-22": _printed("g", direction, PAPER_METHODS.get(name), "COMET-22"),
                "our BLEU": mean["bleu"], "BLEU ±": half["bleu"], "our chrF": mean["chrf"], "chrF ±": half["chrf"],
                "chrF to SFT output": mean["drift_chrf"], "length %": mean["length_ratio"],
                "off-target %": mean["off_target"], "empty %": mean["empty"],
            })  # fmt: skip
    return pd.DataFrame(rows)


def ablation_table(records: Iterable[Record], updates: Mapping[str, int]) -> pd.DataFrame:
    """One row a chain: updates in all, the paper's COMET-22 where it shows that chain, then ours and what is lost."""
    found = _cells(records)
    rows = []
    for direction, arrow in DIRECTIONS.items():
        full = found[FULL, direction][0]["bleu"]
        for name, label in CHAINS.items():
            mean, half = found[name, direction]
            rows.append({
                "direction": arrow, "recipe": label, "updates": updates[name],
                "paper COMET-22": _printed("h", direction, PAPER_CHAINS.get(name), "COMET-22"),
                "our BLEU": mean["bleu"], "BLEU ±": half["bleu"], "BLEU minus full": mean["bleu"] - full,
                "our chrF": mean["chrf"], "chrF ±": half["chrf"],
                "off-target %": mean["off_target"], "empty %": mean["empty"],
            })  # fmt: skip
    return pd.DataFrame(rows)


def gating_table(records: Iterable[Record], names: Sequence[str]) -> pd.DataFrame:
    """One row a direction class and module: BLEU, chrF, off-target rate."""
    found = _cells(records)
    columns = {"bleu": "BLEU", "chrf": "chrF", "off_target": "off-target %", "empty": "empty %"}
    return pd.DataFrame([
        {"direction": arrow, "module": name} | {columns[key]: found[name, direction][0][key] for key in columns}
        for direction, arrow in DIRECTIONS.items() for name in names
    ])  # fmt: skip


def published_stages() -> pd.DataFrame:
    """The paper's stage ablation (table h) as printed: stages added one after another; "?" is an unsure cell."""
    cells = published("h")
    cells = cells[cells["table"] == "h_ablation_stages"]
    wide = cells.pivot(index="system", columns="direction", values="shown").reindex(cells["system"].unique())
    wide = wide.rename(columns=lambda direction: f"paper COMET-22 {DIRECTIONS[direction]}")
    return wide.rename_axis(columns=None).rename_axis("stages up to").reset_index()


def preference_findings(records: Iterable[Record], labels: Mapping[str, str]) -> list[str]:
    """Sentences on what the records say: ARPO against its start, methods without BC, order against the paper's."""
    found, sentences = _cells(records), []
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
    return [*sentences, _on_seeds(n_seeds)]


def drift_findings(records: Iterable[Record], labels: Mapping[str, str]) -> list[str]:
    """Sentences on style drift: which method's output stays nearest to the SFT output, and which moves furthest."""
    found, sentences = _cells(records), []
    for direction, arrow in DIRECTIONS.items():
        drift = {label: found[name, direction][0]["drift_chrf"] for name, label in labels.items() if name != SFT}
        near, far = max(drift, key=drift.__getitem__), min(drift, key=drift.__getitem__)
        sentences.append(
            f"{arrow}: the output of {near} is nearest to the SFT output (chrF {drift[near]:.1f}), "
            f"that of {far} furthest from it ({drift[far]:.1f})."
        )
    return sentences


def push_findings(table: pd.DataFrame) -> list[str]:
    """Sentences on `rejection.push_table`: where the chosen answers became less likely than before training."""
    fell = table[table["chosen change"] < 0]["method"].tolist()
    rose = table[table["chosen change"] >= 0]["method"].tolist()
    pushed = table.loc[table["rejected change"].idxmin()]
    return [
        f"The chosen answers became less likely with: {', '.join(fell) or 'none'}; "
        f"no less likely with: {', '.join(rose) or 'none'}.",
        f"The rejected answers fell most with {pushed['method']}, by {-pushed['rejected change']:.2f} nats a token."
        if pushed["rejected change"] < 0
        else "No method made the rejected answers less likely.",
    ]  # fmt: skip


def ablation_findings(records: Iterable[Record], last_stages: Mapping[str, int]) -> list[str]:
    """Sentences on which left-out stage costs most, whether the full chain is best, and which got no preference pairs.

    last_stages: chain -> number of the stage it ended with.
    """
    found, sentences = _cells(records), []
    for direction, arrow in DIRECTIONS.items():
        bleu = {name: found[name, direction][0]["bleu"] for name in CHAINS if name != "base"}
        left_out = {name: value for name, value in bleu.items() if name != FULL}
        if max(bleu.values()) < LEAST_BLEU:
            sentences.append(f"{arrow}: no recipe reaches {LEAST_BLEU} BLEU at this size: there is nothing to compare.")
            continue
        worst = min(left_out, key=left_out.__getitem__)
        best = FULL if bleu[FULL] >= max(left_out.values()) else max(left_out, key=left_out.__getitem__)
        sentences.append(
            f"{arrow}: the recipe {CHAINS[worst]} scores lowest, {bleu[worst]:.1f} BLEU "
            f"against {bleu[FULL]:.1f} of the full one; "
            + ("the full recipe is best." if best == FULL else f"best is the recipe {CHAINS[best]} ({bleu[best]:.1f}).")
        )
    sentences += [
        f"The recipe {CHAINS[chain]} ends with stage {number}: its translations were so far from the references "
        f"that no preference pair passed the filters."
        for chain, number in last_stages.items()
        if chain not in ("base", "no-stage5") and number < 5
    ]
    return [*sentences, _on_seeds(int(found["n_seeds", "max"]))]


def _against(what: str, other: str, difference: float, half: float) -> str:
    text = f"{what}: {difference:+.2f} BLEU against {other}"
    if pd.isna(half):
        return f"{text}, from too few seeds for an interval."
    return f"{text} (± {half:.2f}), " + (
        "more than the interval." if abs(difference) > half else "within the interval."
    )


def _on_seeds(n_seeds: int) -> str:
    if n_seeds >= MIN_SEEDS:
        return f"± is half the 95 % interval of the mean over {n_seeds} seeds."
    return (
        f"With {n_seeds} seed{'s' * (n_seeds > 1)} there is no interval: small differences between rows say nothing; "
        f"the long form (`--set seeds={MIN_SEEDS}`) gives one."
    )


def _cells(records: Iterable[Record]) -> dict:
    """(system, direction class) -> (mean by metric, half by metric); ("n_seeds", "max") -> most repeats of a row."""
    frame = summary(records)
    cells: dict = {("n_seeds", "max"): frame["n_seeds"].max()}
    for key, rows in frame.groupby(["system", "direction"]):
        rows = rows.set_index("metric")
        cells[key] = (rows["mean"].to_dict(), rows["half"].to_dict())
    return cells


def _printed(table: str, direction: str, system: str | None, metric: str) -> str:
    cells = published(table).query("direction == @direction and system == @system and metric == @metric")
    return cells["shown"].iloc[0] if len(cells) else ""


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
