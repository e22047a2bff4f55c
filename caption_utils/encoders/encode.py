"""Pictures to features: threads decode pictures and, on a CPU, encode batches ahead of their use."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from caption_utils.data.images import MOST_THREADS, Source, load_image
from caption_utils.encoders.encoder import Encoder
from caption_utils.errors import InputError
from caption_utils.prefetch import prefetch
from caption_utils.runtime import sent

T = TypeVar("T")

# Images; on a CPU larger batches leave the cache and run slower, on an H200 smaller ones take as long as 64.
BATCH = {"cpu": 2, "cuda": 64, "mps": 16}
AHEAD = {"cpu": 32, "cuda": 128, "mps": 128}  # images decoded, and on a CPU encoded, before they are asked for
BATCHES_AT_ONCE = 2  # on a CPU: while the threads of one wait for each other, those of the other compute


def encode(
    encoder: Encoder, sources: Iterable[Source], mirror: bool = False, helping: bool = False
) -> Iterator[Tensor | InputError]:
    """For each picture in order its features ``(N, D)``, on the encoder's device, or why it cannot be read.

    ``mirror`` encodes the left-right mirrored pictures instead. On a CPU, a caller that is ``helping`` encodes some of
    them itself while it would wait. Raises ``InputError`` for one picture in place of several, and if a GPU's memory is
    too small.
    """
    if isinstance(sources, Source):
        raise InputError("one photo where a list of photos belongs; put it into brackets: [photo]")
    device = next(encoder.parameters()).device
    size, ahead = BATCH[device.type], AHEAD[device.type]
    threads = min(max(2, (os.cpu_count() or 2) // 2), MOST_THREADS)
    if device.type == "cuda":
        threads *= 2  # the half of the cores that an encoder on the CPU would take
    pixels = prefetch(partial(_pixels, encoder, mirror), map(partial(_kept, encoder, mirror), sources), threads, ahead)
    batches = iter(lambda: list(islice(pixels, size)), [])
    work = partial(map_stacked, partial(_features, encoder, device))
    at_once = min(BATCHES_AT_ONCE, torch.get_num_threads())  # a thread that is alone waits for none
    on_cpu = device.type == "cpu"
    # A GPU works beside its caller anyway; a thread that starts its kernels would take Python's lock from the caller's
    # own, and PyTorch may abort if several threads use an Apple GPU.
    for features in prefetch(work, batches, at_once, ahead // size, helping) if on_cpu else map(work, batches):
        yield from features


def _features(encoder: Encoder, device: torch.device, images: Tensor) -> Tensor:
    """What the encoder makes of ``images (B, 3, S, S)`` on the device: ``(B, N, D)``."""
    try:
        return encoder(sent(images, device))
    except torch.OutOfMemoryError:
        needed = f"{encoder.name}: {len(images)} images need more memory than the GPU has free"
        raise InputError(f"{needed}; end other programs on it, or set CAPTION_DEVICE=cpu") from None


def _kept(encoder: Encoder, mirror: bool, source: Source) -> Source | Tensor | InputError:
    """An open picture's pixels: it may be given again, or show its next frame, before a thread reads it."""
    return _pixels(encoder, mirror, source) if isinstance(source, Image.Image) else source


def _pixels(encoder: Encoder, mirror: bool, source: Source | Tensor | InputError) -> Tensor | InputError:
    """A picture as the encoder takes it, ``(3, S, S)`` bytes."""
    if isinstance(source, Tensor | InputError):
        return source
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
