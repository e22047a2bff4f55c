import pytest
import torch

from caption_utils.model.hard import likeliest, sampled


@pytest.mark.parametrize("half", [torch.float32, torch.bfloat16])
def test_regions_are_sampled_with_their_weights(half):
    torch.manual_seed(0)
    alpha = torch.tensor([0.5, 0.3125, 0.125, 0.0625, 0.0], dtype=half)
    draws = sampled(alpha.expand(100, 200, 5)).flatten(0, 1)
    assert draws.sum(dim=1).tolist() == [1] * 20_000
    shares, spread = draws.float().mean(dim=0), (alpha * (1 - alpha) / 20_000).sqrt()
    assert ((shares - alpha).abs() <= 4 * spread).all()


def test_samples_and_the_likeliest_have_no_gradient():
    alpha = torch.tensor([[0.2, 0.5, 0.3]], requires_grad=True)
    assert not sampled(alpha).requires_grad
    assert not likeliest(alpha).requires_grad
    assert likeliest(alpha).tolist() == [[0, 1, 0]]
