"""One line of n MB, as damaged corpora have them: the guard against test sentences reads it with the memory of the line
itself, and `xalma score` refuses it in one sentence; a line of a million characters is scored. Memory is the peak of
the process (VmHWM), less what it was before or what the command takes for one short line.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TITLE = "A line of many megabytes"
COUNT = 400  # MB
TIMES = 3.5  # the line's bytes, its text, and the text a part at a time
PART_MIB = 500  # n-grams of a part (`evaluate.CHARACTERS_AT_ONCE`)
GUARD = """
import json, sys
from {files} import text_lines
from {contamination} import Guard
from {testindex} import TestIndex

def mib(name):
    return int(next(row for row in open("/proc/self/status") if row.startswith(name)).split()[1]) // 1024

path, test = sys.argv[1:]
index = TestIndex({{"test": open(test, encoding="utf-8").read().splitlines()}})
list(Guard(index, "allow").watch(["a short line"], "x"))
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before, guard = mib("VmRSS"), Guard(index, "allow")
n = sum(map(len, guard.watch((line for _, line in text_lines(path)), "x")))
print(json.dumps({{"before": before, "peak": mib("VmHWM"), "characters": n, **guard.report()}}))
"""

SCORE = """
import sys
from xalma.cli.main import main
code = main(sys.argv[1:])
print(int(next(row for row in open("/proc/self/status") if row.startswith("VmHWM")).split()[1]) // 1024)
sys.exit(code)
"""


def run(work: Path, runs: Path, n: int, seed: int) -> dict[str, object]:
    """A line of n MB with one test sentence in it."""
    work.mkdir(parents=True, exist_ok=True)
    draw, failed = random.Random(seed), []
    words = [f"w{i:x}" for i in range(50_000)]
    tests = [" ".join(draw.choices(words, k=15)) for _ in range(1000)]
    block = " ".join(draw.choices(words, k=200_000)) + " "
    long, short, million, sentences = (
        work / name for name in ("long.txt", "short.txt", "million.txt", "test.txt")
    )
    with long.open("w", encoding="utf-8") as file:
        file.writelines([block] * max(1, n * 10**6 // len(block)))
        file.write(f"{tests[7]}\n")
    short.write_text("one short line\n", encoding="utf-8")
    million.write_text(block[:999_000] + "\n", encoding="utf-8")
    sentences.write_text("\n".join(tests), encoding="utf-8")

    guard = guarded(long, sentences)
    grown, size = guard["peak"] - guard["before"], long.stat().st_size / 2**20
    if guard.get("contained") != 1 or grown > TIMES * size:
        failed.append(f"guard: {grown} MiB for {size:.0f} MiB, {guard}")
    (_, _, plain), refused, scored = (scores(path) for path in (short, long, million))
    if (
        refused[0] != 2 or "characters" not in refused[1] or refused[2] - plain > TIMES * 2 * size
    ):  # two files
        failed.append(
            f"score of {size:.0f} MiB: status {refused[0]}, {refused[2] - plain} MiB, {refused[1][-300:]}"
        )
    if scored[0] != 0 or scored[2] - plain > PART_MIB:
        failed.append(
            f"score of a million characters: status {scored[0]}, {scored[2] - plain} MiB, {scored[1][-300:]}"
        )
    return {
        "tried": 3,
        "held": 3 - len(failed),
        "MiB of the line": round(size),
        "MiB more for the guard": grown,
        "MiB more for score, refused": refused[2] - plain,
        "MiB more for score of a million characters": scored[2] - plain,
        "failed": failed,
    }


def guarded(path: Path, tests: Path) -> dict[str, int]:
    """Peak memory and findings of reading a file through a guard, in a process of its own."""
    from xalma.corpora.files import text_lines
    from xalma.data.contamination import Guard
    from xalma.data.test_index import TestIndex

    named = {"files": text_lines, "contamination": Guard, "testindex": TestIndex}
    code = GUARD.format(**{name: thing.__module__ for name, thing in named.items()})
    command = [sys.executable, "-c", code, str(path), str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, env=_env())
    return (
        json.loads(done.stdout) if not done.returncode else {"before": 0, "peak": 2**20, "err": done.stderr}
    )


def scores(path: Path) -> tuple[int, str, int]:
    """(status, stderr, peak in MiB) of `xalma score` of a file against itself."""
    files = ["--output", str(path), "--reference", str(path)]
    command = [sys.executable, "-c", SCORE, "score", *files, "--to", "de"]
    done = subprocess.run(command, capture_output=True, text=True, env=_env())
    *_, peak = done.stdout.splitlines() or ["0"]
    return done.returncode, done.stderr, int(peak)


def _env() -> dict[str, str]:
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
