"""The five stages through papermill, as `xalma run` does it, in a size that takes a minute."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from xalma.cli import notebooks
from xalma.cli.notebooks import run, tasks
from xalma.evaluation.records import read_records
from xalma.paper.ladder_tables import STAGES
from xalma.profiles import Profile

NAMES = [
    "03_stage1_monolingual_base", "04_stage2_monolingual_modules", "05_stage3_pseudo_monolingual", "06_stage4_sft",
    "07_stage5_arpo",
]  # fmt: skip


def check_recipe(p: Profile, folder: Path) -> None:
    """What the five notebooks must have left behind."""
    n_directions = 2 * sum(len(p.languages_of(group)) for group in p.group_numbers)
    assert sorted(f.stem for f in (folder / "notebooks").glob("*.ipynb")) == NAMES
    for source in (folder / "notebooks").glob("*.ipynb"):
        cells = [cell for cell in nbformat.read(source, as_version=4).cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in cells)
        assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs), (
            source.stem
        )
    for stage in STAGES:
        records = read_records(folder / "scores" / f"{stage}.jsonl")
        assert len({r.direction for r in records}) == n_directions
        assert {r.profile for r in records} == {p.name}
    for n in range(1, 6):
        assert list((folder / "figures").glob(f"stage{n}_*.png"))
        assert list((folder / "tables").glob(f"stage{n}_*.csv")) and list(
            (folder / "tables").glob(f"stage{n}_*.md")
        )


@pytest.mark.slow
def test_the_five_stages_through_papermill(micro_values, tmp_path, capsys, monkeypatch):
    """Issue 2's mini recipe: notebooks 03 to 07 in their kernels, then once more with nothing left to do."""
    overrides = micro_values | {"run_dir": str(tmp_path / "runs"), "results_dir": str(tmp_path / "results")}
    monkeypatch.setattr(
        notebooks, "code_hash", lambda: "the code as it is now"
    )  # an edit meanwhile is no failure
    folder = run("tiny", overrides, only="03-07")
    p, found = tasks("tiny", overrides, "03-07")
    assert folder == tmp_path / "results" / "tiny"
    assert all(task.is_done for task in found)
    check_recipe(p, folder)
    assert "5 notebooks, 0 already done, 5 to run" in capsys.readouterr().out
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file()}
    run("tiny", overrides, only="03-07")
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file()} == before
