import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from caption_utils.app import page
from caption_utils.app.heatmaps import VEIL
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
    """The tags of a page with their attributes, its text, and its pictures by what they are said to show."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(re.sub("<style>.*</style>", "", source, flags=re.DOTALL))
        self.pictures = [self._picture(**attributes) for tag, attributes in self.tags if tag == "img"]

    @property
    def names(self):
        return [(tag, *attributes) for tag, attributes in self.tags]

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    @staticmethod
    def _picture(src, alt, width):
        kind, data = re.fullmatch(r"data:image/(\w+);base64,(.+)", src).groups()
        return alt, Image.open(io.BytesIO(base64.b64decode(data)), formats=[kind])


def caption(text, log_probability=-4.0):
    """Its first word is looked for at the top left, its second one step further down and to the right, and so on."""
    words = text.split(" ")
    return Caption(
        text,
        log_probability,
        words,
        np.eye(49, dtype=np.float32)[[8 * i % 49 for i in range(len(words))]].reshape(-1, 7, 7),
    )


def result(name="photo.jpg", model="bahdanau", beams=5):
    captions = [caption("a dog runs"), caption("two dogs", -5.0)]
    return Result(name, Image.new("RGB", (40, 30), "red"), captions, model, beams)


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize(
    "show",
    [
        lambda name: page.result_card(result(name)),
        lambda name: page.failed_line(name, InputError(f"{name}: empty; try"), ""),
        lambda name: page.failed_line(name, OSError(name), "not found ({}); try"),
        lambda name: page.history_table([result(name)], 1, "photo,caption\n"),
        lambda name: page.result_card(result(model=name)),
    ],
    ids=["card", "failed", "error", "history", "model"],
)
def test_a_name_is_shown_as_text_whatever_it_holds(show, name):
    nasty, plain = Tags(show(name)), Tags(show("plain.jpg"))
    assert nasty.names == plain.names
    shown = re.sub(r"[\x00-\x1f\x7f]", "�", name).encode("utf-8", "replace").decode()
    assert shown in nasty.text
    show(name).encode("utf-8")  # what a browser is sent


def test_a_card_tells_caption_probability_words_and_other_captions():
    text = Tags(page.result_card(result())).text
    for part in ("a dog runs", "Probability 1.8%", "37% per word", "two dogs", "5 beams", "photo.jpg", "bahdanau"):
        assert part in text
    assert page.result_card(result()).count('class="attention-word"') == 3


def test_a_card_tells_how_sure_the_model_is_and_why_not():
    found = result()
    assert not re.search("confidence|unsure", page.result_card(found))
    found.captions[0] = replace(found.captions[0], confidence=0.123, doubt="unsure: unlike <b>")
    text = " ".join(Tags(page.result_card(found)).text.split())
    assert "a dog runs unsure: unlike <b> Probability 1.8% · 37% per word · confidence 12%" in text


def test_a_card_tells_over_how_many_regions_attention_is_spread_unless_there_is_no_word():
    text = " ".join(Tags(page.result_card(result())).text.split())
    assert re.search(r"where the model looked\. For each word, it looks at about \d+ of \d+ regions\.", text)
    empty = Caption("", -1.0, [], np.zeros((0, 7, 7), np.float32))
    wordless = Result("photo.jpg", Image.new("RGB", (64, 48)), [empty], "bahdanau", 5)
    assert "For each word" not in Tags(page.result_card(wordless)).text


@pytest.mark.parametrize(
    ("log_probability", "told"),
    [(-0.1, "90.5%"), (-10.0, "1 in 22,026"), (-800.0, "almost zero")],
)
def test_probabilities_are_told_in_words_that_mean_something(log_probability, told):
    only = Result("a", Image.new("RGB", (4, 3)), [caption("a dog", log_probability)], "m", 1)
    text = Tags(page.result_card(only)).text
    assert f"Probability {told}" in text
    assert "greedy" in text and "Other captions" not in text


@pytest.mark.parametrize("name", ["a.jpg", "a\nb.jpg", "a\r\n.jpg\n"])
def test_a_failure_names_the_photo_once(name):
    error = InputError(f"{name}: the file is empty")
    assert Tags(page.failed_line(name, error, "")).text == f"{page.CONTROL.sub('�', name)}: the file is empty"


def test_the_history_is_newest_first_and_saves_its_csv():
    table = page.history_table([result("old.jpg"), result("new.jpg")], 2, "photo\nö\n")
    assert table.index("new.jpg") < table.index("old.jpg")
    data = re.search(r'download="captions.csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"', table)[1]
    assert base64.b64decode(data).decode() == "photo\nö\n"


def test_a_thumbnail_is_made_once(monkeypatch):
    old, new, made = result("old.jpg"), result("new.jpg"), []
    thumbnail = page.thumbnail
    monkeypatch.setattr(page, "thumbnail", lambda *picture: made.append(picture) or thumbnail(*picture))
    before = page.history_table([old], 1, "")
    assert page.history_table([old], 1, "") == before and len(made) == 1
    page.history_table([old, new], 2, "")
    assert len(made) == 2


def test_a_history_tells_how_much_of_it_is_shown():
    results = [result(f"{i}.jpg") for i in range(2)]
    assert "This session: the last 2 of 3<" in page.history_table(results, 3, "")
    assert "This session: 2<" in page.history_table(results, 2, "")


def test_no_history_shows_nothing():
    assert page.history_table([], 0, "") == ""


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1)])
def test_any_shape_of_picture_is_shown(size):
    odd = Result("a", Image.new("RGB", size), [caption("a dog")], "m", 1)
    assert Tags(page.result_card(odd)).pictures[0][1].size == size
    assert Tags(page.history_table([odd], 1, "")).pictures[0][1].size == (144, 144)
    assert max(Tags(page.attention_page(odd.preview, odd.captions[0])).pictures[0][1].size) == 400


def test_the_photo_stands_above_its_words_each_with_a_small_mask_and_in_reach_of_the_keyboard():
    shown = Tags(page.attention_page(Image.new("RGB", (800, 600), "red"), caption("a red ball")))
    assert shown.text.split() == ["a", "red", "ball"]
    (alt, photo), *masks = shown.pictures
    assert alt == "photo: a red ball" and photo.size == (400, 300) and photo.format == "JPEG"
    assert [mask.size for _, mask in masks] == [(7, 7)] * 3
    assert [attributes["tabindex"] for tag, attributes in shown.tags if tag == "span"] == ["0"] * 3
    assert "script" not in {tag for tag, _ in shown.tags}


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_picture_that_a_user_opened_is_shown_upright(mode):
    photo = Image.new(mode, (40, 30), "white")
    photo.getexif()[ExifTags.Base.Orientation] = 6
    assert Tags(page.attention_page(photo, caption("a ball"))).pictures[0][1].size == (300, 400)


def test_a_mask_veils_what_was_not_attended():
    (_, _), (alt, mask) = Tags(page.attention_page(Image.new("RGB", (70, 140)), caption("ball"))).pictures
    veil = np.asarray(mask)  # (7, 7, RGBA)
    assert alt == "looked at: top left"
    assert veil[0, 0, 3] == 0 and (np.delete(veil[..., 3].ravel(), 0) > 150).all()
    assert (veil[..., :3] == VEIL).all()


def test_words_are_text_and_never_markup():
    word = '<script>alert("&amp;")</script>\'"'
    shown = Tags(page.attention_page(Image.new("RGB", (70, 140)), caption(word)))
    assert shown.text.strip() == word
    assert shown.pictures[0][0] == f"photo: {word}"
    assert {tag for tag, _ in shown.tags} == {"div", "img", "span"}


def test_an_attention_page_is_small():
    photo = Image.effect_noise((3000, 2000), 60).convert("RGB")
    words = " ".join(f"word{i}" for i in range(20))
    assert len(page.attention_page(photo, caption(words))) < 150_000


def test_a_screen_reader_is_told_that_work_has_begun_and_what_is_amiss():
    for template, role in (("working", "status"), ("choose", "alert")):
        assert Tags(page.fill(template)).tags[0] == ("p", {"role": role})


def test_every_template_is_used():
    package = Path(page.__file__).parent
    used = re.findall(r'fill\(\s*"(\w+)"', "".join(path.read_text() for path in package.glob("*.py")))
    assert set(used) == page.TEMPLATES.keys()
