import json
import os

import pytest

from caption_utils.data import layouts, splits
from caption_utils.data.datasets import load_dataset
from caption_utils.errors import InputError

NAMES = [f"{i}.jpg" for i in range(20)]


def make(root, names=NAMES, images="Images", present=None, header="image,caption"):
    """A data set in Kaggle's layout with empty image files, two captions an image."""
    (root / images).mkdir(parents=True)
    for name in names if present is None else present:
        (root / images / name).touch()
    lines = [f"{name},Caption {k} of {name}" for name in names for k in range(2)]
    (root / "captions.txt").write_text("\n".join([header, *lines]) + "\n")
    return root


def fails(message, *args, **options):
    with pytest.raises(InputError) as caught:
        load_dataset(*args, **options)
    assert str(caught.value) == message


def splits_of(dataset):
    return dict(zip(dataset.table["image"], dataset.table["split"], strict=True))


# The data set


def test_the_interface(tmp_path):
    root = make(tmp_path / "toy")
    dataset = load_dataset(root)
    assert (dataset.name, dataset.root, dataset.images) == ("toy", root, root / "Images")
    assert list(dataset.table.columns) == ["image", "caption", "split"]
    assert dataset.image_names == NAMES
    assert dataset.captions_of("3.jpg") == ["Caption 0 of 3.jpg", "Caption 1 of 3.jpg"]
    assert dataset.path("3.jpg").is_file()


def test_split_restricts_to_one(tmp_path):
    dataset = load_dataset(make(tmp_path / "toy"))
    train = dataset.split("train")
    assert 0 < len(train.image_names) < 20
    assert set(train.image_names) == {name for name, split in splits_of(dataset).items() if split == "train"}
    assert list(train.table.index) == list(range(2 * len(train.image_names)))


@pytest.mark.parametrize(("images", "split", "needed"), [(1, "val", 2), (1, "test", 3), (2, "test", 3)])
def test_too_few_images_for_a_split_says_how_many_it_needs(tmp_path, images, split, needed):
    dataset = load_dataset(make(tmp_path / "toy", NAMES[:images]))
    message = (
        rf"^split '{split}' of toy has no images \(it takes {needed} images in all\); choose one of: train(, val)?$"
    )
    with pytest.raises(InputError, match=message):
        dataset.split(split)


def test_a_split_that_lists_leave_empty_says_how_to_get_one(tmp_path):
    folder = make(tmp_path / "toy")
    (folder / "my_trainImages.txt").write_text("\n".join(NAMES[:15]))
    (folder / "my_testImages.txt").write_text("\n".join(NAMES[15:]))
    with pytest.raises(InputError) as caught:
        load_dataset(folder).split("val")
    hint = 'name some in a column "split" of the captions, or take a random split'
    assert str(caught.value) == f"split 'val' of toy has no images ({hint}); choose one of: train, test"
    assert load_dataset(folder, "random").split("val").image_names


def test_a_split_whose_photos_lie_in_another_folder_says_that_they_are_missing(tmp_path):
    root = tmp_path / "toy"
    for split, names in {"train": NAMES[:15], "test": NAMES[15:]}.items():
        (root / split).mkdir(parents=True)
        for name in names:
            (root / split / name).touch()
    lines = [f"{name},A dog,{'train' if i < 15 else 'test'}\n" for i, name in enumerate(NAMES)]
    (root / "captions.csv").write_text("".join(["image,caption,split\n", *lines]))
    dataset = load_dataset(root)
    where = f"Captioned images without a file in {root / 'train'} (rows dropped)"
    assert dataset.notes[0] == f"{where}: 5 (15.jpg, 16.jpg, 17.jpg, …)"
    with pytest.raises(InputError) as caught:
        dataset.split("test")
    hint = 'captioned images without a file: 5; name some in a column "split" of the captions, or take a random split'
    assert str(caught.value) == f"split 'test' of toy has no images ({hint}); choose one of: train"


@pytest.mark.parametrize("name", ["test", "valid"])
def test_a_split_without_images(tmp_path, name):
    dataset = load_dataset(make(tmp_path / "toy"), split="first6k")
    with pytest.raises(InputError) as caught:
        dataset.split(name)
    assert str(caught.value) == f"split {name!r} of toy has no images; choose one of: train, val"


def test_captions_of_an_unknown_image(tmp_path):
    with pytest.raises(InputError, match="^x.jpg: no such image in toy; image_names lists them$"):
        load_dataset(make(tmp_path / "toy")).captions_of("x.jpg")


def test_the_caption_file_itself_may_be_given(tmp_path):
    root = make(tmp_path / "toy")
    assert load_dataset(root / "captions.txt").table.equals(load_dataset(str(root)).table)


# Splits


def test_official_lists_may_be_incomplete(tmp_path):
    root = make(tmp_path / "toy", NAMES[:5])
    (root / "trainImages.txt").write_text("0.jpg\n1.jpg\n2.jpg\n")
    (root / "devImages.txt").write_text("3.jpg\ngone.jpg\n")
    dataset = load_dataset(root)
    assert splits_of(dataset) == {"0.jpg": "train", "1.jpg": "train", "2.jpg": "train", "3.jpg": "val"}
    assert dataset.notes == [
        "Split: official, lists devImages.txt, trainImages.txt",
        "Listed images without a caption or a file: 1 (gone.jpg)",
        "Images in no split (rows dropped): 1 (4.jpg)",
        "Rows: 10 read, 8 kept, 2 dropped (2 in no split)",
    ]


def test_official_without_lists_is_random_and_says_so(tmp_path):
    root = make(tmp_path / "toy")
    dataset = load_dataset(root, seed=3)
    assert dataset.notes == [
        "Split: random, by image, seed 3 (official lists asked for, none found)",
        "Rows: 40 read, 40 kept",
    ]
    assert dataset.scheme == "random"
    assert splits_of(dataset) == splits_of(load_dataset(root, split="random", seed=3))


def test_lists_are_not_used_for_other_schemes(tmp_path):
    root = make(tmp_path / "toy")
    (root / "trainImages.txt").write_text("\n".join(NAMES))
    dataset = load_dataset(root, split="first6k", seed=1)
    assert dataset.table["split"].value_counts().to_dict() == {"train": 32, "val": 8}
    assert dataset.notes[0] == "Split: first6k, by image, seed 1"
    for scheme in ("official", "random", "first6k"):
        assert load_dataset(root, split=scheme).scheme == scheme


def test_a_split_column_is_official_and_comes_before_lists(tmp_path):
    root = make(tmp_path / "toy", NAMES[:3])
    (root / "trainImages.txt").write_text("0.jpg\n1.jpg\n2.jpg\n")
    (root / "captions.txt").write_text("image,caption,split\n0.jpg,A,test\n1.jpg,B,val\n2.jpg,C,\n")
    dataset = load_dataset(root)
    assert splits_of(dataset) == {"0.jpg": "test", "1.jpg": "val"}
    assert dataset.notes == [
        "Split: official, given by captions.txt",
        "Images in no split (rows dropped): 1 (2.jpg)",
        "Rows: 3 read, 2 kept, 1 dropped (1 in no split)",
    ]


def test_an_image_in_two_splits(tmp_path):
    root = make(tmp_path / "toy", NAMES[:1])
    (root / "captions.txt").write_text("image,caption,split\n0.jpg,A,test\n0.jpg,B,val\n")
    fails(f"{root / 'captions.txt'}: 0.jpg is in two splits; give all its rows the same one", root)


def test_unknown_scheme(tmp_path):
    fails("split='karpathy' is unknown; use one of official, first6k, source, random", tmp_path, split="karpathy")


def test_of_many_text_files_beside_the_captions_a_few_are_read(tmp_path, monkeypatch):
    root = make(tmp_path / "toy")
    for name in ("a", "b", "c"):
        (root / f"{name}.txt").write_text("image,caption\n")
    monkeypatch.setattr(layouts, "MOST_ENTRIES", 2)
    assert load_dataset(root).notes[0].endswith(": 2 (a.txt, b.txt)")


def test_other_caption_files_beside_the_one_that_is_read_are_noted(tmp_path):
    root = make(tmp_path / "toy")
    (root / "trainImages.txt").write_text("\n".join(NAMES))
    entry = {"filename": "0.jpg", "split": "test", "sentences": [{"raw": "A dog"}]}
    (root / "dataset_flickr8k.json").write_text(json.dumps({"images": [entry]}))
    told = "Other caption files, not read (to read one, point to it): 1 (dataset_flickr8k.json)"
    assert load_dataset(root).notes[0] == told
    assert told not in load_dataset(root / "captions.txt").notes  # the one that was asked for


# Images


def test_missing_and_uncaptioned_images_are_counted(tmp_path):
    root = make(tmp_path / "toy", present=[*NAMES[4:], "extra.jpg"])
    dataset = load_dataset(root)
    assert dataset.image_names == NAMES[4:]
    assert dataset.missing == NAMES[:4]
    assert dataset.notes[:2] == [
        f"Captioned images without a file in {root / 'Images'} (rows dropped): 4 (0.jpg, 1.jpg, 2.jpg, …)",
        "Image files without a caption (not used): 1 (extra.jpg)",
    ]
    assert dataset.split("train").missing == NAMES[:4]


def test_the_original_distribution_with_its_missing_image(tmp_path):
    text = tmp_path / "f8k" / "Flickr8k_text"
    photos = tmp_path / "f8k" / "Flickr8k_Dataset" / "Flicker8k_Dataset"
    text.mkdir(parents=True)
    photos.mkdir(parents=True)
    (photos / "a.jpg").touch()
    (text / "Flickr8k.token.txt").write_text("a.jpg#0\tA dog .\nb.jpg.1#0\tA cat .\n")
    (text / "Flickr_8k.testImages.txt").write_text("a.jpg\n")
    dataset = load_dataset(tmp_path / "f8k")
    assert (dataset.name, dataset.root, dataset.images) == ("f8k", tmp_path / "f8k", photos)
    assert dataset.table.values.tolist() == [["a.jpg", "A dog .", "test"]]
    assert dataset.notes[0] == f"Captioned images without a file in {photos} (rows dropped): 1 (b.jpg.1)"


def test_karpathys_coco_with_nested_images(tmp_path):
    (tmp_path / "val2014").mkdir()
    (tmp_path / "val2014" / "a.jpg").touch()
    sentences = [{"raw": "A dog ."}]
    entry = {"filepath": "val2014", "filename": "a.jpg", "split": "restval", "sentences": sentences}
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": [entry], "dataset": "coco"}))
    dataset = load_dataset(tmp_path)
    assert (dataset.name, dataset.image_names) == ("coco", ["val2014/a.jpg"])
    assert dataset.table["split"].tolist() == ["train"]
    assert dataset.path("val2014/a.jpg").is_file()


def test_no_image_at_all(tmp_path):
    root = make(tmp_path / "toy", present=[])
    remedy = "correct the names, or put the images into Images beside it"
    fails(f"{root / 'captions.txt'}: found none of its 20 images, such as 0.jpg; {remedy}", root)


def test_captions_alone(tmp_path):
    root = make(tmp_path / "toy", present=[])
    dataset = load_dataset(root, require_images=False)
    assert (dataset.image_names, dataset.missing) == (NAMES, [])


def test_a_path_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for root in ("~nobody-of-that-name/data", "x" * 300, tmp_path / "round"):
        with pytest.raises(InputError, match="no such folder; point to the folder that holds captions.txt and Images$"):
            load_dataset(root)


@pytest.mark.parametrize("text", ["image,caption\n", "image,caption\n0.jpg,\n", "image,caption,split\n"])
def test_no_usable_row(tmp_path, text):
    root = make(tmp_path / "toy")
    (root / "captions.txt").write_text(text)
    fails(f"{root / 'captions.txt'}: no usable row; check that the file is complete", root)


def test_existence_is_checked_by_listing(tmp_path, monkeypatch):
    root = make(tmp_path / "toy")
    listed, real = [], os.listdir
    monkeypatch.setattr("os.listdir", lambda folder: listed.append(str(folder)) or real(folder))
    load_dataset(root, split="random")
    assert listed.count(str(root / "Images")) == 1


def test_notes_account_for_every_row(tmp_path):
    root = make(tmp_path / "toy", NAMES[:5], present=NAMES[:4])
    rows = ['0.jpg,A tv 21" wide,train', "1.jpg,A dog,val", "2.jpg,,val", "3.jpg,A cat,", "4.jpg,A cow,test", "5.j"]
    (root / "captions.txt").write_text("\n".join(["image,caption,split", *rows]))
    dataset = load_dataset(root)
    assert dataset.image_names == NAMES[:2]
    assert dataset.notes[-1] == (
        "Rows: 6 read, 2 kept, 4 dropped (1 without an image name or a word in the caption, "
        "1 cut off before the caption, 1 without a photo, 1 in no split)"
    )


@pytest.mark.parametrize(
    ("caption", "joined"),
    [
        ("两只黑色的马在街上跳跃。", True),
        ("茶色の犬が浜辺を走っている。", True),
        ("สุนัขวิ่งบนหญ้า", True),
        ("两只 黑色的 马 在 街上 跳跃 。", False),
        ("茶色の 犬が 浜辺を 走っている", False),
        ("Чёрная собака бежит", False),
        ("كلب أبيض يجري", False),
        ("검은개가 잔디위를 달린다", False),
    ],
)
def test_captions_without_spaces_are_noted(tmp_path, caption, joined):
    root = make(tmp_path / "toy", NAMES[:5])
    captions = [caption] * 3 + ["A dog"] * 2
    lines = [f"{name},{text}\n" for name, text in zip(NAMES, captions, strict=False)]
    (root / "captions.txt").write_text("image,caption\n" + "".join(lines))
    note = "Captions without spaces between words: 3; put spaces there, or each counts as one word"
    assert load_dataset(root).notes[1:-1] == [note] * joined
    (root / "captions.txt").write_text("image,caption\n" + "".join(lines[1:]))
    assert note[:8] not in "".join(load_dataset(root).notes)  # half of them


def test_a_photo_with_two_spellings_is_one_photo(tmp_path):
    root = make(tmp_path / "toy", ["é.jpg"], images="Images/sub")
    names = ["sub/é.jpg", "sub\\é.jpg", "./sub/é.jpg", "sub/e\u0301.jpg"]
    (root / "captions.txt").write_text("image,caption\n" + "".join(f"{name},A dog\n" for name in names))
    assert load_dataset(root).captions_of("sub/é.jpg") == ["A dog"] * 4
    table = "".join(f"{name},A dog,{split}\n" for name, split in zip(names, ["val", "test"], strict=False))
    (root / "captions.txt").write_text("image,caption,split\n" + table)
    fails(f"{root / 'captions.txt'}: sub/é.jpg is in two splits; give all its rows the same one", root)


def test_lists_of_a_neighbouring_data_set_are_ignored(tmp_path):
    root = make(tmp_path / "toy", NAMES[:10])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "Flickr_8k.trainImages.txt").write_text("0.jpg\n1.jpg\nelse.jpg\n")
    (tmp_path / "other" / "Flickr_8k.devImages.txt").write_bytes(b"\xff2.jpg\n")
    assert (load_dataset(root).scheme, len(load_dataset(root).image_names)) == ("random", 10)
    (root / "devImages.txt").write_bytes(b"\xff2.jpg\n")
    reason = "line 1 is not UTF-8; save the file as UTF-8 and try again"
    assert load_dataset(root).notes[0] == f"List ignored: {root / 'devImages.txt'}: {reason}"


def test_a_name_that_is_not_text_can_be_reported(tmp_path):
    root = make(tmp_path / "toy")
    (root / "Images" / os.fsdecode(b"\xe9.jpg")).touch()
    note = next(note for note in load_dataset(root).notes if "without a caption" in note)
    assert note == "Image files without a caption (not used): 1 (\\udce9.jpg)"


# Flickr8k's photos without its lists


@pytest.fixture
def known_names(monkeypatch):
    """As if the first of the toy photos were Flickr8k's training images, and the third its validation image."""
    parts = dict(zip(NAMES[:3], ("train", "train", "val"), strict=True))
    monkeypatch.setattr(splits, "known_split", lambda images: {n: s for n, s in parts.items() if n in images})


def test_known_photos_are_split_like_the_official_lists(tmp_path, known_names):
    dataset = load_dataset(make(tmp_path / "toy"))
    assert dataset.scheme == "official" and set(dataset.table["split"]) == {"train", "val"}
    assert any(note.startswith("Split: official for train and val, by the photos' names; ") for note in dataset.notes)


def test_a_list_of_the_test_images_completes_known_photos(tmp_path, known_names):
    root = make(tmp_path / "owner" / "toy")
    (root.parent / "Flickr_8k.testImages.txt").write_text("\n".join(NAMES[3:]))
    dataset = load_dataset(root)
    assert list(dataset.split("test").image_names) == NAMES[3:] and len(dataset.image_names) == len(NAMES)
    assert any(note == "Split: official for train and val, by the photos' names" for note in dataset.notes)


def test_lists_come_before_known_names(tmp_path, known_names):
    root = make(tmp_path / "toy")
    (root / "Flickr_8k.trainImages.txt").write_text(NAMES[2])
    (root / "Flickr_8k.devImages.txt").write_text(NAMES[0])
    assert dict(load_dataset(root).table[["image", "split"]].to_numpy()) == {NAMES[2]: "train", NAMES[0]: "val"}


def test_the_source_split_has_images_on_both_sides(tmp_path):
    dataset = load_dataset(make(tmp_path / "toy"), split="source")
    assert set(dataset.split("train").image_names) & set(dataset.split("val").image_names)
    assert dataset.notes[0] == "Split: source, by caption row, seed 0 (the same images are on both sides)"
    assert dataset.scheme == "source"
