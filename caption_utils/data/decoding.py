"""Picture files to batches of pixels, the next batch being decoded while the caller works on this one."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image
from torch import Tensor

from caption_utils.data.images import Source, load_image
from caption_utils.errors import InputError

MOST_WORKERS = 4  # each may hold a picture of ``DECODED_BYTES``, however many cores there are


def decoded_batches(
    sources: Sequence[Source], transform: Callable[[Image.Image], Tensor], size: int
) -> Iterator[list[Tensor | InputError]]:
    """For each batch of at most ``size`` sources, in order, their pixels; for one that cannot be read, why."""
    chunks = [sources[i : i + size] for i in range(0, len(sources), size)]
    workers = min(max(2, (os.cpu_count() or 2) // 2), MOST_WORKERS)
    with ThreadPoolExecutor(workers) as pool:

        def start(chunk: Sequence[Source]) -> list[Future]:
            return [pool.submit(_decode, source, transform) for source in chunk]

        ahead = start(chunks[0]) if chunks else []
        for following in [*chunks[1:], []] if chunks else []:
            current, ahead = [future.result() for future in ahead], start(following)
            yield current


def _decode(source: Source, transform: Callable[[Image.Image], Tensor]) -> Tensor | InputError:
    try:
        return transform(load_image(source))
    except InputError as error:
        return error
