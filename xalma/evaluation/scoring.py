"""Several systems over all directions of a test set: found in folders, scored in parallel, compared.

X-ALMA scores 98 directions by seven systems and more (arXiv 2410.03115). What costs time is counting n-grams;
so the counts of each segment are made once (`segment_statistics`), a direction per task, so references count once for
all systems, kept in runs/statistics under the hash of the texts, and every score, interval and test is computed
from them.

Output files, one line per segment, in one of three layouts:

    DIR/<direction>.txt                     one system, named as the folder (what `xalma outputs` writes)
    DIR/<system>/<direction>.txt            several
    DIR/<direction>/systems/<system>.txt    as ALMA's release has them; DIR/{direction}/… with braces names one of them
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xalma.corpora.test_sets import TestSet, directions_of, load
from xalma.evaluation import comet
from xalma.evaluation import metrics as evaluate
from xalma.evaluation.metrics import NotScored, missing_spbleu_model, sacrebleu_metric
from xalma.evaluation.segment_statistics import by_document, segment_statistics, statistics_of
from xalma.evaluation.significance import bootstrap
from xalma.languages import known_languages, parse_direction
from xalma.progress import progress
from xalma.runtime import home
from xalma.text_files import read_lines

Outputs = dict[str, dict[str, Path]]  # system -> direction -> file
SYSTEM_METRICS = ("bleu", "chrf++")
RESAMPLED = ("segments", "documents")
COLUMNS = ("system", "direction", "metric", "value", "low", "high", "half_width", "n", "signature")


@dataclass(frozen=True)
class Scores:
    """`table`: COLUMNS, a row per system, direction and metric, value NaN where not scored (the signature says why).

    `statistics`: metric -> system -> direction -> (n_segments, k), for `significance`.
    """

    table: pd.DataFrame
    statistics: dict[str, dict[str, dict[str, np.ndarray]]] = field(repr=False)
    chosen_by: dict[str, list[str]] = field(default_factory=dict)  # system -> metrics (`interference`)


def find_outputs(place: str | Path) -> Outputs:
    """The output files under a folder, in any of the layouts above.

    Raises FileNotFoundError, saying what is looked for, where there is none.
    """
    if "{direction}" in str(place):
        return {_pattern_name(str(place)): _by_pattern(str(place))}
    folder = Path(place)
    if found := _directions_in(folder):
        return {folder.name: found}
    systems = {path.name: inside for path in sorted(folder.glob("*/")) if (inside := _directions_in(path))}
    for path in sorted(folder.glob("*/systems/*.txt")):
        if is_direction(path.parents[1].name):
            systems.setdefault(path.stem, {})[path.parents[1].name] = path
    if not systems:
        raise FileNotFoundError(
            f"no outputs in {place}: it should hold <direction>.txt, <system>/<direction>.txt or "
            f"<direction>/systems/<system>.txt, as en-de.txt; or be a path with {{direction}} in it"
        )
    return systems


def is_direction(text: str) -> bool:
    """Whether `text` is a direction such as "en-de"."""
    sides = text.split("-")
    return len(sides) == 2 and sides[0] != sides[1] and all(code in known_languages() for code in sides)


def _directions_in(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.txt")) if is_direction(path.stem)}


def _by_pattern(pattern: str) -> dict[str, Path]:
    directions = ("-".join(pair) for pair in permutations(known_languages(), 2))
    files = {direction: Path(pattern.replace("{direction}", direction)) for direction in directions}
    found = {direction: file for direction, file in files.items() if file.is_file()}
    if not found:
        raise FileNotFoundError(f"no outputs like {pattern}: {{direction}} stands for en-de and the like")
    return found


def _pattern_name(pattern: str) -> str:
    path = Path(pattern)
    return path.stem if "{direction}" not in path.name else path.parent.name


def chosen_directions(
    outputs: Outputs, wanted: Sequence[str] | None = None, partial: bool = False
) -> list[str]:
    """The directions to score: `wanted`, or all that any system has, English sources first.

    Raises ValueError, naming the system and what it lacks, unless every system has every one of them; with `partial`
    only where no system has one.
    """
    had = {direction for files in outputs.values() for direction in files}
    chosen = list(dict.fromkeys(wanted)) if wanted else sorted(had, key=_order)
    for direction in chosen:
        parse_direction(direction)
    lacking = {system: [d for d in chosen if d not in files] for system, files in outputs.items()}
    if partial and had.issuperset(chosen):
        return chosen
    if lacking := {system: missing for system, missing in lacking.items() if missing}:
        listed = "; ".join(f"{system} lacks {_some(missing)}" for system, missing in lacking.items())
        raise ValueError(
            f"missing directions: {listed}. Add the files, choose with --directions or --systems, "
            f"or score what there is with --partial"
        )
    return chosen


def _order(direction: str) -> tuple:
    codes = list(known_languages())
    return (not direction.startswith("en-"), *map(codes.index, direction.split("-")))


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def score_all(
    outputs: Outputs,
    testset: str,
    origin: str = "data",
    directions: Sequence[str] | None = None,
    metrics: Sequence[str] = SYSTEM_METRICS,
    workers: int = 0,
    n_samples: int = 1000,
    cache: str | Path | None = "runs/statistics",
    partial: bool = False,
    resample: str = "segments",
    judges: Mapping[str, comet.Judge] | None = None,
    **neural_options: Any,
) -> Scores:
    """Scores of every system in every direction with 95 % bootstrap intervals, and the statistics behind them.

    workers: processes, 0 for one per core; cache: folder of kept statistics (None: none), relative to `home()`;
    partial: a system is scored in the directions it has; resample: what intervals and tests draw, "segments" or whole
    "documents"; judges: of the metrics in `comet.JUDGES`, those that are at hand; neural_options: `checkpoints` and
    `cache` of `comet.segment_scores`, for COMET and its kin.
    Raises ValueError for missing directions, for a file whose lines are not as many as the test set's, and for
    documents that are not known.
    """
    chosen = chosen_directions(outputs, directions, partial)
    lexical = tuple(name for name in metrics if name in evaluate.LEXICAL_METRICS)
    folder = cache and str(home() / cache)
    jobs = []
    for direction in chosen:
        files = {system: str(own[direction]) for system, own in outputs.items() if direction in own}
        jobs.append(ScoringJob(testset, origin, direction, files, lexical, n_samples, folder, resample))
    if resample not in RESAMPLED:
        raise ValueError(f"unknown resample {resample!r}: choose {' or '.join(RESAMPLED)}")
    done = _in_processes(jobs, workers or os.cpu_count() or 1)
    rows = [row for found, _ in done for row in found]
    statistics: dict = {name: {system: {} for system in outputs} for name in metrics}
    for job, (_, counts) in zip(jobs, done, strict=True):
        for (metric, system), value in counts.items():
            statistics[metric][system][job.direction] = value
    if wanted := [name for name in metrics if name in (*comet.NEURAL_METRICS, *comet.JUDGES)]:
        rows += _neural_rows(jobs, wanted, statistics, n_samples, neural_options | {"judges": judges or {}})
    systems = list(outputs)
    order = {name: i for i, name in enumerate(metrics)}
    rows.sort(
        key=lambda row: (order[row["metric"]], chosen.index(row["direction"]), systems.index(row["system"]))
    )
    return Scores(pd.DataFrame(rows, columns=list(COLUMNS)), statistics)


@dataclass(frozen=True)
class ScoringJob:
    """One direction of all systems: what a worker process is told."""

    testset: str
    origin: str
    direction: str
    files: Mapping[str, str]
    metrics: tuple[str, ...]
    n_samples: int
    cache: str | None
    resample: str = "segments"


def score_direction(job: ScoringJob) -> tuple[list[dict[str, Any]], dict[tuple[str, str], np.ndarray]]:
    """(rows of the table, statistics by metric and system) of one direction."""
    test = load(job.testset, job.direction, job.origin)
    tgt = job.direction.split("-")[1]
    texts = {system: read_outputs(file, test) for system, file in job.files.items()}
    rows, found = [], {}
    for metric in job.metrics:
        if metric == "spbleu" and (reason := missing_spbleu_model()):
            rows += [
                _no_row(system, job.direction, metric, len(lines), reason) for system, lines in texts.items()
            ]
            continue
        # nrefs is known then
        signature = str(sacrebleu_metric(metric, tgt, test.references[:1]).get_signature())
        for system, outputs in texts.items():
            counts = kept_statistics(outputs, test.references, tgt, metric, signature, job.cache)
            found[metric, system] = drawn = resampled(counts, test, job.resample)
            rows.append(_row(system, job.direction, metric, drawn, job.n_samples, signature, len(counts)))
    return rows, found


def resampled(statistics: np.ndarray, test: TestSet, resample: str) -> np.ndarray:
    """The statistics that are drawn from: of segments as they are, or summed over documents.

    Raises ValueError where the documents of the test set are not known.
    """
    if resample == "segments":
        return statistics
    if not test.documents:
        raise ValueError(
            f"the documents of {test.name} {test.direction} are not known: give them in docs.txt beside src.txt, one a "
            f"line, choose other --directions, or resample segments"
        )
    return by_document(statistics, test.documents)


def read_outputs(file: str | Path, test: TestSet) -> list[str]:
    """A system's lines, without those that answer a line never scored (`TestSet.scored`).

    Raises ValueError, naming both counts, if they are not as many as the test set's.
    """
    outputs = test.scored(read_lines(file))
    if len(outputs) != len(test.sources):
        raise ValueError(
            f"{file} has {len(outputs)} lines, {test.name} {test.direction} has {len(test.sources)}: "
            f"line n must be the translation of source n; an empty translation is an empty line"
        )
    return outputs


def kept_statistics(
    outputs: Sequence[str],
    references: Sequence[str],
    tgt: str,
    metric: str,
    signature: str,
    folder: str | None,
) -> np.ndarray:
    """`segment_statistics`, read from `folder` where these texts were counted before."""
    if folder is None:
        return segment_statistics(outputs, references, tgt, metric)
    digest = hashlib.sha256(f"{metric}|{tgt}|{signature}".encode())
    for side in (outputs, references):
        digest.update("\n".join(side).encode("utf-8", "surrogatepass") + b"\0")
    path = Path(folder) / f"{digest.hexdigest()[:32]}.counts"
    if (kept := _sealed(path, digest.digest())) is not None:
        return kept
    counts = segment_statistics(outputs, references, tgt, metric)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    np.save(whole := io.BytesIO(), counts)
    data = whole.getvalue()
    partial.write_bytes(data + hashlib.sha256(digest.digest() + data).digest())
    os.replace(partial, path)
    return counts


def _sealed(path: Path, key: bytes) -> np.ndarray | None:
    """The array of a file that ends with its checksum; None where there is none, or where it was damaged."""
    if not path.is_file():
        return None
    data = path.read_bytes()
    if hashlib.sha256(key + data[:-32]).digest() != data[-32:]:
        return None
    return np.load(io.BytesIO(data[:-32]), allow_pickle=False)


def _row(
    system: str, direction: str, metric: str, counts: np.ndarray, n_samples: int, signature: str, n: int
) -> dict[str, Any]:
    found = bootstrap(counts, metric, n_samples)
    values = (found.value, found.low, found.high, found.half_width, n, signature)
    return dict(zip(COLUMNS, (system, direction, metric, *values), strict=True))


def _no_row(system: str, direction: str, metric: str, n: int, reason: str) -> dict[str, Any]:
    """Of a metric whose model is not at hand."""
    return dict(zip(COLUMNS, (system, direction, metric, *(float("nan"),) * 4, n, reason), strict=True))


def _in_processes(jobs: Sequence[ScoringJob], workers: int) -> list:
    """Results in the order of the jobs; with one worker in this process."""
    workers = min(workers, len(jobs))
    done = []
    with progress(len(jobs), f"scoring, {workers} processes") as bar:
        if workers <= 1:
            for job in jobs:
                done.append(score_direction(job))
                bar.update()
            return done
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["xalma.evaluation.scoring"])
        with ProcessPoolExecutor(workers, context) as pool:
            for result in pool.map(score_direction, jobs):
                done.append(result)
                bar.update()
    return done


def _neural_rows(
    jobs: Sequence[ScoringJob],
    metrics: Sequence[str],
    statistics: dict,
    n_samples: int,
    options: dict[str, Any],
) -> list[dict[str, Any]]:
    """Rows of COMET and its kin, and of judges: all systems and directions in one call, each text encoded once."""
    samples, spans = [], []
    for job in jobs:
        test = load(job.testset, job.direction, job.origin)
        for system, file in job.files.items():
            outputs = read_outputs(file, test)
            spans.append((system, job.direction, len(samples), len(samples) + len(outputs)))
            sides = zip(test.sources, outputs, test.references, strict=True)
            samples += [{"src": src, "mt": mt, "ref": ref} for src, mt, ref in sides]
    rows = []
    directions = [direction for _, direction, start, end in spans for _ in range(start, end)]
    judges = options.pop("judges")
    found = comet.segment_scores(samples, [m for m in metrics if m not in comet.JUDGES], **options)
    for metric in (name for name in metrics if name in comet.JUDGES):
        nobody = NotScored(metric, f"not scored: {metric} needs --judge MODEL", len(samples))
        found[metric] = judges[metric](samples, directions) if metric in judges else nobody
    for metric, scores in found.items():
        for system, direction, start, end in spans:
            if isinstance(scores, NotScored):
                rows.append(_no_row(system, direction, metric, end - start, scores.reason))
                continue
            test = load(jobs[0].testset, direction, jobs[0].origin)
            counts = resampled(statistics_of(scores.scores[start:end]), test, jobs[0].resample)
            statistics[metric][system][direction] = counts
            rows.append(_row(system, direction, metric, counts, n_samples, scores.signature, end - start))
    return rows


def coverage_sentence(directions: Sequence[str], testset: str, origin: str) -> str:
    """How many of the test set's directions were scored, and which were not."""
    everything = directions_of(testset, origin)
    missing = [direction for direction in everything if direction not in directions]
    if not missing:
        return f"all {len(everything)} directions of {Path(testset).name}"
    return f"{len(directions)} of {len(everything)} directions of {Path(testset).name}; not scored: {_some(missing)}"
