"""`make lint` and the pre-commit hooks are the same checks; the notebooks' own check finds what it is for."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import yaml
from pages import ROOT

HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]


def tools(text: str) -> set[str]:
    return set(re.findall(r"\.venv/bin/([\w-]+)", text))


def test_hooks_and_make_lint_run_the_same_tools():
    recipe = re.search(
        r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )[1]
    hooks = tools(" ".join(hook["entry"] for hook in HOOKS))
    assert {"ruff", "lint-imports", "codespell", "python"} <= hooks <= tools(recipe)
    assert "make lint" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_a_notebook_with_outputs_is_named(tmp_path):
    def checked() -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / ".ci" / "plain_notebooks.py"), str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True)

    plain = {"cell_type": "code", "execution_count": None, "outputs": []}
    (tmp_path / "00_a.ipynb").write_text(json.dumps({"cells": [plain, {"cell_type": "markdown"}]}))
    assert checked().returncode == 0
    (tmp_path / "01_b.ipynb").write_text(json.dumps({"cells": [plain, plain | {"execution_count": 3}]}))
    done = checked()
    assert done.returncode == 1 and "01_b.ipynb: 1 cells have outputs" in done.stdout


def test_sources_of_notebooks_have_no_outputs():
    assert subprocess.run([sys.executable, str(ROOT / ".ci" / "plain_notebooks.py")]).returncode == 0
