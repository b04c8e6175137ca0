"""API pages out of the faces: `make docs` writes docs/api/<room>.md with the signature and docstring of each name.

A face is a room's `__all__`, or that of `xalma` itself; names are fetched as a user fetches them. The pages are built,
not committed.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1] / "xalma"


def faces() -> dict[str, list[str]]:
    """Module -> the names of its face; the ground floor's files stand under `xalma`."""
    rooms = sorted(path.parent.relative_to(PACKAGE.parent) for path in PACKAGE.glob("*/**/__init__.py"))
    names = {
        ".".join(room.parts): getattr(import_module(".".join(room.parts)), "__all__", []) for room in rooms
    }
    return {"xalma": import_module("xalma").NAMES} | {
        room: list(face) for room, face in names.items() if face
    }


def page(module: str, names: list[str]) -> str:
    """One page as Markdown: what the room is for, then each name."""
    room = import_module(module)
    parts = [f"# {module}", inspect.getdoc(room) or ""]
    return "\n\n".join([*parts, *(entry(room, name) for name in names)]) + "\n"


def entry(room: ModuleType, name: str) -> str:
    """Heading, signature and docstring of one name; a constant's type in place of what its class says."""
    value = getattr(room, name)
    if not callable(value) or not getattr(value, "__doc__", None):
        return f"## {name}\n\nA `{type(value).__name__}`."
    code = f"```python\n{'class ' if inspect.isclass(value) else ''}{name}{signature(value)}\n```"
    return f"## {name}\n\n{code}\n\n{inspect.getdoc(value)}{methods(value)}"


class Plain(str):
    """An annotation as it is written, without the quotes that a string has."""

    __repr__ = str.__str__


def written(annotation: Any) -> Any:
    return Plain(annotation) if isinstance(annotation, str) else annotation


def signature(value: Any) -> str:
    """The arguments, one per line where there are many; nothing for what has none that Python knows."""
    try:
        text = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    plain = [one.replace(annotation=written(one.annotation)) for one in text.parameters.values()]
    text = text.replace(parameters=plain, return_annotation=written(text.return_annotation))
    if len(str(text)) <= 100 or len(text.parameters) > 30:  # a config of TRL's takes a hundred
        return str(text) if len(str(text)) <= 1000 else "(…)"
    lines = ",\n    ".join(map(str, text.parameters.values()))
    returns = "" if text.return_annotation is text.empty else f" -> {text.return_annotation}"
    return f"(\n    {lines},\n){returns}"


def methods(value: Any) -> str:
    """The documented public methods that a class of ours defines itself, as a list."""
    if not inspect.isclass(value):
        return ""
    ours = {
        name: thing
        for name, thing in vars(value).items()
        if not name.startswith("_") and inspect.isfunction(thing)
    }
    lines = [
        f"- `{name}`: {inspect.getdoc(thing).splitlines()[0]}"
        for name, thing in ours.items()
        if thing.__doc__
    ]
    return "\n\n" + "\n".join(lines) if lines else ""


def build(folder: Path) -> list[Path]:
    """Writes a page per face and an index of them; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {module: page(module, names) for module, names in faces().items()}
    lines = [
        f"- [{module}]({module}.md): {(inspect.getdoc(import_module(module)) or '').splitlines()[0]}"
        for module in pages
    ]
    pages["index"] = "# The faces of xalma\n\n" + "\n".join(lines) + "\n"
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return [folder / f"{name}.md" for name in pages]


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "api"
    print(f"{len(build(target))} pages in {target}")
