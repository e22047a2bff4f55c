import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from caption_utils.lstm import hidden_states

LENGTHS = [[1], [1, 1], [2, 2, 2], [5, 1], [6, 5, 5, 2, 1], [13, 4, 4]]


def packed(lengths, dtype):
    """Random inputs of these lengths, as ``PackedSequence``, and first states."""
    sizes = torch.tensor([sum(length > step for length in lengths) for step in range(lengths[0])])
    inputs = torch.randn(int(sizes.sum()), 4, dtype=dtype, requires_grad=True)
    first = torch.randn(2, len(lengths), 3, dtype=dtype, requires_grad=True)
    return PackedSequence(inputs, sizes), first


@pytest.mark.parametrize("lengths", LENGTHS)
def test_states_and_gradients_are_those_of_one_call(lengths):
    torch.manual_seed(0)
    lstm = nn.LSTM(4, 3).double()
    inputs, first = packed(lengths, torch.double)
    wanted = lstm(inputs, (first[0][None], first[1][None]))[0].data
    found = hidden_states(lstm, inputs, *first)
    torch.testing.assert_close(found, wanted)
    leaves, weights = [inputs.data, first, *lstm.parameters()], torch.randn_like(wanted)
    gradients = (torch.autograd.grad((out * weights).sum(), leaves) for out in (found, wanted))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_around_it_leaves_it_in_that_of_its_weights(lengths, dtype):
    torch.manual_seed(0)
    lstm = nn.LSTM(4, 3)
    inputs, first = packed(lengths, dtype)
    wanted = hidden_states(lstm, inputs._replace(data=inputs.data.float()), *first.float())
    with torch.autocast("cpu", dtype):
        found = hidden_states(lstm, inputs, *first)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)
    found.sum().backward()
    assert inputs.data.grad.dtype == dtype
