"""Where the model looked: one panel for each word, its attention laid over the photo; as a figure and as a page.

What the model did not look at lies under a veil of dark blue, what it looked at keeps its own colours. The veil changes
lightness above all, so it shows with any colour vision; its blue shows where the photo itself is black.
"""

import base64
import html
import io
import math

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from caption_utils.captioner import Caption

PANEL, PIXELS = 1.9, 256  # a panel's width in inches, and the most pixels of a photo's side that it shows
PAGE_PIXELS = 400  # the most pixels of a photo's side in a page
SHADE, VEIL = 0.78, (0, 20, 52)  # how dense the veil is where the model does not look, and its colour
# The masks lie over the photo, each inside its word, so that no script is needed to find them.
STYLE = """<style>
.attention { position: relative; margin: 0; width: calc(var(--w) * 1px); max-width: 100%; }
.attention img { display: block; margin: 0; width: 100%; max-width: none; height: auto;
  aspect-ratio: var(--w) / var(--h); }
.attention-word { display: inline-block; margin: 6px 5px 0 0; padding: 5px 9px; cursor: pointer;
  border: 1px solid #888; border-radius: 12px; font: 16px/1.2 sans-serif; }
.attention-word img { position: absolute; top: 0; left: 0; opacity: 0; pointer-events: none; }
.attention-word:hover img, .attention-word:focus img { opacity: 1; }
.attention-words:hover .attention-word:not(:hover) img { opacity: 0; }
.attention-word:hover, .attention-word:focus { background: #E69F00; color: #000; border-color: #000; }
</style>"""


def upsample(attention: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One map ``(H', W')`` stretched over a picture of ``size`` (width, height): ``(height, width)``, 0 to 1.

    The brightest point is 1 whatever the map's sum, so a flat map is bright everywhere.
    """
    stretched = Image.fromarray(_relative(attention)).resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(stretched), 0.0, 1.0)


def spotlight(image: Image.Image, attention: np.ndarray) -> np.ndarray:
    """The photo ``(height, width, 3)``, bytes, veiled where ``attention (H', W')`` is low; elsewhere as it is."""
    veil = SHADE * (1 - upsample(attention, image.size)[..., None])
    return ((1 - veil) * np.asarray(image) + veil * np.array(VEIL)).astype(np.uint8)


def attention_figure(image: Image.Image, caption: Caption, columns: int | None = None) -> Figure:
    """The photo, then a panel for each word, lit where the model looked (Xu et al. 2015, figure 3).

    Without ``columns``, up to eight in a row, in rows as even as they can be.
    """
    image = fitted(image, PIXELS)
    words = zip(caption.attention, caption.tokens, strict=True)
    panels = [(image, "photo"), *((spotlight(image, attention), word) for attention, word in words)]
    columns = min(columns or _columns(len(panels)), len(panels))
    rows = math.ceil(len(panels) / columns)
    height = PANEL * min(max(image.height / image.width, 0.3), 1.5)
    figure = Figure(figsize=(PANEL * columns, (height + 0.3) * rows + 0.4), dpi=80, layout="constrained")
    figure.suptitle(caption.text, fontsize=12)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    for axes, (picture, title) in zip(grid, panels, strict=False):
        axes.imshow(picture)
        axes.set_title(title, fontsize=10)
    return figure


def attention_page(image: Image.Image, caption: Caption, side: int = PAGE_PIXELS) -> str:
    """The photo above its words, as HTML that needs nothing else: pointing at a word, tapping it or reaching it with
    the keyboard lights what the model looked at.

    The photo's longer side has ``side`` pixels. The page holds one JPEG and a mask of ``(H', W')`` pixels for each
    word, which the browser stretches. All text is escaped.
    """
    photo = fitted(image, side)
    chips = "\n".join(_chip(word, mask) for word, mask in zip(caption.tokens, caption.attention, strict=True))
    return "\n".join(
        [
            STYLE,
            f'<div class="attention" style="--w: {photo.width}; --h: {photo.height}">',
            _img(photo, "JPEG", f"photo: {caption.text}", photo.width),
            f'<div class="attention-words">{chips}</div>',
            "</div>",
        ]
    )


def place(attention: np.ndarray) -> str:
    """Where a map ``(H', W')`` peaks, in words: ``"top left"``, ``"middle"``, ``"bottom right"``."""
    row, column = np.unravel_index(attention.argmax(), attention.shape)
    words = (_third(row, attention.shape[0], "top bottom"), _third(column, attention.shape[1], "left right"))
    return " ".join(word for word in words if word) or "middle"


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side of ``side`` pixels and the other in proportion, but never nothing."""
    scale = side / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _third(index: int, count: int, ends: str) -> str:
    first, last = ends.split()
    return {0: first, 2: last}.get(int(3 * (index + 0.5) / count), "")


def _columns(panels: int, most: int = 8) -> int:
    return math.ceil(panels / math.ceil(panels / most))


def _relative(attention: np.ndarray) -> np.ndarray:
    return (attention / max(float(attention.max()), 1e-12)).astype(np.float32)


def _chip(word: str, attention: np.ndarray) -> str:
    veil = np.empty((*attention.shape, 4), np.uint8)  # (H', W', RGBA)
    veil[..., :3], veil[..., 3] = VEIL, np.round(255 * SHADE * (1 - _relative(attention)))
    mask = _img(Image.fromarray(veil), "PNG", f"looked at: {place(attention)}", 28)
    return f'<span class="attention-word" tabindex="0">{html.escape(word)}{mask}</span>'


def _img(picture: Image.Image, kind: str, alt: str, width: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/{kind.lower()};base64,{data}" alt="{html.escape(alt)}" width="{width}">'
