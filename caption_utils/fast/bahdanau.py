"""Teacher forcing with Bahdanau's attention on a CPU: what ``BahdanauDecoder.forward`` computes, in less time.

Same parameters, same values and gradients; only the time loop and its backpropagation are written out:

- The context enters the LSTM alone through ``W_c Σ α_i f_i = Σ α_i (W_c f_i)``, so the *values* ``W_c f_i`` are made
  once for an image, like its keys, and the widest product leaves the loop.
- Recurrent gates and query are products with the same ``h_{t-1}``, and made as one.
- ``tanh(x)`` is ``2 σ(2x) - 1``, so a score is ``2v · σ(2k_i + 2q)`` less a number that is the same for all regions and
  leaves alpha alone. ``σ(x + y) = 1 / (1 + e^{-x} e^{-y})``, so keys and queries are exponentiated once each, not for
  every pair.
- ``s_i = σ(2k_i + 2q)``, by far the largest tensor of a step, is not kept but computed again in the backward pass,
  always into the same memory. Since ``σ' = σ - σ²``, sums of ``s`` and ``s²`` are all that the gradients need.
- The gradients of weights and values wait for the end of the loop, where each is one product for all steps.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from caption_utils.config import DecoderConfig
from caption_utils.fast.layout import ByImage, by_image
from caption_utils.model.decoder import BahdanauDecoder
from caption_utils.model.normalizers import NORMALIZERS


def suits(config: DecoderConfig) -> bool:
    """Whether a decoder is one that ``teacher_forcing`` can stand in for."""
    return config.attention == "bahdanau" and not (config.gate or config.hard)


def teacher_forcing(
    decoder: BahdanauDecoder, features: Tensor, tokens: PackedSequence, owner: Tensor
) -> tuple[Tensor, Tensor]:
    """What ``decoder(features, tokens, owner)`` returns: logits ``(P, V)`` and alphas ``(P, N)``."""
    embedded = decoder.dropout(decoder.embedding(tokens.data))
    state, attention, lstm = decoder.init_state(features), decoder.attention, decoder.lstm
    of_word, of_context = lstm.weight_ih.split([embedded.shape[1], state.features.shape[2]], dim=1)
    gates = F.linear(embedded, of_word, lstm.bias_ih + lstm.bias_hh)  # (P, 4H)
    values = F.linear(state.features, of_context)  # (G, N, 4H)
    hidden, cell = state.hidden.index_select(0, owner), state.cell.index_select(0, owner)
    query, score = attention.get_parameter("W_h.weight"), attention.get_parameter("v.weight")
    weight = torch.cat([lstm.weight_hh, -2 * query])
    plan = make_plan(tokens.batch_sizes, owner, len(features))
    keys, v = exponential(-2 * state.keys), 2 * score[0]
    outputs, alphas = unroll(gates, hidden, cell, keys, values, weight, v, plan, decoder.config.normalizer)
    if decoder.config.deep_output:
        contexts = plan.tokens.collect(plan.tokens.spread(alphas) @ state.features)
        outputs = torch.cat([outputs, contexts], dim=1)
    return decoder.logits(outputs, embedded), alphas


def exponential(exponent: Tensor, out: Tensor | None = None) -> Tensor:
    """``e^x`` in float32 at least; x is cut at ±40, so that the product of two is finite."""
    return torch.exp(exponent.clamp(-40, 40).to(torch.promote_types(exponent.dtype, torch.float32)), out=out)


def sigmoid_of_sum(left: Tensor, right: Tensor, room: Tensor) -> Tensor:
    """``σ(x + y)`` of ``left``, ``e^{-x}``, and ``right``, ``e^{-y}``, into the first rows of ``room``."""
    return torch.addcmul(left.new_ones(()), left, right, out=room[: len(left)]).reciprocal_()


class Plan(NamedTuple):
    """The loop's steps, and whose image each caption and each token belongs to."""

    sizes: list[int]  # captions that still run at each step: the first so many
    layouts: list[ByImage]  # those captions as (g, S), of the first g images, the others having none that runs
    owner: Tensor  # (B,)
    tokens: ByImage  # P tokens as (G, L)

    def each(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Views of the rows ``(b, …)`` of each step, for tensors ``(P, …)`` of the tokens."""
        return zip(*(tensor.split(self.sizes) for tensor in tensors), strict=True)

    def before(self, states: Tensor) -> list[Tensor]:
        """Views ``(b, H)`` of the states before each step, of ``(B + P, H)``: first ones, and one after each token."""
        parts = states.split([self.sizes[0], *self.sizes])
        return [state[:size] for state, size in zip(parts, self.sizes, strict=False)]


def make_plan(batch_sizes: Tensor, owner: Tensor, images: int) -> Plan:
    """The plan for packed captions of the images ``owner (B,)``; quickest if images with long captions come first."""
    captions, sizes = by_image(owner, images), batch_sizes.tolist()
    running = (owner.cummax(0).values[batch_sizes - 1] + 1).tolist()
    layouts = [captions.first(size, most) for size, most in zip(sizes, running, strict=True)]
    return Plan(sizes, layouts, owner, by_image(torch.cat([owner[:size] for size in sizes]), images))


def unroll(
    gates: Tensor,
    hidden: Tensor,
    cell: Tensor,
    keys: Tensor,
    values: Tensor,
    weight: Tensor,
    v: Tensor,
    plan: Plan,
    normalizer: str,
) -> tuple[Tensor, Tensor]:
    """Hidden states ``(P, H)`` and alphas ``(P, N)`` after each token.

    ``gates (P, 4H)`` come from the embedding, biases included; ``hidden`` and ``cell`` ``(B, H)`` are the first states;
    ``keys (G, N, A)``, ``e^{-k_i}``, and ``values (G, N, 4H)`` belong to images; ``weight (4H + A, H)`` makes recurrent
    gates and ``-q`` of a hidden state, ``q`` being the query; ``v (A,)`` makes a score of ``σ(k_i + q)``. Of these
    ``k_i``, ``q`` and ``v`` are twice the attention's. All is computed in the precision of ``weight``.
    """
    with torch.autocast(weight.device.type, enabled=False):
        tensors = [tensor.to(weight.dtype) for tensor in (gates, hidden, cell, keys, values, weight, v)]
        return Unroll.apply(*tensors, plan, normalizer)


class Unroll(torch.autograd.Function):
    """``unroll`` and, by backpropagation through time, its gradient."""

    @staticmethod
    def forward(ctx, gates, hidden, cell, keys, values, weight, v, plan, normalizer):
        keys_of = keys.index_select(0, plan.owner)  # (B, N, A)
        active, alphas = torch.empty_like(gates), gates.new_empty(len(gates), keys.shape[1])
        queries, memory = gates.new_empty(len(gates), len(v)), torch.empty_like(keys_of)
        hiddens, cells = (torch.cat([start, start.new_empty(len(gates), start.shape[1])]) for start in (hidden, cell))
        before = zip(plan.before(hiddens), plan.before(cells), strict=True)
        rows = plan.each(gates, active, queries, alphas, hiddens[len(hidden) :], cells[len(cell) :])
        for size, layout, (h, c), row in zip(plan.sizes, plan.layouts, before, rows, strict=True):
            gate, now, query, alpha, new_h, new_c = row
            recurrent, asked = (h @ weight.T).split([gates.shape[1], len(v)], dim=1)
            exponential(asked, out=query)
            scores = sigmoid_of_sum(keys_of[:size], query.unsqueeze(1), memory) @ v
            alpha.copy_(NORMALIZERS[normalizer](scores))
            torch.add(gate, recurrent, out=now).add_(for_each_caption(alpha, values, layout))
            lstm_cell(now, c, new_h, new_c)
        ctx.plan, ctx.normalizer = plan, normalizer
        ctx.save_for_backward(active, alphas, queries, hiddens, cells, keys, keys_of, values, weight, v)
        return hiddens[len(hidden) :].clone(), alphas

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_hiddens, grad_alphas):
        active, alphas, queries, hiddens, cells, keys, keys_of, values, weight, v = ctx.saved_tensors
        plan, captions = ctx.plan, len(keys_of)
        cells_before, hiddens_before = (torch.cat(plan.before(states)) for states in (cells, hiddens))
        slopes, bends = lstm_slopes(active, cells_before, cells[captions:], hiddens[captions:])
        kept = active.chunk(4, dim=1)[1]  # by the forget gate
        d_made = hiddens.new_empty(len(active), len(weight))  # gradient of what ``weight`` makes: gates, then ``-q``
        d_gates, d_queries = d_made.split([active.shape[1], len(v)], dim=1)
        by_gate = d_gates.unflatten(1, (4, -1))
        d_hidden, d_cell = torch.zeros_like(hiddens[:captions]), torch.zeros_like(cells[:captions])
        score = ScoreGradient(keys_of, v, ctx.normalizer)
        given = plan.each(queries, alphas, grad_alphas, grad_hiddens, slopes[:, :3], slopes[:, 3], bends, kept)
        wanted = plan.each(d_made, d_gates, by_gate[:, :3], by_gate[:, 3], d_queries)
        for size, layout, from_forward, gradients in reversed(list(zip(*plan[:2], given, wanted, strict=True))):
            query, alpha, grad_alpha, grad_hidden, slopes_of_cell, slope_of_hidden, bend, keep = from_forward
            d_all, d_gate, d_cell_gates, d_output_gate, d_query = gradients
            dh = d_hidden[:size].add_(grad_hidden)
            dc = d_cell[:size].addcmul_(dh, bend)
            torch.mul(slopes_of_cell, dc.unsqueeze(1), out=d_cell_gates)
            torch.mul(slope_of_hidden, dh, out=d_output_gate)
            d_alpha = for_each_caption(d_gate, values.mT, layout).add_(grad_alpha)
            score.add(query, alpha, d_alpha, out=d_query)
            torch.mm(d_all, weight, out=dh)
            dc.mul_(keep)
        d_weight = d_made.T @ hiddens_before
        d_values = plan.tokens.spread(alphas).mT @ plan.tokens.spread_over_all(d_gates)
        return d_gates, d_hidden, d_cell, score.of_images(keys, plan.owner), d_values, d_weight, score.v, None, None


class ScoreGradient:
    """Adds up the gradients of keys and ``v`` over the steps, and gives the ``-q`` of each step its own.

    With ``s = σ(k_i + q)`` and ``d`` the gradient of the scores: ``v d (s - s²)`` for ``k_i``, its sum over the regions
    for ``q``, and ``d s`` for ``v``. The captions' keys ``(B, N, A)`` and queries come as ``e^{-k_i}`` and ``e^{-q}``.
    """

    def __init__(self, keys: Tensor, v: Tensor, normalizer: str):
        self._normalizer = normalizer
        self._keys, self._minus_v, self.v = keys, -v, torch.zeros_like(v)
        self._memory, self._slopes = torch.empty_like(keys), torch.zeros_like(keys)

    def add(self, query: Tensor, alpha: Tensor, grad_alpha: Tensor, out: Tensor) -> None:
        """Take a step's queries ``(b, A)`` and alphas ``(b, N)`` with their gradient; ``out`` gets that of ``-q``."""
        diagonal, share = jacobian(alpha, self._normalizer)
        weighted = diagonal * grad_alpha
        scores = torch.addcmul(weighted, share, weighted.sum(dim=1, keepdim=True), value=-1)
        bent = sigmoid_of_sum(self._keys[: len(query)], query.unsqueeze(1), self._memory)
        self.v.addmv_(bent.flatten(0, 1).T, scores.flatten())
        slope = bent.addcmul_(bent, bent, value=-1)
        self._slopes[: len(query)].addcmul_(slope, scores.unsqueeze(2))
        torch.mul((scores.unsqueeze(1) @ slope).squeeze(1), self._minus_v, out=out)

    def of_images(self, keys: Tensor, owner: Tensor) -> Tensor:
        """The gradient of the images' keys ``(G, N, A)``, once all steps are in; captions are of ``owner (B,)``."""
        return torch.zeros_like(keys).index_add_(0, owner, self._slopes).mul_(self._minus_v).div_(keys)


def jacobian(alpha: Tensor, normalizer: str) -> tuple[Tensor, Tensor]:
    """``s`` and ``s / Σ s`` of ``diag(s) - s sᵀ / Σ s``, how ``alpha (b, N)`` changes with the scores.

    s is alpha itself, its root, or 1 where it is not 0: Peters et al. 2019, proposition 2.
    """
    if normalizer == "softmax":
        return alpha, alpha
    s = alpha.sqrt() if normalizer == "entmax" else (alpha > 0).to(alpha.dtype)
    return s, s / s.sum(dim=1, keepdim=True)


def for_each_caption(rows: Tensor, matrices: Tensor, layout: ByImage) -> Tensor:
    """Rows ``(b, X)`` of captions, each times its image's one of ``matrices (G, X, Y)``."""
    return layout.collect(layout.spread_over_all(rows) @ matrices[: len(layout.row_of_cell) // layout.longest])


def lstm_cell(gates: Tensor, cell: Tensor, new_hidden: Tensor, new_cell: Tensor) -> None:
    """The LSTM's equations: ``gates (b, 4H)`` become activations in place, and the new states are written."""
    i, f, g, o = gates.chunk(4, dim=1)
    gates[:, : 2 * i.shape[1]].sigmoid_()
    g.tanh_()
    o.sigmoid_()
    torch.mul(f, cell, out=new_cell).addcmul_(i, g)
    torch.mul(o, new_cell.tanh(), out=new_hidden)


def lstm_slopes(active: Tensor, before: Tensor, after: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """How the new states change with the gates, ``(P, 4, H)``, and the hidden with the cell state, ``(P, H)``.

    Input, forget and candidate gates act on the cell state, ``before`` and ``after`` a step, the output gate on the
    hidden one.
    """
    i, f, g, o = active.chunk(4, dim=1)
    slopes = torch.stack([i * (1 - i) * g, f * (1 - f) * before, i * (1 - g**2), (1 - o) * hidden], dim=1)
    return slopes, o * (1 - after.tanh() ** 2)
