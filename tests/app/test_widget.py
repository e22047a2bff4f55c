import os
import sys
from datetime import datetime
from pathlib import Path

import ipywidgets
import pytest
import skimage

from caption_utils.app import page
from caption_utils.app import session as session_module
from caption_utils.app import widget as module
from caption_utils.app.photos import Photo, sample_photos
from caption_utils.app.session import Session
from caption_utils.app.widget import CaptionWidget

COFFEE, CHELSEA = (Path(skimage.data_dir) / name for name in ("coffee.png", "chelsea.png"))
CORE = {"VBox", "Box", "HTML", "Button", "Dropdown", "FileUpload", "Image", "IntProgress", "Text"}


@pytest.fixture
def widget(model_folder, encoder, monkeypatch):
    monkeypatch.setattr(session_module, "load_encoder", lambda name, device: encoder)
    return CaptionWidget(Session({"tiny": model_folder, "again": model_folder}))


def hand_over(widget, **files):
    """Upload files, as the installed ipywidgets tells of it."""
    button = widget.upload
    if isinstance(button.value, dict):
        button.set_trait("value", {name: {"metadata": {"name": name}, "content": data} for name, data in files.items()})
    else:
        about = {"type": "", "last_modified": datetime(2020, 1, 1)}
        button.value = tuple(
            {"name": name, "size": len(data), "content": memoryview(data), **about} for name, data in files.items()
        )


def cards(widget):
    return [card.value for card in widget.results.children]


def test_upload_and_click_give_a_caption(widget):
    hand_over(widget, **{"mine.png": COFFEE.read_bytes()})
    assert "Ready: <bdi>mine.png</bdi>" in widget.status.value
    widget.button.click()
    (card,) = cards(widget)
    (result,) = widget.session.history
    assert result.captions[0].text in card and "mine.png" in card
    assert (result.model, result.beams) == ("tiny", 5)
    assert "mine.png" in widget.history.value and "Save as CSV" in widget.history.value


def test_an_upload_of_either_shape_is_taken(widget):
    old = {"a.png": {"metadata": {"name": "a.png", "size": 3}, "content": b"one"}}
    for value in (old, ({"name": "a.png", "size": 3, "content": memoryview(b"one")},)):
        widget.choose([])
        widget._uploaded({"new": value})
        assert widget.photos == [Photo("a.png", b"one")]
        assert "Ready: <bdi>a.png</bdi>" in widget.status.value


def written_files(events):
    """Those audit events that open a file to write it, or make a file or folder."""
    return [
        args[0]
        for event, args in events
        if event in ("os.mkdir", "os.rename", "os.symlink", "os.link")
        or event == "open"
        and (set(args[1] or "") & set("wax+") or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR))
    ]


def test_an_upload_stays_in_memory(widget):
    events, watching = [], True
    sys.addaudithook(lambda event, args: events.append((event, args)) if watching else None)  # there for good
    hand_over(widget, **{"mine.png": COFFEE.read_bytes(), "b.jpg": b"no photo"})
    widget.button.click()
    watching = False
    assert "mine.png" in widget.history.value and any(event == "open" for event, _ in events)
    assert written_files(events) == []


def test_the_same_file_twice_in_a_row_is_two_uploads(widget, monkeypatch):
    chosen = []
    monkeypatch.setattr(widget, "choose", chosen.append)
    for _ in range(2):
        hand_over(widget, **{"mine.png": b"the same"})
    assert chosen == [[Photo("mine.png", b"the same")]] * 2


def test_several_uploads_are_captioned_each_with_progress(widget):
    seen = []
    widget.progress.observe(lambda change: seen.append((change["new"], widget.progress.layout.display)), "value")
    hand_over(widget, **{"a.png": COFFEE.read_bytes(), "b.txt": b"no photo", "c.png": CHELSEA.read_bytes()})
    widget.button.click()
    assert ["cu-failed" in card for card in cards(widget)] == [False, True, False]
    assert seen == [(1, ""), (2, ""), (3, "")]
    assert (widget.progress.max, widget.progress.layout.display) == (3, "none")


def test_cards_are_closed_when_others_replace_them(widget):
    widget.choose([Photo("a.png", COFFEE)])
    for _ in range(2):
        old = widget.results.children
        widget.button.click()
        assert [card.comm for card in old] == [None] and widget.results.children[0].comm


def test_busy_while_it_works_and_ready_after(widget, monkeypatch):
    seen, captioned = [], widget.session.caption

    def caption(*settings):
        seen.append((widget.button.disabled, widget.button.description, "cu-working" in widget.status.value))
        return captioned(*settings)

    monkeypatch.setattr(widget.session, "caption", caption)
    widget.choose([Photo("a.png", COFFEE)])
    widget.button.click()
    assert seen == [(True, "Working…", True)]
    assert (widget.button.disabled, widget.button.description) == (False, "Caption")


def test_without_a_photo_the_click_says_what_to_do(widget):
    widget.button.click()
    assert "Choose a photo first" in widget.status.value


def test_model_and_beams_are_the_chosen_ones(widget):
    widget.choose([Photo("a.png", COFFEE)])
    widget.model.value, widget.beams.value = "again", 1
    widget.button.click()
    (result,) = widget.session.history
    assert (result.model, result.beams, len(result.captions)) == ("again", 1, 1)
    assert [label for label, _ in widget.beams.options] == ["greedy", *(f"{k} beams" for k in range(2, 11))]


def tiles(parent):
    found = [child for child in getattr(parent, "children", ()) if isinstance(child, ipywidgets.Button)]
    return found + [button for child in getattr(parent, "children", ()) for button in tiles(child)]


def test_a_sample_is_one_click(widget):
    button = next(button for button in tiles(widget) if button.description == "coffee")
    button.click()
    assert widget.photos == [Photo("coffee.png", COFFEE)]
    assert [photo.name for photo in sample_photos()][:2] == ["astronaut.png", "camera.png"]


def test_a_path_of_a_photo_or_a_folder(widget, tmp_path):
    for name in ("b.jfif", "a.png", "._a.png", "notes.txt"):
        (tmp_path / name).touch()
    widget.path.value = str(COFFEE)
    assert widget.photos == [Photo("coffee.png", COFFEE)] and "skipped" not in widget.status.value
    widget.path.value = str(tmp_path)
    assert [photo.name for photo in widget.photos] == ["a.png", "b.jfif"]
    assert f"<bdi>{tmp_path}: skipped files that are not pictures: 1</bdi>" in widget.status.value


@pytest.mark.parametrize("path", ["<b>gone</b>.jpg", "a\0b", "x" * 5000])
def test_a_path_to_nothing_is_told(widget, path):
    widget.path.value = path
    widget.button.click()
    assert "<b>" not in "".join(cards(widget)) + widget.status.value
    assert "cu-failed" in "".join(cards(widget)) + widget.status.value


def test_the_home_of_nobody_is_told_at_once_and_nothing_is_chosen(widget):
    widget.choose([Photo("a.png", COFFEE)])
    widget.path.value = "~nosuchuser/x.jpg"
    assert "cu-failed" in widget.status.value
    assert widget.photos == []


def test_a_path_is_read_again_by_each_click(widget, tmp_path):
    widget.path.value = str(tmp_path)
    widget.button.click()
    assert "holds no picture" in widget.status.value
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(COFFEE.read_bytes())
        widget.button.click()
        assert [photo.name for photo in widget.photos] == ["1.png", "2.png"][:number]
        assert len(cards(widget)) == number


def test_where_a_path_was_looked_for_is_told_before_the_click_and_after(widget, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    widget.path.value = "photos/gone.jpg"
    told = f"{tmp_path / 'photos' / 'gone.jpg'}: no such file or folder; check the path"
    assert told in widget.status.value and widget.photos == []
    widget.button.click()
    assert told in widget.status.value


def test_a_path_given_again_after_an_upload_or_a_sample_counts(widget):
    others = (
        lambda: hand_over(widget, **{"mine.png": b"photo"}),
        next(tile for tile in tiles(widget) if tile.description == "chelsea").click,
    )
    for other in others:
        widget.path.value = str(COFFEE)
        other()
        assert widget.photos != [Photo("coffee.png", COFFEE)]
        widget.path.value = str(COFFEE)
        assert widget.photos == [Photo("coffee.png", COFFEE)]


@pytest.mark.parametrize("emptied", ["", " "])
def test_an_emptied_path_chooses_nothing(widget, emptied):
    for path in (str(COFFEE), "/no/such.png"):
        widget.path.value = path
        assert widget.status.value
        widget.path.value = emptied
        assert widget.photos == [] and widget.status.value == ""
    widget.button.click()
    assert "Choose a photo first" in widget.status.value


def test_an_upload_empties_the_path_and_counts(widget):
    widget.path.value = str(COFFEE)
    hand_over(widget, **{"mine.png": b"photo"})
    assert (widget.photos, widget.path.value) == ([Photo("mine.png", b"photo")], "")
    assert "Ready: <bdi>mine.png</bdi>" in widget.status.value


def test_an_empty_folder_is_told(widget, tmp_path):
    widget.path.value = str(tmp_path)
    assert "holds no picture" in widget.status.value


def test_many_photos_are_captioned_though_few_are_shown_large(widget, monkeypatch):
    monkeypatch.setattr(module, "MOST_CARDS", 2)
    photos = [Photo(f"{i}.png", COFFEE) for i in range(4)]
    widget.choose([*photos, Photo("bad.png", b"no photo"), Photo("worse.png", b"")])
    widget.button.click()
    assert ["cu-failed" in card for card in cards(widget)] == [False, False, False, True, True]
    assert "Only the first 2 photos are shown large" in cards(widget)[2]
    assert "bad.png" in cards(widget)[3] and len(widget.session.history) == 4
    widget.choose(photos[:2])
    widget.button.click()
    assert ["cu-caption" in card for card in cards(widget)] == [True, True]


def test_photos_that_have_no_caption_take_no_other_photo_s_place(widget, monkeypatch):
    monkeypatch.setattr(module, "MOST_CARDS", 2)
    good = [Photo(f"{i}.png", COFFEE) for i in range(3)]
    for photos, cut in ((good[:2], 0), (good, 1)):
        widget.choose([Photo("bad.png", b"no photo")] * 3 + photos)
        widget.button.click()
        assert sum("cu-caption" in card for card in cards(widget)) == 2
        assert sum("shown large" in card for card in cards(widget)) == cut


def test_running_out_of_memory_is_told_and_the_widget_goes_on(widget, monkeypatch):
    def fail(*args):
        raise MemoryError

    widget.choose([Photo("a.png", COFFEE)])
    with monkeypatch.context() as patch:
        patch.setattr(widget.session, "caption", fail)
        widget.button.click()
    assert "no caption (out of memory)" in cards(widget)[0]
    widget.button.click()
    assert "cu-caption" in cards(widget)[0]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), KeyError("x"), RuntimeError("a\nb")])
def test_whatever_goes_wrong_is_told_and_the_history_kept(widget, monkeypatch, error):
    captioned = widget.session.caption

    def fail(photo, *settings):
        if photo.name == "b.png":
            raise error
        return captioned(photo, *settings)

    monkeypatch.setattr(widget.session, "caption", fail)
    widget.choose([Photo("a.png", COFFEE), Photo("b.png", COFFEE), Photo("c.png", CHELSEA)])
    widget.button.click()
    assert f"b.png</bdi>: <bdi>no caption ({page.html.escape(' '.join(str(error).split()))}); try" in cards(widget)[1]
    assert "a.png" in widget.history.value and "c.png" in widget.history.value


def test_an_interrupted_click_keeps_what_it_had_in_the_history(widget, monkeypatch):
    captioned = widget.session.caption

    def interrupted(photo, *settings):
        if photo.name == "b.png":
            raise KeyboardInterrupt
        return captioned(photo, *settings)

    monkeypatch.setattr(widget.session, "caption", interrupted)
    widget.choose([Photo("a.png", COFFEE), Photo("b.png", COFFEE)])
    with pytest.raises(KeyboardInterrupt):
        widget.caption()
    assert "a.png" in widget.history.value
    assert not widget.button.disabled


def test_a_model_that_cannot_be_loaded_for_any_reason_is_told(monkeypatch, tmp_path):
    def fail(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(session_module, "load_model", fail)
    assert "not loaded ([Errno 13] Permission denied)" in CaptionWidget(Session({"bad": tmp_path})).status.value


def test_a_damaged_model_is_told_at_once(tmp_path):
    widget = CaptionWidget(Session({"bad": tmp_path}))
    assert "config.json" in widget.status.value
    widget.choose([Photo("a.png", COFFEE)])
    widget.button.click()
    assert "config.json" in cards(widget)[0]


def test_a_damaged_model_is_told_once_however_many_photos_and_another_one_chosen(widget, tmp_path):
    widget.session.models["bad"] = tmp_path
    widget.model.options = list(widget.session.models)
    widget.choose([Photo("a.png", COFFEE), Photo("b.png", CHELSEA)])
    widget.model.value = "bad"
    widget.button.click()
    (told,) = cards(widget)
    assert "<bdi>bad</bdi>" in told and "config.json" in told and "png" not in told
    assert (widget.button.disabled, widget.button.description) == (False, "Caption")
    widget.model.value = "tiny"
    widget.button.click()
    assert ["cu-caption" in card for card in cards(widget)] == [True, True]


def places(widget):
    """The headings in the order of the page."""
    texts = [child.value for child in everything(widget) if isinstance(child, ipywidgets.HTML)]
    return [heading for text in texts for heading in ("Your photos", "Or a sample", "Or a path") if heading in text]


def everything(parent):
    yield parent
    for child in getattr(parent, "children", ()):
        yield from everything(child)


def test_where_uploads_are_cut_off_the_other_ways_come_first(widget, model_folder, encoder, monkeypatch):
    assert places(widget) == ["Your photos", "Or a sample", "Or a path"]
    monkeypatch.setenv("COLAB_GPU", "1")
    colab = CaptionWidget(Session({"tiny": model_folder}))
    assert places(colab) == ["Or a sample", "Or a path", "Your photos"]
    assert any("Up to 1 MB" in child.value for child in everything(colab) if isinstance(child, ipywidgets.HTML))


def test_the_limit_stands_beside_the_button(widget, model_folder, monkeypatch):
    monkeypatch.setenv("CAPTION_UPLOAD_MB", "50")
    raised = CaptionWidget(Session({"tiny": model_folder}))
    assert any("Up to 50 MB" in child.value for child in everything(raised) if isinstance(child, ipywidgets.HTML))


def test_an_upload_above_the_limit_is_told_and_the_next_one_taken(widget, monkeypatch):
    monkeypatch.setenv("CAPTION_UPLOAD_MB", "1")
    hand_over(widget, **{"a.png": bytes(2**20), "b.png": b"1"})
    assert widget.photos == []
    widget.button.click()
    assert 'role="alert">Not taken: more than 1 MB' in widget.status.value
    hand_over(widget, **{"b.png": b"1"})
    assert widget.photos == [Photo("b.png", b"1")]


def test_uploads_stay_in_nothing_but_the_choice(widget):
    hand_over(widget, **{"mine.png": b"photo"})
    assert not widget.upload.value and widget.upload.comm


def test_what_the_eye_knows_by_its_heading_has_a_name(widget):
    assert (widget.path.description, widget.upload.tooltip) == ("Path", "Upload photos")


def test_where_photos_are_kept_is_told(widget, model_folder, monkeypatch):
    monkeypatch.setenv("COLAB_GPU", "1")
    colab = CaptionWidget(Session({"tiny": model_folder}))
    here, there = (
        "".join(child.value for child in everything(page) if isinstance(child, ipywidgets.HTML))
        for page in (widget, colab)
    )
    assert "kept in memory only" in here and "clear its outputs" not in here
    assert "kept in memory only" not in there and "clear its outputs" in there


def test_core_widgets_alone(widget):
    used = {type(child).__name__ for child in everything(widget)} - {"CaptionWidget"}
    assert used <= CORE


def test_a_stored_notebook_says_what_it_was(widget):
    assert repr(widget) == "CaptionWidget()"


def test_without_a_session_all_models_are_offered():
    assert "bahdanau-flickr8k" in CaptionWidget().model.options
