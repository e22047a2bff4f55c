"""Tests of tools/demo_pictures.py."""

import numpy as np
import pytest
from demo_pictures import PALETTE, draw
from PIL import Image

from caption_utils.demo.descriptions import KINDS
from caption_utils.demo.scenes import DEMO, Scene, Thing, load_scenes


@pytest.mark.slow
def test_pictures_show_each_thing_in_its_colour():
    for name, scene in load_scenes().items():
        pixels = np.asarray(Image.open(DEMO / "Images" / name)).astype(np.int16)  # (height, width, 3)
        assert pixels.shape == (*scene.size[::-1], 3)
        for thing in scene.things:
            left, top, right, bottom = thing.box
            crop = pixels[top:bottom:2, left:right:2]
            share = {colour: (np.abs(crop - rgb).max(axis=2) < 40).mean() for colour, rgb in PALETTE.items()}
            assert share[thing.colour] > 0.12 and max(share, key=share.get) == thing.colour, (name, thing, share)


def yellow_pixels(things):
    return np.abs(np.asarray(draw(Scene("street", things)), int) - PALETTE["yellow"]).max(axis=2) < 40


def test_a_thing_stays_within_its_box():
    assert not yellow_pixels(()).any()
    for kind in KINDS:
        rows, columns = yellow_pixels((Thing(kind, "yellow", (60, 100, 140, 180)),)).nonzero()
        assert 99 <= rows.min() and rows.max() <= 180 and 59 <= columns.min() and columns.max() <= 140, kind


def test_drawing_is_deterministic():
    scene = load_scenes()["scene_0001.webp"]
    assert draw(scene).tobytes() == draw(scene).tobytes()
    assert draw(scene).size == scene.size
