"""Preference pairs: which translation is chosen, which rejected, and what is dropped and why.

X-ALMA §4: chosen = the reference, rejected = the SFT model's own output. Published pairs are read by
`xalma.preference.released`. X-ALMA also used GPT-4o in a step that could not be read: not here.

Our choices: pairs equal up to blanks are dropped, as are repeated ones, pairs whose lengths differ
by more than a factor, and pairs with an answer in another script than the target language's. Every
pair considered is counted once: considered = kept + the sum of all "dropped_..." counts. Answers
come out as SFT completions do, with one blank in front (`collate.completion`).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xalma.data.collate import completion
from xalma.language_id import off_target
from xalma.languages import parse_direction

DROPPED = (
    "unscored", "tied", "empty_chosen", "empty_rejected", "identical", "duplicate", "length_ratio",
    "off_target",
)  # fmt: skip
MAX_LENGTH_RATIO = 3.0  # characters, longer over shorter; our choice

PairRow = dict[str, str]
PairsReport = dict[str, Any]


class NoPairs(ValueError):
    """No pair is left to train on; the message says what became of those that were considered."""


def build_pairs(rows: Iterable[Mapping[str, str]]) -> tuple[list[PairRow], PairsReport]:
    """Returns rows of prompt, chosen, rejected, src, tgt, and the counts of kept and dropped pairs.

    rows: prompt, reference, output (of the model) and direction ("en-de").
    Raises ValueError for a direction that is none.
    """
    return keep_pairs(
        pair_row(row["prompt"], row["reference"], row["output"], *parse_direction(row["direction"]))
        for row in rows
    )


def require_pairs(rows: Sequence[PairRow], report: PairsReport, remedy: str) -> None:
    """Raises NoPairs, with the counts of `report` and the `remedy` in one sentence, where `rows` is empty."""
    if rows:
        return
    dropped = {
        name.removeprefix("dropped_"): n for name, n in report.items() if name.startswith("dropped_") and n
    }
    listed = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in dropped.items()) or "none dropped"
    raise NoPairs(f"no preference pairs: of {report['considered']} considered, {listed}; {remedy}")


def keep_pairs(candidates: Iterable[PairRow | str]) -> tuple[list[PairRow], PairsReport]:
    """Applies the filters in a fixed order; a candidate that is a string is a reason to drop it."""
    counts: Counter[str] = Counter()
    seen: set[tuple[str, str, str]] = set()
    kept: list[PairRow] = []
    for row in candidates:
        reason = row if isinstance(row, str) else _reason(row, seen)
        counts[reason or "kept"] += 1
        if reason is None:
            kept.append(row | {side: completion(row[side]) for side in ("chosen", "rejected")})
    report = {"considered": counts.total(), "kept": counts["kept"]}
    return kept, report | {f"dropped_{reason}": counts[reason] for reason in DROPPED}


def _reason(row: PairRow, seen: set[tuple[str, str, str]]) -> str | None:
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
    if max(len(chosen), len(rejected)) > MAX_LENGTH_RATIO * min(len(chosen), len(rejected)):
        return "length_ratio"
    tgt = row["tgt"]  # "" where a user's pairs do not say it
    if tgt and (off_target(chosen, tgt) or off_target(rejected, tgt)):
        return "off_target"
    return None


def pair_row(prompt: str, chosen: str, rejected: str, src: str, tgt: str) -> PairRow:
    sides = {"chosen": (chosen or "").strip(), "rejected": (rejected or "").strip()}
    return {"prompt": prompt, **sides, "src": src, "tgt": tgt}


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def best_and_worst(scored: Sequence[tuple[float | None, Any]]) -> tuple[Any, Any] | str:
    """(best, worst) answer, the earlier one where several are equal, or why there is none."""
    if any(value is None for value, _ in scored) or not scored:
        return "unscored"
    best = max(scored, key=lambda s: s[0])
    worst = min(scored, key=lambda s: s[0])
    return "tied" if best[0] == worst[0] else (best[1], worst[1])
