import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from caption_utils.prefetch import prefetch


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (4, 3), (2, 100)])
@pytest.mark.parametrize("count", [0, 1, 3, 9])
@pytest.mark.parametrize("helping", [False, True])
def test_all_come_in_order(count, threads, ahead, helping):
    assert list(prefetch(lambda i: i * i, range(count), threads, ahead, helping)) == [i * i for i in range(count)]


def test_the_next_are_made_while_one_is_in_use_and_no_more_than_those():
    taken, made = [], [threading.Event() for _ in range(9)]

    def items():
        for i in range(9):
            taken.append(i)
            yield i

    found = prefetch(lambda i: made[i].set(), items(), threads=2, ahead=3)
    assert taken == []
    for used in range(3):
        next(found)
        assert all(event.wait(30) for event in made[: used + 4])
        assert taken == list(range(used + 4))
        assert not any(event.is_set() for event in made[used + 4 :])


def test_no_more_at_once_than_there_are_threads():
    lock, working, most = threading.Lock(), [], []
    both = threading.Barrier(2, timeout=30)

    def make(i):
        with lock:
            working.append(i)
            most.append(len(working))
        both.wait()  # two work at once, or none goes on
        with lock:
            working.remove(i)

    list(prefetch(make, range(8), threads=2, ahead=8))
    assert max(most) == 2


@pytest.mark.parametrize("helping", [False, True])
def test_a_caller_that_helps_makes_others_while_it_waits(helping):
    """The thread makes the first, and ends when the caller has made the next two, or has had the time to."""
    here, two, made = threading.current_thread(), threading.Semaphore(0), {}

    def make(i):
        made[i] = threading.current_thread() is here
        if i == 0:
            assert not helping or (two.acquire(timeout=30) and two.acquire(timeout=30))
        elif made[i]:
            two.release()
        return i

    assert list(prefetch(make, range(3), threads=1, ahead=3, helping=helping)) == [0, 1, 2]
    assert made == {0: False, 1: helping, 2: helping}


@pytest.mark.parametrize("helping", [False, True])
def test_a_failure_is_raised_in_its_turn(helping):
    found = prefetch(lambda i: 1 / (2 - i), range(4), threads=2, ahead=4, helping=helping)
    assert [next(found), next(found)] == [0.5, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_what_has_not_begun_when_the_caller_stops_is_dropped(monkeypatch):
    made, go = [], threading.Event()

    def make(i):
        made.append(i)
        return i == 0 or go.wait(30)

    class Pool(ThreadPoolExecutor):
        def shutdown(self, **options):
            super().shutdown(wait=False, **options)
            go.set()
            super().shutdown()

    monkeypatch.setattr("caption_utils.prefetch.ThreadPoolExecutor", Pool)
    found = prefetch(make, range(100), threads=1, ahead=50)
    next(found)
    found.close()
    assert made in ([0], [0, 1])
