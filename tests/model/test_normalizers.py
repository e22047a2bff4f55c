import pytest
import torch

from caption_utils.model.normalizers import NORMALIZERS, entmax, sparsemax

# the weight of a score, given τ, and the diagonal of its Jacobian's first part (Peters et al. 2019, proposition 2)
SPARSE = {
    "sparsemax": (lambda z, tau: max(z - tau, 0.0), lambda p: 1.0),
    "entmax": (lambda z, tau: max(z / 2 - tau, 0.0) ** 2, lambda p: p**0.5),
}


@pytest.fixture(params=SPARSE)
def name(request):
    return request.param


def by_bisection(weight, scores):
    """Weights of one query: the τ for which they sum to 1, found without sorting."""
    low, high = min(scores) - 2, max(scores)
    for _ in range(200):
        middle = (low + high) / 2
        total = sum(weight(z, middle) for z in scores)
        low, high = (middle, high) if total > 1 else (low, middle)
    return [weight(z, high) for z in scores]


def random_scores(scale, shape=(2, 3, 7)):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * scale


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 5.0, 300.0])
def test_weights_are_those_whose_threshold_makes_them_sum_to_one(name, scale):
    scores = random_scores(scale)
    weights = NORMALIZERS[name](scores)
    for row, found in zip(scores.flatten(0, 1).tolist(), weights.flatten(0, 1).tolist(), strict=True):
        assert found == pytest.approx(by_bisection(SPARSE[name][0], row), abs=1e-9)


@pytest.mark.parametrize("each", NORMALIZERS)
def test_weights_of_a_query_are_its_own_and_sum_to_one(each):
    scores = random_scores(1.0)
    weights = NORMALIZERS[each](scores)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, dtype=torch.float64))
    torch.testing.assert_close(NORMALIZERS[each](scores[1, 2]), weights[1, 2])


def test_sparsemax_of_two_scores_is_a_clipped_line():
    """Martins and Astudillo 2016, section 2.3."""
    t = torch.linspace(-3, 3, 25, dtype=torch.float64)
    found = sparsemax(torch.stack([t, torch.zeros_like(t)], dim=1))[:, 0]
    torch.testing.assert_close(found, ((t + 1) / 2).clamp(0, 1))


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_gradients_are_those_of_finite_differences(name, scale):
    assert torch.autograd.gradcheck(NORMALIZERS[name], random_scores(scale).requires_grad_())


def test_the_jacobian_is_the_papers(name):
    (scores,) = random_scores(1.0, (1, 7))
    weights = NORMALIZERS[name](scores)
    slopes = torch.tensor([SPARSE[name][1](p) if p else 0.0 for p in weights.tolist()], dtype=torch.float64)
    expected = slopes.diag() - slopes.outer(slopes) / slopes.sum()
    torch.testing.assert_close(torch.autograd.functional.jacobian(NORMALIZERS[name], scores), expected)
    assert 0 < slopes.count_nonzero() < 7


def test_entmax_stands_between_softmax_and_sparsemax():
    scores = random_scores(2.0, (50, 20))
    few, some, all_of_them = (NORMALIZERS[each](scores) > 0 for each in ("sparsemax", "entmax", "softmax"))
    assert few.sum() < some.sum() < all_of_them.sum() == 1000
    assert (some >= few).all()


def test_equal_scores_share_alike(name):
    weights = NORMALIZERS[name](torch.tensor([[3.0, 3.0, 3.0, 3.0], [5.0, 5.0, -5.0, -5.0]]))
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0]]))


def test_one_region_gets_all(name):
    assert NORMALIZERS[name](torch.tensor([[-7.0]])).item() == 1


@pytest.mark.parametrize("scores", [[1e4, -1e4, 3.0], [1e30, 0.0, -1e30]])
def test_large_scores_have_weights_and_gradients(name, scores):
    scores = torch.tensor(scores, requires_grad=True)
    weights = NORMALIZERS[name](scores)
    (weights * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert weights.tolist() == [1, 0, 0]
    assert scores.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, half):
    scores = random_scores(1.0, (3, 80)).to(half)
    weights = NORMALIZERS[name](scores)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, NORMALIZERS[name](scores.float()))


def test_a_model_that_has_diverged_raises_nothing(name):
    assert NORMALIZERS[name](torch.tensor([[float("nan"), 1.0]])).isnan().any()


def test_entmax_does_not_lose_scores_far_below_the_others():
    """In float32, too, the sums over all of them leave the threshold of the few exact."""
    scores = torch.cat([torch.tensor([0.3, 0.1]), torch.full((2000,), -3e3)])
    wanted = entmax(torch.tensor([0.3, 0.1], dtype=torch.float64))
    torch.testing.assert_close(entmax(scores)[:2].double(), wanted, atol=1e-6, rtol=0)
