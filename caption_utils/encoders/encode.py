"""Pictures to features: threads decode pictures and encode batches ahead of their use."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from caption_utils.data.images import MOST_THREADS, Source, load_image
from caption_utils.encoders.encoder import Encoder
from caption_utils.errors import InputError
from caption_utils.prefetch import prefetch
from caption_utils.runtime import sent

T = TypeVar("T")

BATCH = {"cpu": 2, "cuda": 16, "mps": 16}  # images; on a CPU larger batches leave the cache and run slower
BATCHES_AT_ONCE = 2  # while the threads of one wait for each other, those of the other compute
BATCHES_AHEAD = 16  # decoded, and encoded, before they are asked for


def encode(
    encoder: Encoder, sources: Iterable[Source], mirror: bool = False, helping: bool = False
) -> Iterator[Tensor | InputError]:
    """For each picture in order its features ``(N, D)``, on the encoder's device, or why it cannot be read.

    ``mirror`` encodes the left-right mirrored pictures instead. On a CPU, a caller that is ``helping`` encodes some of
    them itself while it would wait.
    """
    device = next(encoder.parameters()).device
    size = BATCH[device.type]
    threads = min(max(2, (os.cpu_count() or 2) // 2), MOST_THREADS)
    pixels = prefetch(partial(_pixels, encoder, mirror), sources, threads, ahead=BATCHES_AHEAD * size)
    batches = iter(lambda: list(islice(pixels, size)), [])
    work = partial(map_stacked, lambda images: encoder(sent(images, device)))  # (B, 3, S, S) → (B, N, D)
    at_once = min(BATCHES_AT_ONCE, torch.get_num_threads())  # a thread that is alone waits for none
    helping = helping and device.type == "cpu"
    # PyTorch may abort if several threads use an Apple GPU, and the search uses it in the caller's.
    encoded = map(work, batches) if device.type == "mps" else prefetch(work, batches, at_once, BATCHES_AHEAD, helping)
    for features in encoded:
        yield from features


def _pixels(encoder: Encoder, mirror: bool, source: Source) -> Tensor | InputError:
    """A picture as the encoder takes it, ``(3, S, S)`` bytes."""
    try:
        pixels = encoder.transform(load_image(source))
    except InputError as error:
        return error
    return pixels.flip(2) if mirror else pixels


def map_stacked(work: Callable[[Tensor], Iterable[T]], items: list[Tensor | InputError]) -> list[T | InputError]:
    """``work`` on all tensors at once, each result in its tensor's place; the errors stay in theirs."""
    tensors = [item for item in items if isinstance(item, Tensor)]
    results = iter(work(torch.stack(tensors)) if tensors else ())
    return [next(results) if isinstance(item, Tensor) else item for item in items]
