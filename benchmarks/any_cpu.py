"""The fast tests as other processors compute them: how many passed under each setting of torch and oneDNN.

    python benchmarks/any_cpu.py [--only AVX2,"two threads"] [--tests tests/training tests/preference]

A processor with AVX-512 can take the code paths of others; where the tests train, bfloat16 is off under every setting.
Each value of --tests (files or folders, in quotes) is one run of pytest, whose lines go to runs/any_cpu/ as they come.
OUT.json holds a row per setting and test file: a part that is run again replaces its own rows alone, and files that
are gone leave none. OUT.md sums them up. Ends with status 1 if a test failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from xalma.files import read_json, write_atomically, write_json
from xalma.runtime import REPOSITORY, git_commit, provenance

ONE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
SETTINGS = {
    "as it is": ONE,
    "no AVX": ONE | {"ATEN_CPU_CAPABILITY": "default"},
    "AVX2": ONE | {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "two threads": ONE | {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
}
KINDS = ("passed", "skipped", "failed")
Row = dict[str, Any]


def counts(report: Path) -> dict[str, Row]:
    """What a junit file of pytest says, by test file: tests passed, skipped and failed, and the names of the failed."""
    rows: dict[str, Row] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        tags = {part.tag for part in case}
        kind = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        parts = (case.get("classname") or case.get("name") or "").split(".")
        file = "/".join(
            parts[: 1 + max((i for i, p in enumerate(parts) if p.startswith("test_")), default=0)]
        )
        row = rows.setdefault(f"{file}.py", dict.fromkeys(KINDS, 0) | {"failures": []})
        row[kind] += 1
        if kind == "failed":
            row["failures"].append(case.get("name"))
    return rows


def measure(setting: str, tests: str) -> list[Row]:
    """The rows of these files or folders of tests under one setting. Raises SystemExit where pytest wrote no report."""
    env = os.environ | SETTINGS[setting]
    name = f"{setting}-{tests}"[:100].replace(" ", "_").replace("/", "_")
    log = REPOSITORY / "runs" / "any_cpu" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, log.open("w", encoding="utf-8") as lines:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-v",
            "-n",
            "0",
            "-m",
            "not long",
            f"--junitxml={report}",
            *tests.split(),
        ]
        subprocess.run(command, env=env, cwd=REPOSITORY, stdout=lines, stderr=subprocess.STDOUT)
        if not report.exists():
            raise SystemExit(
                f"any_cpu: pytest wrote no report of {tests} under `{setting}`; its lines are in {log}"
            )
        found = counts(report)
    return [{"setting": setting, "file": file, **row, "commit": git_commit()} for file, row in found.items()]


def test_files() -> dict[str, int]:
    """How many test files each folder of tests has: what a part of the suite is a part of."""
    paths = sorted((REPOSITORY / "tests").rglob("test_*.py"))
    return dict(Counter(path.parent.relative_to(REPOSITORY).as_posix() for path in paths))


def markdown(found: dict[str, Any]) -> str:
    """The report: tests by setting, and how many of each folder's files were run under it."""
    ran = {name: [row for row in found["rows"] if row["setting"] == name] for name in SETTINGS}
    ran = {name: rows for name, rows in ran.items() if rows}
    lines = [
        "# The tests on any processor",
        "",
        f'`pytest -m "not long"` by `python benchmarks/any_cpu.py`, on {found["hardware"]["cores"]} cores '
        f"({found['hardware']['cpu']}); torch {found['versions']['torch']}.",
        "",
        "| setting | environment | passed | skipped | failed | commits |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for name, rows in ran.items():
        sums = " | ".join(str(sum(row[kind] for row in rows)) for kind in KINDS)
        env = " ".join(f"{key}={value}" for key, value in SETTINGS[name].items())
        commits = ", ".join(sorted({f"`{row['commit'][:10]}`" for row in rows}))
        lines.append(f"| {name} | `{env}` | {sums} | {commits} |")
    lines += [
        "",
        "Test files that were run, of those that are there:",
        "",
        f"| folder | there | {' | '.join(ran)} |",
        f"| --- | ---: |{' ---: |' * len(ran)}",
    ]
    for folder, there in found["test_files"].items():
        run = [sum(str(Path(row["file"]).parent) == folder for row in rows) for rows in ran.values()]
        lines.append(f"| {folder} | {there} | {' | '.join(map(str, run))} |")
    failed = [(row["setting"], row["file"], name) for row in found["rows"] for name in row["failures"]]
    lines += ["", *(f"- **failed** under {setting}: {file}::{name}" for setting, file, name in failed)]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SETTINGS), help=f"some of {', '.join(SETTINGS)}")
    parser.add_argument(
        "--tests", nargs="+", default=["tests"], help="files or folders, each value one run of pytest"
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "any_cpu")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    filed = arguments.out.with_suffix(".json")
    if unknown := [name for name in chosen if name not in SETTINGS]:
        parser.error(f"--only: no setting {', '.join(unknown)}; there are {', '.join(SETTINGS)}")
    known = read_json(filed, "remove it", keys=("rows",))["rows"] if filed.exists() else []
    rows = {(row["setting"], row["file"]): row for row in known if (REPOSITORY / row["file"]).exists()}
    for setting in chosen:
        for tests in arguments.tests:
            new = measure(setting, tests)
            rows |= {(row["setting"], row["file"]): row for row in new}
            sums = ", ".join(f"{sum(row[kind] for row in new)} {kind}" for kind in KINDS)
            print(f"{setting}, {tests}: {sums}", flush=True)
            report = {**provenance(), "test_files": test_files(), "rows": [rows[key] for key in sorted(rows)]}
            write_json(filed, report)
            write_atomically(arguments.out.with_suffix(".md"), markdown(report))
    return int(any(row["failed"] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
