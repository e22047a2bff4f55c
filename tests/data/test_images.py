import io
import os
import re
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from memory import STATUS
from PIL import Image

from caption_utils.data.images import MAX_PIXELS, load_image
from caption_utils.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # pytest sets filters of its own, before the module's

ORIENTATION = 0x0112
CORNERS = {(0, 0): (255, 0, 0), (1, 0): (0, 255, 0), (0, 1): (0, 0, 255), (1, 1): (255, 255, 255)}
TO_STORED = {  # how a camera turns the upright scene before storing it, for each orientation that undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def scene():
    """48 by 32: red, green, blue and white quarters."""
    picture = Image.new("RGB", (48, 32))
    for (x, y), colour in CORNERS.items():
        picture.paste(colour, (24 * x, 16 * y, 24 * x + 24, 16 * y + 16))
    return picture


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_scene(picture, tolerance=12):
    assert (picture.mode, picture.size) == ("RGB", (48, 32))
    for (x, y), colour in CORNERS.items():
        assert np.abs(np.subtract(picture.getpixel((12 + 24 * x, 8 + 16 * y)), colour)).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_gives_the_same_upright_picture(orientation):
    stored = scene().transpose(TO_STORED[orientation]) if orientation > 1 else scene()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert_scene(load_image(encoded(stored, "JPEG", exif=exif, quality=95, subsampling=0)))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("GIF", {}),
        ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
    ],
)
def test_common_formats(kind, options):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow knows no {kind}")
    assert_scene(load_image(encoded(scene(), kind, **options)))


def test_cmyk():
    assert_scene(load_image(encoded(scene().convert("CMYK"), "JPEG", quality=95, subsampling=0)), tolerance=40)


def test_sixteen_bit_uses_the_full_range():
    values = np.array([[0, 257 * 100], [257 * 200, 65535]], dtype=np.uint16)
    picture = load_image(encoded(Image.fromarray(values), "PNG"))
    assert picture.mode == "RGB"
    assert [picture.getpixel(at)[0] for at in ((0, 0), (1, 0), (0, 1), (1, 1))] == [0, 100, 200, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[-1.0, 0.0, 1.0]], [0, 128, 255]),
        ([[0.0, 1e6, 2e6]], [0, 128, 255]),
        ([[0.2, 0.4, 0.6]], [51, 102, 153]),
        ([[0.0, 7.0, 255.0]], [0, 7, 255]),
        ([[-5.0, -5.0]], [0, 0]),
        ([[np.nan, 100.0]], [0, 100]),
        ([[np.inf, 100.0]], [0, 100]),
    ],
)
def test_floating_point_pictures(values, expected):
    picture = load_image(encoded(Image.fromarray(np.array(values, dtype=np.float32)), "TIFF"))
    assert [picture.getpixel((x, 0)) for x in range(len(expected))] == [(value,) * 3 for value in expected]


def test_transparent_pictures_get_a_white_background():
    picture = scene().convert("RGBA")
    picture.paste((9, 9, 9, 0), (0, 0, 24, 16))
    loaded = load_image(encoded(picture, "PNG"))
    assert loaded.getpixel((12, 8)) == (255, 255, 255)
    assert loaded.getpixel((36, 8)) == (0, 255, 0)


def test_palette_with_transparency():
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    loaded = load_image(encoded(picture, "PNG", transparency=0))
    assert (loaded.getpixel((0, 0)), loaded.getpixel((1, 0))) == ((255, 255, 255), (0, 0, 255))


def test_rgb_with_one_transparent_colour():
    loaded = load_image(encoded(scene(), "PNG", transparency=(255, 0, 0)))
    assert (loaded.getpixel((12, 8)), loaded.getpixel((36, 8))) == ((255, 255, 255), (0, 255, 0))


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("LA", (100, 0), (255, 255, 255)),
        ("LA", (100, 255), (100, 100, 100)),
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("1", 0, (0, 0, 0)),
    ],
)
def test_grey_and_bilevel(mode, colour, expected):
    assert load_image(encoded(Image.new(mode, (3, 2), colour), "PNG")).getpixel((1, 1)) == expected


def test_an_animation_shows_its_first_frame():
    frames = [Image.new("RGB", (48, 32), colour) for colour in ("blue", "green")]
    data = encoded(scene(), "GIF", save_all=True, append_images=frames, duration=50, loop=0)
    assert_scene(load_image(data))


def test_a_single_pixel():
    loaded = load_image(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"))
    assert (loaded.size, loaded.getpixel((0, 0))) == ((1, 1), (1, 2, 3))


def test_all_kinds_of_source_give_the_same_picture(tmp_path):
    path = tmp_path / "scene.png"
    scene().save(path)
    sources = (path, str(path), path.read_bytes(), scene(), Image.open(path))
    assert len({load_image(source).tobytes() for source in sources}) == 1


def test_the_caller_s_picture_is_not_changed():
    picture = scene()
    load_image(picture).paste("black", (0, 0, 48, 32))
    assert_scene(picture)


QUIET = """
import sys
from caption_utils.data.images import load_image
load_image(sys.argv[1])
"""


def test_damaged_exif_is_ignored_without_a_warning(tmp_path):
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\xff\xff\xff\xff\x06\0"
    (tmp_path / "a.jpg").write_bytes(encoded(scene(), "JPEG", exif=exif, quality=95, subsampling=0))
    assert_scene(load_image(tmp_path / "a.jpg"))
    command = [sys.executable, "-c", QUIET, str(tmp_path / "a.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
@pytest.mark.parametrize("exif", [b"XX*\0\x08\0\0\0\0\0", b"II*"], ids=["no header", "too short"])
def test_a_whole_picture_with_a_damaged_exif_header_is_read(kind, options, exif):
    assert_scene(load_image(encoded(scene(), kind, exif=exif, **options)))


MEMORY = """
import sys
sys.path.insert(0, sys.argv[2])
from memory import peak
from caption_utils.data.images import load_image
before = peak()
print(*load_image(sys.argv[1]).size, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="this system does not tell how much memory was used")
@pytest.mark.parametrize(
    ("name", "mode", "size", "reduced", "kilobytes"),
    [
        ("large.jpg", "L", (12_000, 9_000), (1500, 1125), 60_000),
        ("large.png", "RGB", (8_000, 6_000), (800, 600), 320_000),  # whole 192 MB, and a copy as much again
        ("transparent.png", "RGBA", (8_000, 6_000), (800, 600), 320_000),
    ],
)
def test_a_large_picture_is_decoded_small_in_bounded_memory(tmp_path, name, mode, size, reduced, kilobytes):
    Image.new(mode, size, 99).save(tmp_path / name, compress_level=1)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / name), str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    width, height, grown = map(int, done.stdout.split())
    assert (width, height) == reduced
    assert grown < kilobytes


def png_claiming(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def broken():
    jpeg = encoded(scene().resize((480, 320)), "JPEG")
    png = encoded(Image.effect_noise((64, 64), 50), "PNG")
    return {
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "damaged or incomplete .*; save it again"),
        "head_only.jpg": (jpeg[:30], "damaged or incomplete .*; save it again"),
        "truncated.png": (png[: len(png) // 2], "damaged or incomplete .*; save it again"),
        "flipped.png": (png[:60] + bytes(200) + png[260:], "damaged or incomplete .*; save it again"),
        "empty.jpg": (b"", "the file is empty; copy or download it again"),
        "text.jpg": (b"no picture at all\n", "not a picture that can be read; convert it to JPEG or PNG"),
        "bomb.png": (png_claiming(50_000, 50_000), "more than 178 megapixels; make it smaller first"),
        "big.png": (png_claiming(13_350, 13_350), "more than 178 megapixels; make it smaller first"),
        "hollow.png": (png_claiming(60, 60), "damaged or incomplete .*; save it again"),
    }


@pytest.mark.parametrize("name", broken())
def test_damaged_files_are_named_with_a_remedy(tmp_path, name):
    data, message = broken()[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / name))}: {message}$") as caught:
        load_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_limit_is_the_one_in_the_message():
    assert 178 * 10**6 == MAX_PIXELS <= 2 * Image.MAX_IMAGE_PIXELS


def test_a_missing_path_and_a_folder_have_their_own_messages(tmp_path):
    with pytest.raises(InputError, match=r"x\.jpg: cannot be read \(File name too long\); check the path"):
        load_image(tmp_path / ("x" * 300 + ".jpg"))
    with pytest.raises(InputError, match="gone.jpg: no such file; check the path"):
        load_image(tmp_path / "gone.jpg")
    with pytest.raises(InputError, match="a folder, not a picture; name the files in it"):
        load_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission(tmp_path):
    scene().save(tmp_path / "locked.png")
    (tmp_path / "locked.png").chmod(0)
    with pytest.raises(InputError, match="locked.png: may not be read; change its permissions"):
        load_image(tmp_path / "locked.png")


@pytest.mark.parametrize("path", ["a\nb.jpg", "\0", "x" * 5000])
def test_odd_names_give_one_line_of_error(path):
    with pytest.raises(InputError) as caught:
        load_image(path)
    assert len(str(caught.value).splitlines()) == 1


def test_errors_name_bytes_by_the_given_name():
    with pytest.raises(InputError, match="^upload.jpg: the file is empty"):
        load_image(b"", name="upload.jpg")
    with pytest.raises(InputError, match="^image: the file is empty"):
        load_image(b"")


@pytest.mark.parametrize("decoded", [True, False])
def test_a_picture_closed_too_early_is_not_called_damaged(tmp_path, decoded):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    opened = Image.open(tmp_path / "a.png")
    if decoded:
        opened.load()
    opened.close()
    with pytest.raises(InputError, match="closed before it was read; open it again"):
        load_image(opened)


@pytest.mark.parametrize("source", [io.BytesIO(b"photo"), np.zeros((4, 4, 3), np.uint8), None, 7])
def test_what_is_no_source_is_not_called_damaged(source):
    kind = type(source).__name__
    with pytest.raises(InputError, match=f"^image: of type {kind}; give a path, the bytes of a file or a Pillow image"):
        load_image(source)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"%PDF-1.7\n%", "a PDF document, not a picture; convert it to JPEG or PNG"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing, not a photo; convert"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "a PostScript document, not a picture;"),
        (encoded(Image.new("RGB", (32, 32)), "ICO"), "not a picture that can be read; convert it to JPEG or PNG"),
        (b"P6 2000 2000 100\n" + bytes(12_000_000), "not a picture that can be read; convert it to JPEG or PNG"),
    ],
)
def test_documents_and_drawings_are_named_as_such(data, message):
    with pytest.raises(InputError, match=f"^a.jpg: {message}"):
        load_image(data, "a.jpg")


def test_heic_with_its_library():
    pillow_heif = pytest.importorskip("pillow_heif")
    heif = pillow_heif.from_pillow(scene().resize((480, 320), Image.Resampling.NEAREST))
    buffer = io.BytesIO()
    heif.save(buffer, quality=95)
    assert_scene(load_image(buffer.getvalue()).resize((48, 32)), tolerance=25)


def test_heic_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match="^a.heic: reading HEIC needs pillow-heif; install it, or convert the photo"):
        load_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "a.heic")


def test_a_large_picture_is_reduced_the_same_in_every_mode():
    small = Image.effect_noise((50, 45), 90)
    large = small.resize((2500, 2250), Image.Resampling.NEAREST)
    plain = load_image(encoded(large, "PNG", compress_level=1))
    assert plain.size == (834, 750)
    assert plain.tobytes() == large.convert("RGB").reduce(3).tobytes()
    sixteen = Image.fromarray(np.asarray(large).astype(np.uint16) * 257)
    for other in (large.convert("RGBA"), large.convert("P"), sixteen):
        assert load_image(encoded(other, "PNG", compress_level=1)).tobytes() == plain.tobytes()


def test_a_large_picture_is_rotated_after_reduction():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    stored = scene().transpose(TO_STORED[6]).resize((2200, 3300), Image.Resampling.NEAREST)
    loaded = load_image(encoded(stored, "PNG", exif=exif, compress_level=1))
    assert loaded.size == (1100, 734)
    assert_scene(loaded.resize((48, 32)))


def test_a_very_long_picture_is_reduced_too():
    assert load_image(encoded(Image.new("L", (40_000, 50)), "PNG")).size == (10_000, 13)


def test_a_picture_of_impossible_width_is_refused():
    with pytest.raises(InputError, match="65536 x 3 pixels of PNG need too much memory"):
        load_image(png_claiming(65_536, 3))


def test_a_picture_that_needs_too_much_memory_is_refused_before_decoding(monkeypatch):
    monkeypatch.setattr("caption_utils.data.images.DECODED_BYTES", 480 * 320 * 4)
    picture = scene().resize((480, 320))
    assert load_image(encoded(picture, "PNG")).size == (480, 320)
    for kind, options in (("WEBP", {}), ("JPEG", {"progressive": True})):
        with pytest.raises(InputError, match=f"a: 480 x 320 pixels of {kind} need too much memory to decode; make it"):
            load_image(encoded(picture, kind, **options), "a")


def test_a_strip_of_a_tiff_counts_as_memory(monkeypatch):
    picture = scene().resize((480, 320))
    strips = [encoded(picture, "TIFF", compression="tiff_lzw", strip_size=size) for size in (480 * 3 * 32, 2**30)]
    monkeypatch.setattr("caption_utils.data.images.DECODED_BYTES", 480 * (320 * 4 + 32 * 3))
    assert load_image(strips[0]).size == (480, 320)
    with pytest.raises(InputError, match="480 x 320 pixels of TIFF need too much memory to decode"):
        load_image(strips[1])


def test_running_out_of_memory_is_not_reported_as_damage(monkeypatch):
    def fail(image):
        raise MemoryError

    monkeypatch.setattr("caption_utils.data.images._upright_rgb", fail)
    with pytest.raises(InputError, match="^a: not enough memory to decode it; make it smaller first$"):
        load_image(encoded(scene(), "PNG"), "a")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="pipe.jpg: a pipe or a device, not a file; save the picture first"):
        load_image(tmp_path / "pipe.jpg")


def test_reading_pictures_keeps_the_warning_filters():
    image, filters = encoded(scene(), "PNG"), list(warnings.filters)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caption_utils.data.images._upright_rgb", lambda picture: seen.append(list(warnings.filters)))
        load_image(image)
    assert seen == [filters]
