import torch
from caption_utils.model.packing import by_image, one_each, owner_of_tokens

OWNER = torch.tensor([1, 0, 1, 1, 0, 1])


def test_tokens_belong_to_the_images_of_their_captions():
    assert owner_of_tokens(torch.tensor([3, 2, 1]), torch.tensor([1, 0, 1])).tolist() == OWNER.tolist()


def test_rows_of_an_image_lie_together_in_their_order():
    rows = torch.arange(1.0, 7.0)[:, None]
    layout = by_image(OWNER, 3)
    assert layout.spread(rows)[..., 0].tolist() == [[2, 5, 0, 0], [1, 3, 4, 6], [0, 0, 0, 0]]
    assert layout.spread(rows, -1)[..., 0].tolist() == [[2, 5, -1, -1], [1, 3, 4, 6], [-1, -1, -1, -1]]
    assert layout.spread_over_all(rows)[..., 0].tolist() == [[2, 5, 1, 1], [1, 3, 4, 6], [1, 1, 1, 1]]
    assert layout.owner.tolist() == OWNER.tolist()


def test_the_first_rows_leave_the_last_images_out():
    rows, layout = torch.arange(1.0, 4.0)[:, None], by_image(torch.tensor([1, 0, 1, 2, 0]), 3).first(3, 2)
    assert layout.spread(rows)[..., 0].tolist() == [[2, 0], [1, 3]]
    assert layout.spread_over_all(rows)[..., 0].tolist() == [[2, 3], [1, 3]]


def test_one_row_for_each_image():
    rows, layout = torch.randn(3, 2), one_each(3, torch.device("cpu"))
    assert torch.equal(layout.spread(rows), rows[:, None])
    assert layout.owner.tolist() == [0, 1, 2]
