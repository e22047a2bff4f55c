"""Packed tokens image by image: what belongs to the same image meets its regions in one product."""

from typing import NamedTuple

import torch
from torch import Tensor


class ByImage(NamedTuple):
    """Where rows ``(R, …)`` lie when they are laid out by image, ``(G, L, …)``: L is the most that an image has."""

    cells: Tensor  # (R,), each row's place in G·L
    images: int  # G
    longest: int  # L

    def first(self, rows: int, images: int) -> "ByImage":
        """The layout of the first ``rows``, which belong to the first ``images``."""
        return ByImage(self.cells[:rows], images, self.longest)

    def spread(self, rows: Tensor) -> Tensor:
        """Rows ``(R, W)`` as ``(G, L, W)``, zeros where an image has fewer than L."""
        room = rows.new_zeros(self.images * self.longest, rows.shape[-1])
        return room.index_copy_(0, self.cells, rows).view(self.images, self.longest, -1)

    def collect(self, values: Tensor) -> Tensor:
        """Values ``(G, L, W)`` as rows ``(R, W)``."""
        return values.flatten(0, 1).index_select(0, self.cells)


def by_image(owner: Tensor, images: int) -> ByImage:
    """The layout of rows that belong to the images ``owner (R,)``, out of G ``images``."""
    counts = torch.bincount(owner, minlength=images)
    order = torch.argsort(owner, stable=True)
    place = torch.empty_like(owner)
    place[order] = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner[order]]
    longest = int(counts.max())
    return ByImage(owner * longest + place, images, longest)


def owner_of_tokens(batch_sizes: Tensor, owner: Tensor) -> Tensor:
    """Each packed token's image ``(P,)``, from each caption's ``(B,)``."""
    return torch.cat([owner[:size] for size in batch_sizes.tolist()])
