"""Are the committed tables those of the committed records? `make check-results` makes again what needs no training.

The notebooks' own cells are run on the records under results/, with no trained stage at hand: what a cell needs one for
is left out, all else writes its tables into a copy, which must be equal to the byte to what lies in results/. Figures
are not compared: their bytes follow matplotlib's version.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xalma.files import read_json
from xalma.runtime import REPOSITORY

# profile -> notebooks
WITH_RECORDS = {"tiny": ("08_preference_methods", "09_ablations", "10_tables_and_figures")}
SUFFIXES = (".csv", ".md", ".tex")


def run_cells(notebook: Path, parameters: dict[str, Any]) -> None:
    """Run a notebook's code cells in order, without those that need a trained stage."""
    cells = read_json(notebook, "run `git checkout` for it")["cells"]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        # no stage is there, or a name that such a cell would have defined
        with contextlib.suppress(FileNotFoundError, NameError):
            exec(compile("".join(cell["source"]), str(notebook), "exec"), namespace)
        if "parameters" in cell["metadata"].get("tags", ()):
            namespace |= parameters


def differing(results: Path, profile: str, notebooks: Sequence[Path]) -> tuple[list[str], list[str]]:
    """(tables that were made again, those of them that are not what lies in `results`), paths below `results`."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "results" / profile
        shutil.copytree(
            results / profile, copy, ignore=shutil.ignore_patterns("tables", "figures", "notebooks")
        )
        values = {"profile": profile, "run_dir": f"{folder}/runs", "results_dir": f"{folder}/results"}
        for notebook in notebooks:
            run_cells(notebook, values)
        made = [path for path in sorted(copy.rglob("tables/*")) if path.suffix in SUFFIXES]
        names = [path.relative_to(copy.parent).as_posix() for path in made]
        changed = [
            name
            for name, path in zip(names, made, strict=True)
            if not (results / name).exists() or (results / name).read_bytes() != path.read_bytes()
        ]
    return names, changed


def check_results(results: Path = REPOSITORY / "results") -> int:
    """The command: prints what differs; 1 if anything does, or nothing could be made again."""
    os.environ.setdefault("MPLBACKEND", "agg")
    status = 0
    for profile, names in WITH_RECORDS.items():
        notebooks = [REPOSITORY / "notebooks" / f"{name}.ipynb" for name in names]
        with contextlib.redirect_stdout(io.StringIO()):
            made, changed = differing(results, profile, notebooks)
        for name in changed:
            print(
                f"results/{name} is not what its records say: make it again, `xalma run --profile {profile}`"
            )
        print(f"{profile}: {len(made)} tables made again from their records, {len(changed)} differ")
        status |= bool(changed) or not made
    return status


if __name__ == "__main__":
    sys.exit(check_results())
