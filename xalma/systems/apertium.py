"""Apertium, a rule-based translator of Debian's packages: `apertium -u MODE`, one segment per paragraph."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from xalma.models.generation import blank_lines_kept
from xalma.systems.table import System

MODES = {"en": "eng", "es": "spa", "ca": "cat", "is": "isl", "mk": "mkd"}
_MODES_OF = {"en-gl": "en-gl", "gl-en": "gl-en"}  # a pair that kept two letters


class Apertium:
    """The installed pairs behind the systems' interface."""

    def __init__(self, row: System) -> None:
        """Raises FileNotFoundError, naming Debian's package, where it is not installed."""
        if shutil.which("apertium") is None:
            raise FileNotFoundError("no program apertium: apt-get install apertium apertium-eng-spa")
        self.row = row

    @blank_lines_kept
    def translate(self, texts: Sequence[str], src: str, tgt: str, *, progress: bool = True) -> list[str]:
        """Translations in the order of `texts`. Raises ValueError for a direction it has not, RuntimeError where the
        program fails, as where the pair is not installed."""
        self.row.check(src, tgt)
        if not texts:
            return []
        mode = _MODES_OF.get(f"{src}-{tgt}") or f"{MODES[src]}-{MODES[tgt]}"
        # a paragraph ends a sentence
        paragraphs = "\n\n".join(" ".join(text.split()) for text in texts) + "\n"
        done = subprocess.run(["apertium", "-u", mode], input=paragraphs, capture_output=True, text=True)
        lines = done.stdout.removesuffix("\n").split("\n")[::2]
        if done.returncode or len(lines) != len(texts):
            said = " ".join((done.stdout + done.stderr).split())[:200]
            raise RuntimeError(
                f"apertium {mode} gave {len(lines)} of {len(texts)} segments, status {done.returncode}: {said}"
            )
        return [line.strip() for line in lines]
