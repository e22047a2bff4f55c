import math

import pytest
import torch

from caption_utils.model.attention import BahdanauAttention, LuongAttention

B, T, N, D, H, A = 2, 3, 5, 4, 3, 6
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
    query = torch.randn(B, T, D if kind == "dot" else H, dtype=torch.float64)
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
        return sum(a * b for a, b in zip(h, times(matrix(attention.W_f), f), strict=True))
    # Bahdanau et al. 2015, A.1.2, and Luong's third line, W [h; f] written as two products: v · tanh(W h + U f + b)
    from_f = times(matrix(attention.W_f), f)
    from_h = times(matrix(attention.W_h), h)
    bias = attention.W_f.bias.tolist()
    inner = [math.tanh(a + b + c) for a, b, c in zip(from_f, from_h, bias, strict=True)]
    return times(matrix(attention.v), inner)[0]


def attend_in_loops(kind, attention, h, regions):
    exponentials = [math.exp(score_in_loops(kind, attention, h, f)) for f in regions]
    alpha = [value / sum(exponentials) for value in exponentials]
    context = [sum(weight * f[d] for weight, f in zip(alpha, regions, strict=True)) for d in range(D)]
    return context, alpha


def test_attention_equals_the_papers_equations(kind):
    attention, query, features = attention_and_inputs(kind)
    context, alpha = attention(query, features, attention.keys(features))
    assert (context.shape, alpha.shape) == ((B, T, D), (B, T, N))
    for b in range(B):
        for t in range(T):
            wanted_context, wanted_alpha = attend_in_loops(kind, attention, query[b, t].tolist(), features[b].tolist())
            assert alpha[b, t].tolist() == pytest.approx(wanted_alpha, abs=1e-12)
            assert context[b, t].tolist() == pytest.approx(wanted_context, abs=1e-12)


def test_weights_are_a_distribution_over_regions(kind):
    attention, query, features = attention_and_inputs(kind)
    _, alpha = attention(query * 50, features, attention.keys(features))
    assert (alpha >= 0).all()
    torch.testing.assert_close(alpha.sum(dim=2), torch.ones(B, T, dtype=torch.float64))


def test_regions_have_no_order(kind):
    attention, query, features = attention_and_inputs(kind)
    order = torch.tensor([3, 0, 4, 1, 2])
    context, alpha = attention(query, features, attention.keys(features))
    shuffled, shuffled_alpha = attention(query, features[:, order], attention.keys(features[:, order]))
    torch.testing.assert_close(shuffled, context)
    torch.testing.assert_close(shuffled_alpha, alpha[..., order])


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


def test_dot_has_no_parameters_and_general_no_query_projection():
    assert not list(KINDS["dot"]().parameters())
    assert [tuple(p.shape) for p in KINDS["general"]().parameters()] == [(H, D)]
