"""What is written of scored systems, `xalma score --system-outputs … --results DIR`.

    DIR/<testset>/scores.jsonl         a record a system, direction and metric (the system stands as `stage`)
    DIR/<testset>/intervals.csv        the same with 95 % bootstrap intervals
    DIR/<testset>/significance.csv     each system against the best of its direction, p-values corrected
    DIR/<testset>/<metric>.csv .md .tex    the table: systems down, directions across
    DIR/<testset>/published.csv .md .tex   beside the organisers' scores, where these lie with the set
    DIR/<testset>/checks.csv .md       off-target, empty, over-long and copied outputs
    DIR/<testset>/run.json             command, commit, versions, hardware

Numbers only: no text of a test set or system is written.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from sacrebleu.metrics import BLEU, CHRF

from xalma.corpora.test_sets import load
from xalma.evaluation.interference import MARK, flagged, mark_explained
from xalma.evaluation.records import Record, write_records, write_run
from xalma.evaluation.scoring import Scores
from xalma.evaluation.significance import ALPHA, N_RESAMPLES, compare, holm, paired_bootstrap, sentence
from xalma.evaluation.thresholds import explained, marks
from xalma.languages import language
from xalma.paper.tables import (
    NOT_WORSE,
    Cell,
    Table,
    number,
    write_csv,
    write_marked,
    write_table,
)
from xalma.runtime import data_root
from xalma.text_files import read_lines

METRIC_NAMES = {"bleu": "BLEU", "chrf": "chrF", "chrf++": "chrF++", "spbleu": "spBLEU", "comet22": "COMET-22",
         "xcomet-xl": "XCOMET-XL", "xcomet-xl-qe": "XCOMET-XL, no reference", "cometkiwi": "CometKiwi",
         "xcomet-xxl": "XCOMET-XXL", "xcomet-xxl-qe": "XCOMET-XXL, no reference", "cometkiwi-xl": "CometKiwi-XL",
         "cometkiwi-xxl": "CometKiwi-XXL", "metricx24": "MetricX-24",
         "metricx24-qe": "MetricX-24, no reference", "gemba-esa": "GEMBA-ESA"}  # fmt: skip


def against_best(scores: Scores, metric: str) -> pd.DataFrame:
    """Each system against the best of its direction: direction, system, best, delta, p_value, p_adjusted, worse.

    Paired bootstrap on the same segments; p-values are corrected by Holm over all tests of the table. The best itself
    has no row.
    """
    rows, by_system = [], scores.statistics[metric]
    table = scores.table.query("metric == @metric").dropna(subset="value")
    n_tests = len(table) - table["direction"].nunique()
    # else no p could stay below alpha after the correction
    n_samples = max(N_RESAMPLES["bootstrap"], 5 * round(n_tests / ALPHA))
    for direction, part in table.groupby("direction", sort=False):
        best = part.loc[part["value"].idxmax(), "system"]
        for system in part["system"]:
            if system != best:
                test = paired_bootstrap(
                    by_system[system][direction], by_system[best][direction], metric, n_samples
                )
                rows.append((direction, system, best, test.delta, test.p_value))
    frame = pd.DataFrame(rows, columns=["direction", "system", "best", "delta", "p_value"])
    frame["p_adjusted"] = holm(frame["p_value"]) if len(frame) else []
    frame["worse"] = frame["p_adjusted"] < ALPHA
    frame.attrs["how"] = (
        f"paired bootstrap, {n_samples:,} samples, Holm over {len(frame)} tests, alpha {ALPHA}"
    )
    return frame


def score_table(scores: Scores, metric: str, caption: str, tests: pd.DataFrame | None) -> Table:
    """Systems down, directions and their mean across; best in bold, † where the best is not significantly better.

    ° where it is better by less than people notice (`thresholds`), ‡ where it is no independent score (`interference`).
    """
    table = scores.table.query("metric == @metric")
    directions, systems = (list(table[name].unique()) for name in ("direction", "system"))
    close = set() if tests is None else {(r.system, r.direction) for r in tests.itertuples() if not r.worse}
    wide = table.pivot(index="system", columns="direction", values="value").loc[systems, directions]
    wide["mean"] = wide.mean(axis=1, skipna=False)  # NaN where a direction is not scored
    unnoticed = [marks(metric, wide[column]) for column in wide]
    partial = flagged(metric, scores.chosen_by)
    rows: list[list[Cell | str]] = []
    for i, system in enumerate(systems):
        signs = [NOT_WORSE if (system, direction) in close else "" for direction in directions] + [""]
        own = MARK if system in partial else ""
        cells = [
            number(value, run="run.json", mark=sign + column[i] + own)
            for value, sign, column in zip(wide.iloc[i], signs, unnoticed, strict=True)
        ]
        rows.append([system, *cells])
    signatures = table.groupby("signature", sort=False)["direction"].agg(
        lambda found: ", ".join(dict.fromkeys(found))
    )
    notes = [f"`{signature}`: {found}." for signature, found in signatures.items()]
    if tests is not None and len(tests):
        notes.append(
            f"Best in bold; {NOT_WORSE}: the best is not significantly better ({tests.attrs['how']})."
        )
    if any(sign for column in unnoticed for sign in column):
        notes.append(f"{explained(metric)}.")
    notes += filter(None, [mark_explained(metric, scores.chosen_by)])
    made = Table(["system", *directions, "mean"], rows, caption, notes)
    return made.with_best(range(1, len(directions) + 2))


def win_tie_loss_table(scores: Scores, metric: str) -> pd.DataFrame:
    """Each pair of systems over all directions: system a, system b, wins, ties and losses of a in a sentence."""
    by_system = scores.statistics[metric]
    pairs = itertools.combinations([system for system in by_system if by_system[system]], 2)
    pairs = [(a, b) for a, b in pairs if by_system[a].keys() & by_system[b].keys()]
    return pd.DataFrame(
        [
            {"a": a, "b": b, "a against b": sentence(compare(by_system[a], by_system[b], metric))}
            for a, b in pairs
        ]
    )


def write_scores(
    scores: Scores, folder: str | Path, testset: str, command: str, **details: Any
) -> list[Path]:
    """Write all files of one scored test set under folder/<testset>; returns the paths.

    details: for run.json, beside command and provenance.
    """
    target, title = Path(folder) / Path(testset).name, Path(testset).name
    scored = scores.table.dropna(subset="value")
    records = [
        Record(title, r.system, r.direction, r.metric, r.value, r.n, r.signature) for r in scored.itertuples()
    ]
    paths = [write_records(target / "scores.jsonl", records)]
    paths.append(write_csv(target / "intervals.csv", scores.table))
    scored_by = [metric for metric, kept in scores.statistics.items() if any(kept.values())]
    found = {metric: against_best(scores, metric) for metric in scored_by}
    frames = [frame.assign(metric=metric) for metric, frame in found.items()]
    paths += [write_csv(target / "significance.csv", pd.concat(frames))] if frames else []
    for metric in scores.table["metric"].unique():
        made = score_table(
            scores, metric, f"{METRIC_NAMES.get(metric, metric)} on {title}", found.get(metric)
        )
        paths += write_marked(made, target / metric.replace("+", "p"))
    return [*paths, write_run(target / "run.json", command, **details)]


SCORES, TABLES = "published_scores.tsv", "published_tables.tsv"
KEYS = ["direction", "system", "reference", "metric"]
JAPANESE = {"scores": "char", "tables": "ja-mecab"}  # BLEU tokenizers of the two files


def published_of(testset: str) -> Path | None:
    """The folder of a test set under XALMA_DATA that holds published scores; None where it does not."""
    root = data_root()
    folder = root / "wmt" / testset if root else Path(testset)
    return folder if (folder / SCORES).is_file() and (folder / TABLES).is_file() else None


def published_scores(folder: Path) -> pd.DataFrame:
    """Rows direction, system, reference, metric ("bleu", "chrf"), source ("scores", "tables"), published."""
    scores = pd.read_csv(folder / SCORES, sep="\t").rename(
        columns={"pair": "direction", "score": "published"}
    )
    scores[["metric", "reference"]] = scores["metric"].str.split("-", expand=True)
    scores = scores[scores["reference"] != "all"].assign(source="scores")  # "all" is refA again
    tables = pd.read_csv(folder / TABLES, sep="\t").rename(
        columns={"pair": "direction", "chrF": "chrf", "BLEU": "bleu"}
    )
    tables = tables.melt(["direction", "system", "reference"], ["bleu", "chrf"], "metric", "published")
    columns = [*KEYS, "source", "published"]
    return pd.concat([scores[columns], tables.assign(source="tables")[columns]], ignore_index=True)


def beside_ours(outputs: Mapping[str, Mapping[str, Path]], testset: str, folder: Path) -> pd.DataFrame:
    """`published_scores` of the systems and directions there are outputs for, with our score in the column `ours`."""

    @cache
    def references(direction: str, name: str) -> list[str]:
        beside = (folder / direction / f"{name}.txt").is_file()
        return load(testset, direction, reference=name if beside else "").references

    @cache
    def ours(direction: str, system: str, reference: str, metric: str, tokenizer: str) -> float:
        scorer = CHRF() if metric == "chrf" else BLEU(tokenize=tokenizer)
        return scorer.corpus_score(
            read_lines(outputs[system][direction]), [references(direction, reference)]
        ).score

    rows = published_scores(folder)
    rows = rows[[row.direction in outputs.get(row.system, ()) for row in rows.itertuples()]]
    return rows.assign(
        ours=[ours(*(getattr(row, key) for key in KEYS), tokenizer(row)) for row in rows.itertuples()]
    )


def tokenizer(row) -> str:
    """The BLEU tokenizer that a published number was made with."""
    target = row.direction.split("-")[1]
    return JAPANESE[row.source] if target == "ja" else language(target).sacrebleu_tokenizer


def largest_gaps(rows: pd.DataFrame) -> dict[str, float]:
    """Metric -> the largest absolute difference from the unrounded scores."""
    scores = rows[rows["source"] == "scores"]
    return (scores["ours"] - scores["published"]).abs().groupby(scores["metric"]).max().to_dict()


def table(rows: pd.DataFrame, testset: str) -> Table:
    """One row per output and reference: published, ours and the difference, then the printed tables' and ours."""
    cells = rows.set_index([*KEYS, "source"])[["published", "ours"]]

    def pair(key: tuple, metric: str, source: str) -> list[Cell]:
        if (*key, metric, source) not in cells.index:
            return [Cell("")] * (3 if source == "scores" else 2)
        theirs, ours = cells.loc[(*key, metric, source)]
        if source == "tables":
            return [number(theirs, 1), number(ours)]
        return [number(theirs), number(ours), Cell(f"{round(ours - theirs, 4) + 0.0:+.4f}")]

    keys = rows[KEYS[:3]].drop_duplicates().sort_values(KEYS[:3]).itertuples(index=False, name=None)
    kinds = [(metric, source) for source in ("scores", "tables") for metric in ("bleu", "chrf")]
    body = [[*key, *(cell for kind in kinds for cell in pair(key, *kind))] for key in keys]
    columns = [
        f"{metric}, {what}" for metric in ("BLEU", "chrF") for what in ("published", "here", "difference")
    ]
    columns += [f"{metric}, {what}" for metric in ("BLEU", "chrF") for what in ("printed", "here as there")]
    gaps = largest_gaps(rows)
    notes = [
        f"Published: the organisers' `{SCORES}`, BLEU into Japanese by characters; printed: their tables, by ja-mecab.",
        f"At most {gaps['bleu']:.4f} BLEU and {gaps['chrf']:.4f} chrF from the published scores.",
    ]
    return Table([*KEYS[:3], *columns], body, f"Outputs of {testset}: the organisers' scores and ours", notes)


def write_published(
    outputs: Mapping[str, Mapping[str, Path]], testset: str, folder: Path
) -> tuple[list[Path], str]:
    """Writes published.csv, .md and .tex of a test set's results folder; returns the paths, and one sentence."""
    name = Path(testset).name
    rows = beside_ours(outputs, testset, published_of(testset))
    gaps = largest_gaps(rows)
    n = len(rows[KEYS[:2]].drop_duplicates())
    summary = f"{n} outputs: at most {gaps['bleu']:.4f} BLEU and {gaps['chrf']:.4f} chrF"
    return write_marked(
        table(rows, name), folder / name / "published"
    ), f"{summary} from the organisers' published scores"


def write_checks(checks: pd.DataFrame, folder: str | Path, testset: str) -> list[Path]:
    """Write checks.csv and .md of a test set's results folder, from `check_outputs`; returns the paths."""
    title = Path(testset).name
    found = checks.groupby("checked", sort=False)["direction"].unique()
    note = " ".join(["Off-target by:", *(f"`{how}`: {', '.join(where)}." for how, where in found.items())])
    caption = f"Plain checks of the outputs on {title}; length: characters, percent of the reference's"
    return write_table(checks.drop(columns="checked"), Path(folder) / title / "checks", caption, note)
