"""Parts of a batch, each computed by a core of its own."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def on_each_core(work: Callable[[Tensor], Result], parts: Sequence[Tensor]) -> list[Result]:
    """``work`` of each part, in order.

    On a CPU as many parts are computed at a time as PyTorch has threads, each by one thread: these wait for each other
    once, while those that share a product wait at the end of each. On a GPU it is one part after another.
    """
    threads = torch.get_num_threads()
    if min(threads, len(parts)) < 2 or parts[0].device.type != "cpu":
        return [work(part) for part in parts]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, parts))
    finally:
        torch.set_num_threads(threads)  # for threads yet to start, which take the number set last
