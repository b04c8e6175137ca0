"""Preference pairs: which translation is chosen, which rejected, and what is dropped and why.

X-ALMA §4: chosen = the reference, rejected = the SFT model's own output (rule "reference"). CPO
(ALMA-R): best and worst of several translations by a score (rule "best-worst"; the published
triples through `read_alma_r_preference`). X-ALMA also used GPT-4o in a step that could not be read:
not here.

Our choices: pairs equal up to blanks are dropped, as are repeated ones, pairs whose lengths differ
by more than a factor, and pairs with an answer in another script than the target language's. Every
pair considered is counted once: considered = kept + the sum of all "dropped_..." counts. Answers
come out as SFT completions do, with one blank in front (`collate.completion`).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from xalma.data.collate import completion
from xalma.languages import parse_direction
from xalma.prompts import translation_prompt

RULES = ("reference", "best-worst")
DROPPED = (
    "unscored", "tied", "empty_chosen", "empty_rejected", "identical", "duplicate", "length_ratio",
    "off_target",
)  # fmt: skip
MAX_LENGTH_RATIO = 3.0  # characters, longer over shorter; our choice
SCORES = ("kiwi", "xcomet", "kiwi_xcomet")  # of ALMA-R-Preference; CPO uses the last, their mean
_FILES = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}

Row = dict[str, str]
Report = dict[str, int]
Metric = Callable[[str, str], float]
OffTarget = Callable[[str, str], bool]


class NoPairs(ValueError):
    """No pair is left to train on; the message says what became of those that were considered."""


def build_pairs(
    prompts: Sequence[str],
    references: Sequence[str],
    outputs: Sequence[str] | Sequence[Sequence[str]],
    directions: str | Sequence[str],
    *,
    rule: str = "reference",
    metric: str | Metric = "chrf",
    max_length_ratio: float | None = MAX_LENGTH_RATIO,
    off_target: OffTarget | None = None,
    keep_empty_rejected: bool = False,
) -> tuple[list[Row], Report]:
    """Returns rows of prompt, chosen, rejected, src, tgt, and the counts of kept and dropped pairs.

    outputs: one translation a prompt, or several. directions: "en-de", or one a prompt.
    rule: "reference": the reference is chosen, each output is rejected once. "best-worst": best and
        worst output by `metric` (callable of hypothesis and reference, higher is better; "chrf").
    max_length_ratio: characters, longer over shorter; None keeps all.
    off_target: callable of text and language code; None is `xalma.evaluation.metrics.off_target`.
    keep_empty_rejected: keep a pair whose rejected side is empty, else drop and count it.
    Raises: ValueError for unequal lengths, an unknown rule, metric or direction.
    """
    if isinstance(directions, str):
        directions = [directions] * len(prompts)
    sizes = {len(prompts), len(references), len(outputs), len(directions)}
    if len(sizes) > 1:
        raise ValueError(
            f"{len(prompts)} prompts, {len(references)} references, {len(outputs)} outputs and "
            f"{len(directions)} directions: give one of each per sentence"
        )
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}: use one of {', '.join(RULES)}")
    score = _metric(metric) if rule == "best-worst" else None

    def candidates() -> Iterator[Row | str]:
        for prompt, reference, found, direction in zip(prompts, references, outputs, directions, strict=True):
            src, tgt = parse_direction(direction)
            found = [found] if isinstance(found, str) else list(found)
            if score is None:
                pairs: Iterable = [(reference, output) for output in found]
            else:
                pairs = [_best_and_worst([(score(text, reference), text) for text in found])]
            for pair in pairs:
                yield pair if isinstance(pair, str) else _row(prompt, *pair, src, tgt)

    return _keep(candidates(), max_length_ratio, off_target, keep_empty_rejected)


def read_xalma_preference(
    path: str | Path = "haoranxu/X-ALMA-Preference",
    *,
    directions: Collection[str] | None = None,
    prompt_style: str = "xalma",
    revision: str | None = None,
    **filters: Any,
) -> tuple[list[Row], Report]:
    """Returns pairs and counts from X-ALMA's layout: source, chosen, reject, directions.

    path: hub id, a .parquet/.jsonl file, or a folder of them. directions: keep only these.
    filters: max_length_ratio, off_target, keep_empty_rejected as in `build_pairs`.
    Raises: FileNotFoundError, or ValueError for a file without these columns.
    """
    data = _load(path, revision, ("source", "chosen", "reject", "directions"))
    data = (row for row in data if directions is None or row["directions"] in directions)

    def candidates() -> Iterator[Row]:
        for row in data:
            src, tgt = parse_direction(row["directions"])
            prompt = translation_prompt(row["source"], src, tgt, prompt_style)
            yield _row(prompt, row["chosen"], row["reject"], src, tgt)

    return _keep(candidates(), **filters)


def read_alma_r_preference(
    path: str | Path = "haoranxu/ALMA-R-Preference",
    *,
    config: str | None = None,
    score: str = "kiwi_xcomet",
    directions: Collection[str] | None = None,
    prompt_style: str = "alma",
    revision: str | None = None,
    **filters: Any,
) -> tuple[list[Row], Report]:
    """Returns pairs and counts from ALMA-R's triples: best and worst of GPT-4, ALMA, reference.

    Layout: one column `translation` with en, xx, gpt4_xx, alma_xx, {gpt4,alma,ref}_xx_{score},
    Delta and required_directions (empty: both). A Delta that is not 0 is a human judgement:
    positive means GPT-4 is better (the data card said the opposite before its correction).
    config: "cs-en", ... on the hub. score: one of SCORES. Others as in `read_xalma_preference`.
    Raises: ValueError for an unknown score or a file without `translation`.
    """
    if score not in SCORES:
        raise ValueError(f"unknown score {score!r}: use one of {', '.join(SCORES)}")
    data = _load(path, revision, ("translation",), config)

    def candidates() -> Iterator[Row | str]:
        for record in data:
            texts = record["translation"]
            other = _other_language(texts)
            required = texts.get("required_directions") or ""
            for src, tgt in (("en", other), (other, "en")):
                wanted = directions is None or f"{src}-{tgt}" in directions
                if wanted and required in ("", f"{src}-{tgt}"):
                    pair = _triple(texts, tgt, score)
                    prompt = translation_prompt(texts[src], src, tgt, prompt_style)
                    yield pair if isinstance(pair, str) else _row(prompt, *pair, src, tgt)

    return _keep(candidates(), **filters)


def require_pairs(rows: Sequence[Row], report: Report, remedy: str) -> None:
    """Raises NoPairs, with the counts of `report` and the `remedy` in one sentence, where `rows` is empty."""
    if rows:
        return
    dropped = {name.removeprefix("dropped_"): n for name, n in report.items() if name.startswith("dropped_") and n}
    listed = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in dropped.items()) or "none dropped"
    raise NoPairs(f"no preference pairs: of {report['considered']} considered, {listed}; {remedy}")


def chrf(hypothesis: str, reference: str) -> float:
    """Returns sentence chrF2 (0-100) by sacrebleu."""
    from sacrebleu import sentence_chrf

    return sentence_chrf(hypothesis, [reference]).score


def _keep(
    candidates: Iterable[Row | str],
    max_length_ratio: float | None = MAX_LENGTH_RATIO,
    off_target: OffTarget | None = None,
    keep_empty_rejected: bool = False,
) -> tuple[list[Row], Report]:
    """Applies the filters in a fixed order; a candidate that is a string is a reason to drop it."""
    if off_target is None:
        from xalma.language_id import off_target
    counts: Counter[str] = Counter()
    seen: set[tuple[str, str, str]] = set()
    kept: list[Row] = []
    for row in candidates:
        reason = row if isinstance(row, str) else _reason(row, seen, max_length_ratio, off_target)
        if reason == "empty_rejected" and keep_empty_rejected:
            reason = None
        counts[reason or "kept"] += 1
        if reason is None:
            kept.append(row | {side: _answer(row[side]) for side in ("chosen", "rejected")})
    report = {"considered": counts.total(), "kept": counts["kept"]}
    return kept, report | {f"dropped_{reason}": counts[reason] for reason in DROPPED}


def _reason(
    row: Row, seen: set[tuple[str, str, str]], max_length_ratio: float | None, off_target: OffTarget
) -> str | None:
    """Why this pair is dropped, or None."""
    chosen, rejected = row["chosen"], row["rejected"]
    if not chosen:
        return "empty_chosen"
    if _normal(chosen) == _normal(rejected):
        return "identical"
    key = (row["prompt"], _normal(chosen), _normal(rejected))
    if key in seen:
        return "duplicate"
    seen.add(key)
    if not rejected:
        return "empty_rejected"
    longer, shorter = max(len(chosen), len(rejected)), min(len(chosen), len(rejected))
    if max_length_ratio is not None and longer > max_length_ratio * shorter:
        return "length_ratio"
    if off_target(chosen, row["tgt"]) or off_target(rejected, row["tgt"]):
        return "off_target"
    return None


def _row(prompt: str, chosen: str, rejected: str, src: str, tgt: str) -> Row:
    sides = {"chosen": (chosen or "").strip(), "rejected": (rejected or "").strip()}
    return {"prompt": prompt, **sides, "src": src, "tgt": tgt}


def _answer(text: str) -> str:
    return completion(text) if text else ""


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _metric(metric: str | Metric) -> Metric:
    if callable(metric):
        return metric
    if metric != "chrf":
        raise ValueError(f"unknown metric {metric!r}: use 'chrf' or a callable of two texts")
    return chrf


def _best_and_worst(scored: list[tuple[float | None, str]]) -> tuple[str, str] | str:
    """(best, worst) text, the earlier one where several are equal, or why there is none."""
    if any(value is None for value, _ in scored) or not scored:
        return "unscored"
    best, worst = max(scored, key=lambda s: s[0]), min(scored, key=lambda s: s[0])
    return "tied" if best[0] == worst[0] else (best[1], worst[1])


def _triple(texts: dict[str, Any], tgt: str, score: str) -> tuple[str, str] | str:
    """Chosen and rejected of one ALMA-R record into `tgt`, as in CPO's released loader."""
    gpt4, alma = texts[f"gpt4_{tgt}"], texts[f"alma_{tgt}"]
    if delta := texts.get("Delta"):
        return (gpt4, alma) if delta > 0 else (alma, gpt4)
    named = {"gpt4": gpt4, "alma": alma, "ref": texts[tgt]}
    scored = [(texts.get(f"{name}_{tgt}_{score}"), text) for name, text in named.items()]
    return _best_and_worst(scored)


def _other_language(texts: dict[str, Any]) -> str:
    """The language of an ALMA-R record besides English, from its columns."""
    found = [name.removeprefix("gpt4_") for name in texts if name.startswith("gpt4_")]
    found = [name for name in found if name != "en" and "_" not in name and texts.get(name)]
    if len(found) != 1:
        raise ValueError(f"no single language beside English in the columns {sorted(texts)}")
    return found[0]


def _load(
    path: str | Path, revision: str | None, columns: tuple[str, ...], config: str | None = None
) -> datasets.Dataset:
    """The "train" split of a hub dataset or of local files, checked to have `columns`."""
    local = Path(path).expanduser()
    if local.exists():
        files = [local] if local.is_file() else sorted(local.rglob("*"))
        files = [file for file in files if file.suffix in _FILES]
        if not files or len({_FILES[file.suffix] for file in files}) > 1:
            raise ValueError(f"{path}: needs files of one kind, {' or '.join(_FILES)}")
        names = [str(file) for file in files]
        data = datasets.load_dataset(_FILES[files[0].suffix], data_files=names, split="train")
    elif local.suffix in _FILES or local.is_absolute():
        raise FileNotFoundError(f"no preference data at {path}: give a file, a folder or a hub id")
    else:
        data = datasets.load_dataset(str(path), config, split="train", revision=revision)
    if missing := [name for name in columns if name not in data.column_names]:
        raise ValueError(f"{path}: no column {missing[0]!r}; it has {', '.join(data.column_names)}")
    return data
