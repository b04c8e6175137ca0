"""`make docs`: a page for every face, with every name, its signature and what it says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from pages import ROOT

API = runpy.run_path(str(ROOT / "docs" / "api.py"))


@pytest.mark.slow
def test_every_name_of_a_face_is_on_its_page(tmp_path):
    files = {file.stem: file.read_text(encoding="utf-8") for file in API["build"](tmp_path)}
    faces = API["faces"]()
    assert {"xalma", "xalma.corpora", "xalma.preference", "xalma.paper.studies"} <= faces.keys()
    assert files.keys() == {*faces, "index"}
    for module, names in faces.items():
        assert re.findall(r"^## (\w+)$", files[module], re.MULTILINE) == names
        assert f"]({module}.md): " in files["index"]
    assert "arpo_loss(\n    chosen_logps" in files["xalma.preference"], "one argument per line"
    assert "<object object at" not in "".join(files.values())


def test_every_function_of_a_face_says_what_it_does():
    """For the rooms of the library: what a face offers has a docstring."""
    import inspect
    from importlib import import_module

    for module, names in API["faces"]().items():
        for name in names if not module.startswith("xalma.paper") else []:
            value = getattr(import_module(module), name)
            if inspect.isfunction(value) or inspect.isclass(value):
                assert inspect.getdoc(value), f"{module}.{name}"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the commit is git's")
def test_the_books_launch_buttons_open_the_commit_of_the_build(monkeypatch):
    """Of a repository with an address on GitHub; of any other there is no button."""
    conf = str(ROOT / "docs" / "conf.py")
    monkeypatch.setenv("XALMA_REPOSITORY", "https://github.com/someone/xalma")
    options = runpy.run_path(conf)["html_theme_options"]
    assert options["repository_url"] == "https://github.com/someone/xalma"
    assert re.fullmatch("[0-9a-f]{40}", options["repository_branch"])
    assert {"colab_url", "binderhub_url"} <= options["launch_buttons"].keys()
    monkeypatch.setenv("XALMA_REPOSITORY", "https://example.org/xalma")
    assert "launch_buttons" not in runpy.run_path(conf)["html_theme_options"]


def test_a_link_to_a_folder_leaves_its_words_in_the_book() -> None:
    """Also where a line ends inside them; a link to a file stays."""
    pytest.importorskip("sphinx", reason="the extra `book` is not installed (make book installs it)")
    book = runpy.run_path(str(ROOT / "docs" / "book.py"))["as_in_book"]
    text = "# Page\n\nsee [the\ntables](results/real/tables) and [this\nfile](README.md)"
    assert book(Path("README.md"), text) == "# Page\n\nsee the\ntables and [this\nfile](README.md)"
