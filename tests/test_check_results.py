"""A committed table that its records do not make is found."""

from __future__ import annotations

import check_results
import nbformat
import pytest

from xalma.evaluation.records import Record, write_records

CELLS = (
    "profile: str = 'full'",
    "from xalma import profile_from_parameters, results_folder\np = profile_from_parameters(globals())",
    "from xalma.runs import read_run, stage_folder\nsteps = read_run(stage_folder(p, 1))['steps']",  # no stage is there
    "more = steps + 1",
    "from xalma.paper import ladder_table, write_table\nfrom xalma.training import ladder_records\n"
    "table = ladder_table(ladder_records(p, ['stage4']), 'bleu')\n"
    "write_table(table, results_folder(p) / 'tables' / 'ladder', 'BLEU')",
)


@pytest.fixture
def notebook(tmp_path):
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "tables.ipynb")
    return tmp_path / "tables.ipynb"


def test_a_digit_changed_by_hand_is_found(tmp_path, notebook, monkeypatch, capsys):
    results = tmp_path / "results"
    record = Record("tiny", "stage4", "en-fi", "bleu", 31.25, 10, "nrefs:1", 0)
    write_records(results / "tiny" / "scores" / "stage4.jsonl", [record])
    files = ["tiny/tables/ladder.csv", "tiny/tables/ladder.md"]
    assert check_results.differing(results, "tiny", [notebook]) == (files, files), "they are not there yet"
    assert not (results / "tiny" / "tables").exists(), "the check writes nothing"

    values = {"profile": "tiny", "run_dir": str(tmp_path / "runs"), "results_dir": str(results)}
    check_results.run_cells(notebook, values)
    assert check_results.differing(results, "tiny", [notebook]) == (files, [])
    table = results / files[0]
    text = table.read_text(encoding="utf-8")
    assert text.count("31.25") >= 1
    table.write_text(text.replace("31.25", "31.35", 1), encoding="utf-8")
    assert check_results.differing(results, "tiny", [notebook]) == (files, files[:1])

    monkeypatch.setattr(check_results, "WITH_RECORDS", {"tiny": (str(notebook.with_suffix("")),)})
    assert check_results.check_results(results) == 1
    assert "results/tiny/tables/ladder.csv is not what its records say" in capsys.readouterr().out
    table.write_text(text, encoding="utf-8")
    assert check_results.check_results(results) == 0
