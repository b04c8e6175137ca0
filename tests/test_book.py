"""`make book`: the pages in a browser, at a desk's and a phone's width, without network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from pages import ROOT

from xalma.preference.arpo import arpo_loss

pytest.importorskip("sphinx_book_theme", reason="the extra `book` is not installed (make book installs it)")
playwright = pytest.importorskip("playwright.sync_api", reason="the extra `book-test` is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

LOCAL = ("file:", "data:", "blob:")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("book") / "html"
    made = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "book.py"), str(folder)], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=[1280, 400])
def page(browser, request):
    """A tab whose console errors, exceptions, failed and remote requests are listed in `page.faults`."""
    context = browser.new_context(viewport={"width": request.param, "height": 900}, offline=True)
    tab = context.new_page()
    tab.set_default_timeout(300_000)  # a loaded machine
    tab.faults = []
    tab.on("console", lambda message: message.type == "error" and tab.faults.append(message.text))
    tab.on("pageerror", lambda error: tab.faults.append(str(error)))
    tab.on("requestfailed", lambda asked: tab.faults.append(f"failed: {asked.url}"))
    tab.on("request", lambda asked: asked.url.startswith(LOCAL) or tab.faults.append(asked.url))
    yield tab
    context.close()


def test_every_page_fits_and_has_no_error(book, page):
    """No page is wider than the screen, asks the network, logs an error, leaves a formula unset or a table as text."""
    paths = [path for path in sorted(book.rglob("*.html")) if "_static" not in path.parts]
    assert len(paths) > 40
    faults = {}
    for path in paths:
        page.goto(path.as_uri())
        if page.locator(".math").count():
            page.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
            page.evaluate("() => MathJax.startup.promise")
        found = page.evaluate(
            """() => ({
              wide: document.documentElement.scrollWidth - innerWidth,
              unset: [...document.querySelectorAll('.math')].filter(m => !m.querySelector('mjx-container')).length,
              wrong: document.querySelectorAll('mjx-merror').length,
              raw: [...document.querySelectorAll('p')].filter(p => p.textContent.startsWith('| ')).length,
            })"""
        )
        if page.faults or found["wide"] > 0 or found["unset"] or found["wrong"] or found["raw"]:
            faults[path.relative_to(book).as_posix()] = (found, page.faults[:3])
        page.faults.clear()
    assert not faults


def test_links_inside_the_book_lead_somewhere(book, page):
    """Each address of a page, and each heading it names."""
    broken = set()
    for path in [
        book / "docs" / "index.html",
        book / "README.html",
        *sorted((book / "notebooks").rglob("*.html")),
    ]:
        page.goto(path.as_uri())
        for address in page.evaluate("() => [...document.links].map(a => a.href)"):
            if address.startswith("file:") and not Path(urlsplit(address).path).exists():
                broken.add(address)
    assert not broken


def test_search_answers(book, page):
    page.goto((book / "search.html").as_uri() + "?q=adaptive+rejection")
    page.wait_for_selector("#search-results a[href*='docs/tau.html']", state="attached")
    assert not page.faults


CASES = [
    {"eta": 1.5, "scale": 1.0, "beta": 0.1, "d": 0.2, "detach": False},
    {"eta": 1.5, "scale": 1.0, "beta": 0.1, "d": -0.3, "detach": False},
    {"eta": 0.4, "scale": 0.9, "beta": 0.2, "d": 0.1, "detach": False},
    {"eta": 0.4, "scale": 0.9, "beta": 0.2, "d": 0.1, "detach": True},
    {"eta": 3.0, "scale": 1.0, "beta": 0.1, "d": 1.0, "detach": False},
]


def test_the_explorer_of_tau_computes_what_the_library_does(book, page):
    """What the page prints for each setting: z, τ, and minus the gradient on both answers, as autograd has them."""
    page.goto((book / "docs" / "tau.html").as_uri())
    drawn = set()
    for case in CASES:
        for name in ("eta", "scale", "beta", "d"):
            page.locator(f"#tau [name={name}]").fill(f"{case[name]:g}")
        page.locator("#tau [name=detach]").set_checked(case["detach"])
        shown = [
            float(page.locator(f"#{name}").inner_text()) for name in ("z", "weight", "chosen", "rejected")
        ]
        n = torch.tensor([16.0], dtype=torch.float64)
        chosen, rejected = (-n).requires_grad_(), (n * (-1 - case["d"])).requires_grad_()
        options = {"eta": case["eta"], "eta_scale": case["scale"], "beta": case["beta"]}
        loss, tau, z = arpo_loss(chosen, rejected, n, n, **options, detach_penalty=case["detach"])
        up, down = torch.autograd.grad(loss.sum(), (chosen, rejected))
        assert shown == pytest.approx([z.item(), tau.item(), -up.item(), -down.item()], abs=6e-5), case
        drawn.add(page.locator("#tau polyline").first.get_attribute("points"))
    assert len(drawn) == 3, "the curve follows eta and its scale"
    page.get_by_role("button", name="the released code").click()
    assert page.locator("#tau [name=eta]").input_value() == "0.4"
    assert not page.faults
