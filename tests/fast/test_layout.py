import torch

from caption_utils.fast.layout import by_image

OWNER = torch.tensor([1, 0, 1, 1, 0, 1])


def test_rows_of_an_image_lie_together_in_their_order():
    rows = torch.arange(1.0, 7.0)[:, None]
    layout = by_image(OWNER, 3)
    assert layout.spread(rows)[..., 0].tolist() == [[2, 5, 0, 0], [1, 3, 4, 6], [0, 0, 0, 0]]


def test_each_row_is_multiplied_by_the_matrix_of_its_image():
    rows, matrices = torch.randn(6, 2), torch.randn(4, 2, 3)
    expected = torch.stack([row @ matrices[image] for row, image in zip(rows, OWNER, strict=True)])
    for images in (0, 4):
        torch.testing.assert_close(by_image(OWNER, images).product(rows, matrices), expected)
