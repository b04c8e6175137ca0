"""Existing output files as a system: one line per segment, as released with papers or written by `xalma outputs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xalma.systems.table import System
from xalma.text_files import read_lines


class Files:
    """Outputs in a folder: `<folder>/<src>-<tgt>.txt`, or a path with {direction} in it, as
    "wmt/wmt22/{direction}/systems/GPT-4-1106-preview.txt"."""

    def __init__(self, row: System, path: str) -> None:
        if not path:
            raise ValueError("existing files need their place: path=FOLDER, or a path with {direction} in it")
        self.row, self.pattern = row, path if "{direction}" in path else str(Path(path) / "{direction}.txt")

    def file(self, src: str, tgt: str) -> Path:
        """Where the outputs of a direction are."""
        return Path(self.pattern.replace("{direction}", f"{src}-{tgt}"))

    def translate(self, texts: Sequence[str], src: str, tgt: str, *, progress: bool = True) -> list[str]:
        """The lines of the direction's file. Raises ValueError where they are not as many as `texts`."""
        self.row.check(src, tgt)
        lines = read_lines(self.file(src, tgt))
        if len(lines) != len(texts):
            raise ValueError(f"{self.file(src, tgt)} has {len(lines)} lines for {len(texts)} segments")
        return lines
