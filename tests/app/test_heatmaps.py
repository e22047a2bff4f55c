"""Tests of caption_utils.app.heatmaps."""

import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image

from caption_utils.app.heatmaps import SHADE, VEIL, attention_figure, fitted, place, save_map, spotlight, spread, veil
from caption_utils.captioner import Caption

SIZE = (70, 140)  # width, height


def one_hot(row: int, column: int) -> np.ndarray:
    attention = np.zeros((7, 7), dtype=np.float32)
    attention[row, column] = 1.0
    return attention


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 6), (6, 0), (3, 4)])
def test_the_light_falls_on_the_cell_that_was_attended(row, column):
    shade = np.asarray(veil(one_hot(row, column), SIZE))
    assert shade.shape == (140, 70)
    y, x = np.unravel_index(shade.argmin(), shade.shape)
    assert (y // 20, x // 10) == (row, column)
    assert shade.min() < 10 and shade.max() == round(255 * SHADE)


def test_a_flat_map_leaves_the_photo_as_it_is():
    photo = Image.effect_noise(SIZE, 50).convert("RGB")
    assert (np.asarray(spotlight(photo, np.full((7, 7), 1 / 49))) == np.asarray(photo)).all()


def luminance(colour):
    return np.asarray(colour) @ (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize("colour", [(200, 100, 50), (255, 255, 255), (0, 200, 0)])
def test_what_was_not_attended_is_darker_but_not_black(colour):
    lit = np.asarray(spotlight(Image.new("RGB", SIZE, colour), one_hot(0, 0)), dtype=int)
    assert np.abs(lit[5, 5] - np.array(colour)).max() <= 1
    assert 0 < luminance(lit[-1, -1]) < luminance(colour) / 2
    assert (lit[-1, -1] > 0).any()


def test_on_black_the_veil_is_what_shows():
    lit = np.asarray(spotlight(Image.new("RGB", SIZE), one_hot(0, 0)))
    assert lit[5, 5].max() == 0
    assert lit[-1, -1].argmax() == np.argmax(VEIL) and lit[-1, -1].max() > 30


def caption_of(tokens):
    maps = np.stack([one_hot(i % 7, i % 7) for i in range(len(tokens))])
    return Caption(" ".join(tokens), -1.0, tokens, maps)


@pytest.mark.parametrize(("words", "rows", "columns"), [(1, 1, 2), (5, 1, 6), (12, 2, 7), (20, 3, 7)])
def test_the_figure_has_a_titled_panel_for_the_photo_and_each_word_in_even_rows(words, rows, columns):
    caption = caption_of([f"word{i}" for i in range(words)])
    figure = attention_figure(Image.new("RGB", SIZE), caption)
    assert [axes.get_title() for axes in figure.axes] == ["photo", *caption.tokens]
    assert figure.get_suptitle() == f"{caption.text}\nlooks at about 1 of 49 regions"
    assert all(not axes.axison for axes in figure.axes)
    grid = figure.axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == (rows, columns)


def test_letters_that_the_font_lacks_are_told_in_one_line(tmp_path, monkeypatch, capsys, recwarn):
    def load(photo):
        warnings.warn("a warning of Pillow", stacklevel=1)
        return Image.new("RGB", SIZE)

    monkeypatch.setattr("caption_utils.app.heatmaps.load_image", load)
    out = tmp_path / "map.png"
    save_map("photo.jpg", caption_of(["一只", "狗"]), out)
    assert out.is_file() and [str(each.message) for each in recwarn] == ["a warning of Pillow"]
    what = "the font lacks letters of the caption, drawn as boxes; set Matplotlib's font.family"
    assert capsys.readouterr().err == f"caption_utils: {out}: {what}\n"
    save_map("photo.jpg", caption_of(["a", "café"]), out)
    assert not capsys.readouterr().err


def test_how_far_attention_is_spread_in_words():
    even, half = np.full((7, 7), 1 / 49), np.zeros((7, 7))
    half[0, :2] = 0.5
    caption = Caption("a red ball", -1.0, ["a", "red", "ball"], np.stack([even, half, half]))
    assert spread(caption) == "looks at about 18 of 49 regions"
    assert spread(Caption("", -1.0, [], np.zeros((0, 7, 7)))) == ""


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_a_picture_of_any_shape_has_a_figure(size):
    assert max(attention_figure(Image.new("RGB", size), caption_of(["a", "ball"])).get_size_inches()) < 6


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_picture_that_a_user_opened_is_shown_upright_and_in_colour(mode):
    photo = Image.new(mode, (40, 30), "white")
    photo.getexif()[ExifTags.Base.Orientation] = 6
    shown, *_ = attention_figure(photo, caption_of(["a", "ball"])).axes
    assert shown.images[0].get_array().shape == (256, 192, 3)


@pytest.mark.parametrize(("size", "expected"), [((1, 2000), (1, 56)), ((2000, 1), (56, 1)), ((20, 10), (56, 28))])
def test_a_side_is_fitted_and_never_nothing(size, expected):
    small = fitted(Image.new("RGB", size, "red"), 56)
    assert small.size == expected and small.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ((0, 0), "top left"),
        ((3, 3), "middle"),
        ((3, 6), "right"),
        ((6, 3), "bottom"),
        ((6, 5), "bottom right"),
    ],
)
def test_a_place_is_told_in_words(cell, words):
    assert place(one_hot(*cell)) == words
