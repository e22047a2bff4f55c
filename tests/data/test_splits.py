import base64
import json
import unicodedata
from pathlib import Path

import pytest

from caption_utils.data import splits
from caption_utils.data.splits import first6k_split, known_split, listed_split, random_split, shuffled, source_split
from caption_utils.errors import InputError

NAMES = [f"{i}.jpg" for i in range(10)]


def counts(assigned):
    return {split: list(assigned.values()).count(split) for split in ("train", "val", "test")}


def test_random_is_about_80_10_10():
    found = counts(random_split([f"{i}.jpg" for i in range(8000)], seed=0))
    assert found == pytest.approx({"train": 6400, "val": 800, "test": 800}, abs=90)


@pytest.mark.parametrize("seed", range(5))
def test_a_photo_s_split_depends_on_its_own_name_only(seed):
    names = [f"IMG_{i:04}.jpg" for i in range(1000)]
    assigned = random_split(names, seed)
    for few in (names[300:], names[::-3], [*names[:40], "new.jpg"]):
        again = random_split(few, seed)
        assert {name: again[name] for name in few if name in assigned} == {n: assigned[n] for n in few if n in assigned}


@pytest.mark.parametrize("images", [*range(1, 30), 40, 60])
def test_a_small_set_has_an_image_in_every_split_if_possible(images):
    for seed in range(20):
        found = counts(random_split([f"{i}.jpg" for i in range(images)], seed))
        assert [found[split] > 0 for split in ("train", "val", "test")] == [True, images > 1, images > 2]
        assert sum(found.values()) == images and found["train"] >= max(found.values())
        first = counts(first6k_split([f"{i}.jpg" for i in range(images)], seed))
        assert (first["train"] > 0, first["val"] > 0) == (True, images > 1)


def test_a_name_that_is_not_text_has_a_split():
    assert random_split(["\ud800.jpg"], 0) == {"\ud800.jpg": "train"}


def test_first6k_leaves_the_rest_out():
    names = [f"{i}.jpg" for i in range(6500)]
    assigned = first6k_split(names, seed=0)
    assert set(assigned) == set(names[:6000])
    assert counts(assigned) == {"train": 4800, "val": 1200, "test": 0}


def test_source_splits_the_first_6000_rows():
    parts = source_split(40_000, seed=0)
    assert (len(parts), parts.count("train"), parts.count("val")) == (6000, 4800, 1200)
    assert source_split(10, 0) != source_split(10, 1) and sorted(source_split(10, 1)) == ["train"] * 8 + ["val"] * 2


def test_known_names_are_complete():
    lists = json.loads(splits.KNOWN.read_text())
    digests = {split: splits.digests_of(text) for split, text in lists.items()}
    assert {split: len(found) for split, found in digests.items()} == {"train": 6000, "val": 1000}
    assert len({*digests["train"], *digests["val"]}) == 7000 and all(len(digest) == 6 for digest in digests["val"])


@pytest.fixture
def known_names(tmp_path, monkeypatch):
    """As if 0.jpg to 5.jpg were Flickr8k's training images, 6.jpg and 7.jpg its validation images."""
    parts = {"train": NAMES[:6], "val": NAMES[6:8]}
    texts = {s: base64.b64encode(b"".join(map(splits.name_digest, names))).decode() for s, names in parts.items()}
    (tmp_path / "known.json").write_text(json.dumps(texts))
    monkeypatch.setattr(splits, "KNOWN", tmp_path / "known.json")


def test_known_names_give_training_and_validation(known_names):
    assert counts(known_split(NAMES)) == {"train": 6, "val": 2, "test": 0}
    assert known_split([f"Images/{name}" for name in NAMES])["Images/6.jpg"] == "val"
    assert known_split([*NAMES, *(f"mine{i}.jpg" for i in range(7))]) == {}  # another data set with some of its photos


def test_shuffling_depends_on_seed_and_names_only():
    assert shuffled(NAMES, 1) == shuffled(NAMES[::-1], 1) != shuffled(NAMES, 2)


def test_a_known_permutation():
    """Guards published results: a change here would move every image of a seeded split."""
    assert shuffled(["a", "b", "c", "d"], 0) == ["c", "b", "d", "a"]
    assert shuffled(["ä", "ö", "ü", "é"], 0) == ["ö", "é", "ä", "ü"]


def test_accents_may_be_spelled_differently():
    composed = [f"Hündin {i}.jpg" for i in range(60)]
    decomposed = [unicodedata.normalize("NFD", name) for name in composed]
    assert list(random_split(composed, 0).values()) == list(random_split(decomposed, 0).values())


def write_list(folder, content, name="Flickr_8k.trainImages.txt"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


@pytest.mark.parametrize("place", ["", "text", "a/text"])
def test_lists_in_the_data_set_s_folder_may_be_incomplete(tmp_path, place):
    write_list(tmp_path / place, b"\xef\xbb\xbf1.jpg\r\n2.jpg\r\n\r\n")
    write_list(tmp_path / place, "3.jpg", "Flickr_8k.devImages.txt")
    assert listed_split(tmp_path, set(NAMES), notes := []) == {"1.jpg": "train", "2.jpg": "train", "3.jpg": "val"}
    shown = [str(Path(place) / f"Flickr_8k.{split}Images.txt") for split in ("dev", "train")]
    assert notes == [f"Split: official, lists {', '.join(shown)}"]


@pytest.mark.parametrize("place", [".", "lists"])
@pytest.mark.parametrize(("listed", "photos"), [(10, 10), (8, 10), (99, 100), (90, 100)])
def test_lists_beside_the_data_set_count_only_if_they_cover_its_photos(tmp_path, place, listed, photos):
    (tmp_path / "data").mkdir()
    path = write_list(tmp_path / place, "".join(f"{i}.jpg\n" for i in range(listed)))
    found = listed_split(tmp_path / "data", {f"{i}.jpg" for i in range(photos)}, notes := [])
    covers = listed / photos > 0.95
    assert len(found) == (listed if covers else 0)
    assert notes == ([f"Split: official, lists {path}"] if covers else [])


@pytest.mark.parametrize("place", ["datasets/b/lists", "lists", "datasets/a"])
def test_lists_that_kaggle_has_attached_may_have_another_owner(tmp_path, monkeypatch, place):
    monkeypatch.setattr(splits, "KAGGLE_INPUT", tmp_path / "input")
    (root := tmp_path / "input" / "datasets" / "a" / "flickr8k").mkdir(parents=True)
    path = write_list(tmp_path / "input" / place, "\n".join(NAMES), "Flickr_8k.testImages.txt")
    assert counts(listed_split(root, set(NAMES), notes := []))["test"] == 10
    assert notes == [f"Split: official, lists {path}"]


def test_lists_of_another_data_set_are_ignored(tmp_path):
    (tmp_path / "data").mkdir()
    write_list(tmp_path / "demo", "other.png\n", "trainImages.txt")
    assert listed_split(tmp_path / "data", set(NAMES), []) == {}


@pytest.mark.parametrize("place", ["data", "data/text", "other", "."])
def test_lists_that_are_hidden_or_unreadable_are_ignored(tmp_path, place):
    (tmp_path / "data").mkdir()
    write_list(tmp_path / place, b"\0\5\x16\7", "._devImages.txt")
    write_list(tmp_path / place / "__MACOSX", "1.jpg\n")
    latin = write_list(tmp_path / place, "1.jpg\né.jpg\n".encode("latin-1"))
    (tmp_path / place / "testImages.txt").symlink_to("/proc/self/mem")  # opens, but cannot be read
    assert listed_split(tmp_path / "data", set(NAMES), notes := []) == {}
    reason = f"{latin}: line 2 is not UTF-8; save the file as UTF-8 and try again"
    assert notes[:1] == ([f"List ignored: {reason}"] if "data" in place else [])
    assert len(notes) == (2 if "data" in place else 0)


@pytest.mark.parametrize("place", ["", "text"])
def test_a_list_of_names_that_no_photo_has_is_told(tmp_path, place):
    path = write_list(tmp_path / "data" / place, "1\n2\n3\n4\n")
    assert listed_split(tmp_path / "data", set(NAMES), notes := []) == {}
    assert notes == [f"List ignored: {path}: names none of the photos: 4 (1, 2, 3, …)"]


def test_a_list_of_absent_photos_beside_one_of_those_that_are_there(tmp_path):
    write_list(tmp_path, "gone.jpg\n")
    write_list(tmp_path, "1.jpg\n", "Flickr_8k.testImages.txt")
    assert listed_split(tmp_path, set(NAMES), notes := []) == {"1.jpg": "test"}
    assert notes == ["Split: official, lists Flickr_8k.testImages.txt"]


def test_a_list_may_spell_names_differently(tmp_path):
    write_list(tmp_path, unicodedata.normalize("NFC", "Images\\é.jpg\n./2.jpg\n"))
    decomposed = unicodedata.normalize("NFD", "Images/é.jpg")
    assert listed_split(tmp_path, {decomposed, "2.jpg"}, []) == {decomposed: "train", "2.jpg": "train"}


def test_an_image_in_two_lists(tmp_path):
    write_list(tmp_path, "1.jpg\n", "devImages.txt")
    path = write_list(tmp_path, "1.jpg\n2.jpg\n", "trainImages.txt")
    with pytest.raises(InputError) as caught:
        listed_split(tmp_path, set(NAMES), [])
    assert str(caught.value) == f"{path}: 1.jpg is also listed for val; keep it in one list"
