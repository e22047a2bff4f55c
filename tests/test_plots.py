import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from caption_utils import plots


def drawn(figure):
    """The figure, after it has been drawn once."""
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    return figure


def test_panels_fill_rows_and_leave_no_empty_axes():
    figure, axes = plots.panels(4, height=2, columns=3)
    assert len(axes) == len(figure.axes) == 4
    assert figure.get_size_inches().tolist() == [8, 4]


def test_sample_grid_shows_each_picture_above_its_lines():
    images = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    figure = drawn(plots.sample_grid(images, [["A red wall.", "word " * 20], []]))
    assert [ax.images[0].get_array().shape for ax in figure.axes] == [(6, 8, 3)] * 2
    first = figure.axes[0].get_xlabel().split("\n")
    assert first[0] == "A red wall." and len(first) > 2
    assert max(map(len, first)) <= plots.WRAP
    assert figure.axes[1].get_xlabel() == ""


def test_sample_grid_leaves_no_full_stop_on_a_line_of_its_own():
    figure = drawn(plots.sample_grid([Image.new("RGB", (8, 6))], [["a bc " + "x" * (plots.WRAP - 4) + " ."]]))
    assert [len(line.strip()) for line in figure.axes[0].get_xlabel().split("\n")] == [4, plots.WRAP - 2]


def test_sample_grid_takes_dollars_as_they_are():
    figure = drawn(plots.sample_grid([Image.new("RGB", (8, 6))], [["from $5 to $_"]]))
    assert not figure.axes[0].xaxis.label.get_parse_math()


def test_sample_grid_wants_a_text_for_each_picture():
    with pytest.raises(ValueError):
        plots.sample_grid([Image.new("RGB", (8, 6))], [["one"], ["two"]])


def test_bars_have_the_lengths_given_first_on_top():
    figure = drawn(plots.bars({"words": {"a": 3, "dog": 1}, "nouns": {"dog": 2}}, "times"))
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == [3, 1]
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "dog"]
    assert left.yaxis_inverted() and right.get_title() == "nouns"


def test_a_seventh_group_is_drawn_too_and_no_two_lines_are_alike():
    groups = {name: {"dog": 1} for name in "abcdefg"}
    assert [len(ax.patches) for ax in drawn(plots.bars(groups, "times")).axes] == [1] * 7
    numbers = {name: [1.0, 2.0] for name in groups}
    assert len(drawn(plots.histogram(numbers, 2, "x")).axes[0].patches) == 2 * 7
    lines = plots.lines({"y": pd.DataFrame(numbers)}).axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 7


def test_bars_of_an_empty_group():
    assert len(drawn(plots.bars({"words": {"a": 1}, "verbs": {}}, "times")).axes[1].patches) == 0


def test_histogram_is_in_percent_of_each_group():
    figure = drawn(plots.histogram({"small": [1, 1, 2, 2], "large": [1] * 30 + [2] * 10}, [0.5, 1.5, 2.5], "tokens"))
    shares = [patch.get_data().values.tolist() for patch in figure.axes[0].patches[::2]]
    assert shares == [[50, 50], [75, 25]]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["small", "large"]


def test_lines_draw_every_column_over_the_index():
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}, index=pd.Index([1, 10], name="rank"))
    figure = drawn(plots.lines({"count": table, "share": table[["a"]]}, log_x=True))
    left, right = figure.axes
    assert [line.get_ydata().tolist() for line in left.lines] == [[1, 2], [3, 4]]
    assert [line.get_xdata().tolist() for line in right.lines] == [[1, 10]]
    assert (left.get_xlabel(), left.get_ylabel()) == ("rank", "count")
    assert (left.get_xscale(), left.get_yscale()) == ("log", "linear")


def test_lines_are_told_apart_by_more_than_colour():
    table = pd.DataFrame(np.eye(3), columns=list("abc"))
    lines = plots.lines({"y": table}).axes[0].lines
    assert len({line.get_marker() for line in lines}) == len({to_hex(line.get_color()) for line in lines}) == 3


def test_padding_is_light_where_a_caption_has_ended():
    picture = drawn(plots.padding({"batch": [3, 1]})).axes[0].images[0].get_array()
    assert picture.shape == (2, 3, 3)
    dark, light = picture[0, 0].tolist(), picture[1, 2].tolist()
    assert sum(dark) < sum(light)
    assert [[cell == dark for cell in row] for row in picture.tolist()] == [[True] * 3, [True, False, False]]


def test_a_word_tree_writes_a_shared_beginning_once():
    sentences = ["a red ball".split(), "the ball".split(), "a red car".split(), "a red ball lies".split()]
    (axes,) = drawn(plots.word_tree(sentences, ["1st", "2nd", "3rd", "4th"])).axes
    at = {text.get_text(): text.get_position() for text in axes.texts}
    words = sorted(text.get_text() for text in axes.texts)
    assert words == sorted("a red ball lies car the ball 1st 2nd 3rd 4th".split())
    assert at["a"] == (0, 0) and at["red"] == (1, 0)
    assert at["lies"][0] == 3 and at["4th"][0] == 4
    assert len({at[label][1] for label in ("1st", "2nd", "3rd")}) == 3
    assert len(axes.lines) == 6 - 2 + 1  # every word but the first two begins at another


def test_a_sentence_with_which_a_better_one_begins_has_a_row_of_its_own():
    sentences = ["a red ball".split(), "a red car".split(), "a red".split()]
    (axes,) = drawn(plots.word_tree(sentences, ["1st", "2nd", "3rd"])).axes
    at = {text.get_text(): text.get_position() for text in axes.texts}
    assert (at["1st"], at["2nd"], at["3rd"]) == ((3, 0), (3, -1), (2, -2))
    assert [line.get_xydata().tolist() for line in axes.lines][0] == [[1, 0], [2, -2]]
    assert len(axes.lines) == 4 - 1 + 1  # from "red" to its label, too
