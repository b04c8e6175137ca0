"""Scores of translations, each with the signature needed to get the number again.

X-ALMA (arXiv 2410.03115) reports BLEU beside COMET; here sacreBLEU gives BLEU, chrF and chrF++. What
differs:

- Korean is tokenised with ko-mecab; the released scripts name only 13a, zh and ja-mecab.
- Thai writes no blanks between words and sacreBLEU has no Thai tokenizer, so Thai BLEU on 13a
  counts phrases as words: read chrF, or spBLEU, there.
- spBLEU (`flores200`) needs a model file that sacreBLEU downloads; it is scored where the file is,
  and never fetched here.

COMET and its kin are in `comet`, intervals and tests in `significance`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers import tokenizer_spm

from xalma.language_id import has_letters, wrong_language
from xalma.languages import language

LEXICAL_METRICS = ("bleu", "chrf", "chrf++", "spbleu")
SPBLEU_TOKENIZER = "flores200"
SEGMENTS_AT_ONCE = 4_000  # whose n-grams are in memory: 57 KB each for BLEU and chrF of German news
CHARACTERS_AT_ONCE = 1_000_000  # the same where segments are long
LONGEST_SEGMENT = 2_000_000  # characters: no text that was translated, and chrF of more takes minutes
# A translation this many times as long as its reference, and longer by this many characters, has
# repeated itself or gone on talking. Chosen: short references are easily doubled.
OVERLONG_TIMES, OVERLONG_CHARACTERS = 2, 50


@dataclass(frozen=True)
class Score:
    """One corpus score: `value` on sacreBLEU's 0-100 scale, unrounded, over `n` segments."""

    metric: str
    value: float
    signature: str
    n: int


@dataclass(frozen=True)
class NotScored:
    """What stands in a column where a metric's model is not at hand; `reason` says which one."""

    metric: str
    reason: str
    n: int


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tgt: str,
    metrics: Sequence[str] = ("bleu", "chrf"),
) -> list[Score | NotScored]:
    """Corpus scores, one for each of `metrics` ("bleu", "chrf", "chrf++", "spbleu"), in that order.

    The BLEU tokenizer follows the target language `tgt` and stands in the signature. `NotScored`
    only for spBLEU without its model.
    Raises ValueError for no segments, unequal counts, an unknown language or an unknown metric.
    """
    check_counts(hypotheses=hypotheses, references=references)
    scores: list[Score | NotScored] = []
    for name in metrics:
        if name == "spbleu" and (missing := missing_spbleu_model()):
            scores.append(NotScored(name, missing, len(hypotheses)))
            continue
        metric = sacrebleu_metric(name, tgt)
        value = _corpus_score(metric, hypotheses, references)
        scores.append(Score(name, value, str(metric.get_signature()), len(hypotheses)))
    return scores


def _corpus_score(metric: BLEU | CHRF, hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """sacreBLEU's corpus score, from the sums of its counts: its own call holds the n-grams of all segments."""
    totals: np.ndarray | int = 0
    for part in parts(hypotheses, references):
        counts = metric._extract_corpus_statistics(hypotheses[part], [references[part]])
        totals = totals + np.array(counts, dtype=np.int64).sum(axis=0)
    return metric._compute_score_from_stats(totals.tolist()).score


def parts(*columns: Sequence[str]) -> Iterator[slice]:
    """Runs of at most SEGMENTS_AT_ONCE segments, and of CHARACTERS_AT_ONCE in a column unless one segment has more."""
    start = size = 0
    for i, texts in enumerate(zip(*columns, strict=True)):
        length = max(map(len, texts))
        if i - start == SEGMENTS_AT_ONCE or (i > start and size + length > CHARACTERS_AT_ONCE):
            yield slice(start, i)
            start, size = i, 0
        size += length
    yield slice(start, len(columns[0]))


def sacrebleu_metric(name: str, tgt: str, references: Sequence[str] | None = None) -> BLEU | CHRF:
    """sacreBLEU's metric for a target language, with the references' n-grams counted if they are given.

    Raises ValueError for an unknown metric, FileNotFoundError for spBLEU without its model.
    """
    tokenizer = language(tgt).sacrebleu_tokenizer
    prepared = None if references is None else [references]
    if name not in LEXICAL_METRICS:
        raise ValueError(f"unknown metric {name!r}: use one of {', '.join(LEXICAL_METRICS)}")
    if name.startswith("chrf"):
        return CHRF(word_order=2 if name == "chrf++" else 0, references=prepared)
    if name == "spbleu":
        tokenizer = SPBLEU_TOKENIZER
        if missing := missing_spbleu_model():
            raise FileNotFoundError(missing)
    return BLEU(tokenize=tokenizer, references=prepared)


def missing_spbleu_model() -> str | None:
    """Why spBLEU can't be scored here: None where sacreBLEU finds its model."""
    url = tokenizer_spm.SPM_MODELS[SPBLEU_TOKENIZER]["url"]
    path = Path(tokenizer_spm.SACREBLEU_DIR) / "models" / Path(url).name
    return None if path.is_file() else f"not scored: spBLEU model {path.name} not available in {path.parent}"


def wrong_language_rate(hypotheses: Sequence[str], tgt: str) -> float:
    """Share (0-1) of `hypotheses` in another script or language by `language_id.wrong_language`, or without letters.

    An output without letters is not on target; that a source had none either is rare. `language_id.signature` says what
    was checked.
    """
    check_counts(hypotheses=hypotheses)
    return float(np.mean([not has_letters(text) or wrong_language(text, tgt) for text in hypotheses]))


def empty_rate(hypotheses: Sequence[str]) -> float:
    """Share (0-1) of `hypotheses` that are empty or blank."""
    check_counts(hypotheses=hypotheses)
    return float(np.mean([not text.strip() for text in hypotheses]))


def copy_rate(hypotheses: Sequence[str], sources: Sequence[str]) -> float:
    """Share (0-1) of `hypotheses` equal to their source up to blanks; empty ones don't count."""
    check_counts(hypotheses=hypotheses, sources=sources)
    pairs = zip(hypotheses, sources, strict=True)
    return float(np.mean([bool(text.strip()) and text.split() == source.split() for text, source in pairs]))


def overlong_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Share (0-1) of `hypotheses` far longer than their reference: see `OVERLONG_TIMES`."""
    check_counts(hypotheses=hypotheses, references=references)
    pairs = zip(map(len, hypotheses), map(len, references), strict=True)
    return float(np.mean([n > OVERLONG_TIMES * r and n > r + OVERLONG_CHARACTERS for n, r in pairs]))


def length_ratio(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Characters of all hypotheses over characters of all references."""
    check_counts(hypotheses=hypotheses, references=references)
    reference_chars = sum(map(len, references))
    if not reference_chars:
        raise ValueError("length ratio against references that are all empty: check the reference file")
    return sum(map(len, hypotheses)) / reference_chars


def bits_per_byte(nats: Sequence[float], references: Sequence[str]) -> float:
    """What a model pays for the references, in bits, over their UTF-8 bytes: comparable across tokenizers.

    nats: summed -log p of each reference's tokens. It moves long before BLEU does, which is 0 for a small model on
    news. A byte is not equally much in all languages (Devanagari letters have three), so compare within a direction.
    """
    check_counts(nats=nats, references=references)
    return sum(nats) / math.log(2) / sum(len(text.encode()) for text in references)


def check_counts(**columns: Sequence[str]) -> None:
    """Raises ValueError, naming the columns, for unequal numbers of segments, none at all, or one that is too long."""
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(f"{found}: give one of each for every segment")
    if not all(counts.values()):
        raise ValueError(f"no segments to score: {' and '.join(counts)} are empty lists")
    for name, column in columns.items():
        if long := [
            i for i, text in enumerate(column, 1) if isinstance(text, str) and len(text) > LONGEST_SEGMENT
        ]:
            raise ValueError(
                f"segment {long[0]} of {name} has {len(column[long[0] - 1]):,} characters, at most {LONGEST_SEGMENT:,} "
                f"are scored: write one segment per line"
            )
