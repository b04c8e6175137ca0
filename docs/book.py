"""The book: `make book` writes it to build/book, from executed notebooks, guides, cards and the pages of the faces.

Sphinx reads build/pages, a copy of the repository whose `notebooks/` holds the executed notebooks: links between pages
stay true, and a launch button opens the notebook without outputs, at its own place in the repository.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from runpy import run_path

from sphinx.cmd.build import main

ROOT = Path(__file__).resolve().parents[1]
EXECUTED = ("tiny", "alma-tiny", "real")  # profiles whose executed notebooks are committed
WIDGET = "application/vnd.jupyter.widget-view+json"
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "runs", "notebooks")


def lay_out(pages: Path) -> None:
    """Copies what the book shows or links to; of the tables, pages for those alone that a page names."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(ROOT, pages, ignore=LEFT_OUT)
    for profile in EXECUTED:
        shutil.copytree(ROOT / "results" / profile / "notebooks", pages / "notebooks", dirs_exist_ok=True)
    shutil.copytree(ROOT / "notebooks" / "solutions", pages / "notebooks" / "solutions", dirs_exist_ok=True)
    read = [*pages.rglob("*.md"), *pages.rglob("*.ipynb")]
    texts = {page: page.read_text(encoding="utf-8") for page in read}
    named = {
        (page.parent / link).resolve()
        for page, text in texts.items()
        for link in re.findall(r"\]\(([^)#\s]+\.md)", text)
    }
    for page, text in texts.items():
        if page.parent.name == "tables" and page.resolve() not in named:
            page.unlink()
        else:
            page.write_text(as_in_book(page.relative_to(pages), text), encoding="utf-8")


def as_in_book(page: Path, text: str) -> str:
    """The text with a title. Of a link that the book cannot follow, to a folder or out of an output, the words stay."""

    def words(link: re.Match) -> str:
        target = ROOT / page.parent / link[2]
        lost = page.suffix == ".ipynb" and link[2].startswith("../") and not target.exists()
        return link[1] if lost or target.is_dir() else link[0]

    if page.suffix == ".ipynb":
        text = without_widgets(text)
    elif not re.search("^# ", text, re.MULTILINE):
        text = f"# {page}\n\n{text}"
    text = re.sub(r"results/[\w-]+/(notebooks/\w+\.ipynb)", r"\1", text)
    # a line break in a link's words: in a notebook's JSON it ends a string
    breaks = r"\n" if page.suffix == ".ipynb" else ""
    return re.sub(rf"\[([^]{breaks}]+)\]\(([^)#\s]+)\)", words, text)


def without_widgets(text: str) -> str:
    """A slider needs a kernel: the picture beside it stays."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        outputs = cell.get("outputs", [])
        cell |= {"outputs": [one for one in outputs if WIDGET not in one.get("data", {})]} if outputs else {}
    return json.dumps(notebook, ensure_ascii=False, indent=1)


def build(target: Path) -> int:
    """0, or the status of Sphinx, for which a warning is an error."""
    run_path(str(ROOT / "docs" / "api.py"))["build"](ROOT / "docs" / "api")
    pages = target.parent / "pages"
    lay_out(pages)
    return main(["-q", "-W", "--keep-going", "-c", str(ROOT / "docs"), str(pages), str(target)])


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "build" / "book"))
