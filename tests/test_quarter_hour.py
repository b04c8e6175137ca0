"""benchmarks/quarter_hour.sh without a GPU: how its steps end, with a stub for Python; and all of them at 1/50 size."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_real_base import TINY, lines, tiny_pack  # noqa: F401

ROOT = Path(__file__).parents[1]
FILES_BACK = 8  # from one call on a lent machine
STUB = """#!/bin/bash
case "$*" in
    *"import comet"*) exit 1 ;;
    *"import transformers"*) echo "$TRANSFORMERS"; exit ;;
esac
while [ $# -gt 1 ] && [ "$1" != --out ]; do shift; done
[ "$1" = --out ] && echo '{"rows": [1]}' >"$2"
case "$2" in
    *13b_512*) exec sleep 60 ;;
    *13b_2048*) echo 'Error: "out of memory"'; exit 3 ;;
esac
echo well
"""


def run(folder: Path, *steps: str, **variables: str) -> list[dict]:
    """The lines of steps.jsonl after these steps."""
    variables = {
        "LENT": f"{folder}/lent",
        "DEV": f"{folder}/dev",
        "WHEELS": f"{folder}/whl",
        "LEAST": "1",
    } | variables
    env = os.environ | {"OUT": f"{folder}/out", "PYTHON": sys.executable} | variables
    command = ["bash", str(ROOT / "benchmarks" / "quarter_hour.sh"), *steps]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    place = folder / "out" / "steps.jsonl"
    return lines(place) if place.exists() else []


@pytest.fixture
def stub(tmp_path: Path) -> str:
    path = tmp_path / "python"
    path.write_text(STUB)
    path.chmod(0o755)
    return str(path)


def test_a_step_that_ends_badly_leaves_its_results_and_the_next_ones_run(tmp_path, stub):
    """In turn: killed at its limit after its first result, failed, nothing there to work on, done, and skipped."""
    found = run(tmp_path, "4", "5", "3", "9", "10", PYTHON=stub, LIMIT_4="3", TRANSFORMERS="4.57.6")
    found = run(tmp_path, "11", PYTHON=stub, TRANSFORMERS="5.17.0")
    assert [(one["step"], one["result"]) for one in found] == [
        ("13b-512", "stopped"),
        ("13b-2048", "failed"),
        ("real", "skipped"),
        ("7b-arpo", "done"),
        ("comet", "skipped"),
        ("decode", "skipped"),
    ]
    last = {one["step"]: one["last"] for one in found}
    assert last["13b-2048"] == "Error: out of memory" and last["7b-arpo"] == "well"
    assert last["real"].startswith("skipped: no pack") and last["decode"].startswith(
        "skipped: transformers is 5.17.0"
    )
    assert last["comet"] == "skipped: the package comet can't be imported there"
    for name in ("13b_512", "13b_2048", "preference_throughput"):
        assert json.loads((tmp_path / "out" / f"{name}.json").read_text()) == {"rows": [1]}


def test_the_whole_call_has_a_budget(tmp_path, stub):
    """The first step is cut to what is left of it, and the second is skipped."""
    found = run(tmp_path, "4", "9", PYTHON=stub, BUDGET="3")
    assert [one["result"] for one in found] == ["stopped", "skipped"]
    assert 0 < found[0]["limit"] <= 3 and found[1]["limit"] <= 0
    assert found[1]["last"] == "skipped: no time is left of 3 seconds"


@pytest.mark.parametrize(("mib", "processes"), [("81559", "7"), ("143771", "8"), ("", "1"), ("16000", "1")])
def test_profile_real_has_as_many_processes_as_a_gpu_has_room_for(tmp_path, stub, mib, processes):
    (tmp_path / "lent" / "pack").mkdir(parents=True)
    (tmp_path / "lent" / "pack" / "index.json").touch()
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho {mib}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    Path(stub).write_text('#!/bin/bash\necho "$@"\n')
    run(tmp_path, "3", PYTHON=stub, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert f"--workers {processes} --seconds 505" in (tmp_path / "lent" / "real.log").read_text()


def test_a_pack_travels_in_pieces_and_is_checked(tmp_path, stub):
    """A step needs the pieces of all calls; a changed file is found."""
    pack = tmp_path / "given"
    pack.mkdir()
    for name in ("index.json", "ids.npz"):
        (pack / name).write_bytes(os.urandom(40_000))
    run(tmp_path, "parts", PACK=str(pack), PART="30K")
    pieces = sorted(path.name for path in (tmp_path / "dev").iterdir())
    assert len(pieces) > 2, "several calls"
    (tmp_path / "dev" / pieces[-1]).rename(tmp_path / "later")
    run(tmp_path, "1", PYTHON=stub)
    assert not (tmp_path / "lent" / "pack").exists()
    (tmp_path / "later").rename(tmp_path / "dev" / pieces[-1])
    assert run(tmp_path, "1", "3", PYTHON=stub)[-1]["result"] == "done"
    for name in ("index.json", "ids.npz"):
        assert (tmp_path / "lent" / "pack" / name).read_bytes() == (pack / name).read_bytes()
    (tmp_path / "lent" / "pack" / "ids.npz").write_bytes(b"other")
    assert run(tmp_path, "1", PYTHON=stub)[-1]["result"] == "failed"


def test_a_part_travels_beside_the_working_tree(tmp_path, stub):
    """64 MiB per call: what the tracked files leave of it is the size of a part."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository here")
    pack = tmp_path / "given"
    pack.mkdir()
    with (pack / "base.safetensors").open("wb") as file:
        file.truncate(64 * 2**20)
    run(tmp_path, "parts", PACK=str(pack), PYTHON=stub)
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    tree = sum((ROOT / name).stat().st_size for name in names.split("\0") if name and (ROOT / name).exists())
    parts = [folder / name for folder in (tmp_path / "dev").iterdir() for name in os.listdir(folder)]
    assert 0 < tree + max(path.stat().st_size for path in parts) <= 64 * 2**20


def test_a_training_that_fails_is_a_row_that_says_why_and_each_is_written_at_once(tmp_path, monkeypatch):
    out = tmp_path / "rows.json"
    spec = importlib.util.spec_from_file_location(
        "throughput", ROOT / "benchmarks" / "training_throughput.py"
    )
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    before = []

    def measure(system, *_):
        before.append([row["system"] for row in json.loads(out.read_text())["rows"]] if out.exists() else [])
        if system == "stored@4":
            raise MemoryError("no room\nfor it")
        rate = {"xalma": 300.0, "trainer": 200.0}[system]
        return {
            "tokens_per_s": rate,
            "model_flops": 1.0,
            "peak_mib": None,
            "seconds": 1.0,
            "warmup_seconds": 1.0,
            "losses": [2.0],
            "micro": 1,
        }

    monkeypatch.setattr(benchmark, "measure", measure)
    monkeypatch.setattr(benchmark, "ceiling", lambda _: 4.0)
    systems = ["stored@4", "xalma", "trainer"]
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "",
            "--one-process",
            "--repeats",
            "1",
            "--kinds",
            "adapter",
            "--rows",
            "packed:8",
            "--systems",
            *systems,
            "--out",
            str(out),
        ],
    )
    benchmark.main()
    assert before == [systems[:n] for n in range(3)]
    failed, ours, theirs = json.loads(out.read_text())["rows"]
    assert failed["skipped"] == "MemoryError: no room for it" and "tokens_per_s" not in failed
    assert (ours["utilisation_of_ceiling"], theirs["xalma_times_as_fast"]) == (0.25, 1.5)


@pytest.mark.long
def test_all_steps_run_on_a_cpu(tmp_path, tiny_pack):  # noqa: F811
    """In the calls that results/benchmarks/README.md has, each step done and each result there."""
    values = TINY | {"groups": "6", "only_languages": "ja,zh"}
    sets = " ".join(f"--set {key}={value}" for key, value in values.items())
    small = {
        "SMALL": "1",
        "SETS": f"--only stage1,base {sets}",
        "WORKERS": "1",
        "SCALE": "0.02",
        "BUDGET": "3000",
    }
    limits = {f"LIMIT_{n}": "600" for n in range(1, 12)}  # of a machine that may be busy
    run(tmp_path, "parts", PACK=str(tiny_pack))
    for steps in (("1", "2", "4", "5", "6", "8"), ("3", "7"), ("9", "10", "11")):
        found = run(tmp_path, *steps, **small, **limits)
        assert [one["result"] for one in found] == ["done"] * len(steps), found
        files = {path.name: path for path in (tmp_path / "out").iterdir()}
        assert len(files) <= FILES_BACK, "no more come back from a lent machine"
        for name, path in files.items():
            if name.endswith(".json"):
                check(name, json.loads(path.read_text()))
        if "3" in steps:
            assert {"ladder-few-shot.jsonl.gz", "log.jsonl"} <= files.keys()
            tasks = {
                one["task"]: one["result"] for one in lines(files["log.jsonl"]) if one["event"] == "task"
            }
            assert tasks == dict.fromkeys(("stage1", "base.g6", "stage1.scores.g6"), "done")
        for path in files.values():
            path.unlink()


def check(name: str, record: dict) -> None:
    """That a file of results has all that was measured."""
    if name.startswith(("13b", "7b")):
        assert not [row for row in record["rows"] if "skipped" in row] and len(record["rows"]) > 1
    elif name == "fp8_loss.json":
        assert record["relative_difference"].keys() == {"bfloat16", "fp8 and bfloat16"}
    elif name == "preference_throughput.json":
        assert record["shapes"]["module"]["relative_difference_first_batch"]["loss"] < 1e-4
    elif name == "comet_throughput.json":
        assert len(record["results"]) == 2
    elif name == "module_serving_457.json":
        assert {row["way"] for row in record["rows"]} == {"merged", "gated"}
    else:
        raise AssertionError(f"nobody expected {name}")
