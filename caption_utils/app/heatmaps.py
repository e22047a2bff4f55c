"""Where the model looked: one panel for each word, its attention laid over the photo.

A veil of dark blue covers what the model did not look at. It changes lightness above all, so it shows with any colour
vision; its blue shows where the photo itself is black.
"""

import math

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from caption_utils.captioner import Caption

PANEL, PIXELS = 1.9, 256  # a panel's width in inches, and the most pixels of a photo's side that it shows
MOST_COLUMNS = 8
SHADE, VEIL = 0.78, (0, 20, 52)  # how dense the veil is where the model does not look, and its colour


def veil(attention: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """One map ``(H', W')`` as the opacity, 0 to 255, of the veil over a picture of ``size`` (width, height).

    The veil is clear where the map is highest, whatever its sum, so under a flat map it is clear everywhere.
    """
    light = np.round(255 * attention / max(float(attention.max()), 1e-12)).astype(np.uint8)
    stretched = Image.fromarray(light).resize(size, Image.Resampling.BICUBIC)
    return stretched.point([round(SHADE * (255 - value)) for value in range(256)])


def spotlight(image: Image.Image, attention: np.ndarray) -> Image.Image:
    """The RGB photo, veiled where ``attention (H', W')`` is low."""
    return Image.composite(Image.new("RGB", image.size, VEIL), image, veil(attention, image.size))


def attention_figure(image: Image.Image, caption: Caption, columns: int | None = None) -> Figure:
    """The photo, then a panel for each word, lit where the model looked (Xu et al. 2015, figure 3), in even rows of up
    to ``MOST_COLUMNS`` unless ``columns`` are given.
    """
    image = fitted(image, PIXELS)
    words = zip(caption.attention, caption.tokens, strict=True)
    panels = [(image, "photo"), *((spotlight(image, attention), word) for attention, word in words)]
    fewest_rows = math.ceil(len(panels) / MOST_COLUMNS)
    columns = min(columns or math.ceil(len(panels) / fewest_rows), len(panels))
    rows = math.ceil(len(panels) / columns)
    height = PANEL * min(max(image.height / image.width, 0.3), 1.5)
    figure = Figure(figsize=(PANEL * columns, (height + 0.3) * rows + 0.4), dpi=80, layout="constrained")
    figure.suptitle(caption.text, fontsize=12)
    for number, (picture, title) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(picture)
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    return figure


def place(attention: np.ndarray) -> str:
    """Where a map ``(H', W')`` peaks, in words: ``"top left"``, ``"middle"``, ``"bottom right"``."""
    peak = np.unravel_index(attention.argmax(), attention.shape)
    row, column = (int(3 * (index + 0.5) / count) for index, count in zip(peak, attention.shape, strict=True))
    return f"{('top', '', 'bottom')[row]} {('left', '', 'right')[column]}".strip() or "middle"


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The picture in proportion, its longer side ``side`` pixels and its shorter at least one."""
    scale = side / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
