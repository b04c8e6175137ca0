"""A system's outputs for a whole test set: DIR/<src>-<tgt>.txt, one line per segment, and DIR/run.json beside them.

Each file is written aside and renamed when its direction is done, and then noted in run.json, so a stopped run goes on
with the next direction. A line break inside an output would shift all lines after it: it becomes a blank, counted.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xalma.evaluation.interference import chosen_by_of
from xalma.files import fingerprint, make_writable, read_json, write_atomically, write_json
from xalma.runtime import provenance
from xalma.systems.registry import Translator
from xalma.systems.table import SYSTEMS, System
from xalma.systems.templates import TEMPLATES
from xalma.text_files import read_lines

NOT_SUPPORTED, STOPPED = "not supported", "stopped"


def single_lines(outputs: Sequence[str]) -> tuple[list[str], int]:
    """(the outputs without line breaks, how many outputs had one)."""
    # at the start of a file it would be a byte order mark
    outputs = [text.lstrip("\ufeff") for text in outputs]
    flat = [re.sub(r"[ \t]*[\r\n]+[ \t]*", " ", text.strip("\r\n")) for text in outputs]
    return flat, sum(before != after for before, after in zip(outputs, flat, strict=True))


def output_settings(row: System, given: dict[str, Any]) -> dict[str, Any]:
    """What makes one system's outputs what they are: its row, its prompt, and what was given when it was opened."""
    folders = [Path(given[name]) for name in ("path", "adapter") if given.get(name)]
    found = {m for folder in folders if (folder / "run.json").is_file() for m in chosen_by_of(folder)}
    behind = {"chosen_by": sorted({*row.chosen_by, *found})} if found else {}
    return {"system": asdict(row), "prompt": TEMPLATES[row.template].text, "given": given} | behind


def metrics_behind(system: str, files: Iterable[Path] = ()) -> list[str]:
    """The metrics that chose or filtered a system's training data; UNKNOWN among them where its record says so.

    From the run.json that `write_outputs` left beside its output files, else from the row of that name or title.
    """
    for folder in {file.parent for file in files}:
        if (folder / "run.json").is_file():
            settings = read_json(folder / "run.json", "remove it").get("settings", {})
            if "system" in settings:
                return list(settings.get("chosen_by") or settings["system"].get("chosen_by", ()))
    rows = [row for row in SYSTEMS.values() if system in (row.name, row.title)]
    return sorted({metric for row in rows for metric in row.chosen_by})


def write_outputs(
    open_it: Callable[[], Translator],
    row_settings: dict[str, Any],
    sources: Callable[[str], Sequence[str]],
    directions: Iterable[str],
    out: str | Path,
    supports: Callable[[str], bool],
) -> dict[str, dict[str, Any]]:
    """Translates each direction that is not done yet; returns run.json's record of each, in the order given.

    open_it: loads the system, called when the first direction needs it. sources: direction -> its segments.
    row_settings: as `settings` gives them; a folder begun with others is refused, its lines would not be one system's.
    Raises ValueError for such a folder, and what the system raises; finished directions are kept.
    """
    out = make_writable(out)
    run = _begun(out, row_settings)
    system: Translator | None = None
    for direction in directions:
        if not supports(direction):
            run["directions"][direction] = {"status": NOT_SUPPORTED}
            write_json(out / "run.json", run)
            continue
        texts = list(sources(direction))
        if _is_done(out, direction, run, texts):
            continue
        system = system or open_it()
        earlier = run["directions"].get(direction, {})
        begun = time.perf_counter()
        # an endpoint goes on there
        before = earlier.get("seconds", 0.0) if earlier.get("status") == STOPPED else 0.0
        try:
            record = _translate(system, direction, texts, out)
        except BaseException:
            record = {"status": STOPPED}
            raise
        finally:
            seconds = round(before + time.perf_counter() - begun, 2)
            run["directions"][direction] = record | {"seconds": seconds}
            write_json(out / "run.json", run)
    return run["directions"]


def _translate(system: Translator, direction: str, texts: Sequence[str], out: Path) -> dict[str, Any]:
    before = Counter(getattr(system, "counts", {}))
    outputs, broken = single_lines(system.translate(texts, *direction.split("-")))
    counts = Counter(getattr(system, "counts", {})) - before
    write_atomically(out / f"{direction}.txt", "".join(f"{line}\n" for line in outputs))
    return {
        "status": "done",
        "segments": len(texts),
        "sources": fingerprint(list(texts)),
        "outputs": fingerprint(outputs),
        "line_breaks_replaced": broken + counts["separators"],
        "cut_at_max_new_tokens": counts["cut"],
        "empty": sum(not line.strip() for line in outputs),
    }


def _begun(out: Path, row_settings: dict[str, Any]) -> dict[str, Any]:
    """run.json of the folder, made new where there is none."""
    row_settings = json.loads(json.dumps(row_settings))  # as it will be read back: tuples are lists
    path, remedy = out / "run.json", "remove it, or choose another folder"
    if not path.exists():
        return {"settings": row_settings, "provenance": provenance(), "directions": {}}
    try:
        run = read_json(path, remedy, keys=("settings", "directions"))
        name, directions = run["settings"]["system"]["name"], run["directions"]
        if not all(isinstance(record, dict) for record in directions.values()):
            raise TypeError("records that are none")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no record of outputs: {remedy}") from error
    if run["settings"] != row_settings:
        raise ValueError(
            f"{out} was begun with {name} or other settings: choose another folder, or remove this one"
        )
    return run


def _is_done(out: Path, direction: str, run: dict[str, Any], texts: Sequence[str]) -> bool:
    """Whether the direction's file is there as noted, made from these very sources."""
    record = run["directions"].get(direction, {})
    file = out / f"{direction}.txt"
    if record.get("status") != "done" or not file.is_file():
        return False
    same_sources = record.get("sources") == fingerprint(list(texts))
    return same_sources and fingerprint(read_lines(file)) == record.get("outputs")
