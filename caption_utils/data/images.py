"""Bytes, a path or an open picture → an upright RGB image or one clear error, in bounded memory at any size."""

import io
import math
import warnings
from contextlib import AbstractContextManager, nullcontext, suppress
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from caption_utils.errors import InputError

DECODE_SIDE = 600  # a large picture is reduced by a whole factor that leaves both sides at least this long
LONG_SIDE = 8192  # a very long one is reduced further, to about this length
MAX_PIXELS = 178_000_000  # just below what Pillow refuses
DECODED_BYTES = 512_000_000  # memory that decoding may take
MOST_THREADS = 4  # that decode at once, beside a GPU 8, however many cores there are: each may hold so much
LONGEST_SIDE = 65_535  # pixels, the limit of JPEG; strips of a wider picture would not be small
STRIP_PIXELS = 4_000_000  # a large picture is converted this many pixels at a time
# Memory per pixel while decoding, if more than the four bytes of a finished pixel in Pillow.
BYTES_PER_PIXEL = {"WEBP": 14, "AVIF": 8, "HEIF": 8, "JPEG2000": 16}
# Not ICO, which Pillow decodes before it knows the size, nor PPM, which it may decode in Python, value by value.
FORMATS = {"JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", *BYTES_PER_PIXEL}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
ROWS_PER_STRIP, TILE_WIDTH, TILE_LENGTH, BITS, SAMPLES = 278, 322, 323, 258, 277  # tags of a TIFF

# Large pictures and damaged EXIF, which Pillow warns of, are handled here. Set once, because catching warnings around
# each call is not thread-safe.
warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\b")

Source = str | Path | bytes | Image.Image
Draft = tuple[str | None, int]  # the mode in which a JPEG is decoded, by default its own, and the least side in pixels
CLOSED = "closed before it was read; open it again, or give its path"
PROBLEMS: dict[type[Exception], str] = {
    FileNotFoundError: "no such file; check the path",
    IsADirectoryError: "a folder, not a picture; name the files in it",
    PermissionError: "may not be read; change its permissions",
    Image.DecompressionBombError: f"more than {MAX_PIXELS // 10**6} megapixels; make it smaller first",
    MemoryError: "not enough memory to decode it; make it smaller first",
}


def load_image(source: Source, name: str | None = None, draft: Draft = (None, DECODE_SIDE)) -> Image.Image:
    """Upright 8-bit RGB picture: EXIF rotation applied, transparency on white, the first frame of an animation.

    A picture with both sides at least twice ``DECODE_SIDE`` is reduced by a whole factor, a JPEG as far as ``draft``
    allows. Messages call it ``name``, by default its path. Raises ``InputError`` for whatever cannot be decoded
    completely: a missing, empty, truncated or foreign file, or one that needs more than ``DECODED_BYTES`` to decode.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "image")
    try:
        with _opened(source, name) as opened:
            return _upright_rgb(opened if isinstance(opened, Image.Image) else _picture(opened, name, draft))
    except InputError:
        raise
    except Exception as error:  # decoders raise whatever they like on damaged files
        raise InputError(f"{name}: {_problem(error)}") from None


def _problem(error: Exception) -> str:
    if str(error) == "Operation on closed image":  # Pillow's words
        return CLOSED
    if type(error) in PROBLEMS:
        return PROBLEMS[type(error)]
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror}); check the path"
    return f"damaged or incomplete ({str(error) or type(error).__name__}); save it again"


def _opened(source: Source, name: str) -> AbstractContextManager[BinaryIO | Image.Image]:
    if isinstance(source, Image.Image):
        if isinstance(source, ImageFile) and source.tile and source.fp is None:
            raise InputError(f"{name}: {CLOSED}")
        return nullcontext(source)
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, str | PathLike):
        raise InputError(f"{name}: of type {type(source).__name__}; give a path, the bytes of a file or a Pillow image")
    path = Path(source)
    if path.exists() and not (path.is_file() or path.is_dir()):  # opening a pipe would wait for a writer
        raise InputError(f"{name}: a pipe or a device, not a file; save the picture first")
    return path.open("rb")


def _picture(file: BinaryIO, name: str, draft: Draft) -> Image.Image:
    """The picture in ``file``, not decoded yet."""
    head = file.read(1024)
    file.seek(0)
    if not head:
        raise InputError(f"{name}: the file is empty; copy or download it again")
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        _register_heif(name)
    try:
        image = Image.open(file, formats=_formats(head))
    except UnidentifiedImageError:
        raise InputError(f"{name}: {_kind(head)}; convert it to JPEG or PNG") from None
    _bound(image, name, draft)
    return image


def _register_heif(name: str) -> None:
    """Teach Pillow to read HEIC. Raises ``InputError`` if the library for it is not installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise InputError(f"{name}: reading HEIC needs pillow-heif; install it, or convert the photo to JPEG") from None
    register_heif_opener()


def _formats(head: bytes) -> list[str]:
    """Those of ``FORMATS`` that the installed Pillow can read and a file that begins so may be in."""
    if not head.startswith(b"\xff\xd8"):  # a JPEG needs none of the dozens of modules that this loads
        Image.init()
    return [name for name in list(Image.OPEN) if name in FORMATS]


def _kind(head: bytes) -> str:
    if head.startswith(b"%PDF"):
        return "a PDF document, not a picture"
    if head.startswith(b"%!PS"):
        return "a PostScript document, not a picture"
    if b"<svg" in head:
        return "an SVG drawing, not a photo"
    return "not a picture that can be read"


def _bound(image: ImageFile, name: str, draft: Draft) -> None:
    """Ask for reduced decoding, which only JPEG supports, and refuse what would still need too much memory."""
    size, pixels = f"{image.width} x {image.height} pixels", image.width * image.height
    if pixels > MAX_PIXELS:
        raise Image.DecompressionBombError
    needed = 0
    if isinstance(image, JpegImageFile) and image.info.get("progressive"):
        # all coefficients, two bytes each, are held until the last is read
        layers = [(across, down) for _, across, down, _ in image.layer]
        widest, tallest = map(max, zip(*layers, strict=True))
        needed = 2 * pixels * sum(across * down for across, down in layers) // (widest * tallest)
    mode, side = draft
    image.draft(mode, (side, side))
    needed += image.width * image.height * BYTES_PER_PIXEL.get(image.format or "", 4)
    needed += _strip_bytes(image)
    if needed > DECODED_BYTES or max(image.size) > LONGEST_SIDE:
        raise InputError(f"{name}: {size} of {image.format} need too much memory to decode; make it smaller first")


def _strip_bytes(image: ImageFile) -> int:
    """What libtiff holds besides the finished picture: a strip or a tile, and one strip may be the whole picture."""
    if not isinstance(image, TiffImageFile) or image.tile[0][0] != "libtiff":
        return 0
    tags = image.tag_v2
    rows = min(tags.get(ROWS_PER_STRIP, image.height), image.height)
    pixels = tags.get(TILE_WIDTH, image.width) * tags.get(TILE_LENGTH, rows)
    return pixels * tags.get(SAMPLES, 1) * max(tags.get(BITS, (1,))) // 8


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    reduced = _reduced_rgb(image)
    reduced.info.clear()  # or its EXIF would be written anew, which may fail
    with suppress(Exception):  # damaged EXIF counts as none
        reduced.getexif()[ExifTags.Base.Orientation] = image.getexif()[ExifTags.Base.Orientation]
    ImageOps.exif_transpose(reduced, in_place=True)
    return reduced


def _reduced_rgb(image: Image.Image) -> Image.Image:
    """Reduced and converted strip by strip, so that memory never holds a second picture of full size."""
    width, height = image.size
    factor = max(1, min(width, height) // DECODE_SIDE, max(width, height) // LONG_SIDE)
    if factor == 1 and image.mode == "RGB" and not image.has_transparency_data:
        return image.copy()
    rows = max(1, STRIP_PIXELS // (width * factor)) * factor
    strips = [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]
    scale = _scale(image, strips) if image.mode.startswith(("I", "F")) else None
    reduced = Image.new("RGB", (math.ceil(width / factor), math.ceil(height / factor)))
    for box in strips:
        strip = image.crop(box)
        strip = _rgb(strip) if scale is None else _eight_bit(strip, *scale)
        reduced.paste(strip.reduce(factor), (0, box[1] // factor))
    return reduced


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _scale(image: Image.Image, strips: list[tuple[int, int, int, int]]) -> tuple[float, float]:
    """What to subtract, and divide by, to get 8 bits.

    16-bit files use their full range, fractions 0 to 1; values up to 255 stay, others use the range that they have.
    """
    ranges = [(values.min(), values.max()) for values in (_finite(image.crop(box)) for box in strips)]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if low >= 0 and 255 < high <= 65535:
        return 0.0, 257.0
    if image.mode == "F" and low >= 0 and high <= 1:
        return 0.0, 1 / 255
    return (low, (high - low) / 255 or 1.0) if low < 0 or high > 255 else (0.0, 1.0)


def _eight_bit(image: Image.Image, low: float, step: float) -> Image.Image:
    return Image.fromarray(((_finite(image) - low) / step).round().astype(np.uint8)).convert("RGB")


def _finite(image: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
