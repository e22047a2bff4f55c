"""Bytes, path or open picture to an upright RGB image, or one clear error."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from caption_utils.errors import InputError

DECODE_SIDE = 1024  # a JPEG is decoded at a fraction of its size while both sides stay above this
MAX_PIXELS = 178_000_000  # Pillow refuses little more

Source = str | Path | bytes | Image.Image


def load_image(source: Source, name: str | None = None) -> Image.Image:
    """Upright 8-bit RGB picture: EXIF rotation applied, transparency laid on white, the first frame of an animation.

    ``name`` stands for the picture in messages (a path names itself). Raises ``InputError`` for whatever cannot be
    decoded whole: a missing, empty, truncated or foreign file, or one of more than 178 megapixels.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large pictures and damaged EXIF: both are dealt with
            return _upright_rgb(_open(source, name))
    except FileNotFoundError:
        raise InputError(f"{name}: no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(f"{name}: a folder, not a picture; name the files in it") from None
    except PermissionError:
        raise InputError(f"{name}: may not be read; change its permissions") from None
    except UnidentifiedImageError:
        raise InputError(f"{name}: not a picture that can be read; convert it to JPEG or PNG") from None
    except Image.DecompressionBombError:
        raise InputError(f"{name}: more than {MAX_PIXELS // 10**6} megapixels; make it smaller first") from None
    except InputError:
        raise
    except Exception as error:  # decoders raise whatever they like on damaged files
        raise InputError(f"{name}: damaged or incomplete ({error or type(error).__name__}); save it again") from None


def _open(source: Source, name: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    if not data:
        raise InputError(f"{name}: the file is empty; copy or download it again")
    image = Image.open(io.BytesIO(data))
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    image.draft(None, (DECODE_SIDE, DECODE_SIDE))  # only JPEG takes the hint
    return image


def _upright_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _eight_bit(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Deep greyscale to 8 bits: 16-bit files by their full range, any other by the range they use."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    if low >= 0 and 255 < high <= 65535:
        values = values / 257
    elif low < 0 or high > 255:
        values = (values - low) * (255 / (high - low or 1.0))
    return Image.fromarray(values.round().astype(np.uint8))
