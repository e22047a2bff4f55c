import os
import unicodedata

import pytest
from PIL import Image

from caption_utils.data import folders
from caption_utils.data.folders import IMAGE_SUFFIXES, find_images, pictures_of, walk
from caption_utils.data.images import FORMATS
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
    found = find_images(tmp_path / "data" / "captions.txt", ["a.jpg", "z.jpg"])
    assert found == (images, {"a.jpg": "a.jpg"}, ["b.JPG"])


def test_the_folder_with_most_of_the_images_wins(tmp_path):
    touch(tmp_path / "samples" / "a.jpg", *(tmp_path / "train" / f"{name}.jpg" for name in "abc"))
    assert find_images(tmp_path / "captions.txt", ["a.jpg", "b.jpg", "z.jpg"])[0] == tmp_path / "train"


def test_folders_without_any_of_the_photos_are_only_listed(tmp_path, monkeypatch):
    compared, real = [], folders.spelled_as_in
    monkeypatch.setattr(folders, "spelled_as_in", lambda present, name: compared.append(name) or real(present, name))
    touch(tmp_path / "a.jpg", *(tmp_path / str(i) / "other.jpg" for i in range(9)))
    assert find_images(tmp_path / "captions.txt", ["a.jpg", "gone.jpg"])[:2] == (tmp_path, {"a.jpg": "a.jpg"})
    assert sorted(compared) == ["a.jpg", "gone.jpg"]


def test_nested_paths(tmp_path):
    touch(tmp_path / "images" / "val2014" / "a.jpg", tmp_path / "images" / "train2014" / "a.jpg")
    names = ["val2014/a.jpg", "train2014/a.jpg", "val2014/b.jpg"]
    found = find_images(tmp_path / "dataset_coco.json", names)
    assert found == (tmp_path / "images", {name: name for name in names[:2]}, [])


def test_photos_of_another_data_set_are_not_used(tmp_path):
    touch(tmp_path / "holiday" / "1.jpg")
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError) as caught:
        find_images(tmp_path / "data" / "captions.txt", ["1.jpg", "2.jpg"])
    assert str(caught.value) == (
        f"{tmp_path / 'data' / 'captions.txt'}: found none of its 2 images, such as 1.jpg; correct the names, or put "
        "the images into Images beside it"
    )


def test_every_readable_suffix_is_listed():
    Image.init()
    readable = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS | {"MPO"}}
    assert readable | {".heic", ".heif", ".hif"} <= set(IMAGE_SUFFIXES)


def test_the_pictures_of_a_folder_by_name(tmp_path):
    hidden = ("._a.jpg", ".thumbs/a.jpg", "__MACOSX/a.jpg")
    touch(*(tmp_path / name for name in ("b.PNG", "a.jpg", "c.jfif", "notes.txt", "movie.mp4", "inner/c.png", *hidden)))
    (tmp_path / "folder.jpg").mkdir()
    pictures, empty, notes = pictures_of([tmp_path])
    assert (pictures, empty) == ([tmp_path / "a.jpg", tmp_path / "b.PNG", tmp_path / "c.jfif"], {})
    assert notes == [f"{tmp_path}: skipped files that are not pictures: 2"]


def test_pictures_in_subfolders_when_asked(tmp_path):
    touch(*(tmp_path / name for name in ("b.png", "y/1.jpg", "y/z/0.jpg", "y/z/notes.txt", "x/2.tif", ".git/3.jpg")))
    (tmp_path / "y" / "up").symlink_to(tmp_path)  # in a circle
    (tmp_path / "round").symlink_to(tmp_path / "round")
    found, _, notes = pictures_of([tmp_path], recursive=True)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["b.png", "x/2.tif", "y/1.jpg", "y/z/0.jpg"]
    assert notes == [f"{tmp_path}: skipped files that are not pictures: 2"]  # notes.txt and the link to itself


def test_a_folder_that_cannot_be_listed_stands_for_itself(tmp_path, monkeypatch):
    touch(tmp_path / "a.jpg", tmp_path / "locked" / "b.jpg", tmp_path / "open" / "c.jpg")
    scan = os.scandir

    def refuse(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", refuse)
    assert pictures_of([tmp_path / "locked"]) == ([tmp_path / "locked"], {}, [])
    assert pictures_of([tmp_path]) == ([tmp_path / "a.jpg"], {}, [])
    below = [tmp_path / name for name in ("a.jpg", "open/c.jpg", "locked")]
    assert pictures_of([tmp_path], recursive=True) == (below, {}, [])


@pytest.mark.parametrize("name", ["photo.jpg", "x" * 300, "nowhere/photo.jpg"])
def test_a_file_stands_for_itself(tmp_path, name):
    assert pictures_of([tmp_path / name]) == ([tmp_path / name], {}, [])


def test_a_folder_without_pictures_is_an_input_error(tmp_path):
    touch(tmp_path / ".a.jpg", tmp_path / "inner" / "b.jpg")
    with pytest.raises(InputError, match=f"^{tmp_path}: holds no picture; name a folder with files such as photo.jpg$"):
        pictures_of([tmp_path])


def test_no_name_at_all_is_an_input_error():
    with pytest.raises(InputError, match="^no picture is named; name files, or folders that hold some$"):
        pictures_of([])


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD"])
def test_names_match_despite_slashes_and_accents(tmp_path, form, other):
    real = [unicodedata.normalize(form, name) for name in ("Fotos/Straße é.jpg", "Fotos/ñ/2.jpg", "odd\\name.jpg")]
    touch(*(tmp_path / "Images" / name for name in real))
    written = [
        unicodedata.normalize(other, name) for name in ("Fotos\\Straße é.jpg", "./Fotos//ñ/2.jpg", "odd\\name.jpg")
    ]
    folder, found, others = find_images(tmp_path / "captions.txt", [*written, "gone.jpg", "\0.jpg", "\ud800.jpg"])
    assert (folder, others) == (tmp_path / "Images", [])
    assert [found.get(name) for name in written] == real and len(found) == 3


def test_an_exact_name_is_preferred(tmp_path):
    composed, apart = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    touch(tmp_path / composed, tmp_path / apart, tmp_path / "._é.jpg", tmp_path / "other.jfif")
    assert find_images(tmp_path / "captions.txt", [apart]) == (
        tmp_path,
        {apart: apart},
        sorted([composed, "other.jfif"]),
    )


def test_a_walk_goes_level_by_level_and_skips_hidden_folders(tmp_path):
    touch(*(tmp_path / name / "x.jpg" for name in ("b/d/f", "a/c", ".hidden/e")))
    below = [path.relative_to(tmp_path).as_posix() for path in walk(tmp_path, depth=2)]
    assert below == [".", "a", "b", "a/c", "b/d"]
    assert list(walk(tmp_path, depth=2, most=0)) == list(walk(tmp_path, depth=0)) == [tmp_path]
