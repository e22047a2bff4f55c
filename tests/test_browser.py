"""The page as a person uses it: upload with the file chooser, click, read, hover."""

import io
import re

import browsing
import numpy as np
import pytest
import skimage
from PIL import Image
from servers import TOKEN, arguments_of

expect = pytest.importorskip("playwright.sync_api").expect

PHOTOS = f"{skimage.data_dir}/"
MEGABYTE = 2**20
SENTENCE = re.compile(r"^\w+( [\w'-]+)+$")


def upload(page, *files):
    """Choose files with the upload button and wait until the page has them."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=re.compile("Upload photos")).click()
    chooser.value.set_files([str(file) for file in files])
    page.get_by_text("Ready:").wait_for()


def click_caption(page):
    page.get_by_role("button", name="Caption", exact=True).click()
    expect(page.get_by_role("button", name="Caption", exact=True)).to_be_enabled()


@pytest.fixture
def app(servers, visit):
    def open_app(**options):
        page = visit(servers.start("app"), **options)
        page.get_by_role("button", name=re.compile("Upload photos")).wait_for()
        return page

    return open_app


def brightness(page):
    """Mean of the photo's pixels as they are on the screen."""
    return np.asarray(Image.open(io.BytesIO(page.locator(".attention > img").first.screenshot()))).mean()


def test_upload_click_read_and_hover(app):
    page = app()
    upload(page, PHOTOS + "astronaut.png")
    click_caption(page)
    expect(page.locator(".cu-caption")).to_have_text(SENTENCE)
    assert "Probability" in page.locator(".cu-card").inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator(".cu-caption").text_content()
    before = brightness(page)
    word = page.locator(".attention-word").nth(1)
    word.hover()
    expect(word.locator("img")).to_have_css("opacity", "1")
    assert brightness(page) < 0.8 * before


def test_without_a_clipboard_the_caption_is_copied_the_old_way(app):
    page = app(script="Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("button", name="coffee").click()
    page.get_by_text("Ready:").wait_for()
    click_caption(page)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    box = page.get_by_placeholder("path of a photo")
    box.press("Control+V")
    assert box.input_value().strip() == page.locator(".cu-caption").text_content()


def test_a_long_name_stays_in_the_panel(app, tmp_path):
    page = app(width=390, height=844)
    (tmp_path / f"{'x' * 240}.jpg").write_bytes(b"no photo")
    upload(page, tmp_path / f"{'x' * 240}.jpg")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    status = page.get_by_text("Ready:")
    assert status.evaluate("status => status.scrollWidth <= status.clientWidth")


def test_on_a_telephone_a_word_is_tapped(app):
    page = app(width=390, height=844)
    page.get_by_role("button", name="coffee").click()
    page.get_by_text("Ready:").wait_for()
    click_caption(page)
    word = page.locator(".attention-word").first
    word.click()
    page.mouse.move(1, 1)
    expect(word.locator("img")).to_have_css("opacity", "1")
    for part in (".attention > img", ".cu-caption", ".cu-history"):
        box = page.locator(part).bounding_box()
        assert 0 <= box["x"] < box["x"] + box["width"] <= 390


def test_a_broken_file_is_told_as_text_and_the_page_goes_on(app, tmp_path):
    page = app()
    page.on("dialog", lambda dialog: pytest.fail("a file's name was run"))
    name = "<img src=x onerror=alert(1)>.jpg"
    (tmp_path / name).write_bytes(b"no photo")
    upload(page, tmp_path / name, PHOTOS + "camera.png")
    click_caption(page)
    message = f"{name}: not a picture that can be read; convert it to JPEG or PNG"
    expect(page.locator(".cu-failed")).to_have_text(message)
    expect(page.locator(".cu-caption")).to_have_count(1)
    assert page.locator("img[src=x]").count() == 0


def test_the_same_file_twice_and_the_history_as_csv(app):
    page = app()
    for _ in range(2):
        upload(page, PHOTOS + "chelsea.png")
        click_caption(page)
        expect(page.locator(".cu-caption")).to_have_count(1)
    upload(page, PHOTOS + "coffee.png")
    click_caption(page)
    expect(page.locator(".cu-history tr")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_text("Save as CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("photo,caption")
    assert [line.split(",")[0] for line in lines[1:]] == ["chelsea.png", "coffee.png"]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A photo of 20 MB."""
    path = tmp_path_factory.mktemp("large") / "large.png"
    noise = np.random.default_rng(0).integers(0, 256, (2600, 2700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, compress_level=0)
    assert 20 * MEGABYTE < path.stat().st_size < 25 * MEGABYTE
    return path


def test_twenty_megabytes_arrive(app, large):
    page = app()
    assert "Up to 50 MB at once" in page.locator(".cu").first.inner_text()
    upload(page, large)
    click_caption(page)
    expect(page.locator(".cu-card .cu-name")).to_contain_text("large.png")


def test_two_visitors_do_not_see_each_other_s_photos(app):
    one, other = app(), app()
    upload(one, PHOTOS + "astronaut.png")
    click_caption(one)
    expect(one.locator(".cu-caption")).to_have_count(1)
    assert other.locator(".cu-caption").count() == 0
    upload(other, PHOTOS + "camera.png")
    click_caption(other)
    expect(other.locator(".cu-history")).to_contain_text("camera.png")
    assert "astronaut.png" not in other.locator(".cu-history").inner_text()
    assert "camera.png" not in one.locator(".cu-history").inner_text()


def test_in_jupyterlab(servers, visit, large, tmp_path):
    address = servers.start("lab", f"--IdentityProvider.token={TOKEN}", "--allow-root")
    page = visit(f"{address}/lab/tree/07_interactive_captioning.ipynb?token={TOKEN}&reset", height=1400)
    page.get_by_text("| Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    widget = page.locator(".jp-OutputArea .cu").first
    expect(widget.locator(".cu-failed")).to_contain_text("not a picture")  # as the notebook's last upload is
    (tmp_path / "broken.jpg").write_bytes(b"")
    upload(page, tmp_path / "broken.jpg", large)
    click_caption(page)
    expect(widget.locator(".cu-failed")).to_have_text("broken.jpg: the file is empty; copy or download it again")
    expect(widget.locator(".cu-card .cu-name")).to_contain_text("large.png")
    expect(widget.locator(".cu-caption")).to_have_text(SENTENCE)
    word = widget.locator(".attention-word").first
    word.hover()
    expect(word.locator("img")).to_have_css("opacity", "1")


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_a_browser_tests_are_skipped_but_fail_where_nobody_looks(monkeypatch, ci, outcome):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(browsing, "CHROMIUM", None)
    with pytest.raises(outcome, match="there is no browser"):
        browsing.do_without(browsing.obstacle())


def test_jupyterlab_opens_at_the_first_notebook():
    assert arguments_of("lab")[:3] == ["jupyter", "lab", "notebooks/01_dataset_exploration.ipynb"]
