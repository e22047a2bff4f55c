"""Work done ahead of its use by threads, which start at once and share memory; for work that releases Python's lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def prefetch(make: Callable[[S], T], items: Iterable[S], threads: int, ahead: int) -> Iterator[T]:
    """``make`` of each item, in order, while ``threads`` threads work on the next ``ahead`` items.

    An exception in ``make`` is raised when its item's turn comes. Items not begun when the caller stops are dropped.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
