"""Work done ahead of its use by threads, which start at once and share memory; for work that releases Python's lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def prefetch(
    make: Callable[[S], T], items: Iterable[S], threads: int, ahead: int, helping: bool = False
) -> Iterator[T]:
    """``make`` of each item, in order, while ``threads`` threads work on the next ``ahead`` items.

    A caller that is ``helping`` makes some of them itself while it would wait. An exception in ``make`` is raised when
    its item's turn comes. Items not begun when the caller stops are dropped.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[S, Future[T]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(make, item)))
            if len(waiting) > ahead:
                yield _first(make, waiting, helping)
        while waiting:
            yield _first(make, waiting, helping)
    finally:
        pool.shutdown(cancel_futures=True)


def _first(make: Callable[[S], T], waiting: deque[tuple[S, Future[T]]], helping: bool) -> T:
    """Take the first result; until it is there, make others that no thread has begun."""
    _, first = waiting.popleft()
    for place, (item, other) in enumerate(waiting):
        if not helping or first.done():
            break
        if other.cancel():
            waiting[place] = item, _made(make, item)
    return first.result()


def _made(make: Callable[[S], T], item: S) -> Future[T]:
    """A future that is done."""
    found: Future[T] = Future()
    try:
        found.set_result(make(item))
    except Exception as error:
        found.set_exception(error)
    return found
