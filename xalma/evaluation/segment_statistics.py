"""Counts of each segment that decide a corpus score, and corpus scores of resampled segments.

sacreBLEU counts a segment's matches once; BLEU and chrF of any set of segments are functions of the
sum of their counts. So a thousand resamples are one matrix product. The formulas are sacreBLEU's,
over arrays: `tests/evaluation/test_segment_statistics.py` holds them against its own, to 1e-9.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from xalma.evaluation.metrics import check_counts, parts, sacrebleu_metric

SEED = 12345  # sacreBLEU's default
BLEU_ORDER = 4
CHRF_BETA = 2
ROWS_AT_ONCE = 500  # resamples in one matrix product: a block of 500 x 2,000 segments is 8 MB


def segment_statistics(
    outputs: Sequence[str], references: Sequence[str], tgt: str, metric: str
) -> np.ndarray:
    """sacreBLEU's counts of each segment, (n_segments, k) int32, whose sums decide the corpus score.

    k is 10 for "bleu" and "spbleu" (two lengths, matches and n-grams of four orders), 18 for "chrf",
    24 for "chrf++" (output, reference and common n-grams of each order). The references' n-grams are
    kept for the last few calls: score all systems of a direction, then the next direction.
    Raises ValueError as `metrics.score` does.
    """
    check_counts(outputs=outputs, references=references)
    found = []
    for part in parts(outputs, references):
        prepared = _with_references(metric, tgt, tuple(references[part]))
        found.append(np.array(prepared._extract_corpus_statistics(outputs[part], None), dtype=np.int32))
    return np.concatenate(found)


def statistics_of(segment_scores: Sequence[float]) -> np.ndarray:
    """Statistics (n_segments, 1) of a metric that is a mean over segments: 100 times its scores, as tables print."""
    return 100 * np.asarray(segment_scores, dtype=np.float64)[:, None]


def by_document(statistics: np.ndarray, documents: Sequence[str]) -> np.ndarray:
    """Statistics of whole documents, (n_documents, k), in the order in which the documents begin.

    Resampling them gives intervals and tests over documents: segments of one document are not independent. The corpus
    score is that of the segments. A mean's (k = 1) are its sum and number of segments, (n_documents, 2).
    Raises ValueError unless each segment has a document, and for fewer than two documents.
    """
    if len(documents) != len(statistics):
        raise ValueError(
            f"{len(documents)} documents named for {len(statistics)} segments: name one for each segment"
        )
    counted = pd.DataFrame(statistics)
    if counted.shape[1] == 1:
        counted["segments"] = 1.0
    totals = counted.groupby(list(documents), sort=False).sum().to_numpy()
    if len(totals) < 2:
        raise ValueError(f"{len(totals)} document: an interval over documents needs two or more")
    return totals


def corpus_score(totals: np.ndarray, metric: str) -> np.ndarray:
    """Corpus scores (...) on the 0-100 scale of sums of statistics (..., k); k = 1: of means, 2: of sum and number."""
    totals = np.asarray(totals, dtype=np.float64)
    if metric in ("bleu", "spbleu"):
        return _bleu(totals)
    if metric in ("chrf", "chrf++"):
        return _chrf(totals)
    return totals[..., 0] / totals[..., 1] if totals.shape[-1] == 2 else totals[..., 0]


def score_of(statistics: np.ndarray, metric: str) -> float:
    """The corpus score of one system's statistics (n_segments, k)."""
    return float(weighted_scores(np.ones((1, len(statistics))), statistics, metric)[0])


def bootstrap_scores(
    statistics: np.ndarray, metric: str, n_samples: int = 1000, seed: int | tuple[int, ...] = SEED
) -> np.ndarray:
    """Corpus scores (n_samples,) of resamples with replacement: sacreBLEU's draws for that seed."""
    drawn = _resamples(len(statistics), n_samples, seed)
    return np.concatenate([weighted_scores(block, statistics, metric) for block in resampling_blocks(drawn)])


@lru_cache(maxsize=4)
def _with_references(metric: str, tgt: str, references: tuple[str, ...]) -> Any:
    return sacrebleu_metric(metric, tgt, references)


@lru_cache(maxsize=4)
def _resamples(n: int, n_samples: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """How often each resample has each segment: (n_samples, n) uint16."""
    rng = np.random.default_rng(seed)
    counts = np.empty((n_samples, n), dtype=np.uint16)
    for row in range(n_samples):  # row by row the draws are those of one call, without its 8 bytes a draw
        counts[row] = np.bincount(rng.choice(n, size=n, replace=True), minlength=n)
    counts.flags.writeable = False
    return counts


def resampling_blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Some rows at a time, as float64 for BLAS."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE].astype(np.float64)


def weighted_scores(weights: np.ndarray, statistics: np.ndarray, metric: str) -> np.ndarray:
    """Corpus scores (rows,) of the segments weighted by `weights` (rows, n)."""
    totals = weights @ np.asarray(statistics, dtype=np.float64)
    return corpus_score(totals / len(statistics) if statistics.shape[1] == 1 else totals, metric)


def _bleu(totals: np.ndarray) -> np.ndarray:
    """BLEU with sacreBLEU's "exp" smoothing: the k-th order without a match counts as 1 / 2^k matches."""
    length, reference_length = totals[..., 0], totals[..., 1]
    correct, total = totals[..., 2 : 2 + BLEU_ORDER], totals[..., 2 + BLEU_ORDER :]
    matches = np.where(correct > 0, correct, 0.5 ** np.cumsum(correct == 0, axis=-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        brevity = np.minimum(0, 1 - reference_length / length)
        score = 100 * np.exp(brevity + np.log(matches / total).mean(axis=-1))
    return np.where(correct.any(axis=-1) & total.all(axis=-1), score, 0.0)


def _chrf(totals: np.ndarray) -> np.ndarray:
    """chrF with sacreBLEU's effective order: precision and recall averaged over the orders both sides have."""
    output, reference, common = totals[..., 0::3], totals[..., 1::3], totals[..., 2::3]
    present = (output > 0) & (reference > 0)
    orders = np.maximum(present.sum(axis=-1), 1)
    precision, recall = (
        np.divide(common, side, out=np.zeros_like(common), where=present).sum(axis=-1) / orders
        for side in (output, reference)
    )
    weighted = CHRF_BETA**2 * precision + recall
    score = 100 * (1 + CHRF_BETA**2) * precision * recall
    return np.divide(score, weighted, out=np.zeros_like(score), where=weighted > 0)
