import pytest

from caption_utils.data.folders import find_images, find_kaggle_layout, pictures_in, walk
from caption_utils.errors import InputError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    "folder",
    [
        "Images",
        "images",
        "Flicker8k_Dataset",
        "Flicker8k_Dataset/Flicker8k_Dataset",
        "any/name",
        "",
        "../Flickr8k_Dataset/Flicker8k_Dataset",
        "../Images",
    ],
)
def test_images_are_found_by_content(tmp_path, folder):
    images = (tmp_path / "data" / folder).resolve()
    touch(images / "a.jpg", images / "b.JPG", images / "notes.md", tmp_path / "data" / "other" / "c.jpg")
    found, present = find_images(tmp_path / "data" / "captions.txt", ["a.jpg", "z.jpg"])
    assert found == images
    assert present == {"a.jpg", "b.JPG"}


def test_the_folder_with_most_of_the_images_wins(tmp_path):
    touch(tmp_path / "samples" / "a.jpg", *(tmp_path / "train" / f"{name}.jpg" for name in "abc"))
    assert find_images(tmp_path / "captions.txt", ["a.jpg", "b.jpg", "z.jpg"])[0] == tmp_path / "train"


def test_nested_paths(tmp_path):
    touch(tmp_path / "images" / "val2014" / "a.jpg", tmp_path / "images" / "train2014" / "a.jpg")
    names = ["val2014/a.jpg", "train2014/a.jpg", "val2014/b.jpg"]
    found, present = find_images(tmp_path / "dataset_coco.json", names)
    assert found == tmp_path / "images"
    assert present == {"val2014/a.jpg", "train2014/a.jpg"}


def test_photos_of_another_data_set_are_left_alone(tmp_path):
    touch(tmp_path / "holiday" / "1.jpg")
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError) as caught:
        find_images(tmp_path / "data" / "captions.txt", ["1.jpg", "2.jpg"])
    assert str(caught.value) == (
        f"{tmp_path / 'data' / 'captions.txt'}: found none of its 2 images; put them into Images beside it"
    )


def test_the_pictures_of_a_folder_by_name(tmp_path):
    touch(*(tmp_path / name for name in ("b.PNG", "a.jpg", "notes.txt", "inner/c.png")))
    (tmp_path / "folder.jpg").mkdir()
    assert pictures_in(tmp_path) == [tmp_path / "a.jpg", tmp_path / "b.PNG"]


def test_a_folder_without_pictures_is_one_line(tmp_path):
    with pytest.raises(InputError, match=f"^{tmp_path}: holds no picture; name a folder with files such as photo.jpg$"):
        pictures_in(tmp_path)


def test_a_walk_goes_level_by_level_and_leaves_hidden_folders_out(tmp_path):
    touch(*(tmp_path / name / "x.jpg" for name in ("b/d/f", "a/c", ".hidden/e")))
    below = [path.relative_to(tmp_path).as_posix() for path in walk(tmp_path, depth=2)]
    assert below == [".", "a", "b", "a/c", "b/d"]
    assert list(walk(tmp_path, depth=2, most=0)) == list(walk(tmp_path, depth=0)) == [tmp_path]


@pytest.mark.parametrize("below", ["", "flickr8k", "datasets/owner/flickr8k", "a/b/c/d"])
def test_search_finds_nested_folders(tmp_path, below):
    touch(tmp_path / below / "captions.txt", tmp_path / below / "Images" / "a.jpg")
    assert find_kaggle_layout(tmp_path, depth=4) == tmp_path / below


def test_search_needs_captions_and_images_and_is_bounded(tmp_path):
    touch(tmp_path / "x" / "captions.txt", tmp_path / "y" / "Images" / "a.jpg")
    touch(tmp_path / "1/2/3/4/5" / "captions.txt", tmp_path / "1/2/3/4/5" / "Images" / "a.jpg")
    assert find_kaggle_layout(tmp_path, depth=4) is None


def test_search_skips_a_folder(tmp_path):
    touch(tmp_path / "demo" / "captions.txt", tmp_path / "demo" / "Images" / "a.jpg")
    assert find_kaggle_layout(tmp_path, depth=4, skip=tmp_path / "demo") is None


def test_search_of_a_missing_folder(tmp_path):
    assert find_kaggle_layout(tmp_path / "kaggle", depth=4) is None
