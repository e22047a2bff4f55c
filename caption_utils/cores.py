"""What suits a processor: a part of a batch for each core, and no more at a time than its cache holds."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

CACHED = 1 << 18  # float32 numbers
Result = TypeVar("Result")


def on_each_core(work: Callable[[Tensor], Result], batch: Tensor, most: int) -> list[Result]:
    """``work`` of the parts of ``batch``, of at most ``most`` rows, in order.

    Several parts on a CPU are equal, a multiple of PyTorch's threads, and computed as many at a time as there are
    threads, each by one: these wait for each other once, while those that share a product wait at the end of each. On a
    GPU, or with one thread, it is one part after another.
    """
    threads = torch.get_num_threads() if batch.device.type == "cpu" else 1
    if threads == 1 or len(batch) <= most:
        return [work(part) for part in batch.split(most) if len(part)]
    parts = batch.tensor_split(-(-len(batch) // (most * threads)) * threads)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, filter(len, parts)))
    finally:
        torch.set_num_threads(threads)  # for threads yet to start, which take the number set last


def rows_in_cache(width: int, rows: int, device: torch.device) -> int:
    """How many of ``rows`` float32 rows of this width to compute at a time: as many as a core's cache holds.

    On a GPU all of them.
    """
    return min(max(1, CACHED // max(1, width)), rows) if device.type == "cpu" else rows
