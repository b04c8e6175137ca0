"""results/wmt: released outputs' BLEU beside what the ALMA paper prints, and what each metric scored on each test set.

    python tools/wmt_tables.py    writes wmt22/golden.csv .md .tex .png, and coverage.csv .md

Both are read from the intervals.csv (and checks.csv) that `xalma score --results` wrote; the run.json beside them name
the commands. In the golden table the published BLEU of the same system stands in a row of its own, never in ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from xalma.evaluation.comet import NEURAL_METRICS
from xalma.evaluation.score_file import FILE_METRICS
from xalma.files import read_json
from xalma.languages import ENGLISH, parse_direction
from xalma.paper.figures.published import ACCENT, OURS, THEIRS
from xalma.paper.figures.style import INK, PALE, subplots
from xalma.paper.score_tables import METRIC_NAMES
from xalma.paper.tables import Cell, Table, number, printed, save_figure, write_marked, write_table
from xalma.published import published
from xalma.runtime import home

# File names of ALMA's release → rows of the ALMA paper's tables a and b. GPT-4 of the release is a later model
# (gpt-4-1106-preview) than the paper's, and gpt3.5-text-davinci-003 is its GPT-3.5-D.
PUBLISHED_ROWS = {"ALMA-13B-LoRA": "ALMA-13B-LoRA", "gpt3.5-text-davinci-003": "GPT-3.5-D zero-shot"}


def golden_table(table: pd.DataFrame, caption: str) -> Table:
    """Our BLEU of each system the ALMA paper has, the paper's own below it as printed, and the difference.

    table: an intervals.csv of `xalma score --results`.
    """
    bleu = table[table["metric"] == "bleu"].set_index(["system", "direction"])["value"]
    directions = list(table["direction"].unique())
    rows = []
    for system, row in PUBLISHED_ROWS.items():
        if system not in table["system"].unique():
            continue
        paper = {d: published_bleu(row, d) for d in directions}
        ours = {d: bleu[system, d] for d in directions}
        rows.append([f"{system}, scored here", *(number(ours[d], run="run.json") for d in directions)])
        rows.append([f"{row}, printed", *(printed(*paper[d]) if paper[d] else Cell("") for d in directions)])
        gaps = [number(ours[d] - paper[d][1]) if paper[d] else Cell("") for d in directions]
        rows.append(
            [
                "difference",
                *(Cell(c.text if c.text.startswith("-") or not c.text else f"+{c.text}") for c in gaps),
            ]
        )
    note = "Printed: ALMA (arXiv 2309.11674), tables a and b of `xalma/published`."
    return Table(["BLEU", *directions], rows, caption, [note])


def golden_frame(table: pd.DataFrame) -> pd.DataFrame:
    """The cells of `golden_table` that have a printed number: system, direction, printed, ours."""
    rows = table[(table["metric"] == "bleu") & table["system"].isin(list(PUBLISHED_ROWS))].dropna(
        subset="value"
    )
    cells = [
        {"system": r.system, "direction": r.direction, "printed": found[1], "ours": r.value}
        for r in rows.itertuples()
        if (found := published_bleu(PUBLISHED_ROWS[r.system], r.direction))
    ]
    return pd.DataFrame(cells)


def published_bleu(system: str, direction: str) -> tuple[str, float] | None:
    """(as shown, value) of the ALMA paper's BLEU for a system and a direction; None where it prints none."""
    src, tgt = parse_direction(direction)
    cells = published("a" if src == ENGLISH else "b")
    is_it = (cells["system"] == system) & (cells["group_or_lang"] == (tgt if src == ENGLISH else src))
    found = cells[is_it & (cells["metric"] == "BLEU") & (cells["shown"] != "")]
    return (found["shown"].iloc[0], found["value"].iloc[0]) if len(found) else None


def golden_figure(table: pd.DataFrame) -> Figure:
    """Our BLEU against the printed one. table: columns system, direction, printed, ours."""
    fig, axes = subplots(1, 2, (10.0, 4.4))
    for i, (system, rows) in enumerate(table.groupby("system", sort=False)):
        colour = (OURS, ACCENT, THEIRS)[i % 3]
        axes[0].plot(rows["printed"], rows["ours"], ls="", marker="o", color=colour, label=system)
        axes[1].plot(rows["direction"], rows["ours"] - rows["printed"], ls="", marker="o", color=colour)
    ends = [table[["printed", "ours"]].min().min() - 2, table[["printed", "ours"]].max().max() + 2]
    axes[0].plot(ends, ends, color=INK, lw=0.8)
    axes[0].set(
        xlabel="BLEU, as printed by ALMA", ylabel="BLEU, scored here", title="Released outputs, WMT'22"
    )
    axes[0].legend()
    axes[1].axhspan(-0.15, 0.15, color=PALE)
    axes[1].set(ylabel="scored here − printed, BLEU", title="Difference (band: ± 0.15)")
    axes[1].tick_params(axis="x", labelrotation=60)
    return fig


# directions of a set
COVERED = {"flores200": 98, "wmt22": 10, "wmt23": 12, "wmt24": 9, "wmt24pp": 38, "ntrex": 98}
# of metrics whose model was not at hand when the files were made
WHY_NOT = {name: "not scored: checkpoint not available" for name in NEURAL_METRICS} | {
    "spbleu": "not scored: spBLEU's model not available",
    "gemba-esa": "not scored: no chat model was at hand",
}
FILED_IN = ("wmt", "wmt/documents", "apertium")  # folders of results/ with a folder per test set
OFF_TARGET = "off-target rate"


def _filed(results: Path) -> pd.DataFrame:
    """All that is scored under results/: set, system, direction, metric, and what its interval draws ("over")."""
    parts = []
    for path in (path for place in FILED_IN for path in sorted((results / place).glob("*/intervals.csv"))):
        scores = pd.read_csv(path).dropna(subset="value")
        checks = path.with_name("checks.csv")
        over = read_json(path.with_name("run.json"), "score it again").get("resample", "segments")
        parts.append(scores.assign(set=path.parent.name, over=over))
        if checks.is_file():
            parts.append(pd.read_csv(checks).assign(set=path.parent.name, over="", metric=OFF_TARGET))
    return pd.concat(parts)[["set", "system", "direction", "metric", "over"]]


def _over(part: pd.DataFrame) -> str:
    """What the intervals of some scores draw; where it is not the same in all directions, in which."""
    known = part[part["over"] != ""]
    n = part["direction"].nunique()
    found = known.groupby("over", sort=False)["direction"].unique()
    return "; ".join(f"{over} in {', '.join(d)}" if len(d) < n else over for over, d in found.items())


def coverage_frame(results: Path) -> pd.DataFrame:
    """One row per test set and answer: metrics, and what they scored or why not, from what `xalma score` wrote."""
    filed = _filed(results)
    rows = []
    for testset, n in COVERED.items():
        answers: dict[tuple, list[str]] = {}
        for metric in (*FILE_METRICS, OFF_TARGET):
            part = filed[(filed["set"] == testset) & (filed["metric"] == metric)]
            outputs = part.drop_duplicates(["system", "direction"])
            why = "" if len(part) else WHY_NOT.get(metric, "not asked for")
            systems = ", ".join(dict.fromkeys(part["system"]))
            answer = (len(outputs), part["direction"].nunique(), systems, _over(part), why)
            answers.setdefault(answer, []).append(METRIC_NAMES.get(metric, metric))
        answers[0, 0, "", "", "needs a model's probabilities, not its outputs"] = ["bits per byte"]
        columns = ("outputs scored", "in directions", "systems", "intervals over", "why not")
        for answer, names in answers.items():
            cells = dict(zip(columns, answer, strict=True))
            rows.append({"test set": testset, "directions": n, "metrics": "; ".join(names), **cells})
    return pd.DataFrame(rows)


def write_coverage(results: Path) -> list[Path]:
    """Write results/wmt/coverage.csv and .md."""
    note = (
        "Made by `python tools/wmt_tables.py` from the intervals.csv of results/wmt and results/apertium; "
        "their run.json name the commands. WMT'22 to '24: released outputs of real systems; the other sets: Apertium, "
        "run here. No human scores are at hand for any of these sets, so no metric was compared with people."
    )
    caption = "What each metric scored on each test set"
    return write_table(coverage_frame(results), results / "wmt" / "coverage", caption, note)


def write_golden(folder: Path) -> Iterator[Path]:
    """Writes golden.csv, .md, .tex and .png into the results folder of a test set."""
    table = pd.read_csv(folder / "intervals.csv")
    caption = f"BLEU of released outputs on {folder.name} beside the paper's"
    yield from write_marked(golden_table(table, caption), folder / "golden")
    yield save_figure(golden_figure(golden_frame(table)), folder / "golden.png")


if __name__ == "__main__":
    results = home() / "results"
    print(*write_golden(results / "wmt" / "wmt22"), *write_coverage(results), sep="\n")
