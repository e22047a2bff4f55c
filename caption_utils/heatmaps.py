"""Where the model looked: one panel for each word, its attention laid over the photo."""

import math

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from caption_utils.captioner import Caption

PANEL, PIXELS = 1.9, 256  # a panel's width in inches, and the most pixels of a photo's side that it shows
SHADE = 0.72  # how dark the photo becomes where the model does not look


def upsample(attention: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One map ``(H', W')`` stretched over a picture of ``size`` (width, height): ``(height, width)``, 0 to 1.

    The brightest point is 1 whatever the map's sum, so a flat map is bright everywhere.
    """
    peak = max(float(attention.max()), 1e-12)
    stretched = Image.fromarray((attention / peak).astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(stretched), 0.0, 1.0)


def spotlight(image: Image.Image, attention: np.ndarray) -> np.ndarray:
    """The photo ``(height, width, 3)``, bytes, darkened where ``attention (H', W')`` is low; its colours stay true."""
    light = 1 - SHADE * (1 - upsample(attention, image.size)[..., None])
    return (np.asarray(image) * light).astype(np.uint8)


def attention_figure(image: Image.Image, caption: Caption, columns: int = 5) -> Figure:
    """The photo, then a panel for each word, lit where the model looked (Xu et al. 2015, figure 3)."""
    image = ImageOps.contain(image, (PIXELS, PIXELS))
    words = zip(caption.attention, caption.tokens, strict=True)
    panels = [(image, "photo"), *((spotlight(image, attention), word) for attention, word in words)]
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(PANEL * columns, (PANEL + 0.3) * rows + 0.4), dpi=80, layout="constrained")
    figure.suptitle(caption.text, fontsize=12)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    for axes, (picture, title) in zip(grid, panels, strict=False):
        axes.imshow(picture)
        axes.set_title(title, fontsize=10)
    return figure
