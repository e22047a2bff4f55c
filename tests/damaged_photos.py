"""Damaged photos, and what must hold for them: a picture of bounded size, or one line; in little time and memory.

As a program, prints the most seconds that one of them took and the most kilobytes of memory ever held.
"""

import io
import time
from functools import cache
from pathlib import Path

import memory
import skimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from caption_utils.data.images import DECODE_SIDE, LONG_SIDE, load_image
from caption_utils.errors import InputError

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
HEADS = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\x99\0\0\0WEBPVP8 ",
    b"II*\0",
    b"BM",
    b"P6 9 9 255 ",
    b"\0\0\0\x1cftypavif",
    b"\0\0\0\x18ftypheic",
    b"%!PS",
    b"<svg",
    b"%PDF",
]


@cache
def photo(kind, turned=False):
    """A real photograph as a file of some kind."""
    picture, buffer = Image.open(Path(skimage.data_dir) / "coffee.png").convert("RGB").resize((150, 100)), io.BytesIO()
    options = {"exif": Image.Exif()} if kind in ("JPEG", "PNG", "WEBP") and turned else {}
    if options:
        options["exif"][0x0112] = 6
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def changed(data, edits, kept):
    """``data`` with bytes overwritten at some places, cut to a share of its length."""
    data = bytearray(data)
    for place, content in edits:
        start = int(place * len(data))
        data[start : start + len(content)] = content
    return bytes(data[: round(kept * len(data))])


photos = st.builds(photo, st.sampled_from(KINDS), st.booleans())
edits = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=6)), max_size=8)
edits_of_headers = st.lists(st.tuples(st.floats(0, 0.01), st.binary(min_size=1, max_size=6)), max_size=4)
junk = st.builds(bytes.__add__, st.sampled_from(HEADS), st.binary(max_size=400))
mutated = st.builds(changed, photos, edits, st.sampled_from([1.0, 1.0, 0.9, 0.5, 0.02]))
mutated_headers = st.builds(changed, photos, edits_of_headers, st.just(1.0))


def check_picture_or_one_line(data, name):
    """What both a page and a command rely on: a picture of bounded size, or one line that begins with the name."""
    try:
        picture = load_image(data, name)
    except InputError as error:
        assert str(error).startswith(" ".join(name.splitlines()))
        assert len(str(error).splitlines()) == 1
    else:
        assert picture.mode == "RGB"
        assert min(picture.size) <= 2 * DECODE_SIDE and max(picture.size) <= 2 * LONG_SIDE


def longest():
    """Seconds that the slowest of all damaged photos took."""
    seconds = []

    def check(data):
        start = time.process_time()
        check_picture_or_one_line(data, "a.jpg")
        seconds.append(time.process_time() - start)

    for strategy in (junk, mutated, mutated_headers):
        settings(deadline=None)(given(strategy)(check))()
    assert len(seconds) >= 300
    return max(seconds)


if __name__ == "__main__":
    print(longest(), memory.peak() if memory.STATUS.exists() else 0)
