import torch

from caption_utils.packing import by_image, owner_of_tokens

OWNER = torch.tensor([1, 0, 1, 1, 0, 1])


def test_tokens_belong_to_the_images_of_their_captions():
    assert owner_of_tokens(torch.tensor([3, 2, 1]), torch.tensor([1, 0, 1])).tolist() == OWNER.tolist()


def test_rows_of_an_image_lie_together_in_their_order():
    rows = torch.arange(1.0, 7.0)[:, None]
    assert by_image(OWNER, 3).spread(rows)[..., 0].tolist() == [[2, 5, 0, 0], [1, 3, 4, 6], [0, 0, 0, 0]]


def test_collected_rows_are_those_that_were_spread():
    rows = torch.randn(6, 2, requires_grad=True)
    layout = by_image(OWNER, 3)
    collected = layout.collect(layout.spread(rows))
    assert torch.equal(collected, rows)
    collected.backward(rows.detach())
    assert torch.equal(rows.grad, rows)
