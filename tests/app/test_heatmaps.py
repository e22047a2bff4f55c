"""Tests of caption_utils.app.heatmaps."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from caption_utils.app.heatmaps import VEIL, attention_figure, attention_page, fitted, place, spotlight, upsample
from caption_utils.captioner import Caption

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


def luminance(colour):
    return np.asarray(colour) @ (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize("colour", [(200, 100, 50), (255, 255, 255), (0, 200, 0)])
def test_what_was_not_attended_is_darker_but_not_black(colour):
    lit = spotlight(Image.new("RGB", SIZE, colour), one_hot(0, 0))
    assert np.abs(lit[5, 5] - np.array(colour)).max() <= 1
    assert 0 < luminance(lit[-1, -1]) < luminance(colour) / 2
    assert (lit[-1, -1] > 0).any()


def test_on_black_the_veil_is_what_shows():
    lit = spotlight(Image.new("RGB", SIZE), one_hot(0, 0))
    assert lit[5, 5].max() == 0
    assert lit[-1, -1].argmax() == np.argmax(VEIL) and lit[-1, -1].max() > 30


@pytest.mark.parametrize("words", [1, 4, 5, 20])
def test_the_figure_has_a_titled_panel_for_the_photo_and_each_word(words):
    tokens = [f"word{i}" for i in range(words)]
    caption = Caption(" ".join(tokens), -1.0, tokens, np.full((words, 7, 7), 1 / 49))
    figure = attention_figure(Image.new("RGB", SIZE), caption)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["photo", *tokens]
    assert figure.get_suptitle() == caption.text
    assert all(not axes.axison for axes in figure.axes)


@pytest.mark.parametrize(("words", "rows", "columns"), [(5, 1, 6), (12, 2, 7), (20, 3, 7)])
def test_rows_are_as_even_as_they_can_be(words, rows, columns):
    caption = caption_of([f"word{i}" for i in range(words)])
    grid = attention_figure(Image.new("RGB", SIZE), caption).axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == (rows, columns)


def caption_of(tokens):
    maps = np.stack([one_hot(i % 7, i % 7) for i in range(len(tokens))])
    return Caption(" ".join(tokens), -1.0, tokens, maps)


class Page(HTMLParser):
    """Words, the attributes of all tags, and the pictures of a page."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.words, self._in_style = [], [], False
        self.feed(source)
        self.pictures = [self._picture(dict(attributes)) for tag, attributes in self.tags if tag == "img"]

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, attributes))
        self._in_style = tag == "style"

    def handle_data(self, data):
        self.words += [] if self._in_style or not data.strip() else [data.strip()]

    def handle_endtag(self, tag):
        self._in_style = False

    @staticmethod
    def _picture(attributes):
        kind, data = re.fullmatch(r"data:image/(\w+);base64,(.+)", attributes["src"]).groups()
        return attributes["alt"], Image.open(io.BytesIO(base64.b64decode(data)))


def test_the_page_holds_the_photo_and_a_small_mask_in_each_word():
    tokens = ["a", "red", "ball"]
    page = Page(attention_page(Image.new("RGB", (800, 600), "red"), caption_of(tokens)))
    assert page.words == tokens
    (alt, photo), *masks = page.pictures
    assert alt == "photo: a red ball" and photo.size == (400, 300) and photo.format == "JPEG"
    assert [mask.size for _, mask in masks] == [(7, 7)] * 3
    assert [tag for tag, _ in page.tags].count("script") == 0


def test_a_mask_veils_what_was_not_attended():
    (_, _), (alt, mask) = Page(attention_page(Image.new("RGB", SIZE), caption_of(["ball"]))).pictures
    veil = np.asarray(mask)  # (7, 7, RGBA)
    assert alt == "looked at: top left"
    assert veil[0, 0, 3] == 0 and (np.delete(veil[..., 3].ravel(), 0) > 150).all()
    assert (veil[..., :3] == VEIL).all()


def test_a_page_can_be_reached_with_the_keyboard():
    page = Page(attention_page(Image.new("RGB", SIZE), caption_of(["a", "ball"])))
    assert [dict(attributes).get("tabindex") for tag, attributes in page.tags if tag == "span"] == ["0", "0"]


def test_words_are_text_and_never_markup():
    word = '<script>alert("&amp;")</script>\'"'
    page = Page(attention_page(Image.new("RGB", SIZE), caption_of([word])))
    assert page.words == [word]
    assert page.pictures[0][0] == f"photo: {word}"
    assert {tag for tag, _ in page.tags} == {"style", "div", "img", "span"}


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_pictures_of_any_shape_are_shown(size):
    photo, caption = Image.new("RGB", size), caption_of(["a", "ball"])
    assert max(Page(attention_page(photo, caption)).pictures[0][1].size) == 400
    assert max(attention_figure(photo, caption).get_size_inches()) < 6


@pytest.mark.parametrize(("size", "expected"), [((1, 2000), (1, 56)), ((2000, 1), (56, 1)), ((20, 10), (56, 28))])
def test_a_side_is_fitted_and_never_nothing(size, expected):
    small = fitted(Image.new("RGB", size, "red"), 56)
    assert small.size == expected and small.getpixel((0, 0)) == (255, 0, 0)


def test_a_page_is_small():
    photo = Image.effect_noise((3000, 2000), 60).convert("RGB")
    words = [f"word{i}" for i in range(20)]
    assert len(attention_page(photo, caption_of(words))) < 150_000


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
