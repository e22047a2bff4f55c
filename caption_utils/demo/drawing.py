"""Scenes → pictures: every kind of thing and every background, drawn with Pillow."""

from random import Random

from PIL import Image, ImageDraw
from PIL.ImageDraw import ImageDraw as Pen

from caption_utils.demo.descriptions import SIZE, Scene, Thing

SCALE = 3  # pictures are drawn this many times larger, then reduced
HORIZON = 112  # pixels from the top
SKY = ("kite", "balloon")  # kinds that cast no shadow

RGB = tuple[int, int, int]
PALETTE: dict[str, RGB] = {
    "red": (214, 40, 40),
    "yellow": (250, 200, 20),
    "green": (24, 136, 60),
    "blue": (36, 96, 214),
    "purple": (142, 50, 172),
}
TONES: dict[str, RGB] = {
    "white": (252, 252, 250),
    "black": (44, 44, 52),
    "wood": (122, 82, 52),
    "leaf": (64, 134, 70),
    "glass": (206, 230, 244),
}
# kind -> shapes (method of ImageDraw, tone, coordinates in the unit box), painted in order
SHAPES: dict[str, list[tuple[str, str, tuple[float, ...]]]] = {
    "ball": [
        ("ellipse", "main", (0, 0, 1, 1)),
        ("ellipse", "white", (0, 0.37, 1, 0.63)),
        ("ellipse", "light", (0.24, 0.08, 0.46, 0.24)),
    ],
    "house": [
        ("rectangle", "wood", (0.7, 0.06, 0.82, 0.34)),
        ("rectangle", "main", (0.08, 0.42, 0.92, 1)),
        ("polygon", "dark", (0.5, 0, 1, 0.46, 0, 0.46)),
        ("rectangle", "wood", (0.42, 0.64, 0.6, 1)),
        ("rectangle", "glass", (0.17, 0.56, 0.33, 0.76)),
        ("rectangle", "glass", (0.68, 0.56, 0.84, 0.76)),
    ],
    "tree": [
        ("rectangle", "wood", (0.42, 0.6, 0.58, 1)),
        ("ellipse", "main", (0, 0.3, 0.56, 0.76)),
        ("ellipse", "main", (0.44, 0.3, 1, 0.76)),
        ("ellipse", "main", (0.16, 0, 0.84, 0.6)),
        ("ellipse", "light", (0.34, 0.12, 0.48, 0.22)),
        ("ellipse", "light", (0.18, 0.42, 0.3, 0.5)),
        ("ellipse", "light", (0.62, 0.4, 0.74, 0.48)),
    ],
    "car": [
        ("polygon", "main", (0.16, 0.46, 0.3, 0, 0.72, 0, 0.86, 0.46)),
        ("polygon", "glass", (0.25, 0.42, 0.34, 0.1, 0.48, 0.1, 0.48, 0.42)),
        ("polygon", "glass", (0.54, 0.42, 0.54, 0.1, 0.68, 0.1, 0.77, 0.42)),
        ("polygon", "main", (0, 0.5, 0.06, 0.42, 0.94, 0.42, 1, 0.52, 1, 0.8, 0, 0.8)),
        ("ellipse", "white", (0.9, 0.48, 0.98, 0.62)),
        ("ellipse", "black", (0.12, 0.6, 0.36, 1)),
        ("ellipse", "black", (0.64, 0.6, 0.88, 1)),
        ("ellipse", "white", (0.2, 0.73, 0.28, 0.87)),
        ("ellipse", "white", (0.72, 0.73, 0.8, 0.87)),
    ],
    "umbrella": [
        ("rectangle", "wood", (0.475, 0.04, 0.525, 1)),
        ("halfdisc", "main", (0, 0, 1, 1.1)),
        ("halfdisc", "light", (0.17, 0, 0.83, 1.1)),
        ("halfdisc", "main", (0.34, 0, 0.66, 1.1)),
    ],
    "flower": [
        ("rectangle", "leaf", (0.46, 0.5, 0.54, 1)),
        ("ellipse", "leaf", (0.54, 0.76, 0.84, 0.9)),
        ("ellipse", "leaf", (0.16, 0.7, 0.46, 0.84)),
        ("ellipse", "main", (0.3, 0, 0.7, 0.36)),
        ("ellipse", "main", (0.3, 0.32, 0.7, 0.68)),
        ("ellipse", "main", (0, 0.17, 0.5, 0.49)),
        ("ellipse", "main", (0.5, 0.17, 1, 0.49)),
        ("ellipse", "white", (0.34, 0.22, 0.66, 0.45)),
    ],
    "boat": [
        ("rectangle", "wood", (0.47, 0, 0.52, 0.7)),
        ("polygon", "white", (0.56, 0.06, 0.94, 0.62, 0.56, 0.62)),
        ("polygon", "main", (0.43, 0.1, 0.43, 0.62, 0.12, 0.62)),
        ("polygon", "main", (0, 0.68, 1, 0.68, 0.82, 1, 0.18, 1)),
    ],
    "fish": [
        ("ellipse", "dark", (0.34, 0, 0.62, 0.4)),
        ("polygon", "main", (0.68, 0.5, 1, 0.08, 1, 0.92)),
        ("ellipse", "main", (0, 0.08, 0.8, 1)),
        ("polygon", "dark", (0.4, 0.5, 0.58, 0.4, 0.58, 0.72)),
        ("ellipse", "white", (0.12, 0.32, 0.26, 0.54)),
        ("ellipse", "black", (0.16, 0.38, 0.22, 0.48)),
    ],
    "kite": [
        ("polygon", "main", (0.5, 0, 1, 0.34, 0.5, 0.76, 0, 0.34)),
        ("polygon", "light", (0.5, 0, 1, 0.34, 0.5, 0.34)),
        ("polygon", "light", (0, 0.34, 0.5, 0.34, 0.5, 0.76)),
        ("polygon", "dark", (0.5, 0.76, 0.5, 0.84, 0.34, 0.86, 0.34, 0.78)),
        ("polygon", "dark", (0.5, 0.84, 0.5, 0.92, 0.66, 0.94, 0.66, 0.86)),
        ("polygon", "dark", (0.5, 0.92, 0.5, 1, 0.34, 1, 0.34, 0.94)),
    ],
    "balloon": [
        ("polygon", "black", (0.3, 0.6, 0.7, 0.6, 0.6, 0.86, 0.4, 0.86)),
        ("polygon", "glass", (0.36, 0.68, 0.64, 0.68, 0.58, 0.84, 0.42, 0.84)),
        ("ellipse", "main", (0, 0, 1, 0.76)),
        ("ellipse", "light", (0.2, 0, 0.8, 0.76)),
        ("ellipse", "main", (0.36, 0, 0.64, 0.76)),
        ("rectangle", "wood", (0.37, 0.84, 0.63, 1)),
    ],
}
# background -> colours of sky (top, horizon), land (horizon, bottom) and shadow
LANDS: dict[str, tuple[RGB, RGB, RGB, RGB, RGB]] = {
    "meadow": ((150, 205, 240), (222, 240, 248), (176, 212, 124), (140, 190, 92), (116, 164, 78)),
    "beach": ((126, 200, 236), (216, 240, 246), (240, 224, 182), (228, 206, 156), (202, 178, 128)),
    "snow": ((176, 188, 214), (226, 226, 236), (248, 250, 253), (226, 234, 244), (198, 210, 226)),
    "street": ((16, 20, 48), (52, 52, 92), (92, 92, 104), (70, 70, 82), (48, 48, 58)),
    "lake": ((180, 214, 236), (240, 236, 222), (122, 184, 204), (84, 150, 182), (66, 126, 160)),
}


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    """Colour between ``a`` (share 0) and ``b`` (share 1)."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _shape(pen: Pen, method: str, points: list[float], fill: RGB, outline: RGB | None = None) -> None:
    """Paint an ``ellipse``, ``rectangle``, ``polygon`` or ``halfdisc`` (the upper half of an ellipse).

    Like all coordinates, ``points`` are in pixels of the final picture.
    """
    at = [round(SCALE * p) for p in points]
    if method == "halfdisc":
        pen.pieslice(at, 180, 360, fill=fill, outline=outline, width=SCALE)
    else:
        getattr(pen, method)(at, fill=fill, outline=outline, width=SCALE)


def _gradient(pen: Pen, top: int, bottom: int, first: RGB, last: RGB) -> None:
    """Fill the rows from ``top`` to ``bottom`` with colours from ``first`` to ``last``."""
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
    for method, tone, unit in SHAPES[thing.kind]:
        xs = [left + (1 - u if mirrored else u) * (right - left) for u in unit[::2]]
        ys = [top + v * (bottom - top) for v in unit[1::2]]
        if method != "polygon":
            xs.sort()
        points = [p for xy in zip(xs, ys, strict=True) for p in xy]
        _shape(pen, method, points, tones[tone], _mix(tones[tone], (0, 0, 0), 0.35))


def draw(scene: Scene) -> Image.Image:
    """The picture of ``scene``, 224×224 RGB; the same scene always gives the same pixels."""
    rng = Random(repr(scene))
    image = Image.new("RGB", (SIZE * SCALE, SIZE * SCALE))
    pen = ImageDraw.Draw(image)
    sky, haze, far, near, shadow = LANDS[scene.background]
    _gradient(pen, 0, HORIZON, sky, haze)
    _gradient(pen, HORIZON, SIZE, far, near)
    DETAILS[scene.background](pen, rng)
    for thing in sorted(scene.things, key=lambda thing: thing.box[3]):
        left, _, right, bottom = thing.box
        if thing.kind not in SKY:
            _shape(pen, "ellipse", [left - 2, bottom - 6, right + 2, bottom + 4], shadow)
        _paint_thing(pen, thing, mirrored=rng.random() < 0.5)
    return image.reduce(SCALE)
