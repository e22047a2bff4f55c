"""Dropout that costs a CPU little: PyTorch's own draws a float for each unit, this one a byte."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 256


class Dropout(nn.Module):
    """In training, zero each unit with probability ``p``, to the nearest 1/256, and scale the others to make up for it.

    Raises ``ValueError`` for a ``p`` that would leave no unit.

    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
    """

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout={p}: a probability below 1 is expected")
        self.dropped = min(round(p * LEVELS), LEVELS - 1)  # of 256 equally likely bytes

    def extra_repr(self) -> str:
        return f"p={self.dropped / LEVELS:g}"

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; the same shape."""
        if not self.training or not self.dropped:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():  # a captured graph cannot look at numbers as bytes
            return F.dropout(x, self.dropped / LEVELS)
        least = self.dropped - LEVELS // 2
        kept = random_bytes(x.shape).clamp_(least - 1, least).sub_(least - 1)  # 0 or 1, quicker than by comparing
        return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - self.dropped))


def random_bytes(shape: torch.Size) -> Tensor:
    """Uniform int8 of this shape from PyTorch's generator, eight of each number that it draws."""
    count, lowest = shape.numel(), torch.iinfo(torch.int64).min
    numbers = torch.empty(-(-count // 8), dtype=torch.int64).random_(lowest, None)  # to the highest
    return numbers.view(torch.int8)[:count].view(shape)
