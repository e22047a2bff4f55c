"""The page: hand in photos, choose a model, read captions. Core ipywidgets, 7.7 or 8, no ``Output``."""

from pathlib import Path
from typing import Any

from ipywidgets import HTML, Box, Button, Dropdown, FileUpload, Image, IntProgress, Layout, Text, VBox

from caption_utils.app import page
from caption_utils.app.photos import Photo, upload_megabytes, uploaded_photos
from caption_utils.app.session import Session
from caption_utils.config import BEAMS
from caption_utils.data.folders import pictures_in
from caption_utils.data.images import load_image
from caption_utils.errors import InputError
from caption_utils.runtime import device, host
from caption_utils.training.zoo import model_folders

MOST_BEAMS = 10
MOST_CARDS = 24  # photos of one click that are shown large; the others are listed in the history
TILE_SIDE = 60  # pixels of a sample's thumbnail
ACCEPT = "image/*,.heic,.heif,.avif"
FULL = Layout(width="100%")
SAMPLES = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "rocket.jpg")  # scikit-image carries them


class CaptionWidget(VBox):
    """Upload photos, pick a sample or name a path; the captions, and where the model looked, appear beside it."""

    def __init__(self, session: Session | None = None):
        """Without ``session``, one with all models found. Raises ``InputError`` if there is none."""
        self.session = session or Session(model_folders(), device())
        self.photos: list[Photo] = []
        self.upload = Box()
        self.path = Text(placeholder="path of a photo or a folder", continuous_update=False, layout=FULL)
        self.model = Dropdown(options=list(self.session.models), layout=FULL)
        searches = [(page.search_name(beams), beams) for beams in range(1, MOST_BEAMS + 1)]
        self.beams = Dropdown(options=searches, value=BEAMS, layout=FULL)
        self.button = Button(layout=Layout(width="100%", height="46px", margin="8px 0 0"))
        self.progress = IntProgress(layout=Layout(width="100%", display="none"))
        self.status = HTML()
        self.results = VBox([HTML(page.EMPTY, layout=FULL)], layout=FULL)
        self.history = HTML()
        super().__init__(children=[HTML(page.STYLE), self._columns()])
        self.add_class("cu")
        self.button.add_class("cu-go")
        self.path.observe(self._named, "value")
        self.button.on_click(self._clicked)
        self._renew_upload()
        self._rest()
        self._load()

    def __repr__(self) -> str:
        return "CaptionWidget()"

    def choose(self, photos: list[Photo]) -> None:
        """Make these the photos that the next click captions."""
        self.photos = photos
        names = ", ".join(page.escape(photo.name) for photo in photos[:3])
        more = f" and {len(photos) - 3} more" if len(photos) > 3 else ""
        self._say(f"Ready: {names}{more}" if photos else "")

    def caption(self) -> None:
        """Caption the chosen photos; what cannot be captioned is told in one sentence."""
        if not self.photos:
            self._say("Choose a photo first: upload one, pick a sample or give a path.")
            return
        self._work(len(self.photos))
        try:
            for number, photo in enumerate(self.photos, 1):
                card = HTML(self._outcome(photo), layout=FULL)
                if number <= MOST_CARDS:
                    self.results.children = (*self.results.children, card)
                self.progress.value = number
        finally:
            self.history.value = page.history_table(self.session.history, self.session.captioned, self.session.csv())
            self._rest()

    def _outcome(self, photo: Photo) -> str:
        try:
            return page.result_card(self.session.caption(photo, self.model.value, self.beams.value))
        except InputError as error:
            return page.failed_line(photo.name, str(error))
        except Exception as error:  # nobody reads what a click raises, so whatever it is goes into the page
            return page.failed_line(photo.name, f"no caption ({_reason(error)}); try a smaller photo or another model")

    def _columns(self) -> Box:
        parts = [self._upload_part(), self._sample_part(), self._path_part()]
        if host() == "colab":  # it is said to cut uploads off
            parts = [*parts[1:], parts[0]]
        settings = VBox(
            [
                HTML("<h2>Model</h2>"),
                self.model,
                HTML("<h2>Search</h2>"),
                self.beams,
                self.button,
                self.progress,
                self.status,
            ]
        )
        left = VBox([*parts, settings], layout=Layout(flex="1 1 300px", min_width="260px", max_width="380px"))
        left.add_class("cu-panel")
        right = VBox([self.results, self.history], layout=Layout(flex="2 1 420px", min_width="260px"))
        right.add_class("cu-right")
        return Box([left, right], layout=Layout(flex_flow="row wrap", align_items="flex-start", width="100%"))

    def _upload_part(self) -> VBox:
        most = upload_megabytes()
        hint = f"Up to {most} MB at once; for more, give a path. Photos stay in memory."
        return VBox([HTML("<h2>Your photos</h2>"), self.upload, HTML(f'<p class="cu-quiet">{hint}</p>')])

    def _sample_part(self) -> VBox:
        tiles = Box([self._tile(path) for path in sample_photos()], layout=Layout(flex_flow="row wrap"))
        return VBox([HTML("<h2>Or a sample</h2>"), tiles])

    def _path_part(self) -> VBox:
        return VBox([HTML("<h2>Or a path</h2>"), self.path], layout=Layout(margin="8px 0 8px"))

    def _tile(self, path: Path) -> VBox:
        side = f"{TILE_SIDE}px"
        picture = Image(
            value=page.thumbnail(load_image(path), 2 * TILE_SIDE), format="jpeg", width=TILE_SIDE, height=TILE_SIDE
        )
        button = Button(description=path.stem, layout=Layout(width=side, margin="2px 0"))
        button.add_class("cu-small")
        button.on_click(lambda _: self._handed_in([Photo(path.name, path)]))
        tile = VBox([picture, button], layout=Layout(width=side, margin="0 5px 4px 0"))
        tile.add_class("cu-tile")
        return tile

    def _renew_upload(self) -> None:
        """A new button, since one that has a file does not tell when it is given the same file again."""
        for old in self.upload.children:
            old.close()
        button = FileUpload(
            accept=ACCEPT,
            multiple=True,
            description="Upload photos",
            icon="",
            layout=Layout(width="100%", height="42px"),
        )
        button.add_class("cu-upload")
        button.observe(self._uploaded, "value")
        self.upload.children = (button,)

    def _uploaded(self, change: dict[str, Any]) -> None:
        if photos := uploaded_photos(change["new"]):
            self._handed_in(photos)
            self._renew_upload()

    def _handed_in(self, photos: list[Photo]) -> None:
        """Choose photos that are not those of the path, which would not tell when it is given again."""
        self.path.value = ""
        self.choose(photos)

    def _named(self, change: dict[str, Any]) -> None:
        if not (name := change["new"].strip()):
            return
        try:
            path = Path(name).expanduser()
            paths = pictures_in(path) if path.is_dir() else [path]
        except (InputError, OSError, RuntimeError) as error:  # RuntimeError: ~ of nobody
            self.choose([])
            self._say(page.failed_line(name, str(error)))
        else:
            self.choose([Photo(path.name, path) for path in paths])

    def _clicked(self, _: Button) -> None:
        self.caption()

    def _load(self) -> None:
        """The first model, so that the first caption does not wait for it."""
        try:
            self.session.captioner(self.model.value)
        except InputError as error:
            self._say(page.failed_line(self.model.value, str(error)))
        except Exception as error:  # as in ``_outcome``
            self._say(page.failed_line(self.model.value, f"not loaded ({_reason(error)}); choose another model"))

    def _say(self, text: str) -> None:
        self.status.value = f"<p>{text}</p>"

    def _work(self, photos: int) -> None:
        self.button.disabled, self.button.description = True, "Working…"
        self.progress.value, self.progress.max = 0, photos
        self.progress.layout.display = "" if photos > 1 else "none"
        self._say('<span class="cu-working"></span>Looking and writing…')
        self.results.children = ()

    def _rest(self) -> None:
        self.button.disabled, self.button.description = False, "Caption"
        self.progress.layout.display = "none"
        self._say("")


def _reason(error: Exception) -> str:
    """Why, in one line, of an exception that was not written for people."""
    return "out of memory" if isinstance(error, MemoryError) else " ".join(str(error).split()) or type(error).__name__


def sample_photos() -> list[Path]:
    """The photographs that come with scikit-image, those of them that are here."""
    import skimage

    return [path for path in (Path(skimage.data_dir, name) for name in SAMPLES) if path.is_file()]
