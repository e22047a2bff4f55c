"""Hard attention: one region for each word, drawn in training with the attention weights (Xu et al. 2015, 4.1)."""

import torch
from torch import Tensor


def sampled(alpha: Tensor) -> Tensor:
    """A region drawn with the probabilities ``alpha (…, N)``, as one-hot vectors: Xu et al. 2015, equation 8.

    Of waiting times that are exponentially distributed with the rates ``alpha_i``, the i-th is the shortest with
    probability ``alpha_i``. Unlike ``torch.multinomial`` this does not wait for a GPU.
    """
    times = torch.empty_like(alpha, dtype=torch.promote_types(alpha.dtype, torch.float32)).exponential_()
    return likeliest(alpha.detach() / times)


def likeliest(alpha: Tensor) -> Tensor:
    """The region of the largest weight as one-hot vectors, ``(…, N)`` like ``alpha``."""
    return torch.zeros_like(alpha).scatter_(-1, alpha.argmax(dim=-1, keepdim=True), 1.0)
