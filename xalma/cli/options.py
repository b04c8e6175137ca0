"""Options that several commands share, and the checks of their values."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_testset(parser: argparse.ArgumentParser, required: bool = False) -> None:
    parser.add_argument(
        "--testset",
        required=required,
        help="flores200, wmt15 to wmt24, wmt24pp, ntrex, or a folder of <direction>/src.txt and ref.txt",
    )
    parser.add_argument("--origin", default="data", help="of the test set: data (default), sacrebleu or hub")
    parser.add_argument("--directions", help="en-de,de-en,…; default: all that there are")


def add_intervals(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=0, help="processes; default: one per core")
    parser.add_argument(
        "--resample",
        choices=("segments", "documents"),
        default="segments",
        help="what intervals and paired tests draw; documents where the set has them",
    )


def add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a profile value; repeatable"
    )


def overrides(pairs: Sequence[str]) -> dict[str, Any]:
    return key_values("--set", pairs, "seeds=3")


def key_values(
    option: str, pairs: Sequence[str], example: str = "comet22=/models/wmt22-comet-da"
) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"bad {option} {pair!r}: write it as key=value, for example {example}")
    return dict(pair.split("=", 1) for pair in pairs)


def at_least_one(option: str, value: float | None) -> int | None:
    if value is not None and not 1 <= value < float("inf"):
        raise ValueError(f"{option} {value:g} is no count: give a number from 1 on")
    return None if value is None else int(value)


def input_lines(file: str | None) -> list[str]:
    from xalma.text_files import lines_of, read_lines

    return lines_of(sys.stdin.buffer.read(), "standard input") if file is None else read_lines(Path(file))


def require(arguments: argparse.Namespace, option: str, beside: str) -> None:
    if not getattr(arguments, {"to": "tgt"}.get(option, option)):
        raise ValueError(f"--{option} is missing: give --{beside} together")
