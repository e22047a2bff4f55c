"""``python tools/demo_set.py``: sample the scenes of the demo set, and write data/demo, the same bytes each time."""

import csv
import json
import os
import tempfile
from dataclasses import asdict, replace
from itertools import cycle, islice
from pathlib import Path
from random import Random

from demo_captions import captions
from demo_pictures import SKY, draw

from caption_utils.demo.descriptions import COLOURS
from caption_utils.demo.scenes import DEMO, Box, Scene, Thing

SPLITS = {"trainImages.txt": 1440, "devImages.txt": 300, "testImages.txt": 60}
SIZES = ((224, 224), (272, 204), (204, 272))  # width and height of a picture, in pixels
# kind -> width and height in pixels, at scale 1
EXTENTS = {
    "ball": (58, 58),
    "house": (80, 78),
    "tree": (62, 84),
    "car": (90, 54),
    "umbrella": (74, 74),
    "flower": (54, 76),
    "boat": (82, 74),
    "fish": (82, 52),
    "kite": (62, 80),
    "balloon": (62, 80),
}
GROUND = ("ball", "house", "tree", "car", "umbrella")
# background -> kinds that occur in it, some twice as often
INHABITANTS = {
    "meadow": (*GROUND, "flower", "flower", *SKY),
    "beach": ("ball", "ball", "house", "tree", "umbrella", "umbrella", *SKY),
    "snow": (*GROUND, *SKY),
    "street": (*GROUND, "balloon"),
    "lake": ("boat", "boat", "fish", "fish", *SKY),
}


def _sample_box(kind: str, scale: float, place: Scene, rng: Random) -> Box:
    """A box where this ``kind`` belongs: above the horizon, in the water or standing on the ground."""
    width, height = (round(side * scale) for side in EXTENTS[kind])
    left = rng.randint(6, place.size[0] - 6 - width)
    horizon = place.size[1] // 2
    highest = height + 5 if kind in SKY else horizon + (height + 4 if kind == "fish" else 26)
    bottom = rng.randint(highest, max(highest, horizon if kind in SKY else place.size[1] - 8))
    return left, bottom - height, left + width, bottom


def _apart(a: Box, b: Box, gap: int = 6) -> bool:
    return a[2] + gap <= b[0] or b[2] + gap <= a[0] or a[3] + gap <= b[1] or b[3] + gap <= a[1]


def _sample_things(background: str, count: int, rng: Random) -> list[tuple[str, str]]:
    """Kinds and colours; in a few of the larger scenes, two or three things are alike."""
    things = [(rng.choice(INHABITANTS[background]), rng.choice(COLOURS)) for _ in range(count)]
    alike = rng.choice((*14 * (1,), 2, 3))
    return things[:1] * alike + things[alike:] if alike <= count else things


def _sample_scene(empty: Scene, count: int, rng: Random) -> Scene:
    """``count`` things that do not overlap in an empty scene; the fewer there are, the larger they are."""
    smallest = {1: 1.25, 2: 1.15, 3: 0.95}[count]
    while True:
        placed: list[Thing] = []
        for kind, colour in _sample_things(empty.background, count, rng):
            boxes = (_sample_box(kind, rng.uniform(smallest, smallest + 0.2), empty, rng) for _ in range(50))
            box = next((box for box in boxes if all(_apart(box, thing.box) for thing in placed)), None)
            if box:
                placed.append(Thing(kind, colour, box))
        if len(placed) == count:
            return replace(empty, things=tuple(placed))


def _sample_set(rng: Random) -> dict[str, Scene]:
    """File name → scene: backgrounds in turn; one, two or three things in the ratio 2 : 2 : 1; half are square."""
    numbered = enumerate(islice(cycle(INHABITANTS), sum(SPLITS.values())), 1)
    empty = {f"scene_{i:04}.webp": Scene(place, (), rng.choice((SIZES[0], *SIZES))) for i, place in numbered}
    return {name: _sample_scene(scene, rng.choice((1, 1, 2, 2, 3)), rng) for name, scene in empty.items()}


def _write_files(folder: Path, scenes: dict[str, Scene], rng: Random) -> None:
    """Pictures, captions, split lists and ``scenes.json`` into an existing, empty folder."""
    (folder / "Images").mkdir()
    for name, scene in scenes.items():
        draw(scene).save(folder / "Images" / name, quality=75, method=6)
    with open(folder / "captions.txt", "w", encoding="utf-8", newline="") as file:
        rows = [(name, caption) for name, scene in scenes.items() for caption in captions(scene, rng)]
        csv.writer(file, lineterminator="\n").writerows([("image", "caption"), *rows])
    names = iter(scenes)
    for split, size in SPLITS.items():
        lines = "".join(f"{name}\n" for name in islice(names, size))
        (folder / split).write_text(lines, encoding="utf-8", newline="\n")
    entries = ",\n".join(f"{json.dumps(name)}: {json.dumps(asdict(scene))}" for name, scene in scenes.items())
    (folder / "scenes.json").write_text(f"{{\n{entries}\n}}\n", encoding="utf-8", newline="\n")


def write_set(folder: Path = DEMO) -> None:
    """Write the whole demo set to a temporary folder, then move it to ``folder``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        rng = Random(20150210)
        _write_files(new, _sample_set(rng), rng)
        if folder.exists():
            os.replace(folder, Path(temporary) / "old")
        os.replace(new, folder)


if __name__ == "__main__":
    write_set()
