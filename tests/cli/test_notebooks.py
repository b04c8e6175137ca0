"""The runner of the notebooks, and what each notebook must have as a file."""

from __future__ import annotations

import ast
import json
import os
import re
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path

import nbformat
import pytest

from xalma import runs
from xalma.cli import notebooks
from xalma.cli.notebooks import cost_file, execute, run, select, tasks
from xalma.runtime import REPOSITORY

SOLUTIONS = REPOSITORY / "notebooks" / "solutions"
SOURCES = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
NAMES = [
    "00_start_here", "01_data_mixing", "02_language_grouping", "03_stage1_monolingual_base",
    "04_stage2_monolingual_modules", "05_stage3_pseudo_monolingual", "06_stage4_sft", "07_stage5_arpo",
    "08_preference_methods", "09_ablations", "10_tables_and_figures", "11_alma",
    "12_real_base",
]  # fmt: skip


@pytest.mark.parametrize(
    ("only", "numbers"),
    [
        (None, range(13)),
        ("08", [8]),
        ("00,03-07", [0, 3, 4, 5, 6, 7]),
        ("07,03", [3, 7]),
        ("03-03,03", [3]),
        ("06_stage4_sft.ipynb", [6]),
        ("05_stage3", [5]),
        (" 09 , 10", [9, 10]),
    ],
)
def test_select(only, numbers):
    assert [source.stem for source in select(only)] == [NAMES[number] for number in numbers]


@pytest.mark.parametrize("only", ["", "77", "stage4", "03,", "07-03", "20-30"])
def test_select_names_what_there_is(only):
    with pytest.raises(ValueError, match=r"no notebook '.*': choose a number or name, for example \d\d_"):
        select(only)


# --- the runner, on notebooks of one cell ----------------------------------------------------------


def write_notebook(path: Path, *cells: str) -> None:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    made.cells[0].metadata["tags"] = ["parameters"]
    made.metadata["language_info"] = {"name": "python"}
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(exist_ok=True)
    nbformat.write(made, path)


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout with two notebooks, and a papermill that only counts; `ran` lists what it was asked to run."""
    for name in ("00_one", "01_two"):
        write_notebook(tmp_path / "notebooks" / f"{name}.ipynb", "profile: str = 'tiny'", "1 + 1")
    monkeypatch.setattr(notebooks, "home", lambda: tmp_path)
    monkeypatch.setattr(runs, "home", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def ran(checkout, monkeypatch) -> list[str]:
    def pretend(source, target, **options):
        names.append(Path(source).stem)
        names.status = options["kernel_manager_class"].environment["XALMA_STATUS"]
        Path(target).write_text(Path(source).read_text())

    class Names(list):
        status = None

    names = Names()
    monkeypatch.setattr("papermill.execute_notebook", pretend)
    return names


def test_what_is_done_is_not_run_again(checkout, ran, capsys):
    folder = run("tiny", {})
    assert ran == ["00_one", "01_two"]
    assert folder == checkout / "results" / "tiny"
    assert sorted(f.name for f in (folder / "notebooks").iterdir()) == ["00_one.ipynb", "01_two.ipynb"]
    run("tiny", {})
    assert ran == ["00_one", "01_two"]
    assert "2 notebooks, 2 already done, 0 to run" in capsys.readouterr().out


def test_a_notebook_whose_outputs_are_gone_is_not_done(checkout, ran, monkeypatch):
    """Tables, figures and scores that it left; those of other notebooks are theirs."""

    def pretend(source, target, **options):
        names.append(Path(source).stem)
        Path(target).write_text(Path(source).read_text())
        for part in ("tables", "figures", "scores"):
            path = checkout / "results" / "tiny" / part / f"{Path(source).stem}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("1")

    names = []
    monkeypatch.setattr("papermill.execute_notebook", pretend)
    run("tiny", {})
    run("tiny", {})
    assert names == ["00_one", "01_two"]
    for part in ("tables", "figures", "scores"):
        (checkout / "results" / "tiny" / part / "01_two.txt").unlink()
        run("tiny", {})
    assert names == ["00_one", *["01_two"] * 4]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("other cell", ["00_one"]),
        ("other code", ["00_one", "01_two"]),
        ("other value", ["00_one", "01_two"]),
        ("executed copy gone", ["01_two"]),
        ("outputs in the source", []),
        ("force", ["00_one", "01_two"]),
    ],
)
def test_what_is_run_again(checkout, ran, monkeypatch, change, again):
    run("tiny", {})
    ran.clear()
    overrides, first = {}, checkout / "notebooks" / "00_one.ipynb"
    if change == "other cell":
        write_notebook(first, "profile: str = 'tiny'", "1 + 2")
    elif change == "other code":
        monkeypatch.setattr(notebooks, "code_hash", lambda: "changed")
    elif change == "other value":
        overrides = {"seed": 5}
    elif change == "executed copy gone":
        (checkout / "results" / "tiny" / "notebooks" / "01_two.ipynb").unlink()
    elif change == "outputs in the source":
        made = nbformat.read(first, as_version=4)
        made.cells[1].outputs = [nbformat.v4.new_output("stream", text="2")]
        nbformat.write(made, first)
    run("tiny", overrides, force=change == "force", overwrite=True)
    assert ran == again


def test_each_profile_has_its_own_results(checkout, ran):
    run("tiny", {})
    run("full", {})
    assert ran == ["00_one", "01_two"] * 2
    assert (checkout / "results" / "full" / "notebooks" / "01_two.ipynb").exists()


def test_code_hash_covers_the_whole_package(tmp_path, monkeypatch):
    (tmp_path / "plots").mkdir()
    (tmp_path / "notebooks.py").write_text("")
    (tmp_path / "plots" / "curves.py").write_text("a = 1")
    monkeypatch.setattr(notebooks, "__file__", str(tmp_path / "notebooks.py"))
    before = notebooks.code_hash()
    (tmp_path / "plots" / "curves.py").write_text("a = 2")
    assert notebooks.code_hash() != before


def test_kernels_report_to_the_status_file_and_later_code_does_not(checkout, ran, monkeypatch):
    """Left set, the variable would send the progress of this process to a folder that is gone."""
    monkeypatch.delenv("XALMA_STATUS", raising=False)
    run("tiny", {})
    assert ran.status and ran.status.endswith("/status")
    assert "XALMA_STATUS" not in os.environ


def test_other_values_do_not_write_over_results(checkout, ran, monkeypatch):
    """One question on a terminal, an error elsewhere; another folder, a plain run and the same values need neither."""
    run("tiny", {}, only="01")
    ran.clear()
    why = r"tiny holds results of `xalma run --profile tiny`, and this is `.* --set seed=5`: add --set results_dir"
    with pytest.raises(ValueError, match=why):
        run("tiny", {"seed": 5}, only="01")
    assert ran == []
    run("tiny", {"workers": 1}, only="01")  # decides no result
    elsewhere = {"seed": 5, "results_dir": "results/mine"}
    assert run("tiny", elsewhere, only="01") == checkout / "results" / "mine" / "tiny"
    run("tiny", elsewhere, only="00")
    run("tiny", {"seed": 5}, only="01", overwrite=True)
    assert ran == ["01_two", "01_two", "00_one", "01_two"]
    monkeypatch.setattr(os, "isatty", lambda _: True)
    for answer, n in (("", 4), ("n", 4), ("y", 5)):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        with nullcontext() if answer == "y" else pytest.raises(ValueError, match=why):
            run("tiny", {"seed": 5}, only="01", force=True)
        assert len(ran) == n


def test_the_cost_is_filed_and_told_next_time(checkout, ran, capsys):
    p, _ = tasks("tiny", {}, None)
    run("tiny", {"seed": 5}, only="01")
    cost = json.loads(cost_file(p).read_text())
    assert cost["seconds"].keys() == {"01_two"}
    assert cost["command"] == "xalma run --profile tiny --set seed=5"
    run("tiny", {"seed": 5}, only="00")
    assert json.loads(cost_file(p).read_text())["seconds"].keys() == {"00_one", "01_two"}
    assert "the committed run took" in capsys.readouterr().out


def test_a_rerun_that_found_its_models_made_says_nothing_of_the_cost(checkout, ran, monkeypatch):
    """Nor does one with values set, of the profile as it is. On another machine all times are new."""
    p, _ = tasks("tiny", {}, None)
    for name, seconds, overrides, hardware, filed in [
        ("01", 100, {}, "this", 100),
        ("01", 49, {}, "this", 100),
        ("01", 51, {}, "this", 51),
        ("01", 900, {"seeds": 3}, "this", 51),
        ("01", 3, {}, "other", 3),
    ]:
        monkeypatch.setattr(notebooks, "execute", lambda *_, seconds=seconds: seconds)
        known = {"hardware": {"cores": 2, "cpu": hardware, "gpu": None}}
        monkeypatch.setattr(notebooks, "provenance", lambda known=known: known)
        run("tiny", overrides, only=name, force=True, overwrite=True)
        cost = json.loads(cost_file(p).read_text())
        assert cost["seconds"] == {"01_two": filed} and cost["command"] == "xalma run --profile tiny"


def test_the_cost_of_another_recipe_is_not_kept(checkout, ran, monkeypatch):
    """A run of less than half the time is the whole cost where the stages are made by other code or values."""
    p, _ = tasks("tiny", {}, None)
    for seconds, recipe in ((100, "one"), (20, "two")):
        monkeypatch.setattr(notebooks, "execute", lambda *_, seconds=seconds: seconds)
        monkeypatch.setattr(notebooks, "recipe_hash", lambda recipe=recipe: recipe)
        run("tiny", {}, only="01", force=True, overwrite=True)
        assert json.loads(cost_file(p).read_text())["seconds"] == {"01_two": seconds}


def test_a_failing_cell_is_named_and_kept(checkout):
    """With a real kernel: the error's kind and message, the cell's number, and the notebook as it failed."""
    source = checkout / "notebooks" / "00_one.ipynb"
    write_notebook(
        source, "profile: str = 'tiny'", "x = 1", "raise FileNotFoundError('no finished stage in x')"
    )
    _, found = tasks("tiny", {}, "00")
    with pytest.raises(
        RuntimeError, match=r"00_one\.ipynb, cell 3: FileNotFoundError: no finished stage in x"
    ) as caught:
        execute(found[0], "tiny", {}, str(checkout / "status"))
    (kept,) = (checkout / "runs").rglob("*.failed.ipynb")
    assert str(kept) in str(caught.value)
    assert not found[0].is_done and not found[0].executed.exists()
    # mended, it runs with its parameters, leaves no failed copy and no clock readings
    code = "import os\nprint('seed', seed, profile, os.environ['XALMA_STATUS'], 'PATH' in os.environ)"
    write_notebook(source, "profile: str = 'tiny'\nseed: int = 0", code)
    _, found = tasks("full", {"seed": 5}, "00")
    execute(found[0], "full", {"seed": 5}, str(checkout / "status"))
    made = nbformat.read(found[0].executed, as_version=4)
    assert made.cells[-1].outputs[0]["text"] == f"seed 5 full {checkout / 'status'} True\n"
    assert found[0].is_done
    assert "papermill" not in made.metadata and not any("execution" in cell.metadata for cell in made.cells)
    assert not list((checkout / "runs" / "full").rglob("*.failed.ipynb"))


def test_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "home", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match="run from a checkout of the repository"):
        select(None)


# --- the notebooks as files ------------------------------------------------------------------------


def test_all_are_there():
    assert [source.stem for source in SOURCES] == NAMES


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_notebook_form(source):
    """Claim and cost on top, one parameters cell, no outputs, a question with an answer.

    Functions are the package's, but for those that a cell tagged "from-scratch" builds small, in the open: the next
    cell checks them against the package.
    """
    made = nbformat.read(source, as_version=4)
    nbformat.validate(made)
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    text = [cell.source for cell in made.cells if cell.cell_type == "markdown"]
    assert text[0].startswith(f"# {source.stem[:2]} · ")
    assert "Claim." in text[0] or "What it shows here" in text[0]
    for word in ("Paper.", "Needs.", "Makes.", "Time and cost.", "After this page you can"):
        assert word in text[0], f"the first cell says nothing of {word}"
    assert "arxiv.org/abs/2410.03115" in text[0]
    assert all(cell.execution_count is None and not cell.outputs for cell in code)
    (parameters,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    own = {"11_alma": "alma-tiny", "12_real_base": "real"}.get(source.stem, "tiny")
    assert f'profile: str = "{own}"' in parameters.source
    assert re.search(r"^# ", parameters.source, re.M), "say which values may be set"
    after = code[code.index(parameters) + 1]
    assert "profile_from_parameters(globals())" in after.source
    for cell, following in zip(code, [*code[1:], None], strict=True):
        tree = ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith("%")))
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        defined = [node.name for node in ast.walk(tree) if isinstance(node, kinds)]
        if "from-scratch" in cell.metadata.get("tags", []):
            assert len(cell.source.splitlines()) <= 30 and "assert" in following.source
        else:
            assert not defined, "code belongs in the package"
    assert "heck your understanding" in "\n".join(text) and "<details>" in "\n".join(text)


TAUGHT = [
    source for source in SOURCES if (SOLUTIONS / source.name).exists()
]  # 12 reads the files of a GPU run
EXERCISE = re.compile(r"^\*\*Exercise (\d+) (★+) · ", re.M)


@pytest.mark.parametrize("source", TAUGHT, ids=lambda source: source.stem)
def test_notebook_teaches(source):
    """Equations with their symbols, exercises on three levels with code to start from, and a link to the solutions."""
    cells = nbformat.read(source, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert text.count("$$") >= 2 or source.stem[:2] == "00"
    found = EXERCISE.findall(text)
    assert 3 <= len(found) <= 5 and {level for _, level in found} == {"★", "★★", "★★★"}
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
    starts = [i for i, cell in enumerate(cells) if EXERCISE.search(cell.source)]
    assert all(cells[i + 1].cell_type == "code" for i in starts), "each has code to start from"
    assert f"(solutions/{source.name})" in text
    solved = nbformat.read(SOLUTIONS / source.name, as_version=4).cells
    assert (
        EXERCISE.findall("\n".join(cell.source for cell in solved if cell.cell_type == "markdown")) == found
    )


@pytest.mark.parametrize("source", TAUGHT, ids=lambda source: source.stem[:2])
def test_solutions_run(source, monkeypatch, capsys):
    """On tensors, the phrasebook and the shipped base, in seconds; each checks itself with assert."""
    monkeypatch.chdir(REPOSITORY)
    solved = nbformat.read(SOLUTIONS / source.name, as_version=4)
    code = [cell.source for cell in solved.cells if cell.cell_type == "code"]
    assert all(
        cell.execution_count is None and not cell.outputs for cell in solved.cells if cell.cell_type == "code"
    )
    assert "assert" in "\n".join(code)
    namespace = {"__name__": "solution"}
    for number, cell in enumerate(code):
        exec(compile(cell, f"{source.name}, cell {number}", "exec"), namespace)


EXECUTED = sorted((REPOSITORY / "results").glob("*/notebooks/*.ipynb"))
NUMBER = re.compile(r"[+-]?[\d,]+(\.\d+)?([eE][+-]?\d+)?[%×]?[‡°†*]*|nan|")


def tables_of(text):
    """The Markdown tables of a text: heads, which columns are set to the right, rows."""
    found, lines = [], [line.strip() for line in text.splitlines()]
    for i, line in enumerate(lines[1:], 1):
        if re.fullmatch(r"\|( :?-+:? \|)+", line):
            below = list(takewhile(lambda row: row.startswith("|"), lines[i + 1 :]))
            cells = [
                [cell.strip(" *") for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
                for row in (lines[i - 1], line, *below)
            ]
            found.append(
                (cells[0], [not rule.startswith(":") and rule.endswith(":") for rule in cells[1]], cells[2:])
            )
    return found


def faults(text):
    """What makes a table hard to read: more than seven columns, text on the right, an empty column or value."""
    found = []
    for heads, right, rows in tables_of(text):
        found += [f"{len(heads)} columns: {heads}"] if len(heads) > 7 else []
        for head, side, cells in zip(heads, right, zip(*rows, strict=True) if rows else [], strict=False):
            found += [f"text on the right: {head}"] if side and not all(map(NUMBER.fullmatch, cells)) else []
            found += [f"nothing in {head}"] if not any(cells) else []
        found += [
            f"no value: {row[0]}" for row in rows if heads[:2] == ["value", "this run"] and not any(row[1:3])
        ]
    return found


@pytest.mark.parametrize("copy", EXECUTED, ids=lambda copy: copy.stem)
def test_shown_tables_can_be_read(copy):
    """In the page and in what the committed run shows. A copy of another source is to be made anew anyway."""
    executed = nbformat.read(copy, as_version=4)
    source = nbformat.read(REPOSITORY / "notebooks" / copy.name, as_version=4)
    if [cell.source for cell in executed.cells] != [cell.source for cell in source.cells]:
        pytest.skip("made from another source")
    shown = [cell.source for cell in executed.cells if cell.cell_type == "markdown"]
    for output in (output for cell in executed.cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        assert "<table" not in data.get("text/html", ""), "a raw table of pandas: use show"
        shown.append(data.get("text/markdown", ""))
    assert not faults("\n\n".join(shown))


def test_a_table_that_cannot_be_read_is_found():
    wide = "\n".join("| " + " | ".join(cell * 8) + " |" for cell in (["a"], ["---"], ["1"]))
    assert faults(wide) == ["8 columns: ['a', 'a', 'a', 'a', 'a', 'a', 'a', 'a']"]
    assert faults("| a | b |\n| ---: | ---: |\n| 1.5‡ | fine |\n| -2 | 3 |") == ["text on the right: b"]
    assert faults("| a | b |\n| :--- | ---: |\n| x |  |") == ["nothing in b"]
    assert faults("| value | this run |\n| :--- | :--- |\n| x |  |\n| y | 1 |") == ["no value: x"]
    assert not faults("| a | b |\n| --- | ---: |\n| x \\| y | **12.5**† |\n\nno table | here")


@pytest.mark.parametrize(
    ("number", "gone", "cells"),
    [
        ("01", "heatmap", 58),  # its second pair of heat maps
        ("02", "rand_index|adjusted_rand", 38),  # half of its sections 4 and 5
        ("09", "short form", 30),  # its short tables: the default run trains nothing
        ("10", "serving_|scaling_|sorted\\(files_of", 44),  # serving, scaling, lists of files
    ],
)
def test_what_was_cut_stays_cut(number, gone, cells):
    """TEACHING.md's list of issue 19: what interrupted the story is elsewhere or nowhere."""
    (source,) = [source for source in SOURCES if source.stem.startswith(number)]
    made = nbformat.read(source, as_version=4)
    assert not [cell.source for cell in made.cells if re.search(gone, cell.source)]
    assert len(made.cells) <= cells


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_links_between_notebooks_lead_somewhere(source):
    for cell in nbformat.read(source, as_version=4).cells:
        if cell.cell_type == "markdown":
            for name in re.findall(r"\]\(([^)#]+\.ipynb)\)", cell.source):
                assert (source.parent / name).exists(), name
