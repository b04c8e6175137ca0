"""The pages that a reader of this repository reads, and the code blocks in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "teaching").glob("*.md")),
]
CARDS = [*sorted((ROOT / "data_cards").glob("*.md")), *sorted((ROOT / "model_cards").glob("*.md"))]
PAGES = [
    *GUIDES,
    *CARDS,
    ROOT / "results" / "benchmarks" / "README.md",
    ROOT / "xalma" / "tiny_base" / "README.md",
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def prose(path: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def quoted(path: Path) -> list[str]:
    """What stands between backticks in a page's prose."""
    return re.findall(r"`([^`\n]+)`", prose(path))
