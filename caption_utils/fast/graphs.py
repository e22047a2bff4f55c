"""Teacher forcing on a CUDA GPU: what ``Decoder.forward`` computes, in less time.

A decoder's steps and their backpropagation are a thousand small kernels. A GPU runs them in four milliseconds; to
launch them one by one takes a CPU nearly forty (Bahdanau's attention, an H200). A CUDA graph launches all at once, but
with the shapes and the memory that it was captured with. So batches are filled up to one of few shapes, what was filled
in is left out of the outputs, and a graph is captured for each shape when it first comes.
"""

import gc
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from caption_utils.config import DecoderConfig
from caption_utils.model.decoder import Decoder
from caption_utils.runtime import sent

STEPS, CAPTIONS = 4, 16  # lengths and numbers of captions are filled up to multiples of these
MOST_SHAPES = 16  # each keeps its graph and outputs in the GPU's memory; further ones go without


def suits(config: DecoderConfig) -> bool:
    """Whether a decoder goes step by step, and learns from what ``forward`` returns; hard attention adds samples.

    Luong's without input feeding starts few kernels: one call of cuDNN's LSTM takes all steps.
    """
    return (config.attention != "luong" or config.input_feeding) and not config.hard


class Graphed:
    """A ``TeacherForcing`` that captures and replays graphs of ``decoder``, which is on a GPU."""

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self.passes: dict[tuple, Passes] = {}
        self.images = 0  # the most of a batch so far, to which smaller ones are filled up
        self.usable = True

    def __call__(self, features: Tensor, tokens: PackedSequence, owner: Tensor) -> tuple[Tensor, Tensor]:
        """What ``decoder(features, tokens, owner)`` returns: logits ``(P, V)`` and alphas ``(P, N)``."""
        if not self.usable or features.requires_grad or not torch.is_grad_enabled():
            return self.decoder(features, tokens, owner)
        self.images = max(self.images, len(features))
        sizes = tokens.batch_sizes.tolist()
        filled = filled_up(sizes)
        shape = self.images, *filled, features.dtype, self.decoder.training
        places = sent(places_in(filled, sizes), features.device)
        ids = tokens.data.new_zeros(sum(filled)).index_copy_(0, places, tokens.data)
        pictures = F.pad(features, (0, 0, 0, 0, 0, self.images - len(features)))
        inputs = pictures, ids, F.pad(owner, (0, filled[0] - len(owner)))
        if shape not in self.passes and not self.capture(shape, filled, inputs):
            return self.decoder(features, tokens, owner)
        logits, alphas = self.passes[shape](*inputs)
        return logits.index_select(0, places), alphas.index_select(0, places)

    def capture(self, shape: tuple, filled: list[int], inputs: tuple[Tensor, ...]) -> bool:
        """Add the graphs for a shape; returns whether they can be had."""
        if len(self.passes) == MOST_SHAPES:
            return False
        earlier = next(iter(self.passes.values()), None)
        try:
            self.passes[shape] = Passes(self.decoder, filled, inputs, earlier)
        except RuntimeError as error:  # the memory may be too small for graphs alone
            self.usable = False
            self.passes.clear()
            print(f"Training does without CUDA graphs, and takes longer: {error}".split("\n")[0], file=sys.stderr)
        return self.usable


def filled_up(sizes: list[int]) -> list[int]:
    """At least ``sizes``, the captions that still run at each step: of one of few shapes.

    Their number is a multiple of ``CAPTIONS``, half of it or a quarter, and changes after a multiple of ``STEPS``.
    """
    most = -(-sizes[0] // CAPTIONS) * CAPTIONS
    enough = (next(size for size in (most // 4, most // 2, most) if size >= running) for running in sizes[::STEPS])
    return [size for size in enough for _ in range(STEPS)]


def places_in(filled: list[int], sizes: list[int]) -> Tensor:
    """Where the P tokens of a batch lie among those of one that is filled up, ``(P,)``."""
    starts = accumulate(filled, initial=0)
    return torch.cat(
        [torch.arange(start, start + size, device="cpu") for start, size in zip(starts, sizes, strict=False)]
    )


class Passes:
    """The forward and the backward pass of a decoder for batches of one shape, each captured as a graph.

    Inputs, outputs and gradients have the same memory each time. What lies between is in a pool that all share, since
    a batch is through both passes before the next one comes. Raises ``RuntimeError`` if the graphs cannot be captured,
    or give other numbers than the decoder.
    """

    def __init__(self, decoder: Decoder, sizes: list[int], inputs: tuple[Tensor, ...], earlier: "Passes | None"):
        self.decoder, self.sizes = decoder, torch.tensor(sizes, device="cpu")
        self.inputs = [each.clone() for each in inputs]
        self.parameters = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
        device = inputs[0].device
        with torch.random.fork_rng([device]), torch.cuda.device(device):
            self.stream: torch.cuda.Stream = earlier.stream if earlier else torch.cuda.Stream()
            state = torch.cuda.get_rng_state(device)
            outputs, gradients = self.computed()
            self.capture(earlier.forward_graph.pool() if earlier else torch.cuda.graph_pool_handle())
            torch.cuda.set_rng_state(state, device)
            found = [*self.replayed(), *self.replayed_back(of_unit_norm(outputs))]
        # in bfloat16 the order of sums shows, and where a gradient nearly cancels by an eighth of it
        shares = [0.05] * len(outputs) + [0.5] * len(gradients)
        if not all(map(alike, found, [*outputs, *gradients], shares)):
            raise RuntimeError("a captured graph gives other numbers")

    def computed(self) -> tuple[Sequence[Tensor], Sequence[Tensor | None]]:
        """Outputs, and gradients from these, without a graph; what libraries do but once comes before the capture."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            outputs = self.forward()
            given = [output.detach() for output in outputs]
            return given, self.backward(outputs, of_unit_norm(given))

    def capture(self, pool: Any) -> None:
        # another thread, which makes the next batch, may allocate memory meanwhile
        how: dict[str, Any] = {"pool": pool, "stream": self.stream, "capture_error_mode": "thread_local"}
        self.forward_graph, self.backward_graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        current, collects = torch.cuda.current_stream(), gc.isenabled()
        gc.disable()  # to free another graph would end the capture
        try:
            with torch.cuda.graph(self.forward_graph, **how):
                outputs = self.forward()
            self.given = [torch.zeros_like(output) for output in outputs]
            with torch.cuda.graph(self.backward_graph, **how):
                self.gradients = self.backward(outputs, self.given)
        except BaseException:
            clean_up(pool, current)
            raise
        finally:
            if collects:
                gc.enable()
        self.outputs = [output.detach() for output in outputs]

    def forward(self) -> tuple[Tensor, Tensor]:
        features, ids, owner = self.inputs
        torch.clear_autocast_cache()  # the weights in lower precision belong to one graph
        outputs = self.decoder(features, PackedSequence(ids, self.sizes), owner)
        torch.clear_autocast_cache()
        return outputs

    def backward(self, outputs: Sequence[Tensor], given: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """The parameters' gradients from those ``given`` of the outputs; without attention, alphas have none."""
        pairs = [pair for pair in zip(outputs, given, strict=True) if pair[0].requires_grad]
        learning, gradients = zip(*pairs, strict=True)
        with torch.autocast(learning[0].device.type, enabled=False):  # as where training calls ``backward``
            return torch.autograd.grad(learning, self.parameters, gradients, allow_unused=True)

    def replayed(self) -> tuple[Tensor, ...]:
        """The outputs for the inputs as they are now."""
        self.forward_graph.replay()
        return tuple(output.detach() for output in self.outputs)

    def replayed_back(self, given: Sequence[Tensor]) -> list[Tensor | None]:
        """What ``backward`` returns for the outputs of the last ``replayed``; copies, which nothing overwrites."""
        for mine, each in zip(self.given, given, strict=True):
            mine.copy_(each)
        self.backward_graph.replay()
        return [None if each is None else each.clone() for each in self.gradients]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        for mine, each in zip(self.inputs, inputs, strict=True):
            mine.copy_(each)
        return Replay.apply(self, *self.parameters)


def clean_up(pool: Any, stream: torch.cuda.Stream) -> None:
    """Undo what a failed capture leaves: its stream, its pool and, up to PyTorch 2.11, a generator that only raises."""
    torch.cuda.set_stream(stream)
    index = stream.device_index
    with suppress(RuntimeError):  # there is nothing to end if the capture could be
        torch._C._cuda_endAllocateToPool(index, pool)
    generator, fresh = torch.cuda.default_generators[index], torch.Generator(stream.device)
    fresh.set_state(generator.get_state())
    generator.graphsafe_set_state(fresh)


def of_unit_norm(outputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs scaled to unit norm: as gradients they would make those of the parameters overflow in float16."""
    return [(output / output.float().norm()).to(output.dtype) for output in outputs]


def alike(found: Tensor | None, wanted: Tensor | None, share: float) -> bool:
    """Whether two tensors differ by at most a share of their norm, as rounding may make them."""
    if found is None or wanted is None:
        return found is wanted
    found, wanted = found.float(), wanted.float()
    return bool((found - wanted).norm() <= share * wanted.norm())


class Replay(torch.autograd.Function):
    """The two passes as one function of the parameters."""

    @staticmethod
    def forward(ctx, passes: Passes, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.passes = passes
        return passes.replayed()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *given: Tensor):
        return None, *ctx.passes.replayed_back(given)
