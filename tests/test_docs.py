"""What the pages name is there: paths, links, modules, commands, options, values, make targets."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import GUIDES, PAGES, ROOT, blocks, name_of, prose, quoted

from xalma.cli import main
from xalma.corpus_names import ALIASES, FAMILIES
from xalma.profiles import PROFILES, Profile

FOLDERS = "xalma|notebooks|results|tests|benchmarks|docs|data_cards|model_cards"
OTHERS = {"utils.py", "nllb_lang_pairs.py", "docs/gguf.md"}  # files of other repositories
MADE = ("docs/api", "results/tiny/stage5", "results/contamination.json")  # by a command that the page names
COMMANDS = main._parser()._subparsers._group_actions[0].choices
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)
each_guide = pytest.mark.parametrize("page", GUIDES, ids=name_of)


def commands_of(page: Path) -> list[str]:
    """Command lines of a page: what stands in shell blocks, and what is quoted in prose."""
    lines = [line.split(" #")[0] for block in blocks(page, "sh") for line in block.splitlines()]
    return [*lines, *quoted(page)]


@cache
def old_modules() -> set[str]:
    """Names of modules before the rooms, by CHANGELOG's table, that stand for nothing in the package now."""
    table = (
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("| room | modules |")[1].split("\n\n")[0]
    )
    moves = [
        part.split("→")[0]
        for row in table.splitlines()[2:]
        for part in row.split("|")[2].split(";")
        if "→" in part
    ]
    names = {name.strip().split(".")[-1] for move in moves for name in move.split(":")[-1].split(",")}
    return names - identifiers() - FAMILIES.keys() - COMMANDS.keys() - {"results", "modules", "sources"}


def identifiers() -> set[str]:
    """Names of the package's folders, files, functions, classes and constants."""
    names = {path.stem for path in (ROOT / "xalma").rglob("*")}
    for path in (ROOT / "xalma").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        names |= set(re.findall(r"^ *(?:async )?(?:def|class) (\w+)", text, re.MULTILINE))
        names |= set(re.findall(r"^(\w+)(?:: .*)? = ", text, re.MULTILINE))
    return names


@each_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:|mailto:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.+)$", prose(target), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in anchors, link


@each_page
def test_paths_exist(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./*<>-]+", text):
        path = re.sub(r"<[^>]*>", "*", path.rstrip(".,"))
        assert path.startswith(MADE) or list(ROOT.glob(path.rstrip("/"))), path


@each_page
def test_files_named_alone_exist(page):
    for word in quoted(page):
        if re.fullmatch(r"[\w/]+\.py", word) and word not in OTHERS:
            assert list(ROOT.rglob(f"*{Path(word).name}")), word


@each_page
def test_dotted_names_resolve(page):
    names = re.findall(r"(?<![\w/-])xalma(?:\.[A-Za-z_]\w*)+(?![\w/*])", page.read_text(encoding="utf-8"))
    for name in {
        name.removesuffix(".egg") for name in names if not name.endswith((".md", ".py", ".egg-info"))
    }:
        assert resolves(name), name


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or a name in one."""
    module, _, last = name.rpartition(".")
    try:
        if find_spec(name):
            return True
    except ModuleNotFoundError:
        pass
    return module != "" and resolves(module) and hasattr(import_module(module), last)


@each_page
def test_commands_exist(page):
    for line in commands_of(page):
        for command in re.findall(r"(?:^|/|\s)xalma ([a-z]+)\b", line):
            assert command in COMMANDS, line
        for target in re.findall(r"(?:^|\s)make ([a-z-]+)(?![\w=])", line):
            assert target in TARGETS, line


@each_page
def test_options_and_values_exist(page):
    options = {option for parser in COMMANDS.values() for option in parser._option_string_actions}
    options |= {"--log-level"}  # papermill's
    keys = {field.name for field in fields(Profile)}
    for line in commands_of(page):
        if line.startswith(("--", "xalma ", ".venv/bin/xalma ")):
            assert set(re.findall(r"(?<!\S)--[a-z][\w-]*", line)) <= options, line
        for key in re.findall(r"--set ([a-z]\w*)=", line):
            assert key in keys or key == "name", line  # `name` is named as what is refused


def test_everything_a_user_can_name_is_in_the_guides():
    text = "\n".join(page.read_text(encoding="utf-8") for page in GUIDES)
    for name in [*PROFILES, *FAMILIES, *ALIASES]:
        assert f"`{name}`" in text, name
    for name in COMMANDS:
        assert re.search(rf"xalma {name}\b", text) or f"`{name}`" in text, name
    for name in TARGETS:
        assert f"make {name}" in text, name


@each_page
def test_old_names_of_modules_are_gone(page):
    old = old_modules()
    assert {"hygiene", "papertables", "arpotrainer", "realscore"} <= old
    assert (
        not {word for quote in quoted(page) for word in re.findall(r"^(?:xalma[./])?(\w+)(?:\.py)?$", quote)}
        & old
    )


def docstrings(path: Path) -> str:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    kinds = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return "\n".join(filter(None, (ast.get_docstring(node) for node in nodes if isinstance(node, kinds))))


@pytest.mark.parametrize("path", sorted((ROOT / "xalma").rglob("*.py")), ids=name_of)
def test_docstrings_name_modules_that_are_there(path):
    text = docstrings(path)
    for name in re.findall(r"`(xalma(?:\.[A-Za-z_]\w*)+)`", text):
        assert resolves(name), name
    assert not set(re.findall(r"`(\w+)(?:\.\w+)?`", text)) & old_modules()


@pytest.mark.parametrize("path", sorted((ROOT / "xalma").rglob("*.py")), ids=name_of)
def test_messages_and_comments_name_pages_that_are_there(path):
    text = path.read_text(encoding="utf-8")
    for page in re.findall(r"\b(?:docs|data_cards|model_cards)/[\w-]+\.md", text):
        assert page in OTHERS or (ROOT / page).exists(), page
    for head in re.findall(r"README, ['\"]([^'\"]+)['\"]", text):
        assert re.search(rf"^#+ {head}", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE), head


def test_architecture_names_what_is_in_the_files():
    """Each row of "Where is …?": the name after a file's is defined in it; each room begins with files it has."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    pairs = re.findall(r"`(xalma/[\w/]+\.py)`: `(\w+)`", text)
    assert len(pairs) > 6
    for file, name in pairs:
        assert re.search(
            rf"^(?:async )?(?:def|class) {name}\b|^{name}(?:: [^\n]+)? = ",
            (ROOT / file).read_text("utf-8"),
            re.M,
        ), (
            file,
            name,
        )
    for room, files in re.findall(r"^\| `(\w+)/` \|.*\| ([^|]+) \|$", text, re.MULTILINE):
        for file in re.findall(r"`([\w.]+)`", files):
            assert (ROOT / "xalma" / room / file).exists(), (room, file)
    rooms = {path.parent.name for path in (ROOT / "xalma").glob("*/__init__.py")} - {
        "profiles"
    }  # on the ground floor
    assert rooms <= set(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE))
    assert {path.name for path in (ROOT / "xalma").glob("*.py")} - {"__init__.py"} <= {
        f"{name}.py" for name in re.findall(r"\w+", text)
    }
