"""The page as a person uses it: upload with the file chooser, click, read, hover. All tests share two open pages."""

import io
import json
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import browsing
import nbformat
import numpy as np
import psutil
import pytest
import skimage
from PIL import Image
from servers import ROOT, TOKEN, Servers, arguments_of
from traitlets.config.loader import PyFileConfigLoader

expect = pytest.importorskip("playwright.sync_api").expect

PHOTOS = Path(skimage.data_dir)
MEGABYTE = 2**20
SENTENCE = re.compile(r"^\w+( [\w'-]+)+$")
DESKTOP, TELEPHONE = {"width": 1280, "height": 1000}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def pages(servers, visit):
    """The pages of two visitors, and their cells as a notebook in JupyterLab; opened together, to load together."""
    visitors = [visit(servers.start("app")) for _ in range(2)]
    lab = servers.start("lab", f"--IdentityProvider.token={TOKEN}", "--allow-root")
    notebook = nbformat.read(ROOT / "notebooks" / "07_interactive_captioning.ipynb", nbformat.NO_CONVERT)
    notebook.cells = [cell for cell in notebook.cells if {"bootstrap", "page"} & set(cell.metadata.get("tags", []))]
    nbformat.write(notebook, servers.folder / "notebooks" / "page.ipynb")
    return *visitors, visit(f"{lab}/lab/tree/page.ipynb?token={TOKEN}&reset")


@pytest.fixture
def app(pages, keep_picture):
    """The first visitor's page, as earlier tests left it."""
    page = pages[0]
    keep_picture(page)
    page.get_by_role("button", name=re.compile("Upload photos")).wait_for()
    page.set_viewport_size(DESKTOP)
    page.mouse.move(1, 1)
    return page


def ready(page, name):
    page.get_by_text("Ready:").filter(has_text=name).wait_for()


def choose_files(page, *files):
    """Choose files with the upload button."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=re.compile("Upload photos")).click()
    chooser.value.set_files([str(file) for file in files])


def upload(page, *files):
    """Choose files with the upload button and wait until the page has them."""
    choose_files(page, *files)
    ready(page, files[0].name)


def pick_sample(page, name):
    page.get_by_role("button", name=name).click()
    ready(page, name)


def click_caption(page):
    page.get_by_role("button", name="Caption", exact=True).click()
    expect(page.get_by_text("Ready:")).to_have_count(0)  # the work has begun
    expect(page.get_by_role("button", name="Caption", exact=True)).to_be_enabled()


def brightness(page):
    """Mean of the photo's pixels as they are on the screen."""
    return np.asarray(Image.open(io.BytesIO(page.locator(".attention > img").first.screenshot()))).mean()


def copy_caption(page):
    """Click the button that copies the caption, which is returned."""
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    return page.locator(".cu-caption").text_content()


def test_upload_click_read_and_hover(app):
    upload(app, PHOTOS / "astronaut.png")
    click_caption(app)
    expect(app.locator(".cu-caption")).to_have_text(SENTENCE)
    assert "Probability" in app.locator(".cu-card").inner_text()
    before = brightness(app)
    word = app.locator(".attention-word").nth(1)
    word.hover()
    expect(word.locator("img")).to_have_css("opacity", "1")
    assert brightness(app) < 0.8 * before


def test_a_screen_reader_has_names_for_the_lists_and_hears_what_happens(app, tmp_path):
    for name, role in (("Path", "textbox"), ("Model", "combobox"), ("Search", "combobox")):
        expect(app.get_by_role(role, name=name, exact=True)).to_be_visible()
        label = app.locator("label", has_text=re.compile(f"^{name}$")).bounding_box()
        assert label["width"] == label["height"] == 1
    app.get_by_role("button", name="coffee").click()
    expect(app.get_by_role("status").filter(has_text="Ready: coffee.png")).to_be_visible()
    (tmp_path / "broken.jpg").write_bytes(b"")
    upload(app, tmp_path / "broken.jpg", PHOTOS / "camera.png")
    click_caption(app)
    expect(app.get_by_role("status")).to_have_text(SENTENCE)
    expect(app.get_by_role("alert")).to_contain_text("broken.jpg: the file is empty")


def test_the_caption_is_copied_with_a_clipboard_and_without(app):
    pick_sample(app, "coffee")
    click_caption(app)
    app.context.grant_permissions(["clipboard-read", "clipboard-write"])
    assert copy_caption(app) == app.evaluate("navigator.clipboard.readText()")
    app.evaluate("navigator.clipboard.writeText('')")
    app.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})")
    app.evaluate("document.querySelector('button.cu-copy').textContent = 'Copy'")
    caption = copy_caption(app)
    app.evaluate("delete navigator.clipboard")
    assert caption == app.evaluate("navigator.clipboard.readText()").strip()


def test_where_nothing_can_be_copied_the_caption_is_selected_and_no_key_is_named(app):
    pick_sample(app, "coffee")
    click_caption(app)
    app.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})")
    app.evaluate("document.execCommand = () => false")
    app.get_by_role("button", name="Copy").click()
    expect(app.locator("button.cu-copy")).to_have_text("Selected: copy it by keyboard or menu")
    assert app.evaluate("String(getSelection())").strip().lower() == app.locator(".cu-caption").text_content()
    app.evaluate("delete navigator.clipboard; delete document.execCommand")


def test_of_several_cards_the_one_whose_caption_was_copied_last_says_so(app):
    upload(app, PHOTOS / "astronaut.png", PHOTOS / "camera.png")
    click_caption(app)
    buttons = app.locator("button.cu-copy")
    for number, labels in enumerate((["Copied", "Copy"], ["Copy", "Copied"])):
        buttons.nth(number).click()
        expect(buttons).to_have_text(labels)


def test_on_a_telephone_a_word_is_tapped_and_everything_is_in_view(app):
    app.set_viewport_size(TELEPHONE)
    pick_sample(app, "coffee")
    click_caption(app)
    word = app.locator(".attention-word").first
    word.click()
    app.mouse.move(1, 1)
    expect(word.locator("img")).to_have_css("opacity", "1")
    for part in (".attention > img", ".cu-caption", ".cu-history"):
        box = app.locator(part).bounding_box()
        assert 0 <= box["x"] < box["x"] + box["width"] <= 390
    assert app.locator(".cu-results").evaluate("results => results.scrollWidth <= results.clientWidth")


def test_the_title_has_the_colour_of_the_theme(app):
    app.evaluate("document.body.style.setProperty('--jp-ui-font-color1', 'red')")
    expect(app.get_by_role("heading", level=1)).to_have_css("color", "rgb(255, 0, 0)")
    app.evaluate("document.body.style.removeProperty('--jp-ui-font-color1')")


@pytest.mark.parametrize(("size", "width"), [((30, 600), 28), ((600, 30), 560), ((600, 450), 560), ((450, 600), 420)])
def test_masks_lie_on_a_photo_of_any_shape_and_its_words_have_room(app, tmp_path, size, width):
    Image.new("RGB", size, "teal").save(tmp_path / f"{width}.png")
    upload(app, tmp_path / f"{width}.png")
    click_caption(app)
    photo = app.locator(".attention > img").bounding_box()
    assert photo["width"] == pytest.approx(width, abs=1)
    for mask in app.locator(".attention-word img").all():
        assert mask.bounding_box() == pytest.approx(photo, abs=0.1)
    words = app.locator(".attention-words")
    assert words.bounding_box()["width"] == pytest.approx(560, abs=1)
    assert words.evaluate("words => words.scrollWidth <= words.clientWidth")


def test_a_long_name_stays_in_the_panel_and_hides_nothing_of_the_card(app, tmp_path):
    app.set_viewport_size(TELEPHONE)
    shutil.copy(PHOTOS / "coffee.png", tmp_path / f"{'x' * 240}.png")
    upload(app, tmp_path / f"{'x' * 240}.png")
    status, name = app.get_by_text("Ready:"), app.locator(".cu-card .cu-name")
    assert status.evaluate("status => status.scrollWidth <= status.clientWidth")
    click_caption(app)
    assert name.evaluate("name => name.scrollWidth <= name.clientWidth")
    assert app.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_broken_file_is_told_as_text_and_the_page_goes_on(app, tmp_path):
    dialogs = []
    app.on("dialog", lambda dialog: dialogs.append(dialog.message) or dialog.dismiss())
    name = "<img src=x onerror=alert(1)>.jpg"
    (tmp_path / name).write_bytes(b"no photo")
    upload(app, tmp_path / name, PHOTOS / "camera.png")
    click_caption(app)
    message = f"{name}: not a picture that can be read; convert it to JPEG or PNG"
    expect(app.locator(".cu-failed")).to_have_text(message)
    expect(app.locator(".cu-caption")).to_have_count(1)
    assert app.locator("img[src=x]").count() == 0
    assert dialogs == []


def test_the_same_file_twice_and_the_history_as_csv(app):
    for _ in range(2):
        upload(app, PHOTOS / "chelsea.png")
        click_caption(app)
        expect(app.locator(".cu-caption")).to_have_count(1)
    upload(app, PHOTOS / "coffee.png")
    click_caption(app)
    expect(app.locator(".cu-history tr").first).to_contain_text("coffee.png")
    for name in ("chelsea.png", "coffee.png"):
        expect(app.locator(".cu-history tr", has_text=name)).to_have_count(1)
    with app.expect_download() as download:
        app.get_by_text("Save as CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("photo,caption")
    assert [line.split(",")[0] for line in lines[-2:]] == ["chelsea.png", "coffee.png"]
    expect(app.locator(".cu-history tr")).to_have_count(len(lines) - 1)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A photo of 20 MB."""
    path = tmp_path_factory.mktemp("large") / "large.png"
    noise = np.random.default_rng(0).integers(0, 256, (2600, 2700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, compress_level=0)
    assert 20 * MEGABYTE < path.stat().st_size < 25 * MEGABYTE
    return path


def test_twenty_megabytes_arrive(app, large):
    assert "Up to 50 MB per upload" in app.locator(".cu").first.inner_text()
    upload(app, large)
    click_caption(app)
    expect(app.locator(".cu-card .cu-name")).to_contain_text("large.png")


def test_too_much_at_once_is_told_and_the_next_upload_arrives(app, large, tmp_path):
    choose_files(app, *(shutil.copy(large, tmp_path / f"{copy}.png") for copy in range(3)))
    expect(app.get_by_role("alert")).to_contain_text("more than 50 MB at once")
    upload(app, PHOTOS / "astronaut.png")


def test_of_uploads_while_photos_are_captioned_the_last_one_counts(app, tmp_path):
    for number in range(12):
        shutil.copy(PHOTOS / "astronaut.png", tmp_path / f"{number}.png")
    app.get_by_placeholder("path of a photo or a folder").fill(str(tmp_path))
    app.get_by_placeholder("path of a photo or a folder").press("Enter")
    app.get_by_text("9 more").wait_for()
    app.get_by_role("button", name="Caption", exact=True).click()
    expect(app.get_by_role("button", name="Working…")).to_be_visible()
    for name in ("camera", "chelsea", "coffee"):
        choose_files(app, PHOTOS / f"{name}.png")
        app.wait_for_timeout(200)
    expect(app.get_by_role("button", name="Working…")).to_be_visible()
    ready(app, "coffee.png")
    click_caption(app)
    expect(app.locator(".cu-card .cu-name")).to_contain_text("coffee.png")


def test_two_visitors_do_not_see_each_other_s_photos(app, pages, keep_picture):
    other = pages[1]
    keep_picture(other)
    upload(app, PHOTOS / "astronaut.png")
    click_caption(app)
    expect(app.locator(".cu-caption")).to_have_count(1)
    assert other.locator(".cu-caption").count() == 0
    upload(other, PHOTOS / "rocket.jpg")
    click_caption(other)
    expect(other.locator(".cu-history")).to_contain_text("rocket.jpg")
    assert "astronaut.png" not in other.locator(".cu-history").inner_text()
    assert "rocket.jpg" not in app.locator(".cu-history").inner_text()


def kernel_of(page):
    return json.loads(page.locator("#jupyter-config-data").text_content())["kernelId"]


def ended(page, kernel):
    """Wait until the server of the page has no such kernel."""
    for _ in range(100):
        try:
            urlopen(f"{page.url}api/kernels/{kernel}").close()
        except HTTPError as error:
            return error.code == 404
        time.sleep(0.2)
    return False


def test_when_the_kernel_ends_the_page_says_so_once(pages, keep_picture):
    page = pages[1]
    keep_picture(page)
    (process,) = (each for each in psutil.process_iter(["cmdline"]) if kernel_of(page) in str(each.info["cmdline"]))
    process.kill()
    expect(page.locator(".cu")).to_have_class(re.compile("jupyter-widgets-disconnected"))
    shown = "marked => marked.map(each => getComputedStyle(each, '::before')).filter(each => each.display != 'none')"
    marks = page.locator(".jupyter-widgets-disconnected").evaluate_all(f"{shown}.map(each => each.content)")
    assert len(marks) == 1 and "The program behind this page has ended. Reload the page" in marks[0]


def test_a_page_that_is_loaded_again_or_left_ends_its_kernel(pages):
    page = pages[1]
    first = kernel_of(page)
    page.reload(wait_until="commit")
    page.get_by_role("button", name=re.compile("Upload photos")).wait_for()
    second = kernel_of(page)
    assert first != second and ended(page, first)
    with suppress(HTTPError):
        urlopen(f"{page.url}voila/api/shutdown/{second}", b"")  # from elsewhere
    urlopen(f"{page.url}api/kernels/{second}").close()
    page.close(run_before_unload=True)
    assert ended(page, second)


def test_in_jupyterlab(pages, keep_picture, large, tmp_path):
    page = pages[2]
    keep_picture(page)
    page.get_by_text("| Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    widget = page.locator(".jp-OutputArea .cu").first
    expect(widget.get_by_role("combobox", name="Model", exact=True)).to_be_visible()
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


def test_only_this_machine_can_open_the_servers(monkeypatch):
    for name in ("CAPTION_UPLOAD_MB", "JUPYTER_PATH"):
        monkeypatch.setenv(name, "")  # the settings change them
    settings = PyFileConfigLoader("voila.py", str(ROOT / "tools" / "jupyter")).load_config()
    assert settings.Voila.ip == settings.ServerApp.ip == "127.0.0.1"


@pytest.fixture
def own_server(tmp_path):
    started = Servers(tmp_path)
    yield started
    started.stop()


def test_a_wrong_setting_is_told_and_so_is_the_end_of_the_server(own_server, visit, keep_picture, monkeypatch):
    monkeypatch.setenv("CAPTION_DEVICE", "abacus")
    page = visit(own_server.start("app"))
    keep_picture(page)
    error = page.get_by_text("InputError: CAPTION_DEVICE=abacus: choose one of")
    expect(error).to_be_visible()
    expect(page.get_by_text("Traceback")).to_have_count(0)
    with page.expect_response(lambda response: response.request.method == "HEAD") as response:
        error.click()
    assert response.value.ok
    expect(page.get_by_role("alert")).to_have_count(0)
    own_server.stop()
    error.evaluate("error => { error.style.marginTop = '3000px'; }")  # as below many cards
    error.click()
    told = page.get_by_text("The server of this page has ended. Start it again with make app")
    expect(told).to_have_role("alert")
    expect(told).to_be_in_viewport(ratio=1)
