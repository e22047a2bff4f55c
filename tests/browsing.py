"""Fixtures: a real browser, and visitors of real servers. Pictures of all pages are kept in build/screenshots."""

import os
import shutil

import ipywidgets
import pytest
from servers import FLAGS, ROOT, Servers

SHOTS = ROOT / "build" / "screenshots"
CHROMIUM = shutil.which("chromium")
PATIENCE = 180_000  # milliseconds; a kernel that imports PyTorch on a busy machine takes its time


def obstacle():
    """Why the pages cannot be tested here, if they cannot."""
    if not CHROMIUM:
        return "there is no browser: install Debian's package chromium"
    if ipywidgets.__version__.startswith("7."):
        return "Voilà and JupyterLab 4 show widgets of ipywidgets 8"
    return None


def do_without(reason):
    """Skip; but fail for lack of a browser where tests run by themselves (CI), since nobody would notice."""
    (pytest.fail if os.environ.get("CI") and not CHROMIUM else pytest.skip)(reason)


def pytest_terminal_summary(terminalreporter):
    if obstacle():
        terminalreporter.write_line(f"NOTE: the pages were not tested in a browser, since {obstacle()}", yellow=True)


@pytest.fixture(scope="session")
def chromium():
    if obstacle():
        do_without(obstacle())
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def servers(chromium, tmp_path_factory):
    started = Servers(tmp_path_factory.mktemp("servers"))
    yield started
    started.stop()


@pytest.fixture(scope="session")
def visit(chromium):
    """``visit(address)`` opens a page in a visitor's own context. None may ask another server for anything."""
    foreign = []

    def watch(asked):
        if not asked.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            foreign.append(asked.url)

    def open_page(address):
        context = chromium.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
        context.set_default_timeout(PATIENCE)
        context.on("request", watch)
        page = context.new_page()
        page.goto(address, wait_until="commit")
        return page

    yield open_page
    assert foreign == []


@pytest.fixture
def keep_picture(request):
    """``keep_picture(page)``: how the page looks when the test has ended goes into build/screenshots."""
    pages = []
    yield pages.append
    SHOTS.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(pages, 1):
        page.screenshot(path=SHOTS / f"{request.node.name}-{number}.png")
