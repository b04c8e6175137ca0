"""Tables of `scores`: the ladder by group beside its intervals, differences, methods, WMT'23."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xalma.evaluation.metrics import length_ratio, wrong_language_rate
from xalma.files import write_atomically, write_json
from xalma.languages import ENGLISH, GROUP_NAMES, language
from xalma.paper.ladder_tables import STAGES
from xalma.paper.real_base.tables import METRICS, OFF_TARGET
from xalma.profiles import Profile

if TYPE_CHECKING:
    from real_base.scores import Piece

DRAWS = 1000
COMET = "not scored: checkpoint not available"


def named(system: str, form: str) -> str:
    """The name a system's scores are filed under: stage 4 is asked in two forms."""
    return f"{system} few-shot" if system == "stage4" and form == "few-shot" else system


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the draws, row 0 aside."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return float(low), float(high)


# (name, set, direction) -> metric -> draws
RealScores = Mapping[tuple[str, str, str], Mapping[str, np.ndarray]]


def mean_of(
    scores: RealScores, name: str, set_: str, directions: Sequence[str], metric: str
) -> np.ndarray | None:
    """Mean over directions, a draw at a time; None where one of them is missing."""
    found = [scores.get((name, set_, direction)) for direction in directions]
    if not found or any(one is None for one in found):
        return None
    return np.mean([one[metric] for one in found], axis=0)


def sides(codes: Sequence[str]) -> dict[str, list[str]]:
    return {
        "en-xx": [f"{ENGLISH}-{code}" for code in codes],
        "xx-en": [f"{code}-{ENGLISH}" for code in codes],
    }


def groups_of(p: Profile) -> dict[str, tuple[str, ...]]:
    """Rows of the group tables: each group, all, and the languages with much text where these are not all."""
    rows = {f"{g} {GROUP_NAMES[g]}": p.languages_of(g) for g in p.group_numbers}
    every = tuple(code for codes in rows.values() for code in codes)
    high = tuple(code for code in every if language(code).resource == "high")
    return rows | {"all": every} | ({"all, High": high} if high and high != every else {})


def real_ladder_table(scores: RealScores, p: Profile, set_: str, metric: str) -> pd.DataFrame:
    """Means over each group's directions after each stage, with 95 % intervals; "not measured" where a part is."""
    rows = []
    names = (*STAGES[:5], "stage4 few-shot", "stage5", "sft+")
    for group, codes in groups_of(p).items():
        for side, here in sides(codes).items():
            row: dict[str, Any] = {"group": group, "direction": side, "n": len(here)}
            for name in names:
                row[name] = shown(mean_of(scores, name, set_, here, metric), metric)
            rows.append(row)
    return pd.DataFrame(rows)


def shown(draws: np.ndarray | None, metric: str) -> str:
    if draws is None:
        return "not measured"
    digits = 3 if metric == "bits_per_byte" else 2
    low, high = interval(draws)
    return f"{draws[0]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def difference(scores: RealScores, a: str, b: str, set_: str, here: Sequence[str], metric: str) -> str:
    """`a` less `b`, as `shown`; an interval without 0 is marked *."""
    first, second = (mean_of(scores, name, set_, here, metric) for name in (a, b))
    if first is None or second is None:
        return "not measured"
    low, high = interval(first - second)
    return shown(first - second, metric) + ("*" if low > 0 or high < 0 else "")


def _difference_table(
    scores: RealScores, p: Profile, pairs: Mapping[str, tuple[str, str]], set_: str
) -> pd.DataFrame:
    """What each pair of systems differs by, a row per group, side and pair that was measured."""
    rows = []
    for group, codes in groups_of(p).items():
        for side, here in sides(codes).items():
            for label, (a, b) in pairs.items():
                row = {"group": group, "direction": side, "compared": label}
                row |= {metric: difference(scores, a, b, set_, here, metric) for metric in METRICS}
                if row[METRICS[0]] != "not measured":
                    rows.append(row)
    return pd.DataFrame(rows, columns=["group", "direction", "compared", *METRICS])


STEPS = {
    "stage 1": ("stage1", "base"), "stage 2": ("stage2", "stage1"), "stage 3": ("stage3", "stage2"),
    "stage 4, few-shot": ("stage4 few-shot", "stage3"), "ARPO": ("stage5", "stage4"),
    "continued SFT": ("sft+", "stage4"), "ARPO against continued SFT": ("stage5", "sft+"),
    "from base to SFT": ("stage4", "base"),
}  # fmt: skip
# BLEU of the base with four examples on N_SHORT sentences of FLORES-200 devtest, by hand, when it was chosen
HAND_MEASURED = {
    "de-en": 18.3, "en-de": 10.9, "ru-en": 9.0, "en-ru": 7.0, "ja-en": 8.1, "en-ja": 15.9, "hi-en": 10.7, "en-hi": 6.3,
}  # fmt: skip
N_SHORT, SHORT = 20, (40, 100)  # sentences, characters of their English side
WITHOUT = {f"stage {n}": ("stage4", f"without stage {n}") for n in (1, 2, 3)}


def short_segments(direction: str, sources: Sequence[str], references: Sequence[str]) -> list[int]:
    """Which segments `HAND_MEASURED` is compared on: the first whose English side has a length in `SHORT`."""
    english = sources if direction.startswith(f"{ENGLISH}-") else references
    return [i for i, text in enumerate(english) if SHORT[0] <= len(text) <= SHORT[1]][:N_SHORT]


def sharing(n: int) -> dict[str, tuple[str, str]]:
    """What a module per group, `n` of them, is compared with on the same rows."""
    modules = f"{('no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight')[n]} modules"
    return {
        f"{modules} against one of their size": ("own", "wide"),
        f"{modules} against full weights": ("own", "dense"),
        f"{modules} against one module": ("own", "shared"),
    }


def _methods_table(
    scores: RealScores, p: Profile, codes: Sequence[str], pieces: Sequence[Piece]
) -> pd.DataFrame:
    """Every method and rate on a group's directions, and its differences from stage 4, with length and off-target."""
    at = {"stage4": ("stage4", 0.0), "stage5": ("arpo", 1.0), "sft+": ("sft", 1.0)}  # method, times the rate
    at |= {n: (n.split("@")[0], float(n.split("@")[1])) for n, _, _ in scores if "@" in n}
    every, rows = [one for here in sides(codes).values() for one in here], []
    for name in sorted(at, key=lambda n: at[n][::-1]):
        mine = [
            one
            for one in pieces
            if named(one.system, one.form) == name and one.set == "flores" and one.direction in every
        ]
        if {one.direction for one in mine} != set(every):
            continue
        label, factor = at[name]
        row: dict[str, Any] = {
            "method": label,
            "rate": f"{p.stage5_learning_rate * factor:g}" if factor else "",
        }
        for side, here in sides(codes).items():
            row |= {
                f"{m} {side}": shown(mean_of(scores, name, "flores", here, m), m) for m in ("bleu", "chrf++")
            }
        row["bits_per_byte"] = shown(mean_of(scores, name, "flores", every, "bits_per_byte"), "bits_per_byte")
        for m in ("bleu", "chrf++"):
            row[f"{m}, less stage 4"] = difference(scores, name, "stage4", "flores", every, m)
        row["length ratio"] = round(float(np.mean([length_ratio(o.outputs, o.references) for o in mine])), 3)
        row[OFF_TARGET] = round(
            100 * float(np.mean([wrong_language_rate(o.outputs, o.direction.split("-")[1]) for o in mine])), 2
        )
        rows.append(row)
    return pd.DataFrame(rows)


def write_real_tables(folder: Path, scores: RealScores, p: Profile, pieces: Sequence[Piece], n: int) -> None:
    about = {
        "segments": n,
        "draws": DRAWS,
        "intervals": "95 %, over documents (WMT'23: segments)",
        "comet": COMET,
    }
    write_json(folder / "12_about.json", about)
    for set_, label in (("flores", "ladder"), ("whole", "whole")):
        for metric in METRICS:
            _table(
                folder / f"12_{label}_{metric.replace('+', 'p')}.csv",
                real_ladder_table(scores, p, set_, metric),
            )
    _table(folder / "12_steps.csv", _difference_table(scores, p, STEPS, "flores"))
    _table(folder / "12_sharing.csv", _difference_table(scores, p, sharing(len(p.group_numbers)), "flores"))
    _table(folder / "12_without.csv", _difference_table(scores, p, WITHOUT, "flores"))
    rows = [
        {
            "direction": d,
            "metric": m,
            "group 2 less 4": difference(scores, "group2+fr", "stage4", "flores", [d], m),
        }
        for d in ("en-fr", "fr-en")
        for m in METRICS
    ]
    _table(folder / "12_french.csv", pd.DataFrame(rows))
    rows = [
        {"direction": d, "by hand": value, "here": shown(scores["base", "short", d]["bleu"], "bleu")}
        for d, value in HAND_MEASURED.items()
        if ("base", "short", d) in scores
    ]
    _table(folder / "12_base_check.csv", pd.DataFrame(rows))
    for group in sorted(set(p.comparison_group_numbers) & set(p.group_numbers)):
        _table(
            folder / f"12_methods_group{group}.csv", _methods_table(scores, p, p.languages_of(group), pieces)
        )
    wmt = sorted({d for _, s, d in scores if s == "wmt23"})
    rows = [
        {"direction": d, "metric": m}
        | {name: shown(mean_of(scores, name, "wmt23", [d], m), m) for name in (*STAGES, "sft+")}
        for d in wmt
        for m in METRICS
    ]
    _table(folder / "12_wmt23.csv", pd.DataFrame(rows))


def _table(path: Path, table: pd.DataFrame) -> None:
    write_atomically(path, table.to_csv(index=False))
