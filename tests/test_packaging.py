"""The set-up's files agree: ranges, lock, conda environment, Makefile, README, citation."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, version
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
# The other extras are installed by who wants them: neither the lock nor the conda environment holds them.
SET_UP = [EXTRAS[name] for name in ("comet", "gguf", "lab", "dev")]
RANGES = [Requirement(r) for r in chain(PROJECT["dependencies"], *SET_UP)]
BOOK = [
    Requirement(r) for name in ("book", "book-test") for r in EXTRAS[name]
]  # locked too: `make book` adds them
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())


def read_pins(lines: list[str]) -> dict[str, str]:
    """Canonical name -> version of each `name==version` line; any other requirement is an error."""
    pins = {}
    for line in lines:
        line = line.split("#")[0].strip()
        if not line or line.startswith("-"):
            continue
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{line!r} is no exact pin"
        name = canonicalize_name(requirement.name)
        assert name not in pins, f"{name} is pinned twice"
        pins[name] = specifier.version
    return pins


def environment_pins() -> dict[str, str]:
    conda = [d for d in ENVIRONMENT["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in ENVIRONMENT["dependencies"] if isinstance(d, dict)]
    return read_pins([*(d.replace("=", "==") for d in conda if "=" in d), *pip])


LOCK = read_pins((ROOT / "requirements.lock").read_text().splitlines())
CONDA = environment_pins()


@pytest.mark.parametrize("requirement", [*RANGES, *BOOK], ids=str)
def test_lock_fits_every_range(requirement):
    assert requirement.specifier.contains(LOCK[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("requirement", RANGES, ids=str)
def test_environment_names_every_direct_dependency(requirement):
    assert canonicalize_name(requirement.name) in CONDA


@pytest.mark.parametrize("name", sorted(CONDA.keys() - {"python"}))
def test_environment_pin_is_lock_pin(name):
    assert CONDA[name] == LOCK[name]


READ_AS_PIP_DOES = """
import sys
from pip._internal.network.session import PipSession
from pip._internal.req.req_file import parse_requirements
print(*(r.requirement for r in parse_requirements(sys.argv[1], session=PipSession()) if not r.constraint), sep="\\n")
"""


def test_pip_reads_condas_list(tmp_path):
    """conda writes the list into a file beside environment.yml and calls `pip install -r`: each line must be one of
    the few options that a requirements file may have, or a requirement.
    """
    (lines,) = [d["pip"] for d in ENVIRONMENT["dependencies"] if isinstance(d, dict)]
    shutil.copy(ROOT / "requirements.lock", tmp_path)

    def read(*more: str) -> subprocess.CompletedProcess:
        (tmp_path / "condaenv.txt").write_text("\n".join([*lines, *more]))
        command = [sys.executable, "-c", READ_AS_PIP_DOES, "condaenv.txt"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    found = read()
    assert found.returncode == 0, found.stderr[-500:]
    wanted = [line.split(" #")[0] for line in lines if not line.startswith("--")]
    assert found.stdout.split() == [*wanted, "."], "each pin, and xalma itself"
    assert read("--no-build-isolation --editable .").returncode != 0, (
        "pip takes that on its command line alone"
    )


def test_python_versions_agree():
    assert PROJECT["requires-python"] == ">=3.11,<3.13"
    assert CONDA["python"] == "3.11"
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py311"


def test_lock_is_complete_for_cpu():
    """Walks what the installed packages say they need: each must be pinned, and so that it fits."""
    missing = [r.name for r in RANGES if installed(r.name) != LOCK[canonicalize_name(r.name)]]
    if missing:
        pytest.skip(f"this Python was not set up from requirements.lock: {', '.join(missing)}")
    todo, seen = list(RANGES), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        assert name in LOCK, f"{name} is needed and not in requirements.lock"
        assert requirement.specifier.contains(LOCK[name]), f"{requirement} against {LOCK[name]}"
        for extra in requirement.extras or {""}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                todo += needs(name, extra)
    assert {name for name, _ in seen} <= LOCK.keys()
    assert len(seen) > len(RANGES)


def installed(name: str) -> str | None:
    """Installed version without its local part ("2.13.0+cpu" is "2.13.0"), or None."""
    try:
        return Version(version(name)).public
    except PackageNotFoundError:
        return None


def needs(name: str, extra: str) -> list[Requirement]:
    if installed(name) is None:
        return []  # behind an extra or a marker that this machine does not meet
    requirements = map(Requirement, distribution(name).requires or [])
    return [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": extra})]


def test_lock_holds_cuda():
    """The wheel of torch 2.13.0 for CUDA asks for these; the build for the CPU does not say so."""
    cuda = {"cuda-toolkit", "cuda-bindings", "nvidia-cudnn-cu13", "nvidia-nccl-cu13", "triton"}
    assert cuda <= LOCK.keys()


@pytest.mark.parametrize("name", ["requirements.lock", "environment.yml", "pyproject.toml"])
def test_no_index_or_local_path(name):
    text = (ROOT / name).read_text()
    assert not re.search(r"index-url|find-links|file:|(?<![\w.])/(opt|root|tmp|home)/", text)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    "target, does",
    [
        ("reproduce", ".venv/bin/xalma run --profile alma-tiny"),
        ("test", "HF_HUB_OFFLINE=1"),
        ("lab", "jupyter lab notebooks"),
        ("base", ".venv/bin/python -m xalma.models.bases.fetch gemma-3-270m"),
        ("lint", "ruff check"),
        ("cards", "tools/cards.py"),
        ("docs", "docs/api.py"),
        ("book", "docs/book.py"),
        ("test-book", "tests/test_book.py"),
        ("lock", "uv"),
        ("clean", "rm -rf"),
    ],
)
def test_makefile_target(target, does):
    command = ["make", "--dry-run", target, "PROFILE=alma-tiny"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert does in result.stdout


def test_versions_and_licence_agree():
    import xalma

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == xalma.__version__
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n\nCopyright (c) 2026 The xalma")


def test_zenodo_says_what_the_citation_says():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    deposit = json.loads((ROOT / ".zenodo.json").read_text())
    assert all(deposit[key] == citation[key] for key in ("title", "version", "license"))
    assert [one["name"] for one in deposit["creators"]] == [one["name"] for one in citation["authors"]]
    papers = {one["identifiers"][0]["value"] for one in citation["references"]}
    assert {one["identifier"] for one in deposit["related_identifiers"]} == papers


@pytest.mark.parametrize("arxiv", ["2410.03115", "2309.11674"])
def test_citation_names_both_papers(arxiv):
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    (paper,) = [r for r in references if r["url"] == f"https://arxiv.org/abs/{arxiv}"]
    assert paper["authors"][0] == {"family-names": "Xu", "given-names": "Haoran"}
    assert paper["title"] and paper["year"] in (2023, 2024)


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the list of files is git's")
def test_the_sdist_is_the_repository(tmp_path):
    """Every file that git has, so that the tests in it run, and the README as the long description."""
    git = ["git", "-C", str(ROOT)]
    listed = [*git, "ls-tree", "-r", "--name-only", "HEAD"]
    files = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    archive = subprocess.run([*git, "archive", "HEAD"], capture_output=True, check=True).stdout
    (tmp_path / "tree").mkdir()
    subprocess.run(["tar", "x", "-C", str(tmp_path / "tree")], input=archive, check=True)
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path / "tree", check=True, capture_output=True)
    (made,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(made) as opened:
        names = {name.split("/", 1)[1] for name in opened.getnames() if "/" in name}
        info = opened.extractfile(f"{made.name.removesuffix('.tar.gz')}/PKG-INFO").read().decode()
    assert set(files) <= names, sorted(set(files) - names)
    assert (
        "Description-Content-Type: text/markdown" in info and "# xalma" in info and "Typing :: Typed" in info
    )
