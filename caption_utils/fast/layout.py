"""Rows image by image: captions or tokens of the same image meet its regions in one product."""

from typing import NamedTuple

import torch
from torch import Tensor


class ByImage(NamedTuple):
    """Where rows ``(R, …)`` lie when they are laid out by image, ``(G, L, …)``, with zeros where nothing lies."""

    cells: Tensor  # (R,), each row's place in G·L
    images: int  # G
    longest: int  # L, the most rows that an image has

    def spread(self, rows: Tensor) -> Tensor:
        """Rows ``(R, W)`` as ``(G, L, W)``."""
        room = rows.new_zeros(self.images * self.longest, rows.shape[1])
        return room.index_copy_(0, self.cells, rows).view(self.images, self.longest, -1)

    def product(self, rows: Tensor, matrices: Tensor) -> Tensor:
        """Rows ``(R, X)``, each times the matrix of its image, of ``(G, X, Y)`` or more."""
        products = self.spread(rows) @ matrices[: self.images]  # (G, L, Y)
        return products.flatten(0, 1).index_select(0, self.cells)


def by_image(owner: Tensor, images: int = 0) -> ByImage:
    """The layout of rows that belong to the images ``owner (R,)``; G is the last of these or, if more, ``images``."""
    counts = torch.bincount(owner, minlength=images)
    order, place = torch.argsort(owner, stable=True), torch.empty_like(owner)
    place[order] = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner[order]]
    longest = int(counts.max())
    return ByImage(owner * longest + place, len(counts), longest)
