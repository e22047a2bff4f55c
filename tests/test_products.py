from threading import Barrier, Thread

import pytest
import torch

from caption_utils import products
from caption_utils.products import FastProducts, fast_products, rounds_nothing


def setting():
    return torch.backends.mkldnn.matmul.fp32_precision


@pytest.fixture
def rounding(monkeypatch):
    """Say what the processor does."""
    return lambda rounds: monkeypatch.setattr(products, "rounds_nothing", lambda: not rounds)


def test_products_are_float32_throughout():
    torch.manual_seed(0)
    left, right = torch.rand(200, 512), torch.rand(512, 3000)
    with fast_products:
        product = left @ right
    exact = left.double() @ right.double()
    assert ((product - exact) / exact).abs().max() < 1e-5


def test_a_processor_that_rounds_is_found_out(monkeypatch):
    rounds_nothing.cache_clear()
    matmul = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda left, right: (
        matmul(left.bfloat16(), right.bfloat16()).float() if setting() == "bf16" else matmul(left, right)))
    before = setting()
    assert not rounds_nothing()
    assert setting() == before
    rounds_nothing.cache_clear()


@pytest.mark.parametrize(("rounds", "within"), [(False, "bf16"), (True, "none")])
def test_the_setting_lasts_as_long_as_the_outermost_scope(rounding, rounds, within):
    rounding(rounds)
    seen = []

    @fast_products
    def inner():
        seen.append(setting())

    with fast_products:
        inner()
        seen.append(setting())
    assert seen == [within, within]
    assert setting() == "none"


def test_an_error_ends_the_scope(rounding):
    rounding(False)
    with pytest.raises(KeyError), fast_products:
        raise KeyError
    assert setting() == "none"


def test_what_was_set_before_comes_back_when_the_last_thread_leaves(rounding):
    rounding(False)
    scope, both, one_left, seen = FastProducts(), Barrier(2), Barrier(2), []
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"

    def first():
        with scope:
            both.wait()
        one_left.wait()

    def second():
        with scope:
            both.wait()
            one_left.wait()
            seen.append(setting())

    threads = [Thread(target=first), Thread(target=second)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (seen, setting()) == (["bf16"], "ieee")
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"
