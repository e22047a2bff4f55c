"""Where the model looked: one panel for each word, its attention laid over the photo.

A dark blue veil covers what the model did not look at. It mainly changes lightness, which shows with any colour vision;
the blue shows where the photo itself is black.
"""

import math
import sys
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from caption_utils.captioner import Caption
from caption_utils.data.images import load_image
from caption_utils.evaluation.sharpness import effective_regions
from caption_utils.files import replacing
from caption_utils.plots import panels

PANEL, PIXELS = 1.9, 256  # of a panel: width in inches, longer side of the photo in pixels
MOST_COLUMNS = 8
SHADE, VEIL = 0.78, (0, 20, 52)  # opacity of the veil where the model does not look, and its colour


def veil(attention: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """One map ``(H', W')`` as the opacity, 0 to 255, of the veil over a picture of ``size`` (width, height).

    The veil is clear where the map is highest, whatever its sum, so an even map leaves it clear everywhere.
    """
    light = np.round(255 * attention / max(float(attention.max()), 1e-12)).astype(np.uint8)
    stretched = Image.fromarray(light).resize(size, Image.Resampling.BICUBIC)
    return stretched.point([round(SHADE * (255 - value)) for value in range(256)])


def spotlight(image: Image.Image, attention: np.ndarray) -> Image.Image:
    """The RGB photo, veiled where ``attention (H', W')`` is low."""
    return Image.composite(Image.new("RGB", image.size, VEIL), image, veil(attention, image.size))


def attention_figure(image: Image.Image, caption: Caption) -> Figure:
    """The photo, then a panel for each word, lit where the model looked (Xu et al. 2015, figure 3).

    Panels are in even rows of up to ``MOST_COLUMNS``.
    """
    image = fitted(load_image(image), PIXELS)
    pictures = [image, *(spotlight(image, attention) for attention in caption.attention)]
    rows = math.ceil(len(pictures) / MOST_COLUMNS)
    columns = math.ceil(len(pictures) / rows)
    height = PANEL * min(max(image.height / image.width, 0.3), 1.5)
    figure, axes = panels(len(pictures), PANEL * columns, height + 0.3 + 0.6 / rows, columns)
    figure.suptitle(f"{caption.text}\n{spread(caption)}", fontsize=12)
    for ax, picture, title in zip(axes, pictures, ["photo", *caption.tokens], strict=True):
        ax.imshow(picture)
        ax.set_title(title, fontsize=10)
        ax.axis("off")
    return figure


def save_map(photo: Path, caption: Caption, out: Path) -> None:
    """Save the attention figure of a photo, in the format given by the suffix of ``out``.

    A line on the error stream says if the font lacks letters, in the place of a warning for each of them.
    """
    with replacing(out) as temporary, warnings.catch_warnings(record=True) as caught:
        attention_figure(load_image(photo), caption).savefig(temporary, format=out.suffix[1:], dpi=120)
    others = [each for each in caught if not str(each.message).startswith("Glyph ")]
    for each in others:
        warnings.showwarning(each.message, each.category, each.filename, each.lineno)
    if len(others) < len(caught):
        what = "the font lacks letters of the caption, drawn as boxes; set Matplotlib's font.family"
        print(f"caption_utils: {out}: {what}", file=sys.stderr)


def place(attention: np.ndarray) -> str:
    """Where a map ``(H', W')`` peaks, in words: ``"top left"``, ``"middle"``, ``"bottom right"``."""
    peak = np.unravel_index(attention.argmax(), attention.shape)
    row, column = (int(3 * (index + 0.5) / count) for index, count in zip(peak, attention.shape, strict=True))
    return f"{('top', '', 'bottom')[row]} {('left', '', 'right')[column]}".strip() or "middle"


def spread(caption: Caption) -> str:
    """Over how many regions the attention for a word is spread on average, in words; empty for an empty caption."""
    if not caption.tokens:
        return ""
    return f"looks at about {effective_regions(caption.attention).mean():.0f} of {caption.attention[0].size} regions"


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The picture resized in proportion: its longer side has ``side`` pixels, its shorter at least one."""
    scale = side / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
