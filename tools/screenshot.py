"""``python tools/screenshot.py``: the README's screenshot of the page, results/figures/page.png (needs Chromium)."""

import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from servers import FLAGS, ROOT, Servers

PICTURE = ROOT / "results" / "figures" / "page.png"
SAMPLE, WORD = "camera", 9
SIZE = {"width": 1180, "height": 940}
MOST_COLOURS, MOST_BYTES = 256, 300_000


def caption_sample(page: Page) -> None:
    """Caption the sample and point at one of its words."""
    page.get_by_role("button", name=SAMPLE).click()
    page.get_by_text("Ready:").wait_for()
    page.get_by_role("button", name="Caption", exact=True).click()
    page.locator(".attention-word").nth(WORD).hover()
    page.wait_for_timeout(500)


def main() -> None:
    """Start the page, caption the sample, and save a screenshot."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        servers = Servers(Path(folder))
        try:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            page = browser.new_page(viewport=SIZE)
            page.set_default_timeout(180_000)
            page.goto(servers.start("app"), wait_until="commit")
            caption_sample(page)
            page.screenshot(path=PICTURE)
            browser.close()
        finally:
            servers.stop()
    Image.open(PICTURE).convert("RGB").quantize(MOST_COLOURS).save(PICTURE, optimize=True)
    if PICTURE.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{PICTURE}: {PICTURE.stat().st_size} bytes, more than {MOST_BYTES}")


if __name__ == "__main__":
    main()
