"""Text files: UTF-8 lines, cut at line feeds alone, and several files that are parallel."""

from __future__ import annotations

import gzip
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Sequence
from pathlib import Path


def read_lines(path: str | Path) -> list[str]:
    """The segments of a UTF-8 file, packed with gzip (.gz) or not, one per line, as `lines_of` cuts them.

    Raises FileNotFoundError for no such file, ValueError for an empty or cut file or bytes that are not
    UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: give a text file with one segment per line")
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is cut or no gzip file ({error}): fetch it again") from error
    return lines_of(data, str(path))


def lines_of(data: bytes, name: str) -> list[str]:
    """The segments of UTF-8 text, one per line, without LF or CRLF ends and byte order mark.

    Only line feeds end a segment: U+2028 and the like stay in the text, as sacreBLEU keeps them.
    Raises ValueError, beginning with `name`, for no text or bytes that are not UTF-8.
    """
    if not data:
        raise ValueError(f"{name} is empty: give text with one segment per line")
    if is_utf16(data):
        raise ValueError(f"{name} is not UTF-8 but UTF-16: convert it first, with `iconv -f utf-16 -t utf-8`")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}, "
            f"line {line}; "
            f"convert it first, for example with `iconv -f latin1 -t utf-8`"
        ) from error
    return [line.removesuffix("\r") for line in text.removeprefix("\ufeff").removesuffix("\n").split("\n")]


def is_utf16(data: bytes) -> bool:
    """Whether bytes are UTF-16: by their byte order mark, or, without one, by every tenth byte being NUL."""
    return data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or data.count(b"\0") > len(data) // 10


def check_parallel(paths: Sequence[str | Path]) -> list[list[str]]:
    """The lines of each file by `read_lines`. Raises ValueError if they have not equally many."""
    files = [read_lines(path) for path in paths]
    for path, lines in zip(paths, files, strict=True):
        if len(lines) != len(files[0]):
            raise ValueError(
                f"line counts differ: {paths[0]} has {len(files[0])}, {path} has {len(lines)}; "
                f"line n of one must translate line n of the other"
            )
    return files
