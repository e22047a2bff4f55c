"""What the upload button hands over, in either major version of ipywidgets, and how much a host lets through."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caption_utils.runtime import host

JUPYTER_MEGABYTES = 10  # a larger message vanishes where the server's limit was not raised
LIMIT_VARIABLE = "CAPTION_UPLOAD_MB"  # set by a server that lets more through


@dataclass(frozen=True)
class Photo:
    """A picture that was handed in: the name it is shown by, and its bytes in memory or its path."""

    name: str
    source: bytes | Path


def uploaded_photos(value: Any) -> list[Photo]:
    """The photos in the value of a ``FileUpload``: a tuple of dicts (ipywidgets 8) or a dict by name (7)."""
    if isinstance(value, Mapping):
        return [Photo(str(name), bytes(file["content"])) for name, file in value.items()]
    return [Photo(str(file["name"]), bytes(file["content"])) for file in value]


def upload_megabytes() -> int:
    """How many megabytes one upload may have before the host drops it."""
    if LIMIT_VARIABLE in os.environ:
        return int(os.environ[LIMIT_VARIABLE])
    return 1 if host() == "colab" else JUPYTER_MEGABYTES
