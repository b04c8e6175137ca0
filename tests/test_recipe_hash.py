"""The hash of the code that decides weights: it follows definitions, not places, and no module is forgotten."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from xalma import runs

PACKAGE = Path(runs.__file__).parent
hash_of = runs.recipe_hash.__wrapped__


@pytest.fixture
def copy(tmp_path) -> Path:
    """The package's code, free to be changed."""
    return shutil.copytree(PACKAGE, tmp_path / "xalma", ignore=shutil.ignore_patterns("__pycache__"))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name} has changed: mend this test"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("language_id.py", "MIN_LATIN_SHARE = 0.5", "MIN_LATIN_SHARE = 0.6"),
        ("text_files.py", "def lines_of(", "def lines_of(*_, **__):\n    return []\n\n\ndef _lines_of("),
        ("runtime.py", "random.seed(seed)", "random.seed(seed + 1)"),
        ("corpora/test_sets.py", "from __future__ import annotations", "X = 1"),
        ("corpora/own.py", "from __future__ import annotations", "X = 1"),
    ],
)
def test_changed_code_is_a_changed_hash(copy, file, old, new):
    before = hash_of(copy)
    replace(copy / file, old, new)
    assert hash_of(copy) != before


def test_comments_docstrings_and_imports_are_no_code(copy):
    before = hash_of(copy)
    path = copy / "preference/arpo.py"
    _, rest = path.read_text(encoding="utf-8").split("from __future__ import annotations\n", 1)
    rest = f"import os\n# a comment\n{rest}".replace(") -> None:\n", ") -> None:\n    import sys\n\n")
    path.write_text(f'"""Another text."""\n\nfrom __future__ import annotations\n{rest}', encoding="utf-8")
    (copy / "training/plan.py").write_text("X = 1\n", encoding="utf-8")
    assert hash_of(copy) == before == hash_of()


def test_a_definition_may_move_to_another_file(copy):
    before = hash_of(copy)
    path = copy / "language_id.py"
    text = path.read_text(encoding="utf-8")
    node = next(n for n in ast.parse(text).body if getattr(n, "name", "") == "off_target")
    moved = ast.get_source_segment(text, node)
    path.write_text(text.replace(moved, ""), encoding="utf-8")
    assert hash_of(copy) != before, "a definition is gone"
    with (copy / "data" / "collate.py").open("a", encoding="utf-8") as file:
        file.write(f"\n\n{moved}\n")
    assert hash_of(copy) == before


def test_a_whole_file_may_move(copy, monkeypatch):
    before = hash_of(copy)
    (copy / "language_id").mkdir()
    shutil.move(copy / "language_id.py", copy / "language_id" / "detect.py")
    with pytest.raises(FileNotFoundError, match="names language_id, which is not in"):
        hash_of(copy)
    names = tuple("language_id.detect" if name == "language_id" else name for name in runs.DECISIVE)
    monkeypatch.setattr(runs, "DECISIVE", names)
    assert hash_of(copy) == before


def test_every_module_behind_the_stages_stands_in_exactly_one_list():
    """A new module must be put on one of the two sides, or stale weights would pass for new ones."""
    decisive, other = (set(runs.module_files(names, PACKAGE)) for names in (runs.DECISIVE, runs.NOT_DECISIVE))
    assert not decisive & other
    closure = imported_from("training.stages", *CORPORA)
    assert closure <= decisive | other, sorted(path.stem for path in closure - decisive - other)
    extra = {path.stem for path in decisive - closure}
    assert extra == {"methods", "method_specs", "arpo_trainer", "grpo"}, (
        "notebook 08 files this hash too; nothing else is hashed beside"
    )


CORPORA = [
    path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
    for path in sorted((PACKAGE / "corpora").rglob("*.py"))
    if path.stem != "__init__"
]


def imported_from(*modules: str) -> set[Path]:
    """Files of all modules of the package that these import, inside functions too, and theirs."""
    found, todo = set(), [PACKAGE / "__init__.py", *map(file_of, modules)]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.name == "__init__.py":  # the front door's imports for type checkers load nothing
            tree.body = [node for node in tree.body if not runs._only_for_types(node)]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "xalma":
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.split(".")[0] == "xalma"]
            else:
                continue
            todo += [path for name in names if (path := file_of(name.removeprefix("xalma").lstrip(".")))]
    return found


def file_of(module: str) -> Path | None:
    place = PACKAGE.joinpath(*filter(None, module.split(".")))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
