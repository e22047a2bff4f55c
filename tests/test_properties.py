"""What must hold for any input: hypothesis looks for one for which it does not."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from caption_utils.datasets import load_dataset
from caption_utils.errors import InputError
from caption_utils.layouts import read_captions
from caption_utils.splits import first6k_split, random_split
from caption_utils.vocab import Vocabulary, tokenize

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

names = st.lists(st.text("abcdef0123", min_size=1, max_size=4).map("{}.jpg".format), unique=True, max_size=60)
seeds = st.integers(0, 2**32)
known = st.sampled_from("a dog ca man cannot wo gonna wanna lemme 2".split())
plain = known | st.from_regex("[a-z]{1,9}", fullmatch=True)
words = st.lists(st.tuples(plain, st.sampled_from(["", "", "'s", "n't", "'ll"])).map("".join), max_size=20)


@given(st.text())
def test_any_text_becomes_tokens_that_hold_a_letter_or_digit(text):
    assert all(any(map(str.isalnum, token)) for token in tokenize(text))


@given(st.text(), st.lists(st.text(), max_size=5))
def test_ids_are_in_range_and_framed(text, captions):
    vocabulary = Vocabulary.build(captions, min_count=1)
    ids = vocabulary.encode(text)
    assert ids[0] == vocabulary.bos
    assert ids[-1] == vocabulary.eos
    assert all(vocabulary.unk <= i < len(vocabulary) for i in ids[1:-1])
    assert isinstance(vocabulary.decode(ids), str)


@given(words)
def test_decoded_captions_tokenize_to_the_same_tokens(chosen):
    text = " ".join(chosen)
    vocabulary = Vocabulary.build([text], min_count=1)
    assert tokenize(vocabulary.decode(vocabulary.encode(text))) == tokenize(text)


@given(names, seeds)
def test_random_splits_hold_each_image_once(images, seed):
    assert set(random_split(images, seed)) == set(images)


@given(names, seeds)
def test_first6k_splits_hold_each_image_once(images, seed):
    assigned = first6k_split(images, seed)
    assert set(assigned) == set(images)
    assert set(assigned.values()) <= {"train", "val"}


@given(names.filter(bool), seeds, st.sampled_from(["official", "first6k", "random"]), st.data())
def test_no_image_is_in_two_splits_and_none_is_lost(images, seed, scheme, data):
    rows = data.draw(st.permutations(images * 2))
    with tempfile.TemporaryDirectory() as folder:
        text = "image,caption\n" + "".join(f"{image},A dog\n" for image in rows)
        (Path(folder) / "captions.txt").write_text(text, encoding="utf-8")
        table = load_dataset(folder, scheme, seed, require_images=False).table
    assert (table.groupby("image")["split"].nunique() == 1).all()
    assert table["image"].tolist() == rows
    assert set(table["split"]) <= {"train", "val", "test"}


@given(st.data(), names.filter(bool))
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


@given(st.binary(max_size=300), st.sampled_from([
    b"", b"image,caption\n", b"image,caption,split\n", b"a.jpg#0\t", b"image_name| comment_number| comment\n",
    b'{"images": ', b'{"image": "a", "caption": "b"}\n']))
def test_any_bytes_are_read_or_refused(junk, head):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.txt"
        path.write_bytes(head + junk)
        try:
            rows = read_captions(path)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert len(rows.images) == len(rows.captions) == len(rows.splits)


letters = st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])


@given(st.lists(st.text(letters, min_size=1).filter(str.strip), max_size=8))
def test_quoted_captions_are_read_as_written(captions):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.txt"
        quoted = ['"{}"'.format(caption.replace('"', '""')) for caption in captions]
        lines = ["image,caption", *(f"a.jpg,{caption}" for caption in quoted)]
        path.write_text("\n".join(lines), encoding="utf-8")
        assert read_captions(path).captions == [" ".join(caption.split()) for caption in captions]
