"""Products of float32 matrices on a CPU, by the faster of the two libraries that PyTorch has for them.

PyTorch gives them to MKL, which uses half the vector width of AMD's newer processors. oneDNN uses all of it, but is
asked only where it may round to bfloat16. It does round on processors with units for that; on all others its products
are float32 throughout, and no reason is left not to ask it.
"""

from contextlib import ContextDecorator
from functools import cache
from threading import Lock

import torch


class FastProducts(ContextDecorator):
    """Within, oneDNN makes the products if it makes them in full float32. Threads may enter it together."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = Lock(), 0, ""

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = torch.backends.mkldnn.matmul.fp32_precision
                torch.backends.mkldnn.matmul.fp32_precision = "bf16" if rounds_nothing() else self._before
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                torch.backends.mkldnn.matmul.fp32_precision = self._before


@cache
def rounds_nothing() -> bool:
    """Whether oneDNN's products are float32 on this processor although they need not be: one is tried."""
    matrix = torch.linspace(-1, 1, 64 * 512, device="cpu").view(64, 512)
    before, torch.backends.mkldnn.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision, "bf16"
    try:
        with torch.autocast("cpu", enabled=False):
            product = matrix @ matrix.T
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    exact = matrix.double() @ matrix.double().T
    return bool((product - exact).abs().max() < 1e-5 * exact.abs().max())


fast_products = FastProducts()
