"""One hash of the code that decides weights: of its definitions, wherever they stand.

A stage files it among its inputs, so that changed code means a changed input. It is taken over the top-level
definitions of the modules that `xalma.stages` imports, directly or not: docstrings, comments and imports aside, sorted,
so that a definition may move from file to file. Every such module stands in exactly one of the two lists below.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from xalma.files import fingerprint

# "corpora.*" is every module of the folder: corpora are opened by name. `methods` and `arpotrainer` decide the weights
# of notebook 08, which files this hash too.
DECISIVE = (
    "architectures", "arpo", "arpotrainer", "backbone", "batches", "cldr", "collate", "contamination", "corpora.*",
    "data", "draws", "evaluate", "folding", "fp8", "generate", "graphs", "identify", "languages", "literal", "losses",
    "methods", "mixing", "modules", "objectives", "pairs", "parallel", "phrasebook", "preferences", "prompts",
    "segments", "stages", "streams", "testindex", "testsets", "tokenfiles", "train", "zero",
)  # fmt: skip
# Their values are inputs themselves (profiles; the bases), or they show, count and keep what others decide.
NOT_DECISIVE = (
    "__init__",
    "basechecks",
    "bases",
    "checkpoints",
    "escapes",
    "files",
    "gguf_files",
    "gguf_tokenizers",
    "live",
    "marked",
    "meter",
    "plan",
    "plots.*",
    "profiles",
    "recipehash",
    "results",
    "runs",
    "runtime",
    "shards",
    "sources",
)
DECISIVE_PARTS = {"runtime": ("mixed_precision", "seed_everything")}  # of modules that decide nothing else
PLACES = ("FAMILIES", "__all__")  # names of modules and of what they show: they change when files move


@cache
def recipe_hash(root: Path = Path(__file__).parent) -> str:
    """16 hex digits for the code in the package folder `root`. Raises ValueError where a part is gone."""
    texts = [text for path in files_of(DECISIVE, root) for name, text in definitions(path) if name not in PLACES]
    for module, names in DECISIVE_PARTS.items():
        parts = dict(definitions(root / f"{module}.py"))
        if missing := set(names) - parts.keys():
            raise ValueError(f"{module}.py no longer defines {', '.join(sorted(missing))}: mend DECISIVE_PARTS")
        texts += [parts[name] for name in names]
    return fingerprint(sorted(texts))


def files_of(modules: tuple[str, ...], root: Path) -> list[Path]:
    """The files of a list of modules. Raises FileNotFoundError for a module that is not there."""
    found = []
    for module in modules:
        paths = sorted(root.glob(module.replace(".", "/") + ".py"))
        if not paths:
            raise FileNotFoundError(f"the recipe's hash names {module}, which is not in {root}: mend recipehash.py")
        found += paths
    return found


def definitions(path: Path) -> Iterator[tuple[str, str]]:
    """(name, code without docstrings, comments and imports) of each top-level statement; "" for one without a name."""
    tree = _Plain().visit(ast.parse(path.read_text(encoding="utf-8")))
    for node in tree.body:
        if not isinstance(node, ast.Pass) and not _only_for_types(node):
            yield _name(node), ast.unparse(node)


class _Plain(ast.NodeTransformer):
    """Takes docstrings and imports away, at every depth."""

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[ast.get_docstring(node, clean=False) is not None :]
        node = super().generic_visit(node)
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]
        return node


def _only_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _name(node: ast.stmt) -> str:
    targets = getattr(node, "targets", [getattr(node, "target", node)])
    return getattr(targets[0], "id", getattr(node, "name", ""))
