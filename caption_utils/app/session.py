"""What one visitor does with the models: photos captioned, features kept, a history to save."""

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from caption_utils.app.heatmaps import fitted
from caption_utils.app.photos import Photo
from caption_utils.captioner import Caption, Captioner
from caption_utils.config import BEAMS
from caption_utils.data.images import load_image
from caption_utils.encoders.encoder import Encoder, load_encoder
from caption_utils.training.checkpoint import load_model

PREVIEW_SIDE, HISTORY_SIDE = 560, 144  # pixels of the photo that is shown, and of what the history keeps of it
MOST_SHOWN = 100  # captions of the history that keep their picture; all of them are saved
MOST_KEPT = 200  # photos whose preview and features stay in memory, about a megabyte each
COLUMNS = ("photo", "caption", "log_probability", "probability_per_word", "model", "beams")

Row = tuple[str | int, ...]  # a caption as ``COLUMNS`` tell it


@dataclass(frozen=True)
class Result:
    """The captions of one photo, best first, with a small upright picture of it."""

    photo: str
    preview: Image.Image
    captions: list[Caption]
    model: str
    beams: int


@dataclass
class _Seen:
    preview: Image.Image
    features: dict[str, Tensor] = field(default_factory=dict)  # by the encoder's fingerprint, each (1, N, D)


class Session:
    """Captions photos with any of several models. Models are loaded, and photos encoded, once."""

    def __init__(self, models: Mapping[str, Path], device: torch.device | str = "cpu"):
        self.models, self.device = dict(models), device
        self.history: list[Result] = []  # the last of them
        self._rows: dict[Row, None] = {}  # all of them, each once, in the order of the last time
        self._captioners: dict[str, Captioner] = {}
        self._encoders: dict[str, Encoder] = {}
        self._seen: dict[object, _Seen] = {}

    def captioner(self, model: str) -> Captioner:
        """The captioner called ``model``. Raises ``InputError`` if its folder is damaged."""
        if model not in self._captioners:
            loaded = load_model(self.models[model], self.device)
            if loaded.encoder not in self._encoders:
                self._encoders[loaded.encoder] = load_encoder(loaded.encoder, self.device)
            self._captioners[model] = Captioner(loaded, self._encoders[loaded.encoder])
        return self._captioners[model]

    def caption(self, photo: Photo, model: str, beams: int = BEAMS) -> Result:
        """Caption a photo and remember it, once however often.

        Raises ``InputError`` if photo or model cannot be read.
        """
        captioner = self.captioner(model)
        seen = self._look(photo, captioner.encoder)
        captions = captioner.captions(seen.features[captioner.encoder.fingerprint], beams)[0]
        result = Result(photo.name, seen.preview, captions, model, beams)
        self._remember(result)
        return result

    @property
    def captioned(self) -> int:
        """How many captions ``csv`` holds, of which ``history`` has the last ``MOST_SHOWN``."""
        return len(self._rows)

    def _remember(self, result: Result) -> None:
        row = _row(result)
        if row in self._rows:
            self.history = [old for old in self.history if _row(old) != row]
        self._rows.pop(row, None)
        self._rows[row] = None
        kept = replace(result, preview=fitted(result.preview, HISTORY_SIDE))
        self.history = [*self.history, kept][-MOST_SHOWN:]

    def _look(self, photo: Photo, encoder: Encoder) -> _Seen:
        """The photo's preview and features, from memory if they are there."""
        key = _key(photo)
        seen = self._seen.get(key)
        if seen is None or encoder.fingerprint not in seen.features:
            image = load_image(photo.source, photo.name)
            seen = seen or _Seen(fitted(image, PREVIEW_SIDE))
            pixels = encoder.transform(image)[None].to(self.device)
            seen.features[encoder.fingerprint] = encoder(pixels)
            self._seen[key] = seen
        if len(self._seen) > MOST_KEPT:
            del self._seen[next(iter(self._seen))]
        return seen

    def csv(self) -> str:
        """The history as a table, a row for each captioned photo, oldest first."""
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(COLUMNS)
        table.writerows(self._rows)
        return text.getvalue()


def _row(result: Result) -> Row:
    best = result.captions[0]
    scores = f"{best.log_probability:.4f}", f"{best.per_word:.4f}"
    return result.photo, best.text, *scores, result.model, result.beams


def _key(photo: Photo) -> object:
    """Equal for equal pictures: the digest of the bytes, or path, size and time of the file."""
    if isinstance(photo.source, bytes):
        return hashlib.blake2b(photo.source).digest()
    try:
        status = photo.source.stat()
    except (OSError, ValueError):  # reading the picture says so
        return photo.source
    return photo.source, status.st_size, status.st_mtime_ns
