"""The page: choose photos and a model, read captions. Core ipywidgets, 7.7 or 8, no ``Output``."""

import os
from functools import cache
from pathlib import Path
from typing import Any

from ipywidgets import HTML, Box, Button, Dropdown, FileUpload, IntProgress, Text, VBox, Widget

from caption_utils.app import page
from caption_utils.app.photos import Photo, sample_photos, too_large, upload_megabytes, uploaded_photos
from caption_utils.app.session import Session
from caption_utils.config import BEAMS
from caption_utils.data.folders import pictures_of
from caption_utils.data.images import load_image
from caption_utils.errors import InputError
from caption_utils.runtime import device, host
from caption_utils.training.zoo import model_folders

MOST_BEAMS = 10
MOST_CARDS = 24  # photos shown large after a click; the others are only listed in the history
TILE_SIDE = 60  # pixels of a sample's thumbnail


class CaptionWidget(VBox):
    """Upload photos, pick a sample or enter a path; the captions, and where the model looked, appear beside it."""

    def __init__(self, session: Session | None = None):
        """Without ``session``, one with all models found. Raises ``InputError`` if there is none."""
        self.session = session or Session(model_folders(), device())
        self.photos: list[Photo] = []
        kinds = "image/*,.heic,.heif,.avif"
        self.upload = FileUpload(accept=kinds, multiple=True, description="Upload photos", icon="")
        self.upload.tooltip = "Upload photos"  # which browsers show as "null" otherwise
        self.path = Text(placeholder="path of a photo or a folder", description="Path", continuous_update=False)
        self.model = Dropdown(options=list(self.session.models), description="Model")
        searches = [(page.search_name(beams), beams) for beams in range(1, MOST_BEAMS + 1)]
        self.beams = Dropdown(options=searches, value=BEAMS, description="Search")
        self.button = Button().add_class("cu-go")
        self.progress, self.status, self.history = IntProgress(), HTML(), HTML()
        self.results = VBox([HTML(page.fill("empty"))]).add_class("cu-results")
        super().__init__([HTML(page.STYLE), self._columns()])
        self.add_class("cu")
        self.upload.add_class("cu-upload").observe(self._uploaded, "value")
        self.path.observe(lambda _: self._look_up() if self.path.value.strip() else self.choose([]), "value")
        self.button.on_click(lambda _: self.caption())
        self._rest()
        self.status.value = self._load()  # now, so that the first caption does not wait for it

    def __repr__(self) -> str:
        return "CaptionWidget()"

    def choose(self, photos: list[Photo], path: str = "") -> None:
        """Choose the photos that the next click captions, and show ``path`` as their path."""
        self.path.value, self.photos = path, photos  # in this order: a path that is emptied chooses nothing
        names = ", ".join(photo.name for photo in photos[:3])
        more = f" and {len(photos) - 3} more" if len(photos) > 3 else ""
        self.status.value = page.fill("ready", names=names, more=more) if photos else ""

    def caption(self) -> None:
        """Caption the chosen photos; a line says why a photo has no caption."""
        self._look_up()  # a folder may hold other photos by now
        if not self.photos:
            self.status.value = self.status.value or page.fill("choose")
            return
        self._work(len(self.photos))
        try:
            if failure := self._load():
                self._show(failure)
            else:
                self._caption_all()
        finally:
            self.history.value = page.history_table(self.session.history, len(self.session.rows), self.session.csv())
            self._rest()

    def _load(self) -> str:
        """Load the chosen model. Returns why it cannot be loaded, or nothing."""
        try:
            self.session.captioner(self.model.value)
        except Exception as error:  # errors of a click are seen by nobody, so the page shows them
            return page.failed_line(self.model.value, error, "not loaded ({}); choose another model")
        return ""

    def _caption_all(self) -> None:
        captioned = 0
        for number, photo in enumerate(self.photos, 1):
            try:
                result = self.session.caption(photo, self.model.value, self.beams.value)
                captioned += 1
                if captioned <= MOST_CARDS:
                    self._show(page.result_card(result))
                elif captioned == MOST_CARDS + 1:
                    self._show(page.fill("cut", cards=MOST_CARDS))
            except Exception as error:  # as in ``_load``
                self._show(page.failed_line(photo.name, error, "no caption ({}); try a smaller photo or another model"))
            self.progress.value = number

    def _show(self, result: str) -> None:
        self.results.children = (*self.results.children, HTML(result))

    def _columns(self) -> Box:
        kept = page.fill("stored") if host() == "colab" else page.fill("memory")
        limit = page.fill("limit", megabytes=upload_megabytes(), kept=kept)
        upload = _section("Your photos", self.upload, HTML(limit))
        others = [
            _section("Or a sample", Box([self._tile(path) for path in sample_photos()]).add_class("cu-tiles")),
            _section("Or a path", self.path).add_class("cu-path"),
        ]
        photos = [*others, upload] if host() == "colab" else [upload, *others]  # Colab cuts larger uploads off
        settings = [_section("Model", self.model), _section("Search", self.beams)]
        left = VBox([*photos, *settings, self.button, self.progress, self.status]).add_class("cu-panel")
        right = VBox([self.results, self.history]).add_class("cu-right")
        return Box([left, right]).add_class("cu-columns")

    def _tile(self, path: Path) -> VBox:
        button = Button(description=path.stem)
        button.on_click(lambda _: self.choose([Photo(path.name, path)]))
        return VBox([HTML(_thumbnail(path)), button]).add_class("cu-tile")

    def _uploaded(self, change: dict[str, Any]) -> None:
        if not (photos := uploaded_photos(change["new"])):
            return
        self.upload.set_trait("value", type(self.upload.value)())  # or it would not notice the same file again
        if too_large(photos):
            self.choose([])
            self.status.value = page.fill("large", megabytes=upload_megabytes())
        else:
            self.choose(photos)

    def _look_up(self) -> None:
        """Choose the photos of the path, if there is one."""
        if not (name := self.path.value.strip()):
            return
        try:
            path = os.path.abspath(Path(name).expanduser())
            if not os.path.exists(path):
                raise InputError(f"{path}: no such file or folder; check the path")
            paths, _, notes = pictures_of([path], recursive=False)
        except (InputError, RuntimeError) as error:  # RuntimeError: ~ of nobody
            self.choose([], name)
            self.status.value = page.failed_line(name, error, "not found ({}); check the path")
        else:
            self.choose([Photo(path.name, path) for path in paths], name)
            self.status.value += "".join(page.fill("note", text=note) for note in notes)

    def _work(self, photos: int) -> None:
        self.button.disabled, self.button.description = True, "Working…"
        self.progress.value, self.progress.max = 0, photos
        self.progress.layout.display = "" if photos > 1 else "none"
        self.status.value = page.fill("working")
        cards, self.results.children = self.results.children, ()
        for card in cards:
            card.close()  # or kernel and browser would keep it, with its photo

    def _rest(self) -> None:
        self.button.disabled, self.button.description = False, "Caption"
        self.progress.layout.display = "none"
        self.status.value = ""


def _section(title: str, *widgets: Widget) -> VBox:
    return VBox([HTML(page.fill("heading", text=title)), *widgets])


@cache
def _thumbnail(path: Path) -> str:
    return page.thumbnail(load_image(path), TILE_SIDE)
