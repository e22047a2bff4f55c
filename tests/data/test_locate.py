import shutil
import sys
from types import SimpleNamespace

import pytest

from caption_utils.data import locate
from caption_utils.data.layouts import find_caption_file
from caption_utils.data.locate import find_dataset, find_layout
from caption_utils.errors import InputError


def write(path, content="image,caption\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def make(root, names=("0.jpg", "1.jpg", "2.jpg"), images="Images"):
    """A data set in Kaggle's layout with empty image files."""
    write(root / "captions.txt", "".join(["image,caption\n", *(f"{name},Caption of {name}\n" for name in names)]))
    (root / images).mkdir(parents=True)
    for name in names:
        (root / images / name).touch()
    return root


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """A repository with a demo set, no Kaggle, no CAPTION_DATA."""
    monkeypatch.setattr(locate, "repository", lambda: tmp_path)
    monkeypatch.setattr(locate, "KAGGLE_INPUT", tmp_path / "kaggle")
    monkeypatch.delenv("CAPTION_DATA", raising=False)
    make(tmp_path / "data" / "demo")
    return tmp_path


@pytest.mark.parametrize(
    ("present", "setting", "note"),
    [
        ([], None, "demo at data/demo (the demo set, since no other was found)"),
        (["data/flickr8k"], "demo", "demo at data/demo (found by CAPTION_DATA)"),
        (["data/mine", "data/flickr8k"], "data/mine", "mine at data/mine (found by CAPTION_DATA)"),
        (["data/flickr8k", "kaggle/flickr8k"], None, "flickr8k at data/flickr8k (found in the repository)"),
    ],
)
def test_which_data_set_comes_first(repo, monkeypatch, present, setting, note):
    for folder in present:
        make(repo / folder)
    if setting:
        monkeypatch.setenv("CAPTION_DATA", setting if setting == "demo" else str(repo / setting))
    dataset = find_dataset()
    assert dataset.name == note.split()[0]
    assert dataset.notes[0] == f"Dataset: {note}"
    assert dataset.notes[1].startswith("Split: ")


def test_an_empty_folder_in_the_repository_is_skipped(repo):
    (repo / "data" / "flickr8k").mkdir()
    (repo / "data" / "flickr8k" / ".DS_Store").touch()
    assert find_dataset().name == "demo"


def test_a_folder_outside_the_repository_is_named_in_full(repo, monkeypatch, tmp_path_factory):
    root = make(tmp_path_factory.mktemp("elsewhere") / "mine")
    monkeypatch.setenv("CAPTION_DATA", str(root))
    assert find_dataset().notes[0] == f"Dataset: mine at {root} (found by CAPTION_DATA)"


def test_a_relative_folder_is_found_from_the_repository_too(repo, monkeypatch):
    """``CAPTION_DATA=my_photos make lab`` starts notebooks in a folder of their own."""
    make(repo / "my_photos")
    (repo / "notebooks").mkdir()
    monkeypatch.setenv("CAPTION_DATA", "my_photos")
    for place in (repo, repo / "notebooks"):
        monkeypatch.chdir(place)
        assert find_dataset().name == "my_photos"
    make(repo / "notebooks" / "my_photos", names=["here.jpg"])
    assert find_dataset().image_names == ["here.jpg"]


@pytest.mark.parametrize("setting", ["/no/such", "~nobody-of-that-name/data", "x" * 300])
def test_a_missing_caption_data_does_not_fall_back(repo, monkeypatch, setting):
    monkeypatch.setenv("CAPTION_DATA", setting)
    with pytest.raises(InputError) as caught:
        find_dataset()
    assert str(caught.value) == f"CAPTION_DATA={setting}: no such folder; correct it, set demo or unset it"


@pytest.mark.parametrize(
    ("captions", "images"),
    [
        ("Flickr8k_text/Flickr8k.token.txt", "Flickr8k_Dataset/Flicker8k_Dataset"),
        ("results.csv", "flickr30k_images"),
        ("Captions.txt", "Images"),
    ],
)
def test_kaggles_other_layouts(repo, captions, images):
    root = make(repo / "kaggle" / "owner" / "set", images=images)
    (root / captions).parent.mkdir(exist_ok=True)
    shutil.move(root / "captions.txt", root / captions)
    assert find_dataset().root == root


def test_kaggles_input(repo):
    make(repo / "kaggle" / "datasets" / "owner" / "flickr8k")
    note = find_dataset().notes[0]
    assert note.startswith("Dataset: flickr8k at kaggle/datasets/owner/flickr8k (found under ")


def test_download_only_if_asked(repo, monkeypatch, tmp_path):
    root = make(tmp_path / "versions" / "1")
    asked = []
    kagglehub = SimpleNamespace(dataset_download=lambda name: asked.append(name) or str(root))
    monkeypatch.setitem(sys.modules, "kagglehub", kagglehub)
    assert find_dataset().name == "demo"
    assert not asked
    dataset = find_dataset(download=True)
    assert asked == ["adityajn105/flickr8k"]
    assert (dataset.name, dataset.root) == ("flickr8k", root)
    assert dataset.notes[0] == "Dataset: flickr8k at versions/1 (downloaded from Kaggle)"


def test_a_download_that_fails(repo, monkeypatch):
    def offline(name):
        raise ConnectionError("no\nroute")

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=offline))
    with pytest.raises(InputError) as caught:
        find_dataset(download=True)
    assert str(caught.value) == (
        "adityajn105/flickr8k: download from Kaggle failed (no route); pip install kagglehub, or download it "
        "in a browser and set CAPTION_DATA to its folder"
    )


def test_no_data_at_all(repo):
    shutil.rmtree(repo / "data")
    with pytest.raises(InputError) as caught:
        find_dataset()
    assert str(caught.value) == "no data set found; set CAPTION_DATA to a folder that holds captions.txt and Images"


KAGGLE = [
    ("captions.txt", "Images"),
    ("Captions.txt", "images"),
    ("Flickr8k_text/Flickr8k.token.txt", "Flickr8k_Dataset/Flicker8k_Dataset"),
    ("Flickr_TextData/Flickr8k.token.txt", "Images"),
    ("results.csv", "flickr30k_images"),
    ("mine.jsonl", "Images"),
    ("dataset_flickr8k.json", "Flicker8k_Dataset"),
    ("flickr_annotations_30k.csv", "flickr30k-images"),
]


@pytest.mark.parametrize("below", ["flickr8k", "datasets/owner/flickr8k/Flickr_Data/Flickr_Data", "1/2/3/4/5/6/7"])
@pytest.mark.parametrize(("captions", "images"), KAGGLE)
def test_search_finds_every_layout(tmp_path, below, captions, images):
    root = tmp_path / below
    (root / images).mkdir(parents=True)
    (root / images / "a.jpg").touch()
    write(root / captions, '{"images": []}' if captions.endswith("json") else '{"image": "a.jpg", "caption": "A"}')
    write(tmp_path / ".hidden" / "captions.txt")
    write(tmp_path / "alone" / "captions.txt")
    (tmp_path / "photos" / "Images").mkdir(parents=True)
    assert find_layout(tmp_path) == root
    assert find_caption_file(root) == root / captions


def test_search_is_bounded_and_passes_over_the_demo_set(tmp_path):
    make(tmp_path / "1/2/3/4/5/6/7/8")
    write(make(tmp_path / "notebook" / "captioning" / "data" / "demo") / "scenes.json", "{}")
    assert find_layout(tmp_path) is None
    assert find_layout(tmp_path / "missing") is None
