import math

import pytest
import torch

from caption_utils.errors import InputError
from caption_utils.model.attention import BahdanauAttention, LuongAttention, exponential, sigmoid_of_sum

B, N, D, H, A = 2, 5, 4, 3, 6
KINDS = {
    "bahdanau": lambda: BahdanauAttention(D, H, A),
    "dot": lambda: LuongAttention(D, D, A, "dot"),
    "general": lambda: LuongAttention(D, H, A, "general"),
    "concat": lambda: LuongAttention(D, H, A, "concat"),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def attention_and_inputs(kind):
    torch.manual_seed(0)
    attention = KINDS[kind]().double()
    query = torch.randn(B, D if kind == "dot" else H, dtype=torch.float64)
    return attention, query, torch.randn(B, N, D, dtype=torch.float64)


def matrix(layer):
    return layer.weight.tolist()


def times(rows, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in rows]


def score_in_loops(kind, attention, h, f):
    """One number from one hidden state and one region, as the papers write it."""
    if kind == "dot":  # Luong et al. 2015, equation 8, first line: h · f
        return sum(a * b for a, b in zip(h, f, strict=True))
    if kind == "general":  # second line: h · W f
        return sum(a * b for a, b in zip(h, times(matrix(attention.score.feature_projection), f), strict=True))
    # Bahdanau et al. 2015, A.1.2, and Luong's third line, W [h; f] written as two products: v · tanh(W h + U f + b)
    from_f = times(matrix(attention.score.feature_projection), f)
    from_h = times(matrix(attention.score.query_projection), h)
    bias = attention.score.feature_projection.bias.tolist()
    inner = [math.tanh(a + b + c) for a, b, c in zip(from_f, from_h, bias, strict=True)]
    return times(matrix(attention.score.v), inner)[0]


def attend_in_loops(kind, attention, h, regions):
    exponentials = [math.exp(score_in_loops(kind, attention, h, f)) for f in regions]
    alpha = [value / sum(exponentials) for value in exponentials]
    context = [sum(weight * f[d] for weight, f in zip(alpha, regions, strict=True)) for d in range(D)]
    return context, alpha


def test_attention_equals_the_papers_equations(kind):
    attention, query, features = attention_and_inputs(kind)
    context, alpha = attention(query, features, attention.keys(features))
    assert (context.shape, alpha.shape) == ((B, D), (B, N))
    for b in range(B):
        wanted_context, wanted_alpha = attend_in_loops(kind, attention, query[b].tolist(), features[b].tolist())
        assert alpha[b].tolist() == pytest.approx(wanted_alpha, abs=1e-12)
        assert context[b].tolist() == pytest.approx(wanted_context, abs=1e-12)


def test_weights_are_a_distribution_over_regions(kind):
    attention, query, features = attention_and_inputs(kind)
    _, alpha = attention(query * 50, features, attention.keys(features))
    assert (alpha >= 0).all()
    torch.testing.assert_close(alpha.sum(dim=1), torch.ones(B, dtype=torch.float64))


def test_many_queries_at_once_equal_one_at_a_time(kind):
    attention, _, features = attention_and_inputs(kind)
    queries = torch.randn(B, 3, D if kind == "dot" else H, dtype=torch.float64)
    keys = attention.keys(features)
    contexts, alphas = attention(queries, features, keys)
    assert (contexts.shape, alphas.shape) == ((B, 3, D), (B, 3, N))
    for t in range(3):
        context, alpha = attention(queries[:, t], features, keys)
        torch.testing.assert_close(contexts[:, t], context)
        torch.testing.assert_close(alphas[:, t], alpha)


def test_regions_have_no_order(kind):
    attention, query, features = attention_and_inputs(kind)
    order = torch.tensor([3, 0, 4, 1, 2])
    context, alpha = attention(query, features, attention.keys(features))
    shuffled, shuffled_alpha = attention(query, features[:, order], attention.keys(features[:, order]))
    torch.testing.assert_close(shuffled, context)
    torch.testing.assert_close(shuffled_alpha, alpha[:, order])


def test_gradients_are_those_of_finite_differences(kind):
    attention, query, features = attention_and_inputs(kind)
    names, values = zip(*_KeysAndAttention(attention).named_parameters(), strict=True) if kind != "dot" else ((), ())

    def both(query, features, *values):
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(_KeysAndAttention(attention), parameters, (query, features))

    inputs = [tensor.detach().requires_grad_() for tensor in (query, features, *values)]
    assert torch.autograd.gradcheck(both, inputs)


class _KeysAndAttention(torch.nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, query, features):
        return self.attention(query, features, self.attention.keys(features))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sigmoid_of_sum_is_the_sigmoid_of_a_sum_of_numbers_cut_at_40(dtype):
    exponents = torch.tensor([-1000.0, -40, -20, -9, -1, -0.01, 0, 0.3, 2, 10, 20, 40, 1000], dtype=dtype)
    left, right = exponents[:, None], exponents[None]
    found = sigmoid_of_sum(exponential(-left), exponential(-right))
    wanted = (left.float().clamp(-40, 40) + right.float().clamp(-40, 40)).sigmoid()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_sigmoid_of_sum_without_gradients_is_written_where_told():
    left, right, room = exponential(torch.randn(2, 3)), exponential(torch.randn(2, 3)), torch.empty(5, 3)
    found = sigmoid_of_sum(left, right, room)
    assert found.data_ptr() == room.data_ptr()
    torch.testing.assert_close(found, sigmoid_of_sum(left, right), rtol=0, atol=0)


def test_dot_has_no_parameters_and_general_no_query_projection():
    assert not list(KINDS["dot"]().parameters())
    assert [tuple(p.shape) for p in KINDS["general"]().parameters()] == [(H, D)]


def test_dot_needs_equal_widths():
    with pytest.raises(InputError, match="score 'dot' compares features of width 4 .* set hidden_dim=4, or use"):
        LuongAttention(D, H, A, "dot")


def test_an_unknown_score_is_told_the_known_ones():
    with pytest.raises(InputError, match="score 'cosine' is unknown; choose one of dot, general, concat"):
        LuongAttention(D, H, A, "cosine")


@pytest.mark.parametrize("learning", [True, False])
@pytest.mark.parametrize("numbers", [1, 4 * N * A, 1 << 20])
def test_how_many_images_a_cache_holds_changes_no_score(monkeypatch, learning, numbers):
    score = KINDS["bahdanau"]().score
    query, keys = torch.randn(5, 2, H), score.keys(torch.randn(5, N, D))
    with torch.set_grad_enabled(learning):
        alone = torch.cat([score(query[i : i + 1], keys[i : i + 1]) for i in range(5)])
        monkeypatch.setattr("caption_utils.model.cores.CACHED", numbers)
        torch.testing.assert_close(score(query, keys), alone)
