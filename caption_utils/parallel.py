"""One process or several: each takes its share of every batch, the first one writes and speaks.

Hugging Face Accelerate starts the processes (``accelerate launch``, ``notebook_launcher``) and connects them. A process
that was started alone never imports it.
"""

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

LONGEST_WAIT = timedelta(days=1)  # the others wait while the first extracts features


@dataclass(frozen=True)
class Processes:
    """Which of ``count`` processes this is. ``device`` is the one assigned to it, ``None`` for a process alone."""

    index: int = 0
    count: int = 1
    device: torch.device | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks for all."""
        return self.index == 0

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """The others run the block after the first process has left it, and find what it made."""
        if not self.is_first:
            distributed.barrier()
        yield
        if self.is_first and self.count > 1:
            distributed.barrier()

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum of the processes' tensors, which are equal in shape; may overwrite ``tensor``."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def from_first(self, tensor: Tensor) -> Tensor:
        """The first process's tensor; overwrites those of the others."""
        if self.count > 1:
            distributed.broadcast(tensor, src=0)
        return tensor

    def add_up_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients in all processes; in some it may have none."""
        if self.count == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        total = self.add_up(torch.cat([gradient.flatten() for gradient in gradients]))
        for parameter, gradient in zip(parameters, total.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter)


def join_processes() -> Processes:
    """Connect with the processes that were started together with this one, if any; a second call finds them again."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu, timeout=LONGEST_WAIT)
    atexit.register(state.destroy_process_group)
    return Processes(state.process_index, state.num_processes, state.device)
