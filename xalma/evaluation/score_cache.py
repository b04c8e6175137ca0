"""Scores that cost a model's pass, kept in one file: a cut-off run goes on where it was.

The key is a hash of the texts, of the checkpoint's bytes, of the library's version and of the
precision, so no score outlives what it was made with. SQLite writes a part of the scores whole or
not at all, also when the process is killed. Each row carries a checksum, which SQLite's have not: a
damaged one is made again. (Tables of a version without checksums are left alone, and not read.)
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xalma.files import file_hash

KEYS_AT_ONCE = 500  # SQLite of 2020 and older takes 999 parameters
_TABLES = """
CREATE TABLE IF NOT EXISTS sealed_scores (key BLOB PRIMARY KEY, score REAL, seal BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sealed_files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT, seal BLOB);
"""


class ScoreCache:
    """Scores by key in the file `path`; None keeps nothing. Use it in a `with` block."""

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path).expanduser()
        self._database: sqlite3.Connection | None = None
        self.damaged = 0

    def __enter__(self) -> ScoreCache:
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._database = sqlite3.connect(self.path, timeout=60)
            except (OSError, sqlite3.OperationalError) as error:
                raise OSError(
                    f"can't open the score cache {self.path} ({error}): name another file"
                ) from error
            with self._naming_the_file():
                self._database.executescript(_TABLES)
        return self

    def __exit__(self, *_: object) -> None:
        if self._database is not None:
            self._database.close()
        if self.damaged:
            print(f"{self.damaged} scores in {self.path} were damaged and are made again", file=sys.stderr)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """The kept scores among `keys`."""
        if self._database is None:
            return {}
        found = {}
        unique = list(dict.fromkeys(keys))
        for start in range(0, len(unique), KEYS_AT_ONCE):
            part = unique[start : start + KEYS_AT_ONCE]
            query = f"SELECT key, score, seal FROM sealed_scores WHERE key IN ({','.join('?' * len(part))})"
            with self._naming_the_file():
                rows = self._database.execute(query, part).fetchall()
            whole = {key: score for key, score, seal in rows if seal == _seal(key, score)}
            self.damaged += len(rows) - len(whole)
            found |= whole
        return found

    def put(self, scores: Mapping[bytes, float]) -> None:
        """Keep `scores`: all of them or, if this process is killed meanwhile, none."""
        if self._database is not None:
            with self._naming_the_file(), self._database:
                rows = ((key, score, _seal(key, score)) for key, score in scores.items())
                self._database.executemany("INSERT OR REPLACE INTO sealed_scores VALUES (?, ?, ?)", rows)

    def file_hash(self, path: Path) -> str:
        """SHA-256 of a file, kept by its place, size and time: a checkpoint of 14 GB takes half a minute to read."""
        if self._database is None:
            return file_hash(path)
        place = str(path.resolve())
        stat = path.stat()
        seen = (stat.st_size, stat.st_mtime_ns)
        with self._naming_the_file():
            query = "SELECT size, mtime_ns, sha256, seal FROM sealed_files WHERE path = ?"
            row = self._database.execute(query, (place,)).fetchone()
        if row and row[:2] == seen and row[3] == _seal(place, *row[:3]):
            return row[2]
        digest = file_hash(path)
        row = (place, *seen, digest)
        with self._naming_the_file(), self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO sealed_files VALUES (?, ?, ?, ?, ?)", (*row, _seal(*row))
            )
        return digest

    @contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise OSError(
                f"{self.path} can't be used as a score cache ({error}): move it or name another"
            ) from error


def _seal(*values: Any) -> bytes:
    """A checksum of a row's values, which are told apart by type too."""
    return hashlib.sha256(repr(values).encode("utf-8", "surrogatepass")).digest()[:16]


def text_key(*parts: Any) -> bytes:
    """32 bytes that stand for strings, or tuples of them, in this order."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass")).digest()
