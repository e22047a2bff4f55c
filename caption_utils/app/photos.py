"""Photos to caption: uploads, in either major version of ipywidgets, and samples."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skimage.data import data_dir

from caption_utils.runtime import host

JUPYTER_MEGABYTES = 10  # a server whose limit was not raised silently drops larger uploads
LIMIT_VARIABLE = "CAPTION_UPLOAD_MB"  # the limit that a server sets; it lets more through
SAMPLES = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "rocket.jpg")


@dataclass(frozen=True)
class Photo:
    """A picture to caption: the name it is shown by, and its bytes or its path."""

    name: str
    source: bytes | Path


def uploaded_photos(value: Any) -> list[Photo]:
    """The photos in the value of a ``FileUpload``: a tuple of dicts (ipywidgets 8) or a dict by name (7)."""
    if isinstance(value, Mapping):
        value = [{"name": name, "content": file["content"]} for name, file in value.items()]
    return [Photo(str(file["name"]), bytes(file["content"])) for file in value]


def upload_megabytes() -> int:
    """The size in megabytes above which an upload is dropped by the host, or refused by the widget."""
    return int(os.environ.get(LIMIT_VARIABLE) or (1 if host() == "colab" else JUPYTER_MEGABYTES))


def too_large(photos: list[Photo]) -> bool:
    """Whether uploaded photos exceed the limit that the server set. Without one, what a host lets through is fine."""
    megabytes = sum(len(photo.source) for photo in photos if isinstance(photo.source, bytes)) / 2**20
    return bool(os.environ.get(LIMIT_VARIABLE)) and megabytes > upload_megabytes()


def sample_photos() -> list[Path]:
    """The five sample photographs of scikit-image, as far as they are installed."""
    return [path for path in (Path(data_dir, name) for name in SAMPLES) if path.is_file()]
