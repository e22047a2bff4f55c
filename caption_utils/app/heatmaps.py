"""Where the model looked: one panel for each word, its attention laid over the photo.

A veil of dark blue covers what the model did not look at. It changes lightness above all, so it shows with any colour
vision; its blue shows where the photo itself is black.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from caption_utils.captioner import Caption
from caption_utils.data.images import load_image
from caption_utils.errors import InputError
from caption_utils.evaluation.sharpness import effective_regions
from caption_utils.files import replacing

PANEL, PIXELS = 1.9, 256  # a panel's width in inches, and the most pixels of a photo's side that it shows
MOST_COLUMNS = 8
MAP_SUFFIXES = (".png", ".jpg", ".pdf", ".svg")
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
    figure = Figure(figsize=(PANEL * columns, (height + 0.3) * rows + 0.6), dpi=80, layout="constrained")
    figure.suptitle(f"{caption.text}\n{spread(caption)}", fontsize=12)
    for number, (picture, title) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(picture)
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    return figure


def map_paths(out: str, photos: Sequence[Path]) -> dict[Path, Path]:
    """Photo → where its attention map goes: ``out`` for one photo, ``out-NAME.png`` beside it for each of several.

    Raises ``InputError`` for an unknown format, for two photos that would share a file, and for a map that would
    replace a photo.
    """
    path = Path(out)
    if path.suffix.lower() not in MAP_SUFFIXES:
        raise InputError(f"{out}: attention maps are saved as {', '.join(MAP_SUFFIXES)}; end the name with one of them")
    taken: dict[Path, Path] = {}
    for photo in dict.fromkeys(photos):
        own = path if len(set(photos)) == 1 else path.with_stem(f"{path.stem}-{photo.stem}")
        if own in taken:
            raise InputError(f"{own}: would hold the maps of both {taken[own]} and {photo}; caption them one at a time")
        taken[own] = photo
    if replaced := {own.resolve() for own in taken} & {photo.resolve() for photo in photos}:
        raise InputError(f"{min(replaced)}: is one of the photos; name another file for the attention map")
    return {photo: own for own, photo in taken.items()}


def save_map(photo: Path, caption: Caption, out: Path) -> None:
    """Save the attention figure of a photo, in the format that the name of ``out`` asks for."""
    with replacing(out) as temporary:
        attention_figure(load_image(photo), caption).savefig(temporary, format=out.suffix[1:], dpi=120)


def place(attention: np.ndarray) -> str:
    """Where a map ``(H', W')`` peaks, in words: ``"top left"``, ``"middle"``, ``"bottom right"``."""
    peak = np.unravel_index(attention.argmax(), attention.shape)
    row, column = (int(3 * (index + 0.5) / count) for index, count in zip(peak, attention.shape, strict=True))
    return f"{('top', '', 'bottom')[row]} {('left', '', 'right')[column]}".strip() or "middle"


def spread(caption: Caption) -> str:
    """Over how many regions the attention for a word is spread, on average, in words; empty for an empty caption."""
    if not caption.tokens:
        return ""
    return f"looks at about {effective_regions(caption.attention).mean():.0f} of {caption.attention[0].size} regions"


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The picture in proportion, its longer side ``side`` pixels and its shorter at least one."""
    scale = side / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
