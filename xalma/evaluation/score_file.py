"""All scores of one output file, sacreBLEU's and COMET's, with their signatures: `xalma score`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from xalma import language_id, text_files
from xalma.corpora.test_sets import load
from xalma.evaluation import comet
from xalma.evaluation import metrics as evaluate
from xalma.evaluation.metrics import NotScored, Score
from xalma.evaluation.scoring import Outputs, read_outputs
from xalma.languages import language

# as sacreBLEU prints them
DISPLAY = {"bleu": "BLEU", "chrf": "chrF2", "chrf++": "chrF2++", "spbleu": "spBLEU"}
CHECKS = {"off-target": "off-target ({}|or no letters)", "empty": "empty", "over-long": "over-long",
          "copied": "copies of the source"}  # fmt: skip
FILE_METRICS = (*evaluate.LEXICAL_METRICS, *comet.NEURAL_METRICS, *comet.JUDGES)


def score_texts(
    outputs: Sequence[str],
    references: Sequence[str],
    sources: Sequence[str] | None,
    tgt: str,
    metrics: Sequence[str],
    checkpoints: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
) -> list[Score | NotScored]:
    """One corpus score for each of `metrics`, sacreBLEU's and neural names together, in that order.

    checkpoints, cache: see `comet.segment_scores`. A neural score is 100 times the segments' mean, as tables print
    it. Raises ValueError as `metrics.score` does, and for a neural metric without `sources`.
    """
    check_metrics(metrics, sources is not None)
    lexical = [name for name in metrics if name in evaluate.LEXICAL_METRICS]
    found = {s.metric: s for s in evaluate.score(outputs, references, tgt, lexical)}
    if wanted := [name for name in metrics if name in comet.NEURAL_METRICS]:
        evaluate.check_counts(outputs=outputs, sources=sources)
        rows = zip(sources, outputs, references, strict=True)
        samples = [{"src": src, "mt": mt, "ref": ref} for src, mt, ref in rows]
        segments = comet.segment_scores(samples, wanted, checkpoints, cache)
        found |= {name: score_of_file(scores) for name, scores in segments.items()}
    for name in comet.JUDGES:
        found[name] = NotScored(name, f"not scored: {name} judges systems over a test set", len(outputs))
    return [found[name] for name in metrics]


def score_of_file(scores: comet.SegmentScores | NotScored) -> Score | NotScored:
    """The mean of a neural metric's segments, times 100."""
    if isinstance(scores, NotScored):
        return scores
    return Score(scores.metric, 100 * float(scores.scores.mean()), scores.signature, len(scores.scores))


def check_metrics(metrics: Sequence[str], has_sources: bool) -> None:
    """Raises ValueError for an unknown metric, and for one that reads the source where there is none."""
    for name in metrics:
        if name not in FILE_METRICS:
            raise ValueError(f"unknown metric {name!r}: use one or more of {', '.join(FILE_METRICS)}")
        if name in comet.NEURAL_METRICS and not has_sources:
            raise ValueError(f"{name} reads the source: give the source file too")


def score_files(
    sys: str | Path,
    ref: str | Path,
    src: str | Path | None,
    tgt: str,
    metrics: Sequence[str] = ("bleu", "chrf"),
    checkpoints: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
) -> str:
    """The report of `xalma score`: a line `BLEU|signature = value` a metric, then the plain checks.

    `sys`, `ref` and `src` (or None) are files of one segment per line, `tgt` the target language's code. Raises what
    `text_files.check_parallel` and `score_texts` raise.
    """
    language(tgt)  # a wrong code or metric should fail before the files are read
    check_metrics(metrics, src is not None)
    outputs, references, *rest = text_files.check_parallel(
        [path for path in (sys, ref, src) if path is not None]
    )
    sources = rest[0] if rest else None
    scores = score_texts(outputs, references, sources, tgt, metrics, checkpoints, cache)
    return "\n".join([*map(line_of, scores), checks_line(outputs, references, sources, tgt)])


def line_of(score: Score | NotScored) -> str:
    """A score as sacreBLEU prints it, or why there is none."""
    if isinstance(score, NotScored):
        return f"{score.metric}: {score.reason}"
    # a neural signature begins with its name
    name = f"{DISPLAY[score.metric]}|" if score.metric in DISPLAY else ""
    return f"{name}{score.signature} = {score.value:.2f} (n = {score.n})"


def checks_line(
    outputs: Sequence[str], references: Sequence[str], sources: Sequence[str] | None, tgt: str
) -> str:
    """Rates of outputs in another language, empty, over-long or copied, and the length ratio."""
    found = rates(outputs, references, sources, tgt)
    shown = [f"{CHECKS[name].format(language_id.signature(tgt))} {rate:.2%}" for name, rate in found.items()]
    return ", ".join([*shown, f"length ratio {evaluate.length_ratio(outputs, references):.3f}"])


def rates(
    outputs: Sequence[str], references: Sequence[str], sources: Sequence[str] | None, tgt: str
) -> dict[str, float]:
    """Shares (0-1) of outputs by the names of CHECKS; no "copied" without sources."""
    return {
        "off-target": evaluate.wrong_language_rate(outputs, tgt),
        "empty": evaluate.empty_rate(outputs),
        "over-long": evaluate.overlong_rate(outputs, references),
        **({} if sources is None else {"copied": evaluate.copy_rate(outputs, sources)}),
    }


def check_outputs(outputs: Outputs, testset: str, origin: str, directions: Sequence[str]) -> pd.DataFrame:
    """A row per system and direction: `rates` and length in percent, n segments, what decides off-target ("checked").

    Length is NaN against references that are all empty. Raises as `scoring.read_outputs`.
    """
    rows = []
    for direction in directions:
        test = load(testset, direction, origin)
        tgt = direction.split("-")[1]
        for system, files in outputs.items():
            if direction in files:
                lines = read_outputs(files[direction], test)
                found = rates(lines, test.references, test.sources, tgt)
                has_any = any(test.references)
                found["length"] = evaluate.length_ratio(lines, test.references) if has_any else math.nan
                percent = {f"{name} %": 100 * value for name, value in found.items()}
                rows.append(
                    {
                        "system": system,
                        "direction": direction,
                        **percent,
                        "n": len(lines),
                        "checked": f"{language_id.signature(tgt)}|or no letters",
                    }
                )
    return pd.DataFrame(rows)
