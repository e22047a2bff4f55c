import errno
import os
import random
import shutil
from itertools import count

import numpy as np
import pytest
import torch
from conftest import FakeEncoder, draw
from PIL import Image

from caption_utils.data import folders
from caption_utils.data.datasets import load_dataset
from caption_utils.data.images import load_image
from caption_utils.encoders import store as features
from caption_utils.encoders.store import FeatureStore, extract
from caption_utils.errors import InputError


def encoded(dataset, encoder, names, mirror=False):
    images = torch.stack([encoder.transform(load_image(dataset.path(name))) for name in names])
    return encoder(images.flip(3) if mirror else images).half()


def test_features_equal_the_encoder_s_output_in_half_precision(dataset, fake_encoder, tmp_path):
    store = extract(dataset, fake_encoder, tmp_path)
    names = dataset.image_names
    assert (store[names].dtype, store[names].shape, len(store)) == (torch.float16, (12, 4, 6), 12)
    assert torch.equal(store[names], encoded(dataset, fake_encoder, names))


def test_names_are_looked_up_in_any_order(dataset, fake_encoder, tmp_path):
    store = extract(dataset, fake_encoder, tmp_path)
    names = ["7.png", "0.png", "7.png"]
    assert torch.equal(store[names], encoded(dataset, fake_encoder, names))
    assert store[[]].shape == (0, 4, 6)


def test_names_without_features_and_one_that_is_no_list_are_told(dataset, fake_encoder, tmp_path):
    store = extract(dataset, fake_encoder, tmp_path)
    with pytest.raises(InputError, match=r"fake-\w+: holds no features of 'x\.png'; extract those of this data set$"):
        store[["0.png", "x.png"]]
    with pytest.raises(InputError, match=r"^one name where a list of names belongs; put it into brackets: \[name\]$"):
        store["0.png"]


def test_features_are_returned_as_a_copy(dataset, fake_encoder, tmp_path):
    store = extract(dataset, fake_encoder, tmp_path)
    before = store[["0.png"]].clone()
    store[["0.png"]].zero_()
    assert torch.equal(store[["0.png"]], before)


def test_features_move_to_a_gpu_with_twice_their_size_free(dataset, fake_encoder, tmp_path, monkeypatch):
    """The CPU stands in for a GPU; rows are copied in several parts."""
    store, place = extract(dataset, fake_encoder, tmp_path), torch.device("cpu")
    monkeypatch.setattr(features, "COPIED", 5)
    monkeypatch.setattr(features, "free_memory", lambda device: 2 * store.array.nbytes - 1)
    assert store.to(place) is store
    monkeypatch.setattr(features, "free_memory", lambda device: 2 * store.array.nbytes)
    resident = store.to(place)
    assert isinstance(resident.array, torch.Tensor) and not isinstance(store.array, torch.Tensor)
    names = ["7.png", "0.png", "7.png"]
    for wanted in (names, [], dataset.image_names):
        assert torch.equal(resident[wanted], store[wanted])
    before = resident[names].clone()
    resident[names].zero_()
    assert torch.equal(resident[names], before)
    assert len(resident) == 12


def test_free_memory_is_the_gpu_s(dataset, fake_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (123, 456))
    assert features.free_memory(torch.device("cuda")) == 123
    store = extract(dataset, fake_encoder, tmp_path)
    assert store.to(torch.device("cpu")) is store


def test_each_image_is_encoded_once(dataset, fake_encoder, tmp_path):
    first = extract(dataset, fake_encoder, tmp_path)
    assert fake_encoder.seen == 12
    second = extract(dataset, fake_encoder, tmp_path)
    assert fake_encoder.seen == 12
    assert torch.equal(first[dataset.image_names], second[dataset.image_names])
    assert len(list(tmp_path.glob("fake-*"))) == 1


def test_mirrored_features_are_those_of_mirrored_images(dataset, fake_encoder, tmp_path):
    plain, mirrored = extract(dataset, fake_encoder, tmp_path), extract(dataset, fake_encoder, tmp_path, mirror=True)
    names = dataset.image_names
    assert torch.equal(mirrored[names], encoded(dataset, fake_encoder, names, mirror=True))
    left_and_right_swapped = plain[names].unflatten(1, (2, 2)).flip(2).flatten(1, 2)
    torch.testing.assert_close(mirrored[names], left_and_right_swapped, atol=1e-3, rtol=1e-3)
    assert not torch.equal(mirrored[names], plain[names])


class Failing(FakeEncoder):
    """Fails on the second batch, as a crash would."""

    def forward(self, images):
        if self.seen:
            raise KeyboardInterrupt
        return super().forward(images)


def test_an_interrupted_extraction_resumes_where_it_stopped(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("caption_utils.encoders.encode.BATCH", {"cpu": 5})
    monkeypatch.setattr("caption_utils.encoders.encode.BATCHES_AT_ONCE", 1)  # in order
    failing, sound = Failing(), FakeEncoder()
    with pytest.raises(KeyboardInterrupt):
        extract(dataset, failing, tmp_path)
    store = extract(dataset, sound, tmp_path)
    assert (failing.seen, sound.seen) == (5, 7)
    assert torch.equal(store[dataset.image_names], encoded(dataset, sound, dataset.image_names))


def test_an_attached_store_is_copied_and_completed(dataset, tmp_path, monkeypatch):
    (place := tmp_path / "input" / "session" / "features").mkdir(parents=True)
    store = extract(dataset, FakeEncoder(), place, rows=slice(0, 8))
    for file in store.folder.iterdir():
        file.chmod(0o444)
    monkeypatch.setattr(folders, "KAGGLE_INPUT", tmp_path / "input")
    again, rest = FakeEncoder(), extract(dataset, FakeEncoder(), tmp_path / "whole")
    continued = extract(dataset, again, tmp_path / "new")
    assert again.seen == 4 and (continued.array == rest.array).all()
    assert all(file.stat().st_mode & 0o200 for file in continued.folder.iterdir())
    assert not np.load(store.folder / "done.npy")[8:].any()  # what is attached stays as it is


def test_a_crash_before_the_index_restarts_the_store(dataset, fake_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(features.json, "dumps", lambda index: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        extract(dataset, fake_encoder, tmp_path)
    monkeypatch.undo()
    extract(dataset, fake_encoder, tmp_path)
    assert fake_encoder.seen == 12


def test_a_changed_photo_makes_a_new_store(dataset, fake_encoder, tmp_path):
    old = extract(dataset, fake_encoder, tmp_path)
    draw(dataset.path("0.png"), "black", "black")
    os.utime(dataset.path("0.png"), ns=(1, 1))
    new = extract(dataset, fake_encoder, tmp_path)
    assert new.folder != old.folder
    assert new[["0.png"]].abs().max() == 0


def test_a_copied_folder_uses_the_same_store(dataset, data_folder, fake_encoder, tmp_path):
    first = extract(dataset, fake_encoder, tmp_path)
    copy = load_dataset(shutil.copytree(data_folder, tmp_path / "elsewhere"))
    for name in copy.image_names:
        os.utime(copy.path(name), ns=(1, 1))
    assert extract(copy, fake_encoder, tmp_path).folder == first.folder
    assert fake_encoder.seen == 12


@pytest.mark.parametrize("size", [1, 100, 3 * features.SAMPLE])
@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
def test_photos_with_equal_name_size_and_time_are_distinguished(tmp_path, size, at):
    content = bytearray(size)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, ns=(1, 1))
        content[int(at * (size - 1))] = 1
    assert features._stamp(tmp_path / "a") != features._stamp(tmp_path / "b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_among_the_photos_is_not_opened(tmp_path, monkeypatch):
    """That would wait for somebody to write into it."""
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.setattr(features.Path, "open", lambda *arguments, **named: pytest.fail("opened"))
    assert features._stamp(tmp_path / "pipe.jpg") == "unreadable"


def test_several_processes_fill_one_store_and_encode_each_photo_once(dataset, tmp_path, capsys):
    shares = [FakeEncoder() for _ in range(5)]
    for start, share in enumerate(shares):
        store = extract(dataset, share, tmp_path, rows=slice(start, None, 5))
    assert [share.seen for share in shares] == [3, 3, 2, 2, 2]
    assert torch.equal(store[dataset.image_names], encoded(dataset, FakeEncoder(), dataset.image_names))
    assert capsys.readouterr().err.count("100%") == 1


class Recording(FakeEncoder):
    """Remembers the pictures in the order in which they came."""

    def __init__(self):
        super().__init__()
        self.pictures = []

    def forward(self, images):
        self.pictures += images
        return super().forward(images)


def test_only_a_process_that_joins_takes_all_rows_in_random_order(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("caption_utils.encoders.encode.BATCHES_AT_ONCE", 1)
    pictures = [Recording().transform(load_image(dataset.path(name))) for name in dataset.image_names]
    extract(dataset, begins := Recording(), tmp_path / "one")
    assert torch.equal(torch.stack(begins.pictures), torch.stack(pictures))
    extract(dataset, Recording(), tmp_path / "two", rows=slice(0, 0))
    extract(dataset, has_a_share := Recording(), tmp_path / "two", rows=slice(0, 4))
    assert torch.equal(torch.stack(has_a_share.pictures), torch.stack(pictures[:4]))
    seeded = random.getstate()
    extract(dataset, joins := Recording(), tmp_path / "two", rows=slice(0, None, 1))
    assert len(joins.pictures) == 8 and not torch.equal(torch.stack(joins.pictures), torch.stack(pictures[4:]))
    assert random.getstate() == seeded


def test_photos_that_another_process_has_done_meanwhile_are_skipped(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("caption_utils.encoders.encode.BATCH", {"cpu": 1})
    monkeypatch.setattr("caption_utils.encoders.encode.AHEAD", {"cpu": 1})
    monkeypatch.setattr("caption_utils.encoders.encode.BATCHES_AT_ONCE", 1)
    other, overtaken, turn = FakeEncoder(), FakeEncoder(), count()

    def overtake(images):
        if next(turn) == 0:
            extract(dataset, other, tmp_path)
        return FakeEncoder.forward(overtaken, images)

    monkeypatch.setattr(overtaken, "forward", overtake)
    store = extract(dataset, overtaken, tmp_path)
    assert other.seen == 12 and overtaken.seen <= 6  # those that were on their way
    assert torch.equal(store[dataset.image_names], encoded(dataset, FakeEncoder(), dataset.image_names))
    assert capsys.readouterr().err.count("12/12") == 2


def test_of_two_processes_that_create_a_store_the_first_wins(dataset, fake_encoder, tmp_path, monkeypatch):
    def first(path):
        monkeypatch.undo()
        extract(dataset, fake_encoder, tmp_path)

    monkeypatch.setattr(features, "_reserve", first)
    extract(dataset, fake_encoder, tmp_path)
    assert fake_encoder.seen == 12
    assert len(list(tmp_path.glob("fake-*"))) == 1


def test_other_weights_make_another_store(dataset, fake_encoder, tmp_path):
    old = extract(dataset, fake_encoder, tmp_path)
    fake_encoder.fingerprint = "0ther"
    assert extract(dataset, fake_encoder, tmp_path).folder != old.folder


def test_a_corrupt_image_is_reported_after_the_others_are_stored(dataset, fake_encoder, tmp_path):
    dataset.path("3.png").write_bytes(b"no picture")
    message = r"1 of 12 images cannot be read: .*3\.png: not a picture that can be read; convert it to JPEG or PNG"
    with pytest.raises(InputError, match=message):
        extract(dataset, fake_encoder, tmp_path)
    assert fake_encoder.seen == 11
    with pytest.raises(InputError, match=r"3\.png"):
        extract(dataset, fake_encoder, tmp_path)
    assert fake_encoder.seen == 11


def test_a_dead_link_is_named(dataset, fake_encoder, tmp_path):
    dataset.path("3.png").unlink()
    dataset.path("3.png").symlink_to("gone.png")
    with pytest.raises(InputError, match=r"3\.png: no such file"):
        extract(dataset, fake_encoder, tmp_path)


def test_a_batch_of_nothing_but_corrupt_images(dataset, fake_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("caption_utils.encoders.encode.BATCH", {"cpu": 2})
    for name in ("4.png", "5.png", "8.png", "9.png"):
        dataset.path(name).write_bytes(b"")
    with pytest.raises(InputError, match="4 of 12 images cannot be read: .*4.png.*; .*5.png.*; .*8.png.*; and 1 more$"):
        extract(dataset, fake_encoder, tmp_path)
    assert fake_encoder.seen == 8


def test_up_to_three_corrupt_images_are_all_named(dataset, fake_encoder, tmp_path):
    for name in ("4.png", "5.png", "8.png"):
        dataset.path(name).write_bytes(b"")
    with pytest.raises(InputError, match=r"3 of 12 .*4\.png: .*5\.png: .*8\.png: the file is empty; [^;]*again$"):
        extract(dataset, fake_encoder, tmp_path)


@pytest.mark.parametrize("name", ["features.npy", "done.npy"])
def test_a_truncated_store_is_named(dataset, fake_encoder, tmp_path, name):
    path = extract(dataset, fake_encoder, tmp_path).folder / name
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(InputError, match=rf"{name}: damaged .*delete its folder"):
        extract(dataset, fake_encoder, tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "[" * 3000, '{"a": ' + "1" * 5000 + "}"])
def test_a_damaged_index_is_named(dataset, fake_encoder, tmp_path, content):
    (extract(dataset, fake_encoder, tmp_path).folder / "index.json").write_text(content)
    with pytest.raises(InputError, match=r"index\.json: damaged .*delete its folder"):
        extract(dataset, fake_encoder, tmp_path)


def test_a_store_without_its_index_is_to_be_deleted(dataset, fake_encoder, tmp_path):
    (extract(dataset, fake_encoder, tmp_path, rows=slice(0, 4)).folder / "index.json").unlink()
    with pytest.raises(InputError, match=r"index\.json: damaged .*delete its folder"):
        extract(dataset, fake_encoder, tmp_path)
    assert fake_encoder.seen == 4  # nothing is computed for it


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no disk space")
def test_the_space_for_all_features_is_reserved(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    features._reserve(tmp_path / "sparse")
    assert (tmp_path / "sparse").stat().st_blocks * 512 >= 1 << 20


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_leaves_no_files(dataset, fake_encoder, tmp_path, monkeypatch, number):
    def full(path):
        raise OSError(number, "No space left on device")

    monkeypatch.setattr(features, "_reserve", full)
    with pytest.raises(InputError, match="cannot hold the features .*No space left.*free some disk space"):
        extract(dataset, fake_encoder, tmp_path)
    assert not list(tmp_path.glob("fake-*"))


def test_a_folder_that_refuses_files_is_told_as_such(dataset, fake_encoder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot hold the features .*; check that its folder can be written$"):
        extract(dataset, fake_encoder, tmp_path / "file")


def test_what_a_killed_process_has_begun_is_removed(dataset, fake_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(features.shutil, "rmtree", lambda path, ignore_errors: None)
    monkeypatch.setattr(features, "_reserve", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        extract(dataset, fake_encoder, tmp_path)
    monkeypatch.undo()
    (left,) = tmp_path.glob("fake-*")
    store = extract(dataset, fake_encoder, tmp_path)
    assert list(tmp_path.glob("fake-*")) == [store.folder] != [left]


def test_the_default_is_the_writable_data_folder(dataset, fake_encoder, cache):
    assert extract(dataset, fake_encoder).folder.parent == cache


def test_a_cache_may_be_named_by_text(dataset, fake_encoder, tmp_path):
    assert extract(dataset, fake_encoder, str(tmp_path)).folder.parent == tmp_path


def test_a_store_opens_without_the_data_set(dataset, fake_encoder, tmp_path):
    store = extract(dataset, fake_encoder, tmp_path)
    again = FeatureStore(str(store.folder))
    assert list(again.row) == dataset.image_names
    assert np.array_equal(again.array, store.array)


def test_the_real_encoder(data_folder, encoder, tmp_path):
    dataset = load_dataset(data_folder).split("test")
    names = dataset.image_names
    stored = extract(dataset, encoder, tmp_path)[names].float()
    images = torch.stack([encoder.transform(Image.open(dataset.path(name)).convert("RGB")) for name in names])
    torch.testing.assert_close(stored, encoder(images), atol=2e-2, rtol=1e-2)
    assert stored.shape == (3, 49, 1280)
