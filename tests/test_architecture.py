"""The house: rooms of bounded size, one direction of imports, faces that load nothing (docs/architecture.md)."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from pages import GUIDES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "xalma"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted({path.parent for path in FILES} - {PACKAGE})
DATA_TABLES = {("systems/table.py", "_rows")}  # functions whose body is a table


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def public_names(path: Path) -> set[str]:
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        names |= {getattr(t, "id", getattr(t, "name", "_")) for t in targets}
    return {name for name in names if isinstance(name, str) and not name.startswith("_")}


def xalma_imports(code: str) -> set[tuple[str, str]]:
    """(module, name) of each import from the package."""
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    return {
        (node.module, alias.name)
        for node in nodes
        if node.module and node.module.split(".")[0] == "xalma"
        for alias in node.names
    }


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_a_room_has_at_most_12_files_and_says_what_it_is_for(room):
    assert len([path for path in room.glob("*.py") if not path.stem.startswith("__")]) <= 12
    assert ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))).endswith(".")


def test_the_ground_floor_is_small():
    assert len([path for path in PACKAGE.glob("*.py") if path.stem != "__init__"]) <= 11


def test_files_and_functions_are_short():
    long_files = {name_of(p) for p in FILES if len(p.read_text(encoding="utf-8").splitlines()) > 420}
    assert not long_files
    long_functions = {
        (name_of(path), node.name)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60
    }
    assert long_functions <= DATA_TABLES


def test_lines_are_laid_out_by_ruff_but_for_data():
    """`# fmt: skip` stands behind assignments of literals, profiles and the rows of the systems' table alone."""
    plain = (
        ast.Constant, ast.Name, ast.Attribute, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.JoinedStr,
        ast.FormattedValue, ast.Starred, ast.UnaryOp, ast.BinOp, ast.expr_context, ast.unaryop, ast.operator,
    )  # fmt: skip
    by_hand = []
    for folder in ("xalma", "benchmarks", "tools", "docs", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            lines = [
                i for i, line in enumerate(text.splitlines(), 1) if line.rstrip().endswith("# fmt: skip")
            ]
            if not lines or path.name in ("named.py", "table.py"):
                continue
            data = {
                node.end_lineno
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
                if all(isinstance(part, plain) for part in ast.walk(node.value))
            }
            by_hand += [f"{path.relative_to(ROOT)}:{line}" for line in lines if line not in data]
    assert not by_hand


def test_assignments_of_calls_stand_on_lines_of_their_own():
    """`a, b = f(), g()` is two lines."""
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign)
        if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)
        if any(isinstance(value, ast.Call) for value in node.value.elts)
    ]
    assert not found


def test_every_file_says_what_it_is_for():
    for path in FILES:
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert (doc and doc[0].isalnum()) or doc[0] in '`“"', path


def test_public_names_stand_in_one_file():
    homes = defaultdict(list)
    for path in FILES:
        for name in public_names(path):
            homes[name].append(name_of(path))
    doubles = {name: files for name, files in homes.items() if len(files) > 1}
    assert not doubles


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_the_names_of_a_face_are_there(room):
    """Each can be imported, none is hidden by a file of the same name."""
    module = "xalma." + name_of(room).replace("/", ".")
    face = __import__(module, fromlist=["x"])
    names = getattr(face, "__all__", [])
    assert names == dir(face) or not names
    assert not set(names) & {path.stem for path in room.iterdir()}
    for name in names:
        assert getattr(face, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = face.nothing


@pytest.mark.parametrize(
    "module", ["xalma", "xalma.evaluation", "xalma.languages", "xalma.profiles", "xalma.cli"]
)
def test_importing_a_room_loads_no_torch(module):
    code = (
        f"import sys, {module}; print(*sorted({{'torch', 'transformers', 'matplotlib'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""


def notebook_code(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").rglob("*.ipynb")), ids=lambda p: p.stem[:2])
def test_notebooks_import_from_at_most_six_faces(path):
    imports = xalma_imports(notebook_code(path))
    assert len({module for module, _ in imports}) <= 6
    assert not [pair for pair in imports if not is_face(*pair)]


@pytest.mark.parametrize("path", [*GUIDES, *sorted((ROOT / "benchmarks").glob("*.py"))], ids=lambda p: p.stem)
def test_guides_and_benchmarks_import_faces(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    assert not [pair for pair in xalma_imports(text) if not is_face(*pair)]


def is_face(module: str, name: str) -> bool:
    """Whether an import takes a name of a face, a file of a room, or of the ground floor."""
    place = PACKAGE.joinpath(*module.split(".")[1:])
    return place.is_dir() or place.parent == PACKAGE


def test_tests_mirror_the_rooms():
    rooms = {path.name for path in ROOMS if path.parent == PACKAGE}
    folders = {path.parent.name for path in (ROOT / "tests").rglob("test_*.py")} - {"tests", "outside"}
    assert folders <= rooms


def test_rooms_use_only_rooms_below_them():
    """The contracts of pyproject.toml, by import-linter (`make lint` prints the chains that break one)."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "3 kept, 0 broken" in done.stdout
