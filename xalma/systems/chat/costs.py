"""What requests will roughly cost, and which prices and limits are numbers that can be meant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from xalma.systems.chat.answers import BYTES_OF_A_TOKEN


@dataclass(frozen=True)
class Estimate:
    """What a run will roughly take; `cost` in the currency of the prices, None where none were given."""

    requests: int
    in_journal: int
    input_tokens: int
    output_tokens: int
    cost: float | None

    def __add__(self, other: Estimate) -> Estimate:
        sums = [a + b for a, b in zip(astuple(self)[:4], astuple(other)[:4], strict=True)]
        return Estimate(*sums, None if self.cost is None or other.cost is None else self.cost + other.cost)

    def __str__(self) -> str:
        money = "unknown, give prices" if self.cost is None else f"about {self.cost:.2f}"
        return (
            f"{self.requests} requests ({self.in_journal} more are in the journal), about {self.input_tokens:,} tokens "
            f"in and {self.output_tokens:,} out by a rule of {BYTES_OF_A_TOKEN} bytes per token; cost {money}"
        )


def check_amounts(name: str, given: float | Sequence[float] | None, above_zero: bool = False) -> None:
    """Raises ValueError for an amount that is negative, no number or without end."""
    for value in () if given is None else given if isinstance(given, tuple | list) else (given,):
        if not (math.isfinite(value) and (value > 0 if above_zero else value >= 0)):
            raise ValueError(
                f"{name} is {value}: give a number {'above 0' if above_zero else 'of 0 or more'}"
            )
