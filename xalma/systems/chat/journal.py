"""The paid answers of an endpoint, one JSON line each, never rewritten: what is in it is never asked for again.

A line is on disk (fsync) before its segment counts as done, so a killed process loses at most answers under way. One
process at a time may hold a journal: two would pay for the same segment twice.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from xalma.systems.chat.answers import count_of, text_of, tokens_of


class Journal:
    """Answers by request key. `lost_lines`: lines that could not be read, as one cut off by a power failure.

    `tokens`: (in, out) of all answers in the file, also of those bought twice; by the rule of `answers` where the
    server gave no counts.
    """

    def __init__(self, path: str | Path) -> None:
        """Opens or makes the file. Raises OSError where it can't be written, or where another process holds it."""
        self.path = Path(path)
        self.lost_lines = 0
        self.tokens = (0, 0)
        self._answers: dict[str, dict[str, Any]] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            why = f"can't write the journal {self.path} ({error.strerror}): choose a folder you may write"
            raise type(error)(why) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise OSError(
                f"{self.path} is held by another process: wait for it, or choose another journal"
            ) from error
        self._read()

    def _read(self) -> None:
        self._file.seek(0)
        data = self._file.read()
        for line in data.split(b"\n"):
            try:
                record = json.loads(line) if line.strip() else None
                if record is not None:
                    self._take(record)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self.lost_lines += 1
        if data and not data.endswith(b"\n"):
            self._file.write(b"\n")  # the next answer must not be glued to a line that was cut

    def _take(self, record: dict[str, Any]) -> None:
        """One line's answer. Its text may be parts, as an earlier version wrote it."""
        key, text = record["key"], record["text"]
        if not isinstance(key, str) or not isinstance(text, str | list):
            raise TypeError("no answer of a journal")
        text = text_of(text)
        self._answers[key] = {"finish": None, **record, "text": text}
        counts = [count_of(record.get(name)) for name in ("prompt_tokens", "completion_tokens")]
        guess = tokens_of(text)
        self.tokens = tuple(
            sum(pair) for pair in zip(self.tokens, (guess if n is None else n for n in counts), strict=True)
        )

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._answers[key]

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, key: str, record: dict[str, Any]) -> None:
        """Writes an answer and waits until it is on disk."""
        record = {"key": key, **record}
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._take(record)

    def close(self) -> None:
        """Lets another process have it."""
        self._file.close()
