"""Whether people would notice a difference of scores: the differences that Kocmi et al. (ACL 2024) print per metric.

"Navigating the Metrics Maze: Reconciling Score Magnitudes and Accuracies" (arXiv 2401.06760) asks how large the
difference of two systems' scores must be for the metric to name the same better system as people do, in 80 % of the
pairs of systems of ToShip23. The numbers are the 80 % column of their main table, read in the authors' repository
(kocmitom/MT-Thresholds appendix/main_thresholds.tex @ d61165fb); their package mt-thresholds 1.0.4 has fits that give
the same. A metric that is not in that table has no threshold here: chrF++, XCOMET without a reference, bits per byte.

The differences are of whole test sets. They hold on average over the authors' languages and domains; for systems of
unlike kinds BLEU is worse than this (their section on unrelated systems).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ACCURACY = 0.8
SOURCE = "Kocmi et al., ACL 2024, arXiv 2401.06760"
UNNOTICED = "°"  # the mark of a difference below the threshold

# Points on the scale that tables print (COMET and its kin times 100). Their spBLEU 200 is sacreBLEU's flores200.
THRESHOLDS = {
    "bleu": 2.34,
    "chrf": 1.63,
    "spbleu": 2.46,
    "comet22": 0.56,
    "cometkiwi": 0.53,
    "xcomet-xl": 1.08,
    "xcomet-xxl": 1.24,
    "cometkiwi-xl": 0.84,
    "cometkiwi-xxl": 1.24,
}


def is_noticed(metric: str, difference: float) -> bool | None:
    """Whether a difference of two systems' scores reaches the metric's threshold; None for a metric without one."""
    threshold = THRESHOLDS.get(metric)
    return None if threshold is None else abs(difference) >= threshold


def marks(metric: str, values: Sequence[float]) -> list[str]:
    """The mark beside each of several systems' scores, where the best is ahead of it by less than people notice."""
    top = max((value for value in values if value == value), default=math.nan)
    return [
        UNNOTICED if top - value > 0 and is_noticed(metric, top - value) is False else "" for value in values
    ]


def explained(metric: str) -> str:
    """What the mark means for a metric; "" for one without a threshold."""
    if metric not in THRESHOLDS:
        return ""
    return (
        f"{UNNOTICED}: a difference below {THRESHOLDS[metric]:g}, at which the metric agrees with people on fewer than "
        f"{ACCURACY:.0%} of pairs of systems ({SOURCE})"
    )
