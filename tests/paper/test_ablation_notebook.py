"""Notebook 09 through its kernel in the long form, then in the short form, which shows the long one from files."""

from __future__ import annotations

import nbformat
import pytest
from test_preference_notebook import run_notebook

from xalma.paper.studies.long_form import ablations_folder, read_ablations
from xalma.profiles import load_profile

STUDIES = ["stages", "modules", "sizes_group6"]


@pytest.mark.long
def test_the_long_form_is_filed_and_the_short_form_shows_it(micro, micro_values, finished, tmp_path):
    overrides = micro_values | {"run_dir": micro.run_dir, "results_dir": str(tmp_path), "ablation_share": 0.2}
    run_notebook(overrides | {"seeds": 3}, tmp_path, "09")
    p = load_profile("tiny", **overrides, seeds=3)
    long = read_ablations(p)
    assert [study.name for study in long.studies] == STUDIES and "--set seeds=3" in long.run["command"]
    assert {record.seed for study in long.studies for record in study.records} == {0, 1, 2}
    assert list(long.studies[2].systems) == ["of 1", "of 2", "of 3", "group"]
    tables = {file.stem for file in (ablations_folder(p) / "tables").glob("*.csv")}
    figures = {file.stem for file in (ablations_folder(p) / "figures").glob("*.png")}
    assert tables == figures == set(STUDIES)
    before = {file: file.read_bytes() for file in ablations_folder(p).rglob("*") if file.is_file()}
    executed = run_notebook(overrides, tmp_path, "09")
    assert {file: file.read_bytes() for file in before} == before, (
        "a short run leaves the long form as it was"
    )
    assert {file.stem for file in (tmp_path / "tiny" / "tables").glob("*.csv")} == {"ablations_gating"}
    assert "not run for this profile: python -m xalma.paper.studies.ladder --profile tiny" in said(executed)
    assert said(executed).count("seeds [0, 1, 2], 0.2 of each stage's budget") == 1
    assert "Nothing to compare: this needs real text" in said(executed)
    assert "± is half the 95 % interval of the mean over 3 seeds." in said(executed)


def said(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(str(output) for cell in notebook.cells for output in cell.get("outputs", []))
