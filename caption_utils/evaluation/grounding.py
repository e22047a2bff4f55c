"""Is attention on the thing that a word names, and is the caption true? Both are known exactly on drawn scenes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from caption_utils.demo.descriptions import is_true, mentions
from caption_utils.demo.scenes import Box, Scene
from caption_utils.metrics.bootstrap import Score, grouped_mean, mean_score

COLUMNS = ("image", "position", "word", "kind", "hit", "mass", "chance")


def truth(captions: Sequence[str], scenes: Sequence[Scene]) -> Score:
    """Percentage of captions in which every claim is true of their scene."""
    return mean_score([100.0 * is_true(caption, scene) for caption, scene in zip(captions, scenes, strict=True)])


def grounding(
    tokens: Sequence[Sequence[str]], maps: Sequence[Tensor | np.ndarray], scenes: Sequence[Scene]
) -> pd.DataFrame:
    """A row for each word that names a kind of thing: was attention on such a thing when the word was generated?

    ``tokens`` are the words of a caption for each scene, ``maps (T, H', W')`` their attention.

    - ``hit``: the pointing game (Zhang et al. 2016, without their tolerance): 1 if the peak of the attention, upsampled
      bicubically to the picture, lies in a box of that kind; a peak of several pixels counts by the share inside.
      That of a region at the border lies near the picture's edge, so a random region hits a bit less than ``chance``.
    - ``mass``: share of the attention inside the boxes, with each region's spread evenly over its square.
    - ``chance``: the boxes' share of the picture, which a random point hits and even attention has inside. A map that
      knows neither word nor picture may get more, since things lie near the middle.

    All three are shares from 0 to 1. All things of a kind count as one area, because a plural means all of them. If the
    scene has no such thing, the three are missing.
    """
    rows = []
    for image, (words, attention, scene) in enumerate(zip(tokens, maps, scenes, strict=True)):
        for position, kind in mentions(words).items():
            boxes = [thing.box for thing in scene.things if thing.kind == kind]
            alpha = torch.as_tensor(attention[position]).float()
            shares = _shares(alpha, _area(boxes, scene.size)) if boxes else (np.nan,) * 3
            rows.append((image, position, words[position], kind, *shares))
    return pd.DataFrame(rows, columns=COLUMNS)


def grounding_scores(table: pd.DataFrame, images: int) -> dict[str, Score]:
    """Means of ``hit``, ``mass`` and ``chance`` in percent over all named things of ``images`` scenes, and ``absent``.

    ``absent`` is the percentage of words that name a thing the scene does not have; the other three ignore these.
    """
    present = table.dropna(subset="chance")
    scores = {name: grouped_mean(100 * present[name], present["image"], images) for name in ("hit", "mass", "chance")}
    return scores | {"absent": grouped_mean(100.0 * table["chance"].isna(), table["image"], images)}


def _area(boxes: Sequence[Box], size: tuple[int, int]) -> Tensor:
    """A mask ``(height, width)`` of a picture of ``size`` (width, height): 1 inside the boxes, 0 elsewhere."""
    area = torch.zeros(size[::-1])
    for left, top, right, bottom in boxes:
        area[top:bottom, left:right] = 1
    return area


def _shares(alpha: Tensor, area: Tensor) -> tuple[float, float, float]:
    """Hit, mass and chance of one map ``(H', W')``, given the mask of the things that its word names."""
    smooth, even = (F.interpolate(alpha[None, None], area.shape, mode=mode)[0, 0] for mode in ("bicubic", "nearest"))
    peak = smooth >= smooth.max() * (1 - 1e-5)
    return area[peak].mean().item(), ((even * area).sum() / even.sum()).item(), area.mean().item()
