import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image

from caption_utils.data import decoding
from caption_utils.data.decoding import decoded_batches
from caption_utils.errors import InputError


def transform(image):
    return torch.tensor(image.getpixel((0, 0)))


def pictures(count):
    return [Image.new("RGB", (2, 2), (i, 0, 0)) for i in range(count)]


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (4, [4]), (5, [4, 1]), (9, [4, 4, 1])])
def test_batches_hold_all_in_order(count, sizes):
    batches = list(decoded_batches(pictures(count), transform, 4))
    assert [len(batch) for batch in batches] == sizes
    assert [int(pixels[0]) for batch in batches for pixels in batch] == list(range(count))


def test_what_cannot_be_read_stands_in_its_place():
    ((first, bad, last),) = decoded_batches([*pictures(1), b"text", *pictures(1)], transform, 4)
    assert torch.equal(first, last)
    assert isinstance(bad, InputError)


def test_the_next_batch_is_decoded_while_the_caller_works():
    begun = threading.Event()

    def watched(image):
        if image.getpixel((0, 0))[0] == 1:
            begun.set()
        return transform(image)

    batches = decoded_batches(pictures(2), watched, 1)
    next(batches)
    assert begun.wait(30)


@pytest.mark.parametrize(("cores", "workers"), [(None, 2), (1, 2), (8, 4), (64, 4)])
def test_however_many_cores_few_pictures_are_in_memory_at_once(monkeypatch, cores, workers):
    asked = []
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr(decoding, "ThreadPoolExecutor", lambda count: asked.append(count) or ThreadPoolExecutor(count))
    list(decoded_batches(pictures(1), transform, 1))
    assert asked == [workers]
