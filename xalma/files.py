"""Files that are whole, on the disk, made by one run at a time, and named when they can't be read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

COPY_AGAIN = "copy or download it again"  # what to do about a damaged file of a checkpoint
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # some network file systems
_locks: dict[Path, int] = {}  # folder -> how often this process has taken its lock


@contextmanager
def locked(folder: str | Path, option: str = "--set run_dir=…") -> Iterator[None]:
    """Inside, no other process makes `folder`; this one may enter again. The lock dies with its process (flock).

    Its file, .lock-<name>, lies beside the folder and is gone afterwards. option: what chooses another folder.
    Raises BlockingIOError, in one sentence, where another process has the lock.
    """
    folder = Path(os.path.abspath(folder))
    if folder not in _locks:
        path = folder.parent / f".lock-{folder.name}"
        with _lock_file(path, folder, option):
            _locks[folder] = 1
            try:
                yield
            finally:
                del _locks[folder]
                path.unlink(missing_ok=True)  # still locked, so that nobody else holds this file
        return
    _locks[folder] += 1
    try:
        yield
    finally:
        _locks[folder] -= 1


def _lock_file(path: Path, folder: Path, option: str) -> IO[str]:
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "unknown"
            file.close()
            raise BlockingIOError(
                f"another run (process {who}) is making {folder}: wait for its end, or work in another folder "
                f"({option})"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise
            warnings.warn(f"the disk of {folder} knows no locks: start one run in it at a time", stacklevel=4)
        with suppress(FileNotFoundError):  # the one before may have removed it since it was opened
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                return file
        file.close()


def to_disk(path: str | Path) -> None:
    """Make sure that a file, or a folder with all that is in it, has reached the disk. Raises OSError if it can't."""
    path = Path(path)
    if path.is_dir():
        for below in path.iterdir():
            if not below.is_symlink():
                to_disk(below)
    folder_to_disk(path)


def folder_to_disk(path: Path) -> None:
    """The entries of one folder, or the bytes of one file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that syncs no folders
            raise
    finally:
        os.close(descriptor)


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: str | Path, remedy: str, kind: type = dict, keys: Sequence[str] = ()) -> Any:
    """What a JSON file holds, a `kind`. remedy: what to do about a damaged one, for the error. keys: those that an
    object must have.

    Raises FileNotFoundError where there is none, ValueError where it is damaged, no `kind` or lacks a key; both name
    the file.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: {remedy}") from None
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8 are a ValueError too
        raise ValueError(f"{path} can't be read as JSON ({error}): {remedy}") from None
    if not isinstance(value, kind):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}, not a {kind.__name__}: {remedy}")
    if missing := [key for key in keys if key not in value]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: {remedy}")
    return value


def fingerprint(value: Any) -> str:
    """16 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_atomically(path: str | Path, content: str | bytes) -> Path:
    """Write `content`, text as UTF-8, so that `path` is either the old file or the whole new one.

    Raises OSError (PermissionError, …), in one sentence, where the folder can't be written.
    """
    path = Path(path)
    partial = path.parent / f".partial-{os.getpid()}-{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        folder_to_disk(path.parent)
    except OSError as error:
        raise type(error)(f"can't write {path} ({error.strerror}): choose a folder you may write") from error
    finally:
        with suppress(OSError):  # where it could not be made there is nothing to take away
            partial.unlink()
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """`value` as indented JSON, atomically."""
    return write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


RUN_DIR, TO = "--set run_dir=…", "--to DIR"  # options that choose where a folder is made


def make_writable(folder: str | Path) -> Path:
    """`folder`, made if need be, after a file could be written in it. Raises OSError in one sentence otherwise."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise type(error)(
            f"can't write in {folder} ({error.strerror}): choose a folder you may write"
        ) from error
    return folder


def check_new(out: str | Path) -> Path:
    """`out`, a folder that is not there and can be made: found out before hours of work, writing nothing.

    Raises FileExistsError, or OSError in one sentence.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} is there already: choose a new folder, with {TO}")
    parent = next(path for path in out.absolute().parents if path.exists())
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        why = f"can't write in {parent} ({error.strerror})"
        raise type(error)(f"{why}: choose a folder you may write, with {TO}") from error
    return out


@contextmanager
def new_directory(path: str | Path, option: str = RUN_DIR) -> Iterator[Path]:
    """A folder to fill that becomes `path` only when the block ends without error, and all of it is on the disk.

    A killed run leaves a ".partial-" folder, which the next call removes, and never a half-written `path`; one killed
    between the two renames leaves the old `path` aside, and the next call puts it back.
    One that ends with an error leaves nothing. option: what chooses another folder, for the sentence of an error.
    Raises OSError (PermissionError, …), in one sentence, where the parent can't be written, and where another process
    makes the same folder.
    """
    path = Path(path)
    partial, old = (path.parent / f".partial-{old}{path.name}" for old in ("", "old-"))
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path, option))
            put_back(path)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise
            raise type(error)(
                f"can't write in {path.parent} ({error.strerror}): choose a folder you may write, with {option}"
            ) from error
        try:
            yield partial
        except BaseException:  # a half of 58 GB is of no use to anybody
            shutil.rmtree(partial, ignore_errors=True)
            raise
        to_disk(partial)
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
        folder_to_disk(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def put_back(path: Path) -> None:
    """Clear up after a run that was killed while `new_directory` renamed: the old folder takes its place again, or goes
    where the new one stands.
    """
    old = path.parent / f".partial-old-{path.name}"
    if old.exists() and not path.exists():
        os.replace(old, path)
    shutil.rmtree(old, ignore_errors=True)
