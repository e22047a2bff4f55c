"""The book of ``make book``: its links lead somewhere, and its pages work in a browser without another server."""

import re
import subprocess
import sys
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from servers import ROOT, arguments_of

pytest.importorskip("myst_nb", reason="the extra `book` is not installed")
expect = pytest.importorskip("playwright.sync_api").expect

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of pages, made by the command of the Makefile; any of its warnings is an error."""
    folder = tmp_path_factory.mktemp("book")
    program, *arguments = arguments_of("book")
    command = [Path(sys.executable).with_name(program), *(part.replace("build/", f"{folder}/") for part in arguments)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder / "book"


@pytest.fixture(scope="module")
def pages(book):
    """Page -> its HTML."""
    return {path: path.read_text(encoding="utf-8") for path in book.rglob("*.html")}


@pytest.fixture
def address(book):
    """Where a server offers the pages."""
    handler = partial(SimpleHTTPRequestHandler, directory=book)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_links_and_pictures_lead_somewhere(pages):
    for page, html in pages.items():
        for link in map(unescape, re.findall(r'\b(?:href|src)="([^"]+)"', html)):
            parts = urlsplit(link)
            if parts.scheme or not (parts.path or parts.fragment):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.exists(), f"{page.name}: {link}"
            if parts.fragment and target in pages:
                assert f'id="{unquote(parts.fragment)}"' in pages[target], f"{page.name}: {link}"


def test_every_notebook_and_document_is_a_page(book):
    sources = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]
    assert all((book / path.relative_to(ROOT)).with_suffix(".html").exists() for path in sources)


def test_formulas_are_drawn_by_the_browser_itself(pages):
    attention = next(html for page, html in pages.items() if page.stem.startswith("04"))
    assert attention.count("<math") > 20 and "math-error" not in attention


def is_drawn(picture):
    return picture.evaluate("async picture => { await picture.decode(); return picture.naturalWidth > 100 }")


def test_from_the_first_page_to_a_notebook_and_its_diagrams(address, visit, keep_picture):
    page = visit(f"{address}/")
    keep_picture(page)
    page.locator("article").get_by_role("link", name="04 · Bahdanau attention").click()
    expect(page.locator("h1")).to_contain_text("04 · Bahdanau attention")
    diagrams = page.locator("article img[src$='.svg']")
    assert diagrams.count() and all(is_drawn(diagrams.nth(number)) for number in range(diagrams.count()))


def test_what_is_searched_is_found(address, visit, keep_picture):
    page = visit(f"{address}/docs/FAQ.html")
    keep_picture(page)
    page.get_by_role("textbox", name="Search").fill("sparsemax")
    page.keyboard.press("Enter")
    page.locator("#search-results").get_by_role("link", name=re.compile("Further improvements")).first.click()
    expect(page.locator("h1")).to_contain_text("08")


def test_a_word_of_the_stored_page_shows_where_the_model_looked(address, visit, keep_picture):
    page = visit(f"{address}/notebooks/07_interactive_captioning.html")
    keep_picture(page)
    word = page.locator(".attention-word").nth(1)
    expect(word.locator("img")).to_have_css("opacity", "0")
    word.hover()
    expect(word.locator("img")).to_have_css("opacity", "1")
