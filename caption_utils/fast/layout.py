"""Rows image by image: captions or tokens of the same image meet its regions in one product."""

from typing import NamedTuple

import torch
from torch import Tensor


class ByImage(NamedTuple):
    """Where rows ``(R, …)`` lie when they are laid out by image, ``(G, L, …)``: L is the most that an image has."""

    cells: Tensor  # (R,), each row's place in G·L
    row_of_cell: Tensor  # (G·L,), the row that lies there, and any row where none does
    longest: int  # L

    def first(self, rows: int, images: int) -> "ByImage":
        """The layout of the first ``rows``, which belong to the first ``images``."""
        return ByImage(self.cells[:rows], self.row_of_cell[: images * self.longest].clamp(max=rows - 1), self.longest)

    def spread(self, rows: Tensor) -> Tensor:
        """Rows ``(R, W)`` as ``(G, L, W)``, with zeros where an image has fewer than L."""
        room = rows.new_zeros(len(self.row_of_cell), rows.shape[1])
        return room.index_copy_(0, self.cells, rows).view(-1, self.longest, rows.shape[1])

    def spread_over_all(self, rows: Tensor) -> Tensor:
        """The same, in less time, with any rows where an image has fewer than L."""
        return rows.index_select(0, self.row_of_cell).view(-1, self.longest, rows.shape[1])

    def collect(self, values: Tensor) -> Tensor:
        """Values ``(G, L, W)`` as rows ``(R, W)``."""
        return values.flatten(0, 1).index_select(0, self.cells)


def by_image(owner: Tensor, images: int) -> ByImage:
    """The layout of rows that belong to the images ``owner (R,)``, out of G ``images``."""
    counts = torch.bincount(owner, minlength=images)
    order, rows = torch.argsort(owner, stable=True), torch.arange(len(owner))
    place = torch.empty_like(owner)
    place[order] = rows - (counts.cumsum(0) - counts)[owner[order]]
    longest = int(counts.max())
    cells = owner * longest + place
    return ByImage(cells, owner.new_zeros(images * longest).index_copy_(0, cells, rows), longest)
