"""Scores to weights that sum to 1: softmax, and two that give most regions none."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor


def sparsemax(scores: Tensor) -> Tensor:
    """The distribution nearest to the scores, ``p_i = max(z_i - τ, 0)``, over the last dimension; most are 0.

    ``τ = (Σ_{j ≤ k} z_(j) - 1) / k``, scores falling, k being the most of them that lie above their τ.
    Source: Martins and Astudillo 2016, "From Softmax to Sparsemax", equations 2 and 3, algorithm 1.
    """
    scores, ordered, rank = _falling(scores)
    thresholds = (ordered.cumsum(dim=-1) - 1) / rank
    return torch.relu(scores - _last_exceeded(thresholds, ordered))


def entmax(scores: Tensor) -> Tensor:
    """1.5-entmax, between softmax and sparsemax: ``p_i = max(z_i / 2 - τ, 0)²``, over the last dimension.

    ``τ = M - sqrt((1 - S) / k)``, M being the mean of the k largest ``z / 2`` and S the sum of their squared distances
    from it; k is the most that lie above their τ.
    Source: Peters, Niculae and Martins 2019, "Sparse Sequence-to-Sequence Models", equation 11, algorithm 2.
    """
    halves, ordered, rank = _falling(scores / 2)
    mean = ordered.cumsum(dim=-1) / rank
    spread = ordered.square().cumsum(dim=-1) - rank * mean.square()
    thresholds = mean - ((1 - spread) / rank).clamp(min=1e-12).sqrt()
    return torch.relu(halves - _last_exceeded(thresholds, ordered)).square()


def _falling(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores less their highest, in float32 at least, the same from highest to lowest, and their ranks from 1 on."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    scores = scores - scores.detach().amax(dim=-1, keepdim=True)  # changes no weight, and rounds less
    ordered = scores.sort(dim=-1, descending=True).values
    return scores, ordered, torch.arange(1, scores.shape[-1] + 1, device=scores.device)


def _last_exceeded(thresholds: Tensor, ordered: Tensor) -> Tensor:
    """The threshold of the last of the scores in falling order that lies above its own."""
    support = (ordered > thresholds).sum(dim=-1, keepdim=True).clamp(min=1)  # none in a model that has diverged
    return thresholds.gather(-1, support - 1)


NORMALIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": partial(torch.softmax, dim=-1),
    "sparsemax": sparsemax,
    "entmax": entmax,
}
