import threading

import pytest
import torch

from caption_utils.cores import on_each_core

PARTS = list(torch.arange(12).split(2))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_parts(two_threads):
    assert on_each_core(lambda part: part.sum().item(), PARTS) == [1, 5, 9, 13, 17, 21]


def test_two_parts_are_computed_at_a_time_by_one_thread_each(two_threads):
    both = threading.Barrier(2)

    def work(part):
        both.wait(timeout=60)
        return torch.get_num_threads()

    assert on_each_core(work, PARTS) == [1] * 6


def test_threads_are_as_many_as_before_here_and_in_new_threads(two_threads):
    on_each_core(torch.sum, PARTS)
    seen = [torch.get_num_threads()]
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [2, 2]


def test_a_single_part_has_all_threads(two_threads):
    assert on_each_core(lambda part: torch.get_num_threads(), PARTS[:1]) == [2]


def test_nothing_to_do_is_no_result():
    assert on_each_core(torch.sum, []) == []


def test_a_failure_is_raised_and_leaves_the_threads(two_threads):
    def fail(part):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        on_each_core(fail, PARTS)
    assert torch.get_num_threads() == 2
