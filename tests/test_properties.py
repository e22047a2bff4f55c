"""What must hold for any input: hypothesis looks for one for which it does not."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from damaged_photos import check_picture_or_one_line, junk, mutated
from hypothesis import given, settings
from hypothesis import strategies as st

from caption_utils.app import session
from caption_utils.app.session import Session
from caption_utils.app.widget import CaptionWidget
from caption_utils.data.datasets import load_dataset
from caption_utils.data.layouts import read_captions
from caption_utils.data.vocab import Vocabulary, tokenize
from caption_utils.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # pytest sets filters of its own, before the package's

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

names = st.lists(st.text("abcdef0123", min_size=1, max_size=4).map("{}.jpg".format), unique=True, max_size=60)
seeds = st.integers(0, 2**32)
known = st.sampled_from("a dog ca man cannot wo gonna wanna lemme 2".split())
plain = known | st.from_regex("[a-z]{1,9}", fullmatch=True)
words = st.lists(st.tuples(plain, st.sampled_from(["", "", "'s", "n't", "'ll"])).map("".join), max_size=20)


@given(st.text(), st.lists(st.text(), max_size=5))
def test_any_text_becomes_tokens_that_hold_a_letter_or_digit_and_ids_in_range(text, captions):
    assert all(any(map(str.isalnum, token)) for token in tokenize(text))
    vocabulary = Vocabulary.build(captions, min_count=1)
    first, *ids, last = vocabulary.encode(text)
    assert (first, last) == (vocabulary.bos, vocabulary.eos)
    assert all(vocabulary.unk <= i < len(vocabulary) for i in ids)
    assert isinstance(vocabulary.decode([first, *ids, last]), str)


@given(words)
def test_decoded_captions_tokenize_to_the_same_tokens(chosen):
    text = " ".join(chosen)
    vocabulary = Vocabulary.build([text], min_count=1)
    assert tokenize(vocabulary.decode(vocabulary.encode(text))) == tokenize(text)


@given(names.filter(bool), seeds, st.sampled_from(["official", "first6k", "random"]), st.data())
@settings(max_examples=50)
def test_no_image_is_in_two_splits_and_none_is_lost(images, seed, scheme, data):
    rows = data.draw(st.permutations(images * 2))
    with tempfile.TemporaryDirectory() as folder:
        text = "image,caption\n" + "".join(f"{image},A dog\n" for image in rows)
        (Path(folder) / "captions.txt").write_text(text, encoding="utf-8")
        table = load_dataset(folder, scheme, seed, require_images=False).table
    assert (table.groupby("image")["split"].nunique() == 1).all()
    assert table["image"].tolist() == rows
    assert set(table["split"]) <= {"train", "val"} | ({"test"} if scheme != "first6k" else set())


@given(st.data(), names.filter(bool))
@settings(max_examples=50)
def test_lists_decide_alone(data, images):
    listed = {image: data.draw(st.sampled_from(["train", "dev", "test", None])) for image in images}
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder) / "data"
        inner.mkdir()
        (inner / "captions.txt").write_text("image,caption\n" + "".join(f"{i},A dog\n" for i in images))
        for split in ("train", "dev", "test"):
            (inner / f"{split}Images.txt").write_text("\n".join(i for i in images if listed[i] == split))
        table = load_dataset(inner, require_images=False).table
    if any(listed.values()):
        expected = {image: split.replace("dev", "val") for image, split in listed.items() if split}
        assert dict(zip(table["image"], table["split"], strict=True)) == expected
    else:
        assert set(table["image"]) == set(images)


@given(
    st.binary(max_size=300),
    st.sampled_from(
        [
            b"",
            b"image,caption\n",
            b"image,caption,split\n",
            b"a.jpg#0\t",
            b"image_name| comment_number| comment\n",
            b'{"images": ',
            b'{"image": "a", "caption": "b"}\n',
        ]
    ),
)
def test_any_bytes_are_read_or_refused(junk, head):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.txt"
        path.write_bytes(head + junk)
        try:
            rows = read_captions(path).rows
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert all(image and caption == " ".join(caption.split()) != "" for image, caption, _ in rows)


letters = st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])


@given(st.lists(st.text(letters).map("{} dog".format), max_size=8))
def test_quoted_captions_are_read_as_written(captions):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.txt"
        quoted = ['"{}"'.format(caption.replace('"', '""')) for caption in captions]
        lines = ["image,caption", *(f"a.jpg,{caption}" for caption in quoted)]
        path.write_text("\n".join(lines), encoding="utf-8")
        assert read_captions(path).rows == [("a.jpg", " ".join(caption.split()), "") for caption in captions]


@pytest.fixture(scope="module")
def page_widget(model_folder, encoder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "load_encoder", lambda name, device: encoder)
        yield CaptionWidget(Session({"tiny": model_folder}))


@given(st.text(max_size=40))
def test_any_name_begins_its_one_line(name):
    check_picture_or_one_line(b"", name or "image")


@given(st.one_of(junk, mutated), st.text())
@settings(max_examples=50)
def test_whatever_is_dropped_the_page_shows_one_card_and_goes_on(page_widget, data, name):
    page_widget._uploaded({"new": ({"name": name, "content": memoryview(data)},)})
    page_widget.button.click()
    (card,) = page_widget.results.children
    assert ("cu-caption" in card.value) != ("cu-failed" in card.value)
    assert "no caption (" not in card.value  # what only an exception nobody foresaw would say
    assert not page_widget.button.disabled


@pytest.mark.slow
def test_a_damaged_photo_is_a_picture_or_one_line_in_less_than_a_gigabyte_and_five_seconds():
    command = [sys.executable, str(Path(__file__).parent / "damaged_photos.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds < 5
    assert kilobytes < 1_000_000
