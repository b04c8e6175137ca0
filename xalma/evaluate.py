"""Scores of translations, each with the signature needed to get the number again.

X-ALMA (FACTS §7) reports BLEU beside COMET; here sacreBLEU gives BLEU, chrF and chrF++. What
differs:

- Korean is tokenised with ko-mecab; the released scripts name only 13a, zh and ja-mecab.
- Thai writes no blanks between words and sacreBLEU has no Thai tokenizer, so Thai BLEU on 13a
  counts phrases as words: read chrF, or spBLEU, there.
- spBLEU (`flores200`) needs a model file that sacreBLEU downloads; it is scored where the file is,
  and never fetched here.

COMET and its kin are in `neural`, intervals and tests in `significance`.
"""

from __future__ import annotations

import gzip
import math
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers import tokenizer_spm

from xalma.identify import has_letters, off_target, wrong_language
from xalma.languages import ENGLISH, group_of, language, other_side, parse_direction

if TYPE_CHECKING:
    from xalma.results import Record

METRICS = ("bleu", "chrf", "chrf++", "spbleu")
SPBLEU_TOKENIZER = "flores200"
SEGMENTS_AT_ONCE = 4_000  # whose n-grams are in memory: 57 KB each for BLEU and chrF of German news
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
    for start in range(0, len(hypotheses), SEGMENTS_AT_ONCE):
        part = slice(start, start + SEGMENTS_AT_ONCE)
        counts = metric._extract_corpus_statistics(hypotheses[part], [references[part]])
        totals = totals + np.array(counts, dtype=np.int64).sum(axis=0)
    return metric._compute_score_from_stats(totals.tolist()).score


def sacrebleu_metric(name: str, tgt: str, references: Sequence[str] | None = None) -> BLEU | CHRF:
    """sacreBLEU's metric for a target language, with the references' n-grams counted if they are given.

    Raises ValueError for an unknown metric, FileNotFoundError for spBLEU without its model.
    """
    tokenizer = language(tgt).sacrebleu_tokenizer
    prepared = None if references is None else [references]
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}: use one of {', '.join(METRICS)}")
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


def off_target_rate(hypotheses: Sequence[str], tgt: str) -> float:
    """Share (0-1) of `hypotheses` that `identify.off_target` finds in another script."""
    check_counts(hypotheses=hypotheses)
    return float(np.mean([off_target(text, tgt) for text in hypotheses]))


def wrong_language_rate(hypotheses: Sequence[str], tgt: str) -> float:
    """Share (0-1) of `hypotheses` in another script or language by `identify.wrong_language`, or without letters.

    An output without letters is not on target; that a source had none either is rare. `identify.signature` says what
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


def group_means(records: Iterable[Record]) -> pd.DataFrame:
    """Mean over each group's directions: stage, metric, group, direction, mean, n_directions.

    `direction` is the class "en-xx" or "xx-en". Seeds are averaged within a direction first, so
    that each direction weighs the same. Rows keep the order stage and metric first appear in.
    """
    rows = [
        {
            "stage": r.stage,
            "metric": r.metric,
            **direction_class(r.direction),
            "key": r.direction,
            "value": r.value,
        }
        for r in records
    ]
    if not rows:
        raise ValueError("no records to average: run the stage that writes scores.jsonl first")
    keys = ["stage", "metric", "group", "direction"]
    by_direction = pd.DataFrame(rows).groupby([*keys, "key"], sort=False)["value"].mean()
    return by_direction.groupby(level=keys, sort=False).agg(mean="mean", n_directions="size").reset_index()


def direction_class(direction: str) -> dict[str, int | str]:
    """{"group": 6, "direction": "en-xx"} for "en-zh". Raises ValueError without English."""
    src, tgt = parse_direction(direction)
    return {
        "group": group_of(other_side(src, tgt)),
        "direction": "en-xx" if src == ENGLISH else "xx-en",
    }


def read_lines(path: str | Path) -> list[str]:
    """The segments of a UTF-8 file, packed with gzip (.gz) or not, one a line, as `lines_of` cuts them.

    Raises FileNotFoundError for no such file, ValueError for an empty or cut file or bytes that are not
    UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: give a text file with one segment a line")
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is cut or no gzip file ({error}): fetch it again") from error
    return lines_of(data, str(path))


def lines_of(data: bytes, name: str) -> list[str]:
    """The segments of UTF-8 text, one a line, without LF or CRLF ends and byte order mark.

    Only line feeds end a segment: U+2028 and the like stay in the text, as sacreBLEU keeps them.
    Raises ValueError, beginning with `name`, for no text or bytes that are not UTF-8.
    """
    if not data:
        raise ValueError(f"{name} is empty: give text with one segment a line")
    if is_utf16(data):
        raise ValueError(f"{name} is not UTF-8 but UTF-16: convert it first, with `iconv -f utf-16 -t utf-8`")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}, "
            f"line {line}; "
            f"convert it first, for example with `iconv -f latin1 -t utf-8`"
        ) from error
    return [line.removesuffix("\r") for line in text.removeprefix("\ufeff").removesuffix("\n").split("\n")]


def is_utf16(data: bytes) -> bool:
    """Whether bytes are UTF-16: by their byte order mark, or, without one, by every tenth byte being NUL."""
    return data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or data.count(b"\0") > len(data) // 10


def check_parallel(paths: Sequence[str | Path]) -> list[list[str]]:
    """The lines of each file by `read_lines`. Raises ValueError if they have not equally many."""
    files = [read_lines(path) for path in paths]
    for path, lines in zip(paths, files, strict=True):
        if len(lines) != len(files[0]):
            raise ValueError(
                f"line counts differ: {paths[0]} has {len(files[0])}, {path} has {len(lines)}; "
                f"line n of one must translate line n of the other"
            )
    return files


def check_counts(**columns: Sequence[str]) -> None:
    """Raises ValueError, naming the columns, for unequal numbers of segments or none at all."""
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(f"{found}: give one of each for every segment")
    if not all(counts.values()):
        raise ValueError(f"no segments to score: {' and '.join(counts)} are empty lists")
