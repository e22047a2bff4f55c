"""How sure one may be of a caption: from the probability of its words, and from how its photo looks.

What it takes was fitted to captions of validation photos by ``evaluation.confidence``, and lies in the model folder as
``confidence.safetensors``. A folder without that file has captions without confidence.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from caption_utils.errors import InputError
from caption_utils.training.checkpoint import WEIGHTS, save_tensors

CONFIDENCE = "confidence.safetensors"
REMEDY = "fit it again with python -m caption_utils confidence, or delete it"
UNSURE = 0.25  # a confidence below it is told in words
STRANGE = 0.5  # so is a familiarity below it, that of one validation photo in forty
DOUBTS = ("unsure: unlike the photos this model knows", "unsure")


@dataclass(frozen=True)
class Confidence:
    """``value``, from 0 to 1, and ``doubt``: in words, why it is low, or nothing if it is not."""

    value: float
    doubt: str


@dataclass(frozen=True)
class Looks:
    """What training photos look like: the ``mean (D,)`` of their gists, and principal ``directions (D, P)``."""

    mean: Tensor
    directions: Tensor

    def distances(self, gists: Tensor) -> Tensor:
        """How far other photos are from them, ``(B,)``: squared, and outside the principal directions.

        Within these, photos differ as those of the training do (Jackson and Mudholkar 1979).
        """
        apart = gists - self.mean
        return apart.square().sum(dim=1) - (apart @ self.directions).square().sum(dim=1)


@dataclass(frozen=True)
class Calibration:
    """Turns the probability per word of a caption, and the looks of its photo, into its ``Confidence``.

    Confidence is ``likely`` times ``familiar``: the calibrated probability that the caption scores more (per-image
    CIDEr) than the median caption of validation photos, made smaller where the photo looks unlike those of the
    training. ``line (2,)`` holds intercept and slope of the former; ``tail (S,)`` holds the distances from ``looks``,
    in rising order, of the farthest validation photos.
    """

    line: Tensor
    looks: Looks
    tail: Tensor

    def judge(self, gists: Tensor, per_word: Sequence[float]) -> list[Confidence]:
        """The confidence in a caption of each photo: ``gists (B, D)`` as ``gist`` makes them, B probabilities."""
        familiar = self.familiar(gists)
        values = self.likely(torch.tensor(per_word)) * familiar
        return [_in_words(*pair) for pair in zip(values.tolist(), familiar.tolist(), strict=True)]

    def likely(self, per_word: Tensor) -> Tensor:
        """The probability ``(B,)`` that captions of such ``per_word (B,)`` beat the median (Platt 1999)."""
        intercept, slope = self.line
        return torch.sigmoid(intercept + slope * per_word.log())

    def familiar(self, gists: Tensor) -> Tensor:
        """How well the model knows photos of such looks, ``(B,)``, from nearly 0 to 1.

        1 for a photo that is no farther away than the ``tail``, then falling with the share of the tail that is farther
        still.
        """
        nearer = torch.searchsorted(self.tail, self.looks.distances(gists))  # (B,)
        return 1 - nearer / (len(self.tail) + 1)

    def save(self, folder: Path) -> None:
        """Write it for the weights that are in the model folder. Raises ``InputError`` if the disk will not take it."""
        looks = {"mean": self.looks.mean.half(), "directions": self.looks.directions.half()}
        save_tensors(folder / CONFIDENCE, {"line": self.line, "tail": self.tail, **looks}, {"weights": _digest(folder)})


def load_calibration(folder: str | Path) -> Calibration | None:
    """That of a model folder, if it has any. Raises ``InputError`` if it is damaged or belongs to other weights."""
    folder = Path(folder)
    path = folder / CONFIDENCE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            line, tail, *looks = (file.get_tensor(name).float() for name in ("line", "tail", "mean", "directions"))
            belongs = (file.metadata() or {}).get("weights") == _digest(folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: damaged ({error}); {REMEDY}") from None
    if not belongs:
        raise InputError(f"{path}: was fitted to captions of other weights; {REMEDY}")
    return Calibration(line, Looks(*looks), tail)


def _in_words(value: float, familiar: float) -> Confidence:
    return Confidence(value, DOUBTS[0] if familiar < STRANGE else DOUBTS[1] if value < UNSURE else "")


def gist(features: Tensor) -> Tensor:
    """What photos are like as a whole: ``(B, N, D)`` to the direction of the mean feature, ``(B, D)``, on the CPU.

    Its length, which tells blank pictures from full ones, says little of what they show.
    """
    return torch.nn.functional.normalize(features.float().mean(dim=1).cpu(), dim=1)


def _digest(folder: Path) -> str:
    return hashlib.blake2b((folder / WEIGHTS).read_bytes(), digest_size=8).hexdigest()
