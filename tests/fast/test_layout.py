import torch

from caption_utils.fast.layout import by_image

OWNER = torch.tensor([1, 0, 1, 1, 0, 1])


def test_rows_of_an_image_lie_together_in_their_order():
    rows = torch.arange(1.0, 7.0)[:, None]
    layout = by_image(OWNER, 3)
    assert layout.spread(rows)[..., 0].tolist() == [[2, 5, 0, 0], [1, 3, 4, 6], [0, 0, 0, 0]]
    assert layout.spread_over_all(rows)[..., 0].tolist() == [[2, 5, 1, 1], [1, 3, 4, 6], [1, 1, 1, 1]]
    assert torch.equal(layout.collect(layout.spread(rows)), rows)


def test_the_first_rows_leave_the_last_images_out():
    rows, layout = torch.arange(1.0, 4.0)[:, None], by_image(torch.tensor([1, 0, 1, 2, 0]), 3).first(3, 2)
    assert layout.spread(rows)[..., 0].tolist() == [[2, 0], [1, 3]]
    assert layout.spread_over_all(rows)[..., 0].tolist() == [[2, 3], [1, 3]]
