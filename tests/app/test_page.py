import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from caption_utils.app import page
from caption_utils.app.session import Result
from caption_utils.captioner import Caption
from caption_utils.errors import InputError

NASTY = [
    "<script>alert(1)</script>.jpg",
    '"><img src=x onerror=alert(1)>',
    'it\'s &amp; "quoted".png',
    "x" * 300 + ".jpg",
    "\u202egpj.exe",
    "שלום.jpg",
    "😀🏳️‍🌈.png",
    "\udcff\x00\x1b[31m.jpg",
    "a\nb.jpg",
]


class Tags(HTMLParser):
    """Names of all tags, all attributes' names, and the text between."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.text = [], set(), ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


def caption(text, log_probability=-4.0):
    words = text.split()
    return Caption(text, log_probability, words, np.full((len(words), 7, 7), 1 / 49, dtype=np.float32))


def result(name="photo.jpg", model="bahdanau", beams=5):
    captions = [caption("a dog runs"), caption("two dogs", -5.0)]
    return Result(name, Image.new("RGB", (40, 30), "red"), captions, model, beams)


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize(
    "show",
    [
        lambda name: page.result_card(result(name)),
        lambda name: page.failed_line(name, f"{name}: empty; try"),
        lambda name: page.history_table([result(name)], 1, "photo,caption\n"),
        lambda name: page.result_card(result(model=name)),
    ],
    ids=["card", "failed", "history", "model"],
)
def test_a_name_is_shown_as_text_whatever_it_holds(show, name):
    nasty, plain = Tags(show(name)), Tags(show("plain.jpg"))
    assert (nasty.tags, nasty.attributes) == (plain.tags, plain.attributes)
    shown = re.sub(r"[\x00-\x1f\x7f]", "�", name).encode("utf-8", "replace").decode()
    assert shown in nasty.text
    show(name).encode("utf-8")  # what a browser is sent


def test_a_card_tells_caption_probability_words_and_runners_up():
    text = Tags(page.result_card(result())).text
    for part in ("a dog runs", "Probability 1.8 %", "37 % a word", "two dogs", "5 beams", "photo.jpg", "bahdanau"):
        assert part in text
    assert page.result_card(result()).count('class="attention-word"') == 3


@pytest.mark.parametrize(
    ("log_probability", "told"),
    [(-0.1, "90.5 %"), (-10.0, "1 in 22,026"), (-800.0, "next to none")],
)
def test_probabilities_are_told_in_words_that_mean_something(log_probability, told):
    only = Result("a", Image.new("RGB", (4, 3)), [caption("a dog", log_probability)], "m", 1)
    text = Tags(page.result_card(only)).text
    assert f"Probability {told}" in text
    assert "greedy" in text and "Runners-up" not in text


@pytest.mark.parametrize("name", ["a.jpg", "a\nb.jpg", "a\r\n.jpg\n"])
def test_a_failure_names_the_photo_once(name):
    error = InputError(f"{name}: the file is empty")
    assert Tags(page.failed_line(name, str(error))).text == f"{page.CONTROL.sub('�', name)}: the file is empty"


def test_the_history_is_newest_first_and_saves_its_csv():
    table = page.history_table([result("old.jpg"), result("new.jpg")], 2, "photo\nö\n")
    assert table.index("new.jpg") < table.index("old.jpg")
    data = re.search(r'download="captions.csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"', table)[1]
    assert base64.b64decode(data).decode() == "photo\nö\n"


def test_a_history_tells_how_much_of_it_is_shown():
    results = [result(f"{i}.jpg") for i in range(2)]
    assert "This session: the last 2 of 3<" in page.history_table(results, 3, "")
    assert "This session: 2<" in page.history_table(results, 2, "")


def test_no_history_shows_nothing():
    assert page.history_table([], 0, "") == ""


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1)])
def test_any_shape_of_picture_has_a_card(size):
    odd = Result("a", Image.new("RGB", size), [caption("a dog")], "m", 1)
    assert "data:image/jpeg" in page.result_card(odd)
    assert "data:image/jpeg" in page.history_table([odd], 1, "")
