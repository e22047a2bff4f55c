"""Seconds from the click to the caption, in the page that `make app` serves, in a real browser (Debian's chromium).

    python benchmarks/bench_page.py

The first caption of the page, then the same photo with the other model, whose features are there already. Medians of
several visits, each with a kernel of its own.
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
from servers import FLAGS, Servers  # noqa: E402

SAMPLE, OTHER_MODEL, VISITS, BAR = "camera", "luong-flickr8k", 5, 3.0


def caption(page: Page, model: str) -> float:
    """Click, and wait for a caption by ``model``."""
    start = time.perf_counter()
    page.get_by_role("button", name="Caption", exact=True).click()
    page.locator(".cu-card .cu-name", has_text=model).wait_for()
    return time.perf_counter() - start


def visit(page: Page, address: str) -> tuple[float, float]:
    """Seconds of the first caption and of the other model's."""
    page.goto(address, wait_until="commit")
    page.get_by_role("button", name=SAMPLE).click()
    page.get_by_text("Ready:").wait_for()
    first = caption(page, "bahdanau-flickr8k")
    page.locator("select").first.select_option(OTHER_MODEL)
    return first, caption(page, OTHER_MODEL)


def main() -> None:
    """Print both medians."""
    chromium = shutil.which("chromium")
    if not chromium:
        print("not measured: install Debian's package chromium")
        return
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        servers = Servers(Path(folder))
        try:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            address = servers.start("app")
            times = [visit(browser.new_page(), address) for _ in range(VISITS)]
            browser.close()
        finally:
            servers.stop()
    first, other = map(statistics.median, zip(*times, strict=True))
    print(f"first caption {first:.2f} s after the click (bar {BAR:.0f} s), by another model {other:.2f} s")


if __name__ == "__main__":
    main()
