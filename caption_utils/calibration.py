"""The confidence of a caption, from its words' probabilities and from how familiar its photo is.

``evaluation.confidence`` fits it on validation photos and writes it into the model folder as
``confidence.safetensors``. Captions of a folder without that file have no confidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F

from caption_utils.errors import InputError
from caption_utils.training.checkpoint import folder_digest, save_tensors

CONFIDENCE = "confidence.safetensors"
REMEDY = "fit it again with python -m caption_utils confidence, or delete it"
UNSURE = 0.25  # captions less confident than this are called unsure
UNFAMILIAR = 0.5  # photos no more familiar than this, one validation photo in forty, are called unlike those it knows


@dataclass(frozen=True)
class Confidence:
    """``value``, from 0 to 1, and ``doubt``: why it is low, in words, or an empty string."""

    value: float
    doubt: str


@dataclass(frozen=True)
class Subspace:
    """What training photos look like: the ``mean (D,)`` of their gists, and the principal ``directions (D, P)``."""

    mean: Tensor
    directions: Tensor

    def distances(self, gists: Tensor) -> Tensor:
        """Squared distances ``(B,)`` of ``gists (B, D)`` from the mean, not counting the principal directions.

        Source: Jackson and Mudholkar 1979.
        """
        centred = gists - self.mean
        return centred.square().sum(dim=1) - (centred @ self.directions).square().sum(dim=1)


@dataclass(frozen=True)
class Calibration:
    """Turns the probability per word of a caption, and the gist of its photo, into its ``Confidence``.

    Confidence is ``likely`` times ``familiar``: the calibrated probability that the caption scores higher (per-image
    CIDEr) than the median caption of validation photos, times how much the photo is like the training photos.
    ``line (2,)`` holds intercept and slope of the former; ``tail (S,)`` holds, in rising order, the largest distances
    of validation photos from the ``photos`` of the training.
    """

    line: Tensor
    photos: Subspace
    tail: Tensor

    def judge(self, gists: Tensor, per_word: Sequence[float]) -> list[Confidence]:
        """The confidence of one caption of each photo: ``gists (B, D)`` as ``gist`` makes them, B probabilities."""
        familiar = self.familiar(gists)
        values = self.likely(torch.tensor(per_word)) * familiar
        return [
            Confidence(value, _doubt(value, f)) for value, f in zip(values.tolist(), familiar.tolist(), strict=True)
        ]

    def likely(self, per_word: Tensor) -> Tensor:
        """The probability ``(B,)`` that captions of these ``per_word (B,)`` beat the median (Platt 1999)."""
        intercept, slope = self.line
        return torch.sigmoid(intercept + slope * per_word.log())

    def familiar(self, gists: Tensor) -> Tensor:
        """How familiar photos are, ``(B,)``: 1 up to the start of the ``tail``, then its share that is farther away."""
        nearer = torch.searchsorted(self.tail, self.photos.distances(gists))  # (B,)
        return 1 - nearer / (len(self.tail) + 1)

    def save(self, folder: str | Path) -> None:
        """Write it into the model folder, for the weights there. Raises ``InputError`` if it cannot be written."""
        folder = Path(folder)
        subspace = {"mean": self.photos.mean.half(), "directions": self.photos.directions.half()}
        tensors = {"line": self.line, "tail": self.tail, **subspace}
        save_tensors(folder / CONFIDENCE, tensors, {"weights": folder_digest(folder)})


def load_calibration(folder: str | Path) -> Calibration | None:
    """That of a model folder, if it has one. Raises ``InputError`` if it is damaged or belongs to other weights."""
    folder = Path(folder)
    path = folder / CONFIDENCE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            line, tail, *subspace = (file.get_tensor(name).float() for name in ("line", "tail", "mean", "directions"))
            belongs = (file.metadata() or {}).get("weights") == folder_digest(folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: damaged ({error}); {REMEDY}") from None
    if not belongs:
        raise InputError(f"{path}: was fitted to captions of other weights; {REMEDY}")
    return Calibration(line, Subspace(*subspace), tail)


def _doubt(value: float, familiar: float) -> str:
    if familiar <= UNFAMILIAR:
        return "unsure: unlike the photos this model knows"
    return "unsure" if value < UNSURE else ""


def gist(features: Tensor) -> Tensor:
    """Photos as a whole: from features ``(B, N, D)`` the directions ``(B, D)`` of their means, on the CPU.

    The length of the mean says how full a picture is, but little about what it shows.
    """
    return F.normalize(features.float().mean(dim=1).cpu(), dim=1)
