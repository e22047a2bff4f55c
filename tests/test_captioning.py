import io
import shutil
from pathlib import Path

import pytest
import skimage

from caption_utils import captioning
from caption_utils.captioner import Captioner
from caption_utils.captioning import caption_photos, map_paths, photo_paths
from caption_utils.errors import InputError
from caption_utils.training.checkpoint import load_model

PHOTO = Path(skimage.data_dir) / "coffee.png"


@pytest.fixture
def captioner(model_folder, encoder):
    return Captioner(load_model(model_folder), encoder)


@pytest.fixture
def folder(tmp_path):
    """Two pictures, a text and a folder within."""
    (tmp_path / "inner").mkdir()
    for name in ("b.PNG", "a.png", "inner/c.png"):
        shutil.copy(PHOTO, tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_files_folders_and_standard_input_give_paths(folder, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder}/inner\n\nelse where.jpg\n"))
    assert photo_paths(["x.jpg", str(folder), "-"]) == [
        Path("x.jpg"),
        folder / "a.png",
        folder / "b.PNG",
        folder / "inner" / "c.png",
        Path("else where.jpg"),
    ]


def test_a_folder_without_pictures_is_one_line(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}: holds no picture"):
        photo_paths([str(tmp_path)])


def test_no_path_at_all_gives_no_caption(captioner):
    assert list(caption_photos(captioner, [], 2)) == []


def test_photos_are_captioned_in_order_as_each_alone_is(captioner, folder, monkeypatch):
    monkeypatch.setattr(captioning, "BATCH", 2)
    monkeypatch.setattr(captioning, "PHOTOS_AT_ONCE", 3)
    names = ("coffee.png", "rocket.jpg", "chelsea.png", "astronaut.png", "camera.png")
    photos = [Path(skimage.data_dir) / name for name in names]
    photos.insert(2, folder / "notes.txt")
    found = list(caption_photos(captioner, photos, 2))
    assert [photo for photo, _ in found] == photos
    assert isinstance(found[2][1], InputError) and "notes.txt" in str(found[2][1])
    for photo, captions in found[:2] + found[3:]:
        alone = captioner.caption(photo, 2)
        assert captions[0].text == alone.text
        assert captions[0].log_probability == pytest.approx(alone.log_probability, abs=1e-4)


def test_one_photo_s_map_has_the_name_given():
    assert map_paths("maps/out.png", [Path("a.jpg")]) == {Path("a.jpg"): Path("maps/out.png")}


def test_each_of_several_photos_has_a_map_of_its_own():
    photos = [Path("a.jpg"), Path("sub/b.jpg"), Path("a.jpg")]
    assert map_paths("maps/out.pdf", photos) == {
        Path("a.jpg"): Path("maps/out-a.pdf"),
        Path("sub/b.jpg"): Path("maps/out-b.pdf"),
    }


@pytest.mark.parametrize(
    ("out", "photos", "message"),
    [
        ("out", ["a.jpg"], "out: attention maps are saved as .png, .jpg, .pdf, .svg; end the name with one of them"),
        ("out.txt", ["a.jpg"], "out.txt: attention maps are saved as"),
        ("out.png", ["x/a.jpg", "y/a.jpg"], "out-a.png: would hold the maps of both x/a.jpg and y/a.jpg; caption them"),
        ("a.png", ["a.png"], "a.png: is one of the photos; name another file for the attention map"),
    ],
)
def test_an_ambiguous_or_destructive_name_is_one_line(out, photos, message):
    with pytest.raises(InputError) as caught:
        map_paths(out, [Path(photo) for photo in photos])
    assert message in str(caught.value)
