"""Bahdanau's decoder through all steps of a batch, forward and backward: the time loop of teacher forcing.

``BahdanauDecoder.step`` is the formulation to read; this one computes the same with less work:

- The context enters the LSTM alone through ``W_c Σ α_i f_i = Σ α_i (W_c f_i)``, so the *values* ``W_c f_i`` are made
  once for an image, like its keys, and the widest product leaves the loop.
- Recurrent gates and query are products with the same ``h_{t-1}``, and made as one.
- ``tanh(x)`` is ``2 σ(2x) - 1``. A score is then ``2v · σ(2k_i + 2q)``, less a number that is the same for all regions
  and leaves alpha alone. Keys, queries and ``v`` are doubled before the loop, and keys are ``e^{-2k_i}``, so that ``σ``
  needs no exponential of pairs (``attention.sigmoid_of_sum``).
- ``s_i = σ(2k_i + 2q)``, by far the largest tensor of a step, is not kept but computed again in the backward pass,
  always into the same memory. Since ``σ' = σ - σ²``, sums of ``s`` and ``s²`` are all that the gradients need.
- The gradients of weights and values wait for the end of the loop, where each is one product for all steps.
"""

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from caption_utils.attention import exponential, sigmoid_of_sum
from caption_utils.packing import ByImage, by_image, owner_of_tokens


class Step(NamedTuple):
    """One step of the loop. States ``(B + P, H)`` are the B first ones, then one for each token."""

    size: int  # captions that still run: the first so many
    layout: ByImage  # those captions as (g, S), of the first g images, the others having none that runs
    now: slice  # its tokens, among P
    before: slice  # their previous states, among B + P
    after: slice  # the states they lead to, among B + P


class Plan(NamedTuple):
    """The loop's steps, and whose image each token belongs to."""

    steps: list[Step]
    tokens: ByImage  # P tokens as (G, L)


def make_plan(batch_sizes: Tensor, owner: Tensor, images: int) -> Plan:
    """The plan for packed captions of the images ``owner (B,)``; quickest if images with long captions come first."""
    sizes, count, captions = batch_sizes.tolist(), len(owner), by_image(owner, images)
    running = (owner.cummax(0).values[batch_sizes.to(owner.device) - 1] + 1).tolist()
    steps, before = [], 0
    for size, most, end in zip(sizes, running, accumulate(sizes), strict=True):
        after = slice(count + end - size, count + end)
        layout = captions.first(size, most)
        steps.append(Step(size, layout, slice(end - size, end), slice(before, before + size), after))
        before = after.start
    return Plan(steps, by_image(owner_of_tokens(batch_sizes, owner), images))


def unroll(
    gates: Tensor, hidden: Tensor, cell: Tensor, keys: Tensor, values: Tensor, weight: Tensor, v: Tensor, plan: Plan
) -> tuple[Tensor, Tensor]:
    """Hidden states ``(P, H)`` and alphas ``(P, N)`` after each token.

    ``gates (P, 4H)`` come from the embedding, biases included; ``hidden`` and ``cell`` ``(B, H)`` are the first states;
    ``keys (B, N, A)``, ``e^{-k_i}``, belong to captions, ``values (G, N, 4H)`` to images; ``weight (4H + A, H)`` makes
    recurrent gates and query ``q`` of a hidden state, ``v (A,)`` a score of ``σ(k_i + q)``. Of these ``k_i``, ``q`` and
    ``v`` are twice the attention's. All is computed in the precision of ``weight``.
    """
    with torch.autocast(weight.device.type, enabled=False):
        tensors = [tensor.to(weight.dtype) for tensor in (gates, hidden, cell, keys, values, weight, v)]
        return Unroll.apply(*tensors, plan)


class Unroll(torch.autograd.Function):
    """``unroll`` and, by backpropagation through time, its gradient."""

    @staticmethod
    def forward(ctx, gates, hidden, cell, keys, values, weight, v, plan):
        active, alphas = torch.empty_like(gates), gates.new_empty(len(gates), keys.shape[1])
        queries, memory = gates.new_empty(len(gates), len(v)), torch.empty_like(keys)
        hiddens, cells = (torch.cat([first, first.new_empty(len(gates), first.shape[1])]) for first in (hidden, cell))
        for step in plan.steps:
            recurrent, query = (hiddens[step.before] @ weight.T).split([gates.shape[1], len(v)], dim=1)
            queries[step.now] = exponential(query)
            alpha = (sigmoid_of_sum(keys[: step.size], queries[step.now, None], memory) @ v).softmax(dim=1)
            fed = for_each_caption(alpha, values, step)
            torch.add(gates[step.now], recurrent, out=active[step.now]).add_(fed)
            lstm_cell(active[step.now], cells[step.before], hiddens[step.after], cells[step.after])
            alphas[step.now] = alpha
        ctx.plan = plan
        ctx.save_for_backward(active, alphas, queries, hiddens, cells, keys, values, weight, v)
        return hiddens[len(hidden) :].clone(), alphas

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_hiddens, grad_alphas):
        active, alphas, queries, hiddens, cells, keys, values, weight, v = ctx.saved_tensors
        slopes, cell_slopes = lstm_slopes(active, cells, ctx.plan)
        grad = hiddens.new_empty(len(active), len(weight))  # of what ``weight`` makes: gates, then query
        grad_gates, grad_queries = grad.split([active.shape[1], len(v)], dim=1)
        grad_hidden, grad_cell = torch.zeros_like(hiddens[: len(keys)]), torch.zeros_like(cells[: len(keys)])
        score = ScoreGradient(keys, v)
        for step in reversed(ctx.plan.steps):
            now, size = step.now, step.size
            dh = grad_hidden[:size].add_(grad_hiddens[now])
            dc = grad_cell[:size].addcmul_(dh, cell_slopes[now])
            torch.mul(slopes[now, :3], dc[:, None], out=grad_gates[now].unflatten(1, (4, -1))[:, :3])
            torch.mul(slopes[now, 3], dh, out=grad_gates[now].unflatten(1, (4, -1))[:, 3])
            grad_alpha = for_each_caption(grad_gates[now], values.transpose(1, 2), step)
            grad_alpha += grad_alphas[now]
            grad_queries[now] = score.add(queries[now], alphas[now], grad_alpha)
            torch.mm(grad[now], weight, out=dh)
            dc.mul_(active[now].chunk(4, dim=1)[1])  # the forget gate
        grad_weight = grad.T @ torch.cat([hiddens[step.before] for step in ctx.plan.steps])
        grad_values = ctx.plan.tokens.spread(alphas).transpose(1, 2) @ ctx.plan.tokens.spread(grad_gates)
        return grad_gates, grad_hidden, grad_cell, score.keys(), grad_values, grad_weight, score.v, None


class ScoreGradient:
    """Adds up the gradients of keys and ``v`` over the steps, and gives each step's query its own.

    With ``s = σ(k_i + q)`` and ``d`` the gradient of the scores: ``v d (s - s²)`` for ``k_i``, its sum over the regions
    for the query, and ``d s`` for ``v``. Keys and queries come as ``e^{-k_i}`` and ``e^{-q}``.
    """

    def __init__(self, keys: Tensor, v: Tensor):
        self._keys, self._v, self.v = keys, v, torch.zeros_like(v)
        self._memory, self._slopes = torch.empty_like(keys), torch.zeros_like(keys)

    def add(self, query: Tensor, alpha: Tensor, grad_alpha: Tensor) -> Tensor:
        """Take one step's queries ``(b, A)`` and alphas ``(b, N)`` with their gradient; returns that of ``q``."""
        weighted = alpha * grad_alpha
        scores = torch.addcmul(weighted, alpha, weighted.sum(dim=1, keepdim=True), value=-1)
        bent = sigmoid_of_sum(self._keys[: len(query)], query[:, None], self._memory)
        self.v += scores.flatten() @ bent.flatten(0, 1)
        slope = bent.addcmul_(bent, bent, value=-1)
        self._slopes[: len(query)].addcmul_(slope, scores[..., None])
        return (scores[:, None] @ slope).squeeze(1) * self._v

    def keys(self) -> Tensor:
        """The keys' gradient ``(B, N, A)``, once all steps are in."""
        return self._slopes.mul_(-self._v).div_(self._keys)


def for_each_caption(rows: Tensor, matrices: Tensor, step: Step) -> Tensor:
    """Rows ``(b, X)`` of the captions that still run, each times its image's one of ``matrices (G, X, Y)``."""
    return step.layout.collect(step.layout.spread(rows) @ matrices[: step.layout.images])


def lstm_cell(gates: Tensor, cell: Tensor, new_hidden: Tensor, new_cell: Tensor) -> None:
    """The LSTM's equations: ``gates (b, 4H)`` become activations in place, and the new states are written."""
    i, f, g, o = gates.chunk(4, dim=1)
    for sigmoid in (i, f, o):
        sigmoid.sigmoid_()
    g.tanh_()
    torch.mul(f, cell, out=new_cell).addcmul_(i, g)
    torch.mul(o, new_cell.tanh(), out=new_hidden)


def lstm_slopes(active: Tensor, cells: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """How the new states change with the gates, ``(P, 4, H)``, and the hidden with the cell state, ``(P, H)``.

    Input, forget and candidate gates act on the cell state, the output gate on the hidden one.
    """
    i, f, g, o = active.chunk(4, dim=1)
    before, bent = torch.cat([cells[step.before] for step in plan.steps]), cells[len(cells) - len(active) :].tanh()
    slopes = [g * i * (1 - i), before * f * (1 - f), i * (1 - g * g), bent * o * (1 - o)]
    return torch.stack(slopes, dim=1), o * (1 - bent * bent)
