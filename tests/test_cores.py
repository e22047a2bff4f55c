import threading

import pytest
import torch

from caption_utils.cores import CACHED, on_each_core, rows_in_cache

BATCH = torch.arange(12)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_parts(two_threads):
    assert on_each_core(lambda part: part.sum().item(), BATCH, 3) == [3, 12, 21, 30]


@pytest.mark.parametrize(("most", "sizes"), [(1, [1] * 12), (4, [3] * 4), (5, [3] * 4), (7, [6, 6]), (11, [6, 6])])
def test_each_core_has_as_many_parts_of_as_many_rows(two_threads, most, sizes):
    assert on_each_core(len, BATCH, most) == sizes


def test_two_parts_are_computed_at_a_time_by_one_thread_each(two_threads):
    both = threading.Barrier(2)

    def work(part):
        both.wait(timeout=60)
        return torch.get_num_threads()

    assert on_each_core(work, BATCH, 2) == [1] * 6


def test_threads_are_as_many_as_before_here_and_in_new_threads(two_threads):
    on_each_core(torch.sum, BATCH, 2)
    seen = [torch.get_num_threads()]
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [2, 2]


def test_a_single_part_has_all_threads(two_threads):
    assert on_each_core(lambda part: torch.get_num_threads(), BATCH, 12) == [2]


def test_one_thread_computes_parts_as_large_as_they_may_be(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert on_each_core(len, BATCH, 5) == [5, 5, 2]


def test_nothing_to_do_is_no_result():
    assert on_each_core(torch.sum, BATCH[:0], 2) == []


def test_a_failure_is_raised_and_leaves_the_threads(two_threads):
    def fail(part):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        on_each_core(fail, BATCH, 2)
    assert torch.get_num_threads() == 2


def test_a_cache_holds_a_row_at_least_and_no_more_than_there_are():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [rows_in_cache(width, 7, cpu) for width in (1, CACHED // 3, CACHED, 2 * CACHED)] == [7, 3, 1, 1]
    assert rows_in_cache(2 * CACHED, 7, gpu) == 7


def test_more_cores_than_rows(monkeypatch, two_threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 20)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    assert on_each_core(len, BATCH, 5) == [1] * 12
