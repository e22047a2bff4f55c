"""CUDA graphs without a GPU: operations are recorded as they run, and replayed on and into the same memory."""

from contextlib import ExitStack, contextmanager, nullcontext
from unittest.mock import Mock, patch

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recorded(TorchDispatchMode):
    """In place of ``torch.cuda.CUDAGraph``."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.operations.append((func, args, kwargs or {}, results))
        return result

    def pool(self):
        return 0, 1

    def replay(self):
        with torch.no_grad():
            for func, args, kwargs, results in self.operations:
                again = [leaf for leaf in tree_leaves(func(*args, **kwargs)) if isinstance(leaf, Tensor)]
                for before, now in zip(results, again, strict=True):
                    if before.data_ptr() != now.data_ptr():
                        before.copy_(now)


@contextmanager
def fake_graphs():
    """Within it ``caption_utils.fast.graphs`` captures what runs on the CPU."""
    standing_in = {
        "torch.cuda.CUDAGraph": Recorded,
        "torch.cuda.graph": lambda graph, **how: graph,
        "torch.cuda.device": lambda device: nullcontext(),
        "torch.cuda.Stream": Mock,
        "torch.cuda.current_stream": lambda: None,
        "torch.cuda.graph_pool_handle": lambda: (0, 1),
        "torch.cuda.stream": lambda stream: nullcontext(),
        "torch.cuda.get_rng_state": lambda device: torch.get_rng_state(),
        "torch.cuda.set_rng_state": lambda state, device: torch.set_rng_state(state),
        "torch.random.fork_rng": lambda devices: nullcontext(),
    }
    with ExitStack() as patches:
        for name, value in standing_in.items():
            patches.enter_context(patch(name, value))
        yield


class Eager:
    """In place of ``graphs.Passes``: nothing is captured."""

    def __init__(self, decoder, sizes, inputs, earlier):
        self.decoder, self.sizes = decoder, torch.tensor(sizes)

    def __call__(self, features, ids, owner):
        return self.decoder(features, PackedSequence(ids, self.sizes), owner)
