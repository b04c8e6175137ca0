"""What holds when it is killed, harmed, run twice or meant to harm: the harnesses of tests/outside at a larger count.

    python benchmarks/reliability.py [--scale 1] [--seed 0] [--jobs 1] [--only kills,damages] [--out FILE]

A harness is a file of tests/outside with TITLE, COUNT and run(work, runs, n, seed), which gives the numbers tried and
held, other counts, and a line for each failure. The other tests there are counted as pytest reports them. All start
from the outside: `xalma` commands in processes of their own, on the tests' smallest profile. Prints what it is about to
do, and each part as it ends. Writes OUT.json and OUT.md; ends with status 1 if anything failed or nothing was tried.
With --only the parts that OUT.json has of others stay as they are.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from xalma.files import read_json, write_atomically, write_json
from xalma.runtime import REPOSITORY, git_commit, provenance

OUTSIDE = REPOSITORY / "tests" / "outside"
NOT_COUNTED = (
    "test_stage_folders.py",
    "test_reliability.py",
)  # the harnesses at a small count; tests of the report


def harnesses() -> list[Any]:
    """The modules of tests/outside that have TITLE, COUNT and run."""
    sys.path.insert(0, str(OUTSIDE))
    paths = [path for path in sorted(OUTSIDE.glob("*.py")) if not path.name.startswith("test_")]
    modules = [
        importlib.import_module(path.stem)
        for path in paths
        if "\nTITLE = " in path.read_text(encoding="utf-8")
    ]
    return [module for module in modules if hasattr(module, "run")]


def run_harness(module: Any, work: Path, runs: Path, scale: float, seed: int) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        found = module.run(work / module.__name__, runs, count_of(module, scale), seed)
    except (
        Exception
    ) as error:  # a part that can't be run is not green, and the others are still worth running
        found = {
            "tried": 0,
            "held": 0,
            "failed": [f"could not be run: {type(error).__name__}: {error}"[:600]],
        }
    about = " ".join(module.__doc__.split())
    return {
        "name": module.__name__,
        "title": module.TITLE,
        "about": about,
        **found,
        "seconds": round(time.perf_counter() - started),
    }


def count_of(module: Any, scale: float) -> int:
    """How often a harness tries at this scale, at least once."""
    return max(1, round(module.COUNT * scale))


def is_green(part: dict[str, Any]) -> bool:
    """Whether all that was tried held, and something was."""
    return not part["failed"] and part["held"] == part["tried"] > 0


def plan(modules: list[Any], tests: list[Path], scale: float, known: list[dict[str, Any]]) -> str:
    """What is about to be done, with the minutes it took the last time."""
    took = {part["name"]: part["seconds"] for part in known}
    names = [module.__name__ for module in modules] + [path.stem for path in tests]
    lines = [f"  {module.__name__}: {module.TITLE}, {count_of(module, scale)}" for module in modules]
    lines += [f"  {path.stem}: its tests" for path in tests]
    minutes = sum(took.get(name, 0) for name in names) / 60
    return "\n".join([f"{len(names)} parts, {minutes:.0f} minutes the last time (0: not known):", *lines])


def run_tests(path: Path, work: Path) -> dict[str, Any]:
    """A test file's results, by test function."""
    started = time.perf_counter()
    report = work / f"{path.stem}.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-m",
        "not long",
        f"--junitxml={report}",
        str(path),
    ]
    subprocess.run(command, capture_output=True, cwd=REPOSITORY)
    cases = [(case.get("name").split("[")[0], case) for case in ElementTree.parse(report).iter("testcase")]
    bad = [(name, case) for name, case in cases if {"failure", "error"} & {part.tag for part in case}]
    skipped = sum(case.find("skipped") is not None for _, case in cases)
    held = Counter(name for name, _ in cases)
    held.subtract(name for name, _ in bad)
    about = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
    return {
        "name": path.stem,
        "title": path.stem.removeprefix("test_").replace("_", " ").capitalize(),
        "about": about,
        "tried": len(cases) - skipped,
        "held": len(cases) - skipped - len(bad),
        "skipped": skipped,
        "held of each kind": {name.removeprefix("test_").replace("_", " "): n for name, n in held.items()},
        "failed": [f"{name}: {case.get('name')}" for name, case in bad],
        "seconds": round(time.perf_counter() - started),
    }


def markdown(found: dict[str, Any]) -> str:
    """The report: a table of all harnesses, then what each does and its counts."""
    hardware, versions = found["hardware"], found["versions"]
    lines = [
        "# Reliability",
        "",
        f"Made by `{found['command']}`, seed {found['seed']}, commit `{found['commit']}`, on {hardware['cores']} cores "
        f"({hardware['cpu']}, {hardware['memory_gib']} GiB); Python {versions['python']}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}, peft {versions['peft']}.",
        "",
        "| what | tried | held | seconds | commit |",
        "| --- | ---: | ---: | ---: | --- |",
        *(
            f"| {part['title']} | {part['tried']} | {part['held']} | {part['seconds']} | `{part['commit'][:10]}` |"
            for part in found["parts"]
        ),
    ]
    for part in found["parts"]:
        lines += ["", f"## {part['title']}", "", part["about"], ""]
        counts = {k: v for k, v in part.items() if isinstance(v, int) and k != "seconds"}
        lines += [f"- {name}: {n}" for name, n in counts.items()]
        lines += [f"- held, {name}: {n}" for name, n in part.get("held of each kind", {}).items()]
        lines += [f"- **failed** {' '.join(line.split())}" for line in part["failed"]]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="times the counts of the harnesses")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "reliability")
    parser.add_argument("--jobs", type=int, default=1, help="parts at once")
    parser.add_argument("--only", default="", help="names of files of tests/outside, separated by commas")
    arguments = parser.parse_args()
    chosen = [*filter(None, arguments.only.split(","))]
    filed = arguments.out.with_suffix(".json")
    known = read_json(filed, "remove it", keys=("parts",))["parts"] if filed.exists() else []
    parts = [part for part in known if chosen and part["name"] not in chosen]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        modules = [m for m in harnesses() if not chosen or m.__name__ in chosen]
        tests = [path for path in sorted(OUTSIDE.glob("test_*.py")) if path.name not in NOT_COUNTED]
        tests = [path for path in tests if not chosen or path.stem in chosen]
        print(plan(modules, tests, arguments.scale, known), flush=True)
        runs = importlib.import_module("chain").made(work) if modules else None
        jobs = [lambda m=m: run_harness(m, work, runs, arguments.scale, arguments.seed) for m in modules]
        jobs += [lambda path=path: run_tests(path, work) for path in tests]
        with ThreadPoolExecutor(
            arguments.jobs
        ) as pool:  # nearly all of a part is done in processes of its own
            started = [pool.submit(job) for job in jobs]
            for number, done in enumerate(as_completed(started), 1):
                parts.append(part := done.result() | {"commit": git_commit()})
                ended = f"{part['held']} of {part['tried']} held, {part['seconds']} s"
                print(
                    "\n".join([f"[{number}/{len(jobs)}] {part['title']}: {ended}", *part["failed"]]),
                    flush=True,
                )
    command = f"python benchmarks/reliability.py --scale {arguments.scale:g} --seed {arguments.seed}"
    parts.sort(key=lambda part: part["name"])
    found = {"command": command, "seed": arguments.seed, **provenance(), "parts": parts}
    write_json(arguments.out.with_suffix(".json"), found)
    write_atomically(arguments.out.with_suffix(".md"), markdown(found))
    print(f"wrote {arguments.out}.md and .json")
    return int(not all(map(is_green, parts)) or not parts)


if __name__ == "__main__":
    sys.exit(main())
