"""What the tasks of the real base share in one process, and how they write results."""

from __future__ import annotations

import fcntl
import gzip
import json
import time
from pathlib import Path
from typing import Any

import torch

from real_base.pack import Pack
from xalma.profiles import Profile
from xalma.runtime import mixed_precision

WMT_FIRST = 100  # segments of a WMT'23 direction after each stage


class Run:
    """What tasks share in one process: profile, pack, places, and how results are written."""

    def __init__(
        self, p: Profile, pack: Path, out: Path, work: Path, form: str = "", pairs: str = "references"
    ) -> None:
        self.p = p
        self.pack = Pack(pack)
        self.out = out
        self.work = work
        self.form = form  # the one that systems are measured in; "": both
        self.pairs = pairs  # what stage 5 trains on: "references" or "samples" (tasks.pairs_of)
        self.bases: dict[int, Any] = {}  # on the CPU, by stage

    @property
    def dtype(self) -> torch.dtype:
        """Of frozen weights: the profile's; float32 where a processor has no instructions for bfloat16."""
        return torch.bfloat16 if self.p.dtype == "bfloat16" and mixed_precision() else torch.float32

    def write(self, file: str, record: dict[str, Any]) -> None:
        """Append a line to OUT/file, whole, also while others write; .gz files grow by members."""
        line = (json.dumps(record, separators=(",", ":")) + "\n").encode()
        with (self.out / file).open("ab") as place:
            fcntl.flock(place, fcntl.LOCK_EX)
            place.write(gzip.compress(line) if file.endswith(".gz") else line)

    def log(self, event: str, **values: Any) -> None:
        self.write("log.jsonl", {"event": event, "at": round(time.time(), 1), **values})
