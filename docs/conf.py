"""What Sphinx asks for `make book`; docs/book.py lays out the pages."""

import os
import subprocess
from pathlib import Path

import xalma

HERE = Path(__file__).parent


def git(*words: str) -> str:
    """What git answers; nothing outside a checkout."""
    return subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True).stdout.strip()


project, author, release = "xalma", "The xalma authors", xalma.__version__
copyright = f"2026 The xalma authors, MIT; commit {git('rev-parse', '--short=10', 'HEAD') or 'unknown'}"
extensions = ["myst_nb", "sphinx-mathjax-offline"]
root_doc = "docs/index"
include_patterns = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md", "data_cards/*.md", "model_cards/*.md"),
    *("notebooks/**.ipynb", "xalma/tiny_base/README.md"),
    "results/**.md",
]

nb_execution_mode = "off"  # the book shows what `make reproduce` printed
nb_merge_streams = True
nb_render_markdown_format = "gfm"  # tables: show() prints Markdown, and CommonMark has none
nb_ipywidgets_js = {}  # no code from a CDN
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
suppress_warnings = [
    "misc.highlighting_failure",  # "(…)" in place of a hundred arguments
    "toc.not_included",  # tables that a page links to
]

html_theme = "sphinx_book_theme"
html_title = "xalma"
html_show_search_summary = False  # the browser may not fetch a page from a file
html_static_path = ["book.css"]
html_css_files = ["book.css"]
html_context = {"default_mode": "auto"}
html_theme_options = {"use_download_button": False, "show_toc_level": 2, "navbar_persistent": []}

# Launch buttons open a notebook at this very commit, where the repository has an address on GitHub.
repository = os.environ.get("XALMA_REPOSITORY") or git("remote", "get-url", "origin").removesuffix(".git")
if repository.startswith("https://github.com/"):
    html_theme_options |= {
        "repository_url": repository,
        "repository_branch": git("rev-parse", "HEAD"),
        "use_repository_button": True,
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
    }
