"""Pictures of drawn scenes for ``tools/demo_set.py``: every kind of thing and every background, with Pillow."""

import json
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw
from PIL.ImageDraw import ImageDraw as Pen

from caption_utils.demo.scenes import Scene, Thing

SCALE = 3  # pictures are drawn this many times larger and then reduced, for smooth edges
SIZE, HORIZON = 224, 112  # side of a background before it is stretched, and its horizon, in pixels from the top

RGB = tuple[int, int, int]
PALETTE: dict[str, RGB] = {
    "red": (220, 30, 30),
    "yellow": (255, 216, 20),
    "green": (40, 170, 60),
    "blue": (24, 60, 220),
    "purple": (200, 90, 230),
}
TONES: dict[str, RGB] = {
    "white": (252, 252, 250),
    "black": (44, 44, 52),
    "wood": (122, 82, 52),
    "leaf": (64, 134, 70),
    "glass": (206, 230, 244),
}
SKY = ("kite", "balloon")  # kinds that fly, and cast no shadow
# kind -> shapes (method of ImageDraw, tone, coordinates in the unit box), painted in order
SHAPES: dict[str, list[list]] = json.loads(Path(__file__).with_name("demo_shapes.json").read_text("utf-8"))
# background -> colours of sky (top, horizon), land (horizon, bottom) and shadow
LANDS: dict[str, tuple[RGB, RGB, RGB, RGB, RGB]] = {
    "meadow": ((150, 205, 240), (222, 240, 248), (176, 212, 124), (140, 190, 92), (116, 164, 78)),
    "beach": ((126, 200, 236), (216, 240, 246), (240, 224, 182), (228, 206, 156), (202, 178, 128)),
    "snow": ((176, 188, 214), (226, 226, 236), (248, 250, 253), (226, 234, 244), (198, 210, 226)),
    "street": ((16, 20, 48), (52, 52, 92), (92, 92, 104), (70, 70, 82), (48, 48, 58)),
    "lake": ((180, 214, 236), (240, 236, 222), (122, 184, 204), (84, 150, 182), (66, 126, 160)),
}


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    """The colour between ``a`` (share 0) and ``b`` (share 1)."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _shape(pen: Pen, method: str, points: list[float], fill: RGB, outline: RGB | None = None) -> None:
    """Paint an ``ellipse``, ``rectangle``, ``polygon`` or ``halfdisc``, the upper half of an ellipse.

    Coordinates, here and below, are pixels of the final picture.
    """
    at = [round(SCALE * p) for p in points]
    if method == "halfdisc":
        pen.pieslice(at, 180, 360, fill=fill, outline=outline, width=SCALE)
    else:
        getattr(pen, method)(at, fill=fill, outline=outline, width=SCALE)


def _gradient(pen: Pen, top: int, bottom: int, first: RGB, last: RGB) -> None:
    """Fill the rows between ``top`` and ``bottom`` with a gradient."""
    start, stop = top * SCALE, bottom * SCALE
    for y in range(start, stop):
        pen.line([0, y, SIZE * SCALE, y], fill=_mix(first, last, (y - start) / (stop - start)))


def _clouds(pen: Pen, rng: Random) -> None:
    for x in (rng.uniform(-10, 70), rng.uniform(110, 180)):
        y = rng.uniform(24, 80)
        for left, top, right in ((0, 9, 26), (12, 16, 40), (26, 11, 54)):
            _shape(pen, "ellipse", [x + left, y - top, x + right, y], (248, 251, 253))


def _meadow(pen: Pen, rng: Random) -> None:
    for tone in ((184, 216, 150), (160, 202, 116)):
        x = rng.uniform(-60, 160)
        _shape(pen, "ellipse", [x - 60, HORIZON - 22, x + 130, HORIZON + 60], tone)
    _gradient(pen, HORIZON + 6, SIZE, *LANDS["meadow"][2:4])
    _clouds(pen, rng)


def _beach(pen: Pen, rng: Random) -> None:
    _gradient(pen, HORIZON - 14, HORIZON + 10, (54, 146, 190), (126, 204, 214))
    shore = rng.uniform(-80, 20)
    for x in range(0, 320, 40):
        _shape(pen, "ellipse", [shore + x, HORIZON + 6, shore + x + 50, HORIZON + 16], LANDS["beach"][2])
    _clouds(pen, rng)


def _snow(pen: Pen, rng: Random) -> None:
    x = rng.uniform(0, 200)
    _shape(pen, "polygon", [x - 120, HORIZON + 1, x, HORIZON - 46, x + 120, HORIZON + 1], (196, 206, 226))
    _shape(pen, "polygon", [x - 37, HORIZON - 31, x, HORIZON - 46, x + 37, HORIZON - 31], (248, 250, 253))
    for _ in range(24):
        x, y = rng.uniform(0, SIZE), rng.uniform(0, HORIZON)
        _shape(pen, "ellipse", [x, y, x + 2.4, y + 2.4], (252, 252, 254))


def _street(pen: Pen, rng: Random) -> None:
    x = rng.uniform(10, 190)
    _shape(pen, "ellipse", [x, 12, x + 24, 36], (240, 236, 214))
    _shape(pen, "ellipse", [x + 8, 9, x + 29, 31], (22, 26, 54))
    _shape(pen, "rectangle", [0, HORIZON, SIZE, HORIZON + 8], (122, 120, 128))
    dash = rng.uniform(-40, 0)
    for x in range(0, 280, 56):
        _shape(pen, "rectangle", [dash + x, 168, dash + x + 30, 173], (206, 202, 186))


def _lake(pen: Pen, rng: Random) -> None:
    x = rng.uniform(20, 200)
    for shift, height, tone in ((-70, 30, (172, 184, 204)), (50, 40, (150, 166, 190))):
        peak = x + shift
        _shape(pen, "polygon", [peak - 110, HORIZON, peak, HORIZON - height, peak + 110, HORIZON], tone)
    _gradient(pen, HORIZON, SIZE, *LANDS["lake"][2:4])
    for _ in range(14):
        x, y = rng.uniform(0, 200), rng.uniform(HORIZON + 6, 218)
        _shape(pen, "rectangle", [x, y, x + rng.uniform(10, 26), y + 0.7], (168, 212, 226))


DETAILS = {"meadow": _meadow, "beach": _beach, "snow": _snow, "street": _street, "lake": _lake}


def _paint_thing(pen: Pen, thing: Thing, mirrored: bool) -> None:
    main = PALETTE[thing.colour]
    dark, light = _mix(main, (0, 0, 0), 0.3), _mix(main, (255, 255, 255), 0.45)
    tones = TONES | {"main": main, "dark": dark, "light": light}
    left, top, right, bottom = thing.box
    for method, tone, *unit in SHAPES[thing.kind]:
        xs = [left + (1 - u if mirrored else u) * (right - left) for u in unit[::2]]
        ys = [top + v * (bottom - top) for v in unit[1::2]]
        if method != "polygon":
            xs.sort()
        points = [p for xy in zip(xs, ys, strict=True) for p in xy]
        _shape(pen, method, points, tones[tone], _mix(tones[tone], (0, 0, 0), 0.35))


def _background(name: str, rng: Random) -> Image.Image:
    """A square of sky and land with their details."""
    image = Image.new("RGB", (SIZE * SCALE, SIZE * SCALE))
    pen = ImageDraw.Draw(image)
    sky, haze, far, near, _ = LANDS[name]
    _gradient(pen, 0, HORIZON, sky, haze)
    _gradient(pen, HORIZON, SIZE, far, near)
    DETAILS[name](pen, rng)
    return image


def draw(scene: Scene) -> Image.Image:
    """The RGB picture of ``scene``; the same scene always gives the same pixels."""
    rng = Random(repr(scene))
    width, height = scene.size
    image = _background(scene.background, rng).resize((width * SCALE, height * SCALE))
    pen, shadow = ImageDraw.Draw(image), LANDS[scene.background][4]
    for thing in sorted(scene.things, key=lambda thing: thing.box[3]):
        left, _, right, bottom = thing.box
        if thing.kind not in SKY:
            _shape(pen, "ellipse", [left - 2, bottom - 6, right + 2, bottom + 4], shadow)
        _paint_thing(pen, thing, mirrored=rng.random() < 0.5)
    return image.reduce(SCALE)
