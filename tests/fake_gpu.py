"""A GPU that is not there: fake tensors on ``cuda`` know shape, precision and device, and have no values.

``FakeTensorMode`` runs real code on them and raises where a value is asked for (``item``, ``tolist``), where a shape
depends on values (``nonzero``, ``unique``, ``bincount``, masks) and where tensors of two devices meet. ``Watch`` finds
copies that wait, and lets the CPU compute for real. What would start a driver or read memory is stood in for: whether
there is a GPU, its graphs, cuDNN's LSTM, packing and padding, and autograd's engine.
"""

from contextlib import ExitStack, contextmanager
from graphlib import TopologicalSorter
from types import SimpleNamespace
from unittest.mock import patch

import torch
from fake_graphs import Eager
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

GPU = torch.device("cuda", 0)


class Waited(Exception):
    """A copy for which the program waits."""


WAITS = (Waited, DataDependentOutputException, DynamicOutputShapeException)


class Watch(TorchDispatchMode):
    """Sends what happens on the CPU past the fake tensors, and raises ``Waited`` for copies that wait.

    Those are copies to the GPU unless ``non_blocking``, and all from it. If ``answer`` is set, the latter are counted
    as ``looks``, and ``answer(shape)`` is what is seen.
    """

    def __init__(self, fake):
        super().__init__()
        self.fake, self.answer, self.looks = fake, None, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = torch.device(kwargs.get("device") or "cpu").type
        if device == "cpu" and not any(isinstance(leaf, FakeTensor) for leaf in tree_leaves((args, kwargs))):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        args = tree_map_only(torch.Tensor, self.faked, args)
        result = func(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default:
            return self.copied(args[0].device.type, result, kwargs.get("non_blocking"))
        if func is torch.ops.aten.copy_.default:
            return self.copied(args[1].device.type, result, args[2:] == (True,))
        return result

    def faked(self, tensor):
        return tensor if isinstance(tensor, FakeTensor) else self.fake.from_tensor(tensor)

    def copied(self, source, result, non_blocking):
        target = result.device.type
        if source == target or (target == "cuda" and non_blocking):
            return result
        if target == "cuda" or self.answer is None:
            raise Waited(f"a copy from {source} to {target}")
        self.looks += 1
        with unset_fake_temporarily():
            return self.answer(result.shape).to(result.dtype)


@contextmanager
def fake_gpu():
    """Within it there is a fake GPU; yields the ``Watch`` over it.

    The fake tensors come before the claim that CUDA is available, since then they keep PyTorch from starting a driver.
    A real GPU is denied to them, or ``torch.tensor`` would copy to it unseen.
    """
    standing_in = {
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.is_bf16_supported": lambda **kwargs: True,
        "torch.cuda.is_current_stream_capturing": lambda: False,
        "torch.backends.cudnn.is_acceptable": lambda tensor: False,
        "torch.nn.LSTM.forward": lstm,
        "caption_utils.model.decoder.pad_packed_sequence": pad_packed,
        "caption_utils.model.decoder.pack_padded_sequence": pack_padded,
        "torch.Tensor.backward": backward,
        "torch.Tensor.pin_memory": lambda tensor: tensor,
        "caption_utils.fast.graphs.Passes": Eager,
        "caption_utils.training.batches.prefetch": lambda make, items, **ahead: map(make, items),  # in this thread
    }
    denied = patch("torch.cuda.is_available", lambda: False)
    with denied, FakeTensorMode() as fake, Watch(fake) as watch, ExitStack() as patches:
        torch.empty(0, device=GPU)  # with the first, PyTorch 2.11 would start a driver that is said to be there
        for name, value in standing_in.items():
            patches.enter_context(patch(name, value))
        yield watch


def lstm(module, inputs, state):
    """``nn.LSTM.forward`` of one layer as cuDNN has it: any autocast is float16. Inputs are packed or ``(T, B, E)``."""
    packed = isinstance(inputs, PackedSequence)
    lower = torch.is_autocast_enabled("cuda")
    assert not lower or torch.get_autocast_dtype("cuda") is torch.float16, "cuDNN's float16 would get unscaled losses"
    half = torch.float16 if lower else torch.float32
    assert all(value.is_contiguous() for value in state), "rnn: hx is not contiguous"
    hidden, cell = (value[0].to(half) for value in state)
    weights = [weight.to(half) for weight in module.parameters()]
    outputs, ended = [], []
    for step in inputs.data.split(inputs.batch_sizes.tolist()) if packed else inputs:
        ended.insert(0, torch.stack([hidden[len(step) :], cell[len(step) :]]))
        hidden, cell = torch.lstm_cell(step.to(half), (hidden[: len(step)], cell[: len(step)]), *weights)
        outputs.append(hidden)
    last = torch.cat([torch.stack([hidden, cell]), *ended], dim=1)
    made = inputs._replace(data=torch.cat(outputs)) if packed else torch.stack(outputs)
    return made, (last[0][None], last[1][None])


def pad_packed(packed, batch_first):
    """``pad_packed_sequence``, with the sizes of the steps instead of the captions' lengths."""
    sizes = packed.batch_sizes.tolist()
    steps = [F.pad(rows, (0, 0, 0, sizes[0] - len(rows))) for rows in packed.data.split(sizes)]
    return torch.stack(steps, dim=1), sizes


def pack_padded(padded, sizes, batch_first):
    """What ``pack_padded_sequence`` has as ``data``, of what ``pad_packed`` returned."""
    return SimpleNamespace(data=torch.cat([padded[:size, step] for step, size in enumerate(sizes)]))


def backward(loss):
    """Backpropagation as autograd's engine does it, node by node; parameters get their ``grad``."""
    graph, waiting = {}, [loss.grad_fn]
    while waiting:
        if (node := waiting.pop()) not in graph:
            graph[node] = {child for child, _ in node.next_functions if child}
            waiting.extend(graph[node])
    gradients = {node: [None] * len(node._input_metadata) for node in graph}
    gradients[loss.grad_fn] = [torch.ones_like(loss)]
    for node in reversed(list(TopologicalSorter(graph).static_order())):
        if hasattr(node, "variable"):
            node.variable.grad = added(node.variable.grad, gradients[node][0])
            continue
        found = node(*gradients[node])
        found = found if isinstance(found, tuple) else (found,)
        for (child, index), gradient in zip(node.next_functions, found, strict=True):
            if child and gradient is not None:
                fitting = fitted(gradient, child._input_metadata[index])
                gradients[child][index] = added(gradients[child][index], fitting)


def added(before, gradient):
    return gradient if before is None else before + gradient


def fitted(gradient, wanted):
    """A gradient in the shape and precision of its tensor, which must be on the same device."""
    assert gradient.device == wanted.device, f"a gradient on {gradient.device} for a tensor on {wanted.device}"
    return gradient.sum_to_size(wanted.shape).to(wanted.dtype)
