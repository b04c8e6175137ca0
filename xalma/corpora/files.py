"""Rows of text files and hub datasets, streamed: a read that breaks goes on at the row where it broke.

OSCAR-2301 and allenai/nllb are loading-script repositories, which datasets 5 refuses (their `.py` is code from the
hub); so their data files are read as they are, local or over https:// and hf://, packed with gzip or zstandard. A
packed file has no way into its middle: going on at row n reads the n rows before it again, without parsing them.
Datasets kept as Parquet go through `datasets` in streaming mode.
"""

from __future__ import annotations

import gzip
import io
import json
import time
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa

from xalma.text_files import is_utf16

RETRIES = 5  # breaks in a row before giving up: after 1, 2, 4, 8 and 16 seconds
LOGIN = "accept its terms on the hub if it is gated, log in with `hf auth login`, or use another corpus"
# What no second try mends, by name: the hub's clients have kinds of their own, and some live in other packages.
_FINAL = ("FileNotFoundError", "PermissionError", "GatedRepoError", "RepositoryNotFoundError", "EntryNotFoundError",
          "OfflineModeIsEnabled", "DatasetNotFoundError", "DataFilesNotFoundError", "ValueError", "RuntimeError",
          "UnicodeDecodeError", "ArrowInvalid")  # fmt: skip


# What a file on this machine that is cut or damaged gives, packed or Parquet; no second try mends it.
_DAMAGED = (EOFError, OSError, zlib.error, pa.ArrowInvalid)


class Unreadable(RuntimeError):
    """One sentence: what can't be read, why, and what to do."""


def open_bytes(url: str) -> IO[bytes]:
    """A file to read from: local, https:// or hf://; .gz and .zst are unpacked as they are read."""
    file = fsspec.open(url, "rb").open()
    if url.endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    if url.endswith(".zst"):
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))
    return file


def resumed(opened: Callable[[int], Iterator], what: str, start: int = 0) -> Iterator[tuple[int, Any]]:
    """(row number, row) from row `start` on, of a source that can be opened at a row; a break is opened anew.

    opened: row -> iterator that begins there. Raises Unreadable after RETRIES breaks at one row, or at once where the
    source is not there or not allowed.
    """
    row, left = start, RETRIES
    while True:
        try:
            for content in opened(row):
                yield row, content
                row, left = row + 1, RETRIES
            return
        except Unreadable:
            raise
        except Exception as error:  # the clients have a dozen kinds; the user needs one sentence
            if (
                isinstance(error, _DAMAGED)
                and not isinstance(error, PermissionError)
                and Path(what).is_file()
            ):
                raise Unreadable(f"{what} is cut or damaged ({error}): make it or fetch it again") from error
            if not left or type(error).__name__ in _FINAL:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise Unreadable(f"can't read {what} at row {row}: {reason}; {LOGIN}") from error
            time.sleep(2 ** (RETRIES - left))
            left -= 1


def text_lines(url: str, start: int = 0) -> Iterator[tuple[int, str]]:
    """(row number, line without its end) of a text file; bytes that are not UTF-8 become surrogates.

    A byte order mark of UTF-8 is no part of the text. Raises Unreadable for UTF-16 and for what is no text at all.
    """

    def opened(row: int) -> Iterator[str]:
        with closing(open_bytes(url)) as file:
            for number, line in enumerate(file):
                if number == 0:
                    line = _without_mark(line, url)
                end = len(line) - (2 if line.endswith(b"\r\n") else 1 if line.endswith((b"\n", b"\r")) else 0)
                # no second copy of a line of a GB
                text = str(memoryview(line)[:end], "utf-8", "surrogateescape")
                line = b""
                if number >= row:
                    yield text

    return resumed(opened, url, start)


def _without_mark(line: bytes, url: str) -> bytes:
    """The first line of a file without UTF-8's byte order mark."""
    if is_utf16(line):
        raise Unreadable(f"{url} is not UTF-8 but UTF-16: convert it first, with `iconv -f utf-16 -t utf-8`")
    return line.removeprefix(BOM_UTF8)


def json_lines(url: str, start: int = 0) -> Iterator[tuple[int, dict | None]]:
    """(row number, object) of a JSON-lines file; None for a line that is no JSON object. Blank lines are no rows."""
    for number, line in text_lines(url, start):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield number, row if isinstance(row, dict) else None


def parquet_rows(url: str, start: int = 0) -> Iterator[tuple[int, dict]]:
    """(row number, row) of a Parquet file, a batch of 1,000 rows in memory at a time."""
    from pyarrow import parquet

    def opened(row: int) -> Iterator[dict]:
        with fsspec.open(url, "rb") as file:
            seen = 0
            for batch in parquet.ParquetFile(file).iter_batches(1000):
                if seen + len(batch) > row:
                    yield from batch.slice(max(0, row - seen)).to_pylist()
                seen += len(batch)

    return resumed(opened, url, start)


def hub_rows(path: str, name: str | None, split: str, start: int = 0) -> Iterator[tuple[int, dict]]:
    """(row number, row) of a hub dataset without a loading script, or of a folder in the same layout, streamed."""

    def opened(row: int) -> Iterator[dict]:
        from datasets import load_dataset

        rows = load_dataset(path, name, split=split, streaming=True)
        return iter(rows.skip(row) if row else rows)

    return resumed(opened, f"{path} ({name or 'default'}, {split}) from the hub", start)
