import io
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image, ImageSequence

from caption_utils.encoders import encode as module
from caption_utils.encoders.encode import encode, map_stacked
from caption_utils.errors import InputError
from caption_utils.prefetch import prefetch

GONE = InputError("gone")


def pictures(count):
    return [Image.linear_gradient("L").rotate(90 * i).convert("RGB").resize((8, 8 + i)) for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_features_are_the_encoder_s_in_order(fake_encoder, monkeypatch, count):
    monkeypatch.setattr(module, "BATCH", {"cpu": 4})
    found = list(encode(fake_encoder, pictures(count)))
    assert fake_encoder.seen == len(found) == count
    for picture, features in zip(pictures(count), found, strict=True):
        expected = fake_encoder(fake_encoder.transform(picture)[None])[0]
        torch.testing.assert_close(features, expected)


def test_open_pictures_are_taken_as_they_are_when_given(fake_encoder):
    frames, file = pictures(6), io.BytesIO()
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    found = list(encode(fake_encoder, ImageSequence.Iterator(Image.open(file))))  # one picture, frame after frame
    assert all(map(torch.equal, found, encode(fake_encoder, frames)))
    once, *again = encode(fake_encoder, [Image.open(file)] * 8)
    assert all(torch.equal(once, features) for features in again)


@pytest.mark.parametrize("one", ["a.jpg", Path("a.jpg"), b"x", Image.new("RGB", (8, 8))])
def test_one_picture_in_place_of_several_is_told(fake_encoder, one):
    with pytest.raises(InputError, match=r"\[photo\]"):
        list(encode(fake_encoder, one))


def test_what_cannot_be_read_stands_in_its_place(fake_encoder, monkeypatch):
    monkeypatch.setattr(module, "BATCH", {"cpu": 2})
    first, bad, *worse, last = encode(fake_encoder, [*pictures(1), b"text", b"", b"", *pictures(1)])
    assert torch.equal(first, last)
    assert str(bad).startswith("image: not a picture")
    assert all("the file is empty" in str(error) for error in worse)
    assert fake_encoder.seen == 2


@pytest.fixture
def on_a_gpu(fake_encoder, monkeypatch):
    """Lets ``encode`` believe that the encoder is on a GPU."""

    def move(name):
        monkeypatch.setattr(module, "sent", lambda images, device: images)
        monkeypatch.setattr(fake_encoder, "parameters", lambda: iter([SimpleNamespace(device=torch.device(name))]))

    return move


def test_only_so_many_pictures_are_read_ahead(fake_encoder, monkeypatch):
    monkeypatch.setattr(module, "BATCH", {"cpu": 2})
    monkeypatch.setattr(module, "AHEAD", {"cpu": 6})
    read = []
    found = encode(fake_encoder, (read.append(i) or picture for i, picture in enumerate(pictures(40))))
    assert read == []
    next(found)
    assert len(read) == 2 * (1 + 3) + 2 * 3  # the batch in use and three more, and three batches of pictures
    next(found)
    assert len(read) == 14
    next(found)
    assert len(read) == 16


def test_a_gpu_begins_with_the_first_batch_that_is_decoded(fake_encoder, on_a_gpu, monkeypatch):
    monkeypatch.setattr(module, "BATCH", {"cuda": 4})
    monkeypatch.setattr(module, "AHEAD", {"cuda": 6})
    on_a_gpu("cuda")
    read = []
    found = encode(fake_encoder, (read.append(i) or picture for i, picture in enumerate(pictures(40))))
    next(found)
    assert (fake_encoder.seen, len(read)) == (4, 4 + 6)


def test_batches_are_encoded_while_one_is_in_use_two_at_once(fake_encoder, monkeypatch):
    monkeypatch.setattr(module, "BATCH", {"cpu": 2})
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    together = threading.Barrier(2, timeout=30)
    forward = fake_encoder.forward
    monkeypatch.setattr(fake_encoder, "forward", lambda images: together.wait() is None or forward(images))
    assert len(list(encode(fake_encoder, pictures(8)))) == 8  # one alone would wait for the other


@pytest.mark.parametrize("gpu", ["cuda", "mps"])
def test_a_gpu_is_used_by_the_calling_thread_alone(fake_encoder, on_a_gpu, monkeypatch, gpu):
    monkeypatch.setattr(module, "BATCH", {gpu: 2})
    on_a_gpu(gpu)
    used, forward = set(), fake_encoder.forward
    monkeypatch.setattr(fake_encoder, "forward", lambda images: used.add(threading.get_ident()) or forward(images))
    assert len(list(encode(fake_encoder, pictures(8)))) == 8
    assert used == {threading.get_ident()}


def test_a_gpu_s_memory_that_is_too_small_is_told(fake_encoder, on_a_gpu, monkeypatch):
    def full(images):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    on_a_gpu("cuda")
    monkeypatch.setattr(fake_encoder, "forward", full)
    with pytest.raises(
        InputError, match=r"^fake: 3 images need more memory than the GPU has free; .* CAPTION_DEVICE=cpu$"
    ):
        list(encode(fake_encoder, pictures(3)))


@pytest.mark.parametrize("helping", [False, True])
def test_a_caller_that_helps_encodes_too(fake_encoder, monkeypatch, helping):
    monkeypatch.setattr(module, "BATCH", {"cpu": 1})
    here, forward, used, helped = threading.get_ident(), fake_encoder.forward, set(), threading.Event()

    def note(images):
        used.add(threading.get_ident())
        if threading.get_ident() == here:
            helped.set()
        assert not helping or helped.wait(30)
        return forward(images)

    monkeypatch.setattr(fake_encoder, "forward", note)
    assert len(list(encode(fake_encoder, pictures(8), helping=helping))) == 8
    assert (here in used) == helping


@pytest.fixture
def asked(monkeypatch):
    """How many threads are asked for: to decode, to encode."""
    found = []

    def counted(make, items, threads, *rest, **named):
        found.append(threads)
        return prefetch(make, items, threads, *rest, **named)

    monkeypatch.setattr(module, "prefetch", counted)
    return found


@pytest.mark.parametrize(("cores", "threads"), [(None, 2), (1, 2), (8, 4), (64, 4)])
def test_however_many_cores_few_pictures_are_decoded_at_once(fake_encoder, monkeypatch, asked, cores, threads):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    list(encode(fake_encoder, pictures(1)))
    assert asked[0] == threads


def test_beside_a_gpu_twice_as_many_pictures_are_decoded_at_once(fake_encoder, on_a_gpu, monkeypatch, asked):
    on_a_gpu("cuda")
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    list(encode(fake_encoder, pictures(1)))
    assert asked == [8]


@pytest.mark.parametrize(("threads", "at_once"), [(1, 1), (2, 2), (8, 2)])
def test_a_second_batch_is_encoded_at_once_if_there_are_threads_for_it(
    fake_encoder, monkeypatch, asked, threads, at_once
):
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    list(encode(fake_encoder, pictures(1)))
    assert asked[1] == at_once


def test_work_on_stacked_tensors_leaves_errors_where_they_are():
    items = [GONE, torch.tensor(1), torch.tensor(2), GONE, torch.tensor(3)]
    assert map_stacked(lambda stacked: (10 * stacked).tolist(), items) == [GONE, 10, 20, GONE, 30]
    assert map_stacked(lambda stacked: 1 / 0, [GONE]) == [GONE]
