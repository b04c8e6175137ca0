"""Preference pairs: which translation is chosen, which rejected, and what is dropped and why.

X-ALMA §4: chosen = the reference, rejected = the SFT model's own output (rule "reference"). CPO
(ALMA-R): best and worst of several translations by a score (rule "best-worst"). Published pairs are
read by `xalma.preference.released`. X-ALMA also used GPT-4o in a step that could not be read:
not here.

Our choices: pairs equal up to blanks are dropped, as are repeated ones, pairs whose lengths differ
by more than a factor, and pairs with an answer in another script than the target language's. Every
pair considered is counted once: considered = kept + the sum of all "dropped_..." counts. Answers
come out as SFT completions do, with one blank in front (`collate.completion`).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from xalma.data.collate import completion
from xalma.languages import parse_direction

RULES = ("reference", "best-worst")
DROPPED = (
    "unscored", "tied", "empty_chosen", "empty_rejected", "identical", "duplicate", "length_ratio",
    "off_target",
)  # fmt: skip
MAX_LENGTH_RATIO = 3.0  # characters, longer over shorter; our choice

PairRow = dict[str, str]
PairsReport = dict[str, Any]
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
) -> tuple[list[PairRow], PairsReport]:
    """Returns rows of prompt, chosen, rejected, src, tgt, and the counts of kept and dropped pairs.

    outputs: one translation a prompt, or several. directions: "en-de", or one a prompt.
    rule: "reference": the reference is chosen, each output is rejected once. "best-worst": best and
        worst output by `metric` (callable of hypothesis and reference, higher is better; "chrf").
    max_length_ratio: characters, longer over shorter; None keeps all.
    off_target: callable of text and language code; None is `xalma.language_id.off_target`.
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

    def candidates() -> Iterator[PairRow | str]:
        for prompt, reference, found, direction in zip(prompts, references, outputs, directions, strict=True):
            src, tgt = parse_direction(direction)
            found = [found] if isinstance(found, str) else list(found)
            if score is None:
                pairs: Iterable = [(reference, output) for output in found]
            else:
                pairs = [best_and_worst([(score(text, reference), text) for text in found])]
            for pair in pairs:
                yield pair if isinstance(pair, str) else pair_row(prompt, *pair, src, tgt)

    rows, report = keep_pairs(candidates(), max_length_ratio, off_target, keep_empty_rejected)
    return rows, report if score is None else report | {"chosen_by": [getattr(metric, "__name__", metric)]}


def require_pairs(rows: Sequence[PairRow], report: PairsReport, remedy: str) -> None:
    """Raises NoPairs, with the counts of `report` and the `remedy` in one sentence, where `rows` is empty."""
    if rows:
        return
    dropped = {
        name.removeprefix("dropped_"): n for name, n in report.items() if name.startswith("dropped_") and n
    }
    listed = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in dropped.items()) or "none dropped"
    raise NoPairs(f"no preference pairs: of {report['considered']} considered, {listed}; {remedy}")


def chrf(hypothesis: str, reference: str) -> float:
    """Returns sentence chrF2 (0-100) by sacrebleu."""
    from sacrebleu import sentence_chrf

    return sentence_chrf(hypothesis, [reference]).score


def keep_pairs(
    candidates: Iterable[PairRow | str],
    max_length_ratio: float | None = MAX_LENGTH_RATIO,
    off_target: OffTarget | None = None,
    keep_empty_rejected: bool = False,
) -> tuple[list[PairRow], PairsReport]:
    """Applies the filters in a fixed order; a candidate that is a string is a reason to drop it."""
    if off_target is None:
        from xalma.language_id import off_target
    counts: Counter[str] = Counter()
    seen: set[tuple[str, str, str]] = set()
    kept: list[PairRow] = []
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
    row: PairRow, seen: set[tuple[str, str, str]], max_length_ratio: float | None, off_target: OffTarget
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
    tgt = row["tgt"]  # "" where a user's pairs do not say it
    if tgt and (off_target(chosen, tgt) or off_target(rejected, tgt)):
        return "off_target"
    return None


def pair_row(prompt: str, chosen: str, rejected: str, src: str, tgt: str) -> PairRow:
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


def best_and_worst(scored: list[tuple[float | None, str]]) -> tuple[str, str] | str:
    """(best, worst) text, the earlier one where several are equal, or why there is none."""
    if any(value is None for value, _ in scored) or not scored:
        return "unscored"
    best, worst = max(scored, key=lambda s: s[0]), min(scored, key=lambda s: s[0])
    return "tied" if best[0] == worst[0] else (best[1], worst[1])
