"""Scores of translations, each with the signature needed to get the number again.

X-ALMA (FACTS §7) reports BLEU beside COMET; here sacreBLEU gives BLEU, chrF and chrF++. What
differs:

- Korean is tokenised with ko-mecab; the released scripts name only 13a, zh and ja-mecab.
- Thai writes no blanks between words and sacreBLEU has no Thai tokenizer, so Thai BLEU on 13a
  counts phrases as words: read chrF there. spBLEU (`flores200`) would serve, but its model is a
  download; it is not used here.
- Off-target is told by script alone, so two languages of one script are never told apart.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import pandas as pd
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from xalma.languages import ENGLISH, group_of, language, other_side, parse_direction

if TYPE_CHECKING:
    from xalma.results import Record

METRICS = ("bleu", "chrf", "chrf++")
# Share of letters in the target's script below which a translation is off-target. Other scripts
# carry Latin names, Latin text hardly anything else. Chosen on the NTREX references, all of them on
# target: of 1,997 lines a language at most 3 (Thai; 0.5 would give 31) fall under the first, none
# under the second.
MIN_SCRIPT_SHARE = 0.25
MIN_LATIN_SHARE = 0.5
# More kana than this among its letters and a text is Japanese, not Chinese: no NTREX Chinese line
# has any kana.
MAX_KANA_SHARE = 0.1
# First words of Unicode character names -> script; the standard library has names but no script
# property.
_SCRIPT_OF_NAME = {
    "LATIN": "Latn",
    "FULLWIDTH LATIN": "Latn",
    "CYRILLIC": "Cyrl",
    "GREEK": "Grek",
    "GEORGIAN": "Geor",
    "HEBREW": "Hebr",
    "ARABIC": "Arab",
    "DEVANAGARI": "Deva",
    "GUJARATI": "Gujr",
    "THAI": "Thai",
    "HANGUL": "Hang",
    "HIRAGANA": "Kana",
    "KATAKANA": "Kana",
    "HALFWIDTH KATAKANA": "Kana",
    "CJK": "Hani",
    "IDEOGRAPHIC ITERATION": "Hani",
}
_LETTERS_OF_SCRIPT = {
    "Hans": ("Hani",),
    "Jpan": ("Hani", "Kana"),
}  # the others go by their own name


@dataclass(frozen=True)
class Score:
    """One corpus score: `value` on sacreBLEU's 0-100 scale, unrounded, over `n` segments."""

    metric: str
    value: float
    signature: str
    n: int


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same segments; `ci_*` are half widths of 95 % bootstrap intervals."""

    metric: str
    value_a: float
    value_b: float
    ci_a: float
    ci_b: float
    p_value: float
    signature: str
    n: int


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tgt: str,
    metrics: Sequence[str] = ("bleu", "chrf"),
) -> list[Score]:
    """Corpus scores, one for each of `metrics` ("bleu", "chrf", "chrf++"), in that order.

    The BLEU tokenizer follows the target language `tgt` and stands in the signature.
    Raises ValueError for no segments, unequal counts, an unknown language or an unknown metric.
    """
    _check_counts(hypotheses=hypotheses, references=references)
    scores = []
    for name in metrics:
        metric = _metric(name, tgt)
        value = metric.corpus_score(hypotheses, [references]).score
        scores.append(Score(name, value, str(metric.get_signature()), len(hypotheses)))
    return scores


def paired_bootstrap(
    hypotheses_a: Sequence[str],
    hypotheses_b: Sequence[str],
    references: Sequence[str],
    tgt: str,
    metric: str = "bleu",
    n: int = 1000,
    seed: int = 12345,
) -> Comparison:
    """Paired bootstrap resampling (Koehn 2004) of two systems by sacreBLEU, `n` resamples.

    The default seed is sacreBLEU's own, so `sacrebleu --paired-bs` gives the same p-value. One
    departure: equal outputs get p = 1, where sacreBLEU gives 1 / (n + 1), the smallest p there is.
    Raises ValueError as `score` does, and for `seed` or `n` below 1 (0 means "unseeded" to
    sacreBLEU).
    """
    _check_counts(hypotheses_a=hypotheses_a, hypotheses_b=hypotheses_b, references=references)
    if seed < 1 or n < 1:
        raise ValueError(f"paired bootstrap with seed {seed} and {n} resamples: both must be 1 or more")
    systems = [("a", list(hypotheses_a)), ("b", list(hypotheses_b))]
    with mock.patch.dict(os.environ, SACREBLEU_SEED=str(seed)):  # the only way in for the seed
        test = PairedTest(systems, {metric: _metric(metric, tgt)}, [list(references)], test_type="bs", n_samples=n)
        signatures, results = test()
    (name,) = signatures
    a, b = results[name]
    p_value = 1.0 if systems[0][1] == systems[1][1] else float(b.p_value)
    return Comparison(
        metric,
        a.score,
        b.score,
        float(a.ci),
        float(b.ci),
        p_value,
        str(signatures[name]),
        len(references),
    )


def off_target(text: str, tgt: str) -> bool:
    """True if the letters of `text` are plainly in another script than `tgt` is written in.

    Scripts only: German in place of Dutch passes, and so does Thai with half of it in English.
    Chinese and Japanese are told apart by kana and by characters that Japanese does not use;
    Traditional Chinese counts as Chinese. A text without letters (digits, punctuation, nothing)
    can't be decided and is False. Measured on NTREX, where the text of another script stands in for
    the translation: 98 % are found or more. Raises ValueError for an unknown language.
    """
    script = language(tgt).script
    letters = Counter(filter(None, map(_script_of, text)))
    total = letters.total()
    if not total:
        return False
    share = sum(letters[name] for name in _LETTERS_OF_SCRIPT.get(script, (script,))) / total
    if share < (MIN_LATIN_SHARE if script == "Latn" else MIN_SCRIPT_SHARE):
        return True
    if script == "Hans":
        return letters["Kana"] > MAX_KANA_SHARE * total
    if script == "Jpan" and not letters["Kana"]:
        # Japanese dates and names may have no kana, but every character of them is in Shift JIS, as
        # 这 and 们 are not.
        return not _in_shift_jis("".join(char for char in text if _script_of(char) == "Hani"))
    return False


def off_target_rate(hypotheses: Sequence[str], tgt: str) -> float:
    """Share (0-1) of `hypotheses` that `off_target` finds in another script."""
    _check_counts(hypotheses=hypotheses)
    return float(np.mean([off_target(text, tgt) for text in hypotheses]))


def empty_rate(hypotheses: Sequence[str]) -> float:
    """Share (0-1) of `hypotheses` that are empty or blank."""
    _check_counts(hypotheses=hypotheses)
    return float(np.mean([not text.strip() for text in hypotheses]))


def copy_rate(hypotheses: Sequence[str], sources: Sequence[str]) -> float:
    """Share (0-1) of `hypotheses` equal to their source up to blanks; empty ones don't count."""
    _check_counts(hypotheses=hypotheses, sources=sources)
    pairs = zip(hypotheses, sources, strict=True)
    return float(np.mean([bool(text.strip()) and text.split() == source.split() for text, source in pairs]))


def length_ratio(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Characters of all hypotheses over characters of all references."""
    _check_counts(hypotheses=hypotheses, references=references)
    reference_chars = sum(map(len, references))
    if not reference_chars:
        raise ValueError("length ratio against references that are all empty: check the reference file")
    return sum(map(len, hypotheses)) / reference_chars


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
    """The segments of a UTF-8 file, one a line, as `lines_of` cuts them.

    Raises FileNotFoundError for no such file, ValueError for an empty file or bytes that are not
    UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: give a text file with one segment a line")
    return lines_of(path.read_bytes(), str(path))


def lines_of(data: bytes, name: str) -> list[str]:
    """The segments of UTF-8 text, one a line, without LF or CRLF ends and byte order mark.

    Only line feeds end a segment: U+2028 and the like stay in the text, as sacreBLEU keeps them.
    Raises ValueError, beginning with `name`, for no text or bytes that are not UTF-8.
    """
    if not data:
        raise ValueError(f"{name} is empty: give text with one segment a line")
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


def score_files(
    sys: str | Path,
    ref: str | Path,
    src: str | Path | None,
    tgt: str,
    metrics: Sequence[str] = ("bleu", "chrf"),
) -> str:
    """The report of `xalma score`: a line `BLEU|signature = value` a metric, then the plain checks.

    `sys`, `ref` and `src` (or None) are files of one segment a line, `tgt` the target language's
    code. Raises what `check_parallel` and `score` raise.
    """
    language(tgt)  # a wrong code should fail before the files are read
    hypotheses, references, *sources = check_parallel([path for path in (sys, ref, src) if path is not None])
    scores = score(hypotheses, references, tgt, metrics)
    lines = [f"{_DISPLAY[s.metric]}|{s.signature} = {s.value:.2f} (n = {s.n})" for s in scores]
    checks = [
        f"off-target (by script) {off_target_rate(hypotheses, tgt):.2%}",
        f"empty {empty_rate(hypotheses):.2%}",
        *(f"copies of the source {copy_rate(hypotheses, side):.2%}" for side in sources),
        f"length ratio {length_ratio(hypotheses, references):.3f}",
    ]
    return "\n".join([*lines, ", ".join(checks)])


_DISPLAY = {"bleu": "BLEU", "chrf": "chrF2", "chrf++": "chrF2++"}  # as sacreBLEU prints them


def _metric(name: str, tgt: str) -> BLEU | CHRF:
    tokenizer = language(tgt).sacrebleu_tokenizer
    if name == "bleu":
        return BLEU(tokenize=tokenizer)
    if name in METRICS:
        return CHRF(word_order=2 if name == "chrf++" else 0)
    raise ValueError(f"unknown metric {name!r}: use one of {', '.join(METRICS)}")


def _check_counts(**columns: Sequence[str]) -> None:
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(f"{found}: give one of each for every segment")
    if not all(counts.values()):
        raise ValueError(f"no segments to score: {' and '.join(counts)} are empty lists")


@cache
def _script_of(char: str) -> str | None:
    """Script of a letter; None for all else, marks included: they go with their letter."""
    if not unicodedata.category(char).startswith("L"):
        return None
    name = unicodedata.name(char, "")
    return next((script for start, script in _SCRIPT_OF_NAME.items() if name.startswith(start)), "other")


def _in_shift_jis(text: str) -> bool:
    try:
        text.encode("shift_jis")
    except UnicodeEncodeError:
        return False
    return True
