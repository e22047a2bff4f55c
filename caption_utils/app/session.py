"""A visit to the page: photos captioned by any of the models, features kept in memory, a history to save."""

import csv
import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from caption_utils.app.heatmaps import fitted
from caption_utils.app.photos import Photo
from caption_utils.calibration import load_calibration
from caption_utils.captioner import Caption, Captioner
from caption_utils.config import BEAMS
from caption_utils.data.images import load_image
from caption_utils.encoders.encoder import Encoder, load_encoder
from caption_utils.training.checkpoint import load_model

PREVIEW_SIDE = 560  # pixels
MOST_SHOWN = 100  # results kept in memory with their picture; the csv has all captions
MOST_KEPT = 200  # previews and features kept in memory, about a megabyte each
COLUMNS = ("photo", "caption", "log_probability", "probability_per_word", "confidence", "model", "beams")
Row = tuple[str | int, ...]  # the values of ``COLUMNS``


@dataclass(frozen=True, eq=False)
class Result:
    """The captions of one photo, best first, with a small picture of it. Equal only to itself."""

    photo: str
    preview: Image.Image
    captions: list[Caption]
    model: str
    beams: int


class Session:
    """Captions photos with any of several models. Models are loaded, and photos encoded, once."""

    def __init__(self, models: Mapping[str, Path], device: torch.device | str = "cpu"):
        self.models, self.device = dict(models), device
        self.history: list[Result] = []  # the latest ``MOST_SHOWN``
        self.rows: dict[Row, None] = {}  # of all captions, each once, most recent last
        self._captioners: dict[str, Captioner] = {}
        self._seen: dict[object, tuple[Image.Image, Tensor]] = {}  # preview and features (1, N, D)

    def captioner(self, model: str) -> Captioner:
        """The captioner called ``model``. Raises ``InputError`` if its folder is damaged."""
        if model not in self._captioners:
            loaded = load_model(self.models[model], self.device)
            encoders = {other.encoder.fingerprint: other.encoder for other in self._captioners.values()}
            shared = encoders.get(loaded.fingerprint)
            encoder = shared or loaded.own_encoder(load_encoder(loaded.encoder, self.device))
            self._captioners[model] = Captioner(loaded, encoder, load_calibration(self.models[model]))
        return self._captioners[model]

    def caption(self, photo: Photo, model: str, beams: int = BEAMS) -> Result:
        """Caption a photo and remember the result. Raises ``InputError`` if the photo or the model is damaged."""
        captioner = self.captioner(model)
        preview, features = self._look(photo, captioner.encoder)
        result = Result(photo.name, preview, captioner.captions(features, beams)[0], model, beams)
        row = _row(result)
        self.rows.pop(row, None)
        self.rows[row] = None
        self.history = [*(old for old in self.history if _row(old) != row), result][-MOST_SHOWN:]
        return result

    def csv(self) -> str:
        """All captions as a table, oldest first."""
        text = io.StringIO()
        csv.writer(text).writerows([COLUMNS, *self.rows])
        return text.getvalue()

    def _look(self, photo: Photo, encoder: Encoder) -> tuple[Image.Image, Tensor]:
        """The photo's preview and features, from memory if they are there."""
        key = _key(photo), encoder.fingerprint
        if key not in self._seen:
            image = load_image(photo.source, photo.name)
            features = encoder(encoder.transform(image)[None].to(self.device))
            self._seen[key] = fitted(image, PREVIEW_SIDE), features
            for old in list(self._seen)[:-MOST_KEPT]:
                del self._seen[old]
        return self._seen[key]


def _row(result: Result) -> Row:
    best = result.captions[0]
    confidence = "" if best.confidence is None else f"{best.confidence:.4f}"
    scores = f"{best.log_probability:.4f}", f"{best.per_word:.4f}", confidence
    return result.photo, best.text, *scores, result.model, result.beams


def _key(photo: Photo) -> object:
    """Equal for equal pictures: the digest of the bytes, or path, size and time of the file."""
    if isinstance(photo.source, bytes):
        return hashlib.blake2b(photo.source).digest()
    status = os.stat(photo.source) if os.path.isfile(photo.source) else None
    return photo.source, status and (status.st_size, status.st_mtime_ns)
