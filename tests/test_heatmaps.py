"""Tests of caption_utils.heatmaps."""

import numpy as np
import pytest
from PIL import Image

from caption_utils.captioner import Caption
from caption_utils.heatmaps import attention_figure, spotlight, upsample

SIZE = (70, 140)  # width, height


def one_hot(row: int, column: int) -> np.ndarray:
    attention = np.zeros((7, 7), dtype=np.float32)
    attention[row, column] = 1.0
    return attention


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 6), (6, 0), (3, 4)])
def test_the_light_falls_on_the_cell_that_was_attended(row, column):
    light = upsample(one_hot(row, column), SIZE)
    assert light.shape == (140, 70)
    y, x = np.unravel_index(light.argmax(), light.shape)
    assert (y // 20, x // 10) == (row, column)
    assert 0.0 <= light.min() and light.max() <= 1.0


def test_a_flat_map_leaves_the_photo_as_it_is():
    photo = Image.effect_noise(SIZE, 50).convert("RGB")
    assert (np.abs(spotlight(photo, np.full((7, 7), 1 / 49)).astype(int) - np.asarray(photo)) <= 1).all()


def test_what_was_not_attended_is_darker_but_not_black():
    photo = Image.new("RGB", SIZE, (200, 100, 50))
    lit = spotlight(photo, one_hot(0, 0))
    assert (lit[-1, -1] < (100, 50, 25)).all() and (lit[-1, -1] > 0).all()


@pytest.mark.parametrize("words", [1, 4, 5, 20])
def test_the_figure_has_a_titled_panel_for_the_photo_and_each_word(words):
    tokens = [f"word{i}" for i in range(words)]
    caption = Caption(" ".join(tokens), -1.0, tokens, np.full((words, 7, 7), 1 / 49))
    figure = attention_figure(Image.new("RGB", SIZE), caption)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["photo", *tokens]
    assert figure.get_suptitle() == caption.text
    assert all(not axes.axison for axes in figure.axes)
