import numpy as np
import pandas as pd
import pytest
from PIL import Image

from caption_utils.data.datasets import CaptionDataset, near_duplicates
from caption_utils.data.duplicates import BLOCK, close_pairs, fingerprint


def picture(seed, size=(160, 120)):
    """Blurred noise: as different to a perceptual hash as photos are."""
    values = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def dataset(tmp_path):
    picture(0).save(tmp_path / "a.jpg")
    (tmp_path / "same.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    picture(0).resize((90, 70)).save(tmp_path / "small.jpg", quality=60)
    picture(1).save(tmp_path / "b.png")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:900])
    splits = {"a.jpg": "train", "same.jpg": "train", "small.jpg": "test", "b.png": "val", "cut.jpg": "test"}
    table = pd.DataFrame(
        [(name, "A thing", split) for name, split in splits.items()], columns=["image", "caption", "split"]
    )
    return CaptionDataset("toy", tmp_path, tmp_path, table)


def test_close_pairs_equal_a_plain_double_loop():
    rng = np.random.default_rng(0)
    hashes = list(rng.choice([-1.0, 1.0], (40, 64)))
    expected = {
        (i, j, int((a != b).sum()))
        for i, a in enumerate(hashes)
        for j, b in enumerate(hashes)
        if i < j and (a != b).sum() <= 26
    }
    assert expected
    assert set(zip(*(values.tolist() for values in close_pairs(hashes, 26)), strict=True)) == expected


def test_close_pairs_across_blocks():
    hashes = list(np.random.default_rng(0).choice([-1.0, 1.0], (2 * BLOCK + 3, 64)))
    hashes[-1] = hashes[5].copy()
    hashes[-1][:2] *= -1
    first, second, distance = close_pairs(hashes, 2)
    assert (first.tolist(), second.tolist(), distance.tolist()) == ([5], [2 * BLOCK + 2], [2])


def test_no_hashes_no_pairs():
    assert [len(values) for values in close_pairs([], 6)] == [0, 0, 0]


def test_fingerprint_of_files_that_cannot_be_read(dataset, tmp_path):
    prints = fingerprint([tmp_path / "a.jpg", tmp_path / "cut.jpg", tmp_path / "none.jpg"])
    assert prints["digest"].notna().tolist() == [True, True, False]
    assert prints["phash"].notna().tolist() == [True, False, False]


def test_near_duplicates_are_those_across_splits(dataset):
    pairs = near_duplicates(dataset)
    assert list(pairs.columns) == ["image", "other", "split", "other_split", "distance"]
    assert pairs[["image", "other", "split", "other_split"]].values.tolist() == [
        ["a.jpg", "small.jpg", "train", "test"],
        ["same.jpg", "small.jpg", "train", "test"],
    ]
    assert pairs["distance"].max() <= 6


def test_a_wider_distance_finds_more(dataset):
    assert len(near_duplicates(dataset, max_distance=64)) == 5


def test_describe_counts_them(dataset):
    counts = dataset.describe()["count"]
    assert counts["images"] == 5
    assert counts["unreadable images"] == 1
    assert counts["exact duplicates"] == 1
    assert counts["near-duplicates across splits"] == 2
    assert counts[["train images", "val images", "test images"]].tolist() == [2, 1, 2]
