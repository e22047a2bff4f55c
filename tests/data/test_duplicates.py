import numpy as np
import pandas as pd
import pytest
from PIL import Image

from caption_utils.data import duplicates
from caption_utils.data.datasets import CaptionDataset, near_duplicates
from caption_utils.data.duplicates import BLOCK, close_pairs, fingerprint
from caption_utils.prefetch import prefetch


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


def test_what_no_encoder_would_read_has_no_hash(tmp_path):
    picture(0).save(tmp_path / "a.jpg", "PPM")
    picture(0).save(tmp_path / "b.jpg", "EPS")
    assert fingerprint([tmp_path / "a.jpg", tmp_path / "b.jpg"])["phash"].isna().all()


def test_hashes_are_made_in_bounded_memory_and_a_jpeg_is_decoded_small(tmp_path, monkeypatch):
    paths = [tmp_path / "a.jpg", tmp_path / "b.png"]
    for path in paths:
        picture(0, (1600, 1200)).save(path)
    found = fingerprint(paths)["phash"]
    assert (found[0] == found[1]).sum() >= 60
    monkeypatch.setattr("caption_utils.data.images.DECODED_BYTES", 200 * 150 * 4)
    assert fingerprint(paths)["phash"].notna().tolist() == [True, False]


@pytest.mark.parametrize(("cores", "threads"), [(None, 1), (2, 2), (64, 4)])
def test_however_many_cores_few_photos_are_decoded_at_once(monkeypatch, cores, threads):
    asked = []
    counted = lambda make, items, threads, ahead: asked.append(threads) or prefetch(make, items, threads, ahead)  # noqa: E731
    monkeypatch.setattr(duplicates, "prefetch", counted)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    fingerprint([])
    assert asked == [threads]


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
