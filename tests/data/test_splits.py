import pytest

from caption_utils.data.splits import first6k_split, listed_split, random_split, shuffled
from caption_utils.errors import InputError

NAMES = [f"{i}.jpg" for i in range(10)]


def counts(assigned):
    return {split: list(assigned.values()).count(split) for split in ("train", "val", "test")}


def test_random_is_80_10_10():
    assigned = random_split([f"{i}.jpg" for i in range(1000)], seed=0)
    assert counts(assigned) == {"train": 800, "val": 100, "test": 100}


def test_first6k_leaves_the_rest_out():
    names = [f"{i}.jpg" for i in range(6500)]
    assigned = first6k_split(names, seed=0)
    assert set(assigned) == set(names[:6000])
    assert counts(assigned) == {"train": 4800, "val": 1200, "test": 0}


def test_the_seed_and_the_names_alone_decide():
    assert shuffled(NAMES, 1) == shuffled(NAMES[::-1], 1) != shuffled(NAMES, 2)


def test_a_known_permutation():
    """Guards published results: a change here would move every image of a seeded split."""
    assert shuffled(["a", "b", "c", "d"], 0) == ["c", "b", "d", "a"]


@pytest.mark.parametrize("place", ["data", "data/text", ".", "text"])
def test_lists_are_found_nearby(tmp_path, place):
    (tmp_path / "data").mkdir()
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "Flickr_8k.trainImages.txt").write_bytes(b"\xef\xbb\xbf1.jpg\r\n2.jpg\r\n\r\n")
    (tmp_path / place / "Flickr_8k.devImages.txt").write_text("3.jpg")
    assigned, lists = listed_split(tmp_path / "data", set(NAMES))
    assert assigned == {"1.jpg": "train", "2.jpg": "train", "3.jpg": "val"}
    assert [path.name for path in lists] == ["Flickr_8k.devImages.txt", "Flickr_8k.trainImages.txt"]


def test_lists_of_another_data_set_are_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "trainImages.txt").write_text("other.png\n")
    assert listed_split(tmp_path / "data", set(NAMES)) == ({}, [])


def test_an_image_in_two_lists(tmp_path):
    (tmp_path / "devImages.txt").write_text("1.jpg\n")
    (tmp_path / "trainImages.txt").write_text("1.jpg\n2.jpg\n")
    with pytest.raises(InputError) as caught:
        listed_split(tmp_path, set(NAMES))
    assert str(caught.value) == (f"{tmp_path / 'trainImages.txt'}: 1.jpg is also listed for val; keep it in one list")
