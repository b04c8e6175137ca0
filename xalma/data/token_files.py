"""Prepared text, memory-mapped: blocks of tokens that training reads where they lie (`prepare` writes them)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xalma.files import file_hash, fingerprint, read_json

STAGE_TEXT = {1: "monolingual", 2: "monolingual", 3: "bitext"}  # the prepared text a stage reads
_verified: dict[Path, tuple] = {}  # file -> size, time and hash when it was compared


def tokenizer_json(tokenizer) -> str:
    """A transformers tokenizer's JSON form. Raises ValueError for a slow one, which has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(
            f"{type(tokenizer).__name__} is a slow tokenizer: load the model's fast one (tokenizer.json)"
        )
    return backend.to_str()


def tokenizer_hash(tokenizer) -> str:
    """16 hex digits that say which tokenizer made the tokens."""
    return fingerprint(tokenizer_json(tokenizer))


class TokenFiles:
    """One language's blocks, memory-mapped: `files[i]` is (block_tokens,) token ids; nothing is read before that.

    Raises FileNotFoundError, saying what makes it, where the folder is not there, ValueError for a cut file.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "index.json").is_file():
            raise FileNotFoundError(f"no prepared text in {self.folder}: make it with `xalma prepare`")
        self.index: Mapping[str, Any] = read_json(self.folder / "index.json", "prepare the text again")
        if missing := {"block_tokens", "dtype", "files"} - self.index.keys():
            raise ValueError(f"{self.folder / 'index.json'} lacks {min(missing)}: prepare the text again")
        self.block_tokens = self.index["block_tokens"]
        self._dtype = np.dtype(self.index["dtype"])
        self._starts = np.cumsum([0, *(file["tokens"] // self.block_tokens for file in self.index["files"])])
        self._open: dict[int, np.ndarray] = {}
        for file in self.index["files"]:
            path, size = self.folder / file["name"], file["tokens"] * self._dtype.itemsize
            if not path.is_file() or path.stat().st_size != size:
                raise ValueError(
                    f"{path} is not the {size:,} bytes its index.json says: prepare the text again"
                )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, i: int) -> np.ndarray:
        if not 0 <= i < len(self):
            raise IndexError(f"block {i} of {len(self)} in {self.folder}")
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self._mapped(number)[i - self._starts[number]]

    def _mapped(self, number: int) -> np.ndarray:
        if number not in self._open:
            path = self.folder / self.index["files"][number]["name"]
            self._open[number] = np.memmap(path, self._dtype, "r").reshape(-1, self.block_tokens)
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # a mapping would be pickled as all its bytes

    def check(self, tokenizer, block_tokens: int) -> None:
        """Raises ValueError where the text was made for another tokenizer or block size."""
        same = tokenizer_hash(tokenizer) == self.index.get("tokenizer")
        if not same or block_tokens != self.block_tokens:
            what = f"blocks of {self.block_tokens}, not {block_tokens}" if same else "another tokenizer"
            raise ValueError(f"{self.folder} was prepared with {what}: prepare it again for this base")

    def verify(self) -> None:
        """Reads all files, once per process. Raises ValueError where one's bytes are not those its hash was made of."""
        for file in self.index["files"]:
            path = self.folder / file["name"]
            state = (path.stat().st_size, path.stat().st_mtime_ns, file["sha256"])
            if _verified.get(path.absolute()) != state:
                if file_hash(path) != file["sha256"]:
                    raise ValueError(f"{path} has changed since it was written: prepare it again")
                _verified[path.absolute()] = state
