"""What WMT's organisers published of the outputs they released, beside our scores: results/wmt/wmt23/published.*.

Two files in the folder of a test set (data README, wmt23):

    published_scores.tsv   pair, system, id, is_constrained, metric, score: unrounded, metrics bleu-refA and chrf-refA
    published_tables.tsv   pair, reference, system, COMET, chrF, BLEU: the printed tables, one decimal

BLEU into Japanese was made with `tok:char` in the first and with ja-mecab in the second, all else with the tokenizers
of `xalma.languages`. refA is refA.txt where a direction has it, else its only reference; refB is the first of Hebrew.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pandas as pd
from sacrebleu.metrics import BLEU, CHRF

from xalma.corpora.test_sets import load
from xalma.languages import language
from xalma.marked import Cell, Table, number, write_marked
from xalma.runtime import data_root
from xalma.text_files import read_lines

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
    scores = pd.read_csv(folder / SCORES, sep="\t").rename(columns={"pair": "direction", "score": "published"})
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
        return scorer.corpus_score(read_lines(outputs[system][direction]), [references(direction, reference)]).score

    rows = published_scores(folder)
    rows = rows[[row.direction in outputs.get(row.system, ()) for row in rows.itertuples()]]
    return rows.assign(ours=[ours(*(getattr(row, key) for key in KEYS), tokenizer(row)) for row in rows.itertuples()])


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
    columns = [f"{metric}, {what}" for metric in ("BLEU", "chrF") for what in ("published", "here", "difference")]
    columns += [f"{metric}, {what}" for metric in ("BLEU", "chrF") for what in ("printed", "here as there")]
    gaps = largest_gaps(rows)
    notes = [
        f"Published: the organisers' `{SCORES}`, BLEU into Japanese by characters; printed: their tables, by ja-mecab.",
        f"At most {gaps['bleu']:.4f} BLEU and {gaps['chrf']:.4f} chrF from the published scores.",
    ]
    return Table([*KEYS[:3], *columns], body, f"Outputs of {testset}: the organisers' scores and ours", notes)


def write_published(outputs: Mapping[str, Mapping[str, Path]], testset: str, folder: Path) -> tuple[list[Path], str]:
    """Writes published.csv, .md and .tex of a test set's results folder; returns the paths, and one sentence."""
    name = Path(testset).name
    rows = beside_ours(outputs, testset, published_of(testset))
    gaps = largest_gaps(rows)
    said = (
        f"{len(rows[KEYS[:2]].drop_duplicates())} outputs: at most {gaps['bleu']:.4f} BLEU and {gaps['chrf']:.4f} chrF"
    )
    return write_marked(table(rows, name), folder / name / "published"), f"{said} from the organisers' published scores"
