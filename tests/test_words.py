"""Plain English: pages, notebooks and messages use the field's words.

codespell finds what is spelt wrongly. This finds right English that stops a reader who learnt it at school: "a" for
"per", old words, and words of our own where the field has one.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from pages import PAGES, ROOT, name_of, prose

THINGS = (
    "bits|nats|segments|modules?|updates?|tokens|pairs?|sentences?|rows?|lines|documents?|seconds|hours|GiB"
)
EACH = "byte|token|group|direction|language|second|minute|source|method|GPU|device|process|seed|batch|worker|document"
PRIVATE = {  # what it looks like -> what the field says
    rf"\b(?:{THINGS}) an? (?:{EACH})\b": "per",
    rf"\d an? (?:{EACH})\b": "per",
    r"\bout of English\b|\b(?:from|out of) English and into\b": "en→xx, xx→en",
    r"\blikeness\b": "similarity",
    r"\bdearer\b|\bthe model pays\b|\bprice of a (?:token|byte)\b": "a higher loss",
    r"\breckon\w*": "compute, estimate",
    r"\bwhoever\b|\bwhosoever\b": "who",
    r"\bnext to nothing\b": "hardly anything",
    r"\bhitherto\b|\bthereof\b|\bwherein\b|\bwhence\b|\blest\b|\bnaught\b": "now, of it, in which, from where",
    r"\bnear its floor\b|\bstays to be\b": "close to the bound",
    r"\bpairs that rank\b|\bthat is no slip of ours\b": "say it plainly",
}
# What a notebook still has; a number here may only become smaller, and 0 is taken out.
STILL: dict[str, int] = {}
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
MODULES = sorted((ROOT / "xalma").rglob("*.py"))


def found(text: str) -> list[str]:
    """The private words of a text, outside quoted names of code."""
    text = " ".join(re.sub(r"`[^`\n]*`|\S*/\S*", "`", text).split())
    return [
        f"{hit[0]!r}: {plain}"
        for look, plain in PRIVATE.items()
        for hit in re.finditer(look, text, re.IGNORECASE)
    ]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_use_the_words_of_the_field(page):
    assert not found(prose(page))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebooks_use_the_words_of_the_field(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert len(found(text)) == STILL.get(name_of(path), 0), found(text)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_messages_use_the_words_of_the_field(path: Path):
    """All texts of a module: messages, help, labels of tables and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    assert not [hit for text in texts if " " in text for hit in found(text)]


def test_the_list_finds_what_it_is_for():
    assert found("3.1 bits a byte") and found("one module a group") and found("n = 60 a direction")
    assert found("They reckon with it.") and found("out of English the means fall")
    assert not found("bits per byte, a byte, one module per group; `likeness` of a table")
