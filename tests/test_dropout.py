import pytest
import torch

from caption_utils.dropout import Dropout, random_bytes

MANY = 40_000


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_units_fall_with_their_probability_and_the_mean_stays(p):
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(MANY))
    assert (dropped == 0).double().mean().item() == pytest.approx(p, abs=0.015)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=0.03)
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("dropped", [1, 2, 128, 254, 255])
def test_of_all_bytes_as_many_fall_as_shall(monkeypatch, dropped):
    monkeypatch.setattr("caption_utils.dropout.random_bytes", lambda shape: torch.arange(-128, 128, dtype=torch.int8))
    kept = Dropout(dropped / 256)(torch.ones(256))
    assert (kept == 0).sum() == dropped
    assert kept.sum().item() == pytest.approx(256)


def test_units_fall_with_their_probability_in_a_captured_graph_too():
    torch.manual_seed(0)
    dropped = torch.compile(Dropout(0.3), backend="aot_eager")(torch.ones(MANY))
    assert (dropped == 0).double().mean().item() == pytest.approx(0.3, abs=0.015)


def test_the_same_seed_drops_the_same_units_and_gradients_pass_where_values_did():
    x = torch.randn(7, 9, requires_grad=True)
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(Dropout(0.5)(x))
    assert torch.equal(*results)
    (gradient,) = torch.autograd.grad(results[0].sum(), x)
    assert torch.equal(gradient != 0, results[0] != 0)


@pytest.mark.parametrize("layer", [Dropout(0.0), Dropout(0.5).eval()])
def test_nothing_falls_without_probability_or_in_evaluation(layer):
    x = torch.randn(5)
    assert layer(x) is x


@pytest.mark.parametrize("p", [-0.1, 1.0, 5.0])
def test_what_leaves_no_unit_is_refused(p):
    with pytest.raises(ValueError, match="a probability below 1 is expected"):
        Dropout(p)


def test_lower_precision_stays():
    assert Dropout(0.5)(torch.ones(9, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_bytes_are_uniform_and_independent_of_their_neighbours():
    torch.manual_seed(0)
    numbers = random_bytes(torch.Size([MANY * 8])).double()
    counts = torch.bincount(numbers.long() + 128, minlength=256)
    expected = MANY * 8 / 256
    assert ((counts - expected) ** 2 / expected).sum() < 330  # chi-squared, 255 degrees of freedom: p = 0.001
    pairs = torch.stack([numbers[:-1], numbers[1:]])
    assert abs(torch.corrcoef(pairs)[0, 1]) < 0.01
