"""Teacher forcing with Bahdanau's attention on a CPU: what ``BahdanauDecoder.forward`` computes, in less time.

Same parameters, same values and gradients; only the time loop and its backpropagation are written out:

- The context enters the LSTM alone through ``W_c Σ α_i f_i = Σ α_i (W_c f_i)``, so the *values* ``W_c f_i`` are made
  once for an image, like its keys, and the widest product leaves the loop.
- Recurrent gates and query are products with the same ``h_{t-1}``, and made as one.
- ``tanh(x)`` is ``2 σ(2x) - 1``, so a score is ``2v · σ(2k_i + 2q)`` less a number that is the same for all regions and
  leaves alpha alone. ``σ(x + y) = 1 / (1 + e^{-x} e^{-y})``, so keys and queries are exponentiated once each, not for
  every pair.
- ``s_i = σ(2k_i + 2q)``, by far the largest tensor of a step, is not kept but computed again in the backward pass,
  for a few captions at a time and always into the same memory. Since ``σ' = σ - σ²``, sums of ``s`` and ``s²`` are all
  that the gradients need.
- The gradients of weights and values wait for the end of the loop, where each is one product for all steps.
"""

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from caption_utils.config import DecoderConfig
from caption_utils.fast.layout import ByImage, by_image
from caption_utils.model.decoder import BahdanauDecoder
from caption_utils.model.normalizers import NORMALIZERS

TILE = 16  # captions whose scores are computed at a time, so that they stay in a core's cache


def suits(config: DecoderConfig) -> bool:
    """Whether a decoder is one that ``teacher_forcing`` can stand in for."""
    return config.attention == "bahdanau" and not (config.gate or config.hard)


def teacher_forcing(
    decoder: BahdanauDecoder, features: Tensor, tokens: PackedSequence, owner: Tensor
) -> tuple[Tensor, Tensor]:
    """What ``decoder(features, tokens, owner)`` returns: logits ``(P, V)`` and alphas ``(P, N)``.

    The loop runs in the parameters' precision; it is quickest if images with long captions come first.
    """
    embedded = decoder.dropout(decoder.embedding(tokens.data))
    state, attention, lstm = decoder.init_state(features), decoder.attention, decoder.lstm
    of_word, of_context = lstm.weight_ih.split([embedded.shape[1], state.features.shape[2]], dim=1)
    gates = F.linear(embedded, of_word, lstm.bias_ih + lstm.bias_hh)  # (P, 4H)
    values = F.linear(state.features, of_context)  # (G, N, 4H)
    hidden, cell = state.hidden.index_select(0, owner), state.cell.index_select(0, owner)
    query, score = attention.get_parameter("W_h.weight"), attention.get_parameter("v.weight")
    weight = torch.cat([lstm.weight_hh, -2 * query])
    tensors = gates, hidden, cell, exponential(-2 * state.keys), values, weight, 2 * score[0]
    plan = make_plan(tokens.batch_sizes, owner, len(features))
    with torch.autocast(features.device.type, enabled=False):
        exact = (tensor.to(weight.dtype) for tensor in tensors)
        outputs, alphas = Unroll.apply(*exact, plan, decoder.config.normalizer)
    if decoder.config.deep_output:
        outputs = torch.cat([outputs, plan.tokens.product(alphas, state.features)], dim=1)
    return decoder.logits(outputs, embedded), alphas


def exponential(exponent: Tensor) -> Tensor:
    """``e^x`` in float32 at least; x is cut at ±40, so that the product of two is finite."""
    return exponent.clamp(-40, 40).to(torch.promote_types(exponent.dtype, torch.float32)).exp()


def sigmoid_of_sum(left: Tensor, right: Tensor, room: Tensor) -> Tensor:
    """``σ(x + y)`` of ``left``, ``e^{-x}``, and ``right``, ``e^{-y}``, into the first rows of ``room``."""
    return torch.addcmul(left.new_ones(()), left, right, out=room[: len(left)]).reciprocal_()


class Step(NamedTuple):
    """One step of the loop, in which the first ``size`` captions still run."""

    size: int
    rows: slice  # their tokens among all P
    layout: ByImage


class Plan(NamedTuple):
    """The loop's steps, and whose image each caption and each token belongs to."""

    steps: list[Step]
    owner: Tensor  # (B,)
    tokens: ByImage


def make_plan(batch_sizes: Tensor, owner: Tensor, images: int) -> Plan:
    """The plan for packed captions of the images ``owner (B,)``, out of G ``images``."""
    sizes = batch_sizes.tolist()
    running = [owner[:size] for size in sizes]
    rows = (slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True))
    steps = list(map(Step, sizes, rows, map(by_image, running)))
    return Plan(steps, owner, by_image(torch.cat(running), images))


class Unroll(torch.autograd.Function):
    """The loop: hidden states ``(P, H)`` and alphas ``(P, N)`` after each token, and its gradient.

    ``gates (P, 4H)`` come from the embedding, biases included; ``hidden`` and ``cell`` ``(B, H)`` are the first states;
    ``keys (G, N, A)``, ``e^{-k_i}``, and ``values (G, N, 4H)`` belong to images; ``weight (4H + A, H)`` makes recurrent
    gates and ``-q`` of a hidden state, ``q`` being the query; ``v (A,)`` makes a score of ``σ(k_i + q)``. Of these
    ``k_i``, ``q`` and ``v`` are twice the attention's.
    """

    @staticmethod
    def forward(ctx, gates, hidden, cell, keys, values, weight, v, plan, normalizer):
        keys_of, found = keys.index_select(0, plan.owner), []
        room = torch.empty_like(keys_of[:TILE])
        for size, rows, layout in plan.steps:
            hidden, cell = hidden[:size], cell[:size]
            recurrent, asked = (hidden @ weight.T).split([gates.shape[1], len(v)], dim=1)
            query = exponential(asked)
            tiles = zip(keys_of[:size].split(TILE), query.unsqueeze(1).split(TILE), strict=True)
            alpha = NORMALIZERS[normalizer](torch.cat([sigmoid_of_sum(*tile, room) @ v for tile in tiles]))
            before = hidden, cell
            active, hidden, cell = lstm_cell(gates[rows] + recurrent + layout.product(alpha, values), cell)
            found.append((query, alpha, active, *before, hidden, cell))
        queries, alphas, *memory, hiddens, cells = map(torch.cat, zip(*found, strict=True))
        ctx.plan, ctx.normalizer = plan, normalizer
        ctx.save_for_backward(queries, alphas, *memory, hiddens, cells, keys, keys_of, values, weight, v)
        return hiddens, alphas

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_hiddens, grad_alphas):
        queries, alphas, active, hiddens_before, cells_before, *after, keys, keys_of, values, weight, v = (
            ctx.saved_tensors
        )
        slopes, bends = lstm_slopes(active, cells_before, *after)
        kept = active.chunk(4, dim=1)[1]  # by the forget gate
        d_made = active.new_empty(len(active), len(weight))  # gradient of what ``weight`` makes: gates, then ``-q``
        d_gates, d_queries = d_made.split([active.shape[1], len(v)], dim=1)
        d_hidden, d_cell = active.new_zeros(2, len(keys_of), weight.shape[1])
        score = ScoreGradient(keys_of, v)
        for size, rows, layout in reversed(ctx.plan.steps):
            dh = d_hidden[:size].add_(grad_hiddens[rows])
            dc = d_cell[:size].addcmul_(dh, bends[rows])
            d_gates[rows] = (slopes[rows] * torch.stack([dc, dc, dc, dh], dim=1)).flatten(1)
            d_alpha = grad_alphas[rows] + layout.product(d_gates[rows], values.mT)
            score.add(queries[rows], through(ctx.normalizer, alphas[rows], d_alpha), out=d_queries[rows])
            torch.mm(d_made[rows], weight, out=dh)
            dc.mul_(kept[rows])
        d_weight = d_made.T @ hiddens_before
        d_values = ctx.plan.tokens.spread(alphas).mT @ ctx.plan.tokens.spread(d_gates)
        d_keys = score.of_images(keys, ctx.plan.owner)
        return d_gates, d_hidden, d_cell, d_keys, d_values, d_weight, score.v, None, None


class ScoreGradient:
    """Adds up the gradients of keys and ``v`` over the steps, and returns that of ``-q`` for each step.

    With ``s = σ(k_i + q)`` and ``d`` the gradient of the scores: ``v d (s - s²)`` for ``k_i``, its sum over the regions
    for ``q``, and ``d s`` for ``v``. The captions' keys ``(B, N, A)`` and queries come as ``e^{-k_i}`` and ``e^{-q}``.
    """

    def __init__(self, keys: Tensor, v: Tensor):
        self._keys, self._minus_v, self.v = keys, -v, torch.zeros_like(v)
        self._room, self._slopes = torch.empty_like(keys[:TILE]), torch.zeros_like(keys)

    def add(self, queries: Tensor, d_scores: Tensor, out: Tensor) -> None:
        """Take a step's queries ``(b, A)`` and the gradient ``(b, N)`` of its scores; ``out`` gets that of ``-q``."""
        whole = self._keys[: len(queries)], self._slopes[: len(queries)], queries.unsqueeze(1), d_scores, out
        for keys, slopes, query, d, found in zip(*(tensor.split(TILE) for tensor in whole), strict=True):
            s = sigmoid_of_sum(keys, query, self._room)
            self.v.addmv_(s.flatten(0, 1).T, d.flatten())
            slope = s.addcmul_(s, s, value=-1)
            slopes.addcmul_(slope, d.unsqueeze(2))
            torch.mul((d.unsqueeze(1) @ slope).squeeze(1), self._minus_v, out=found)

    def of_images(self, keys: Tensor, owner: Tensor) -> Tensor:
        """The gradient of the images' keys ``(G, N, A)``, once all steps are in; captions are of ``owner (B,)``."""
        return torch.zeros_like(keys).index_add_(0, owner, self._slopes).mul_(self._minus_v).div_(keys)


def through(normalizer: str, alpha: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of the scores from that of ``alpha (b, N)``: ``diag(s) - s sᵀ / Σ s`` times it.

    s is alpha itself, its root, or 1 where it is not 0: Peters et al. 2019, proposition 2.
    """
    s = {"softmax": alpha, "entmax": alpha.sqrt(), "sparsemax": (alpha > 0).to(alpha.dtype)}[normalizer]
    mean = (s * gradient).sum(dim=1, keepdim=True) / s.sum(dim=1, keepdim=True)
    return s * (gradient - mean)


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The LSTM's equations: ``gates (b, 4H)`` as activations, and the new hidden and cell states ``(b, H)``."""
    i, f, g, o = gates.chunk(4, dim=1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    cell = f * cell + i * g
    return torch.cat([i, f, g, o], dim=1), o * cell.tanh(), cell


def lstm_slopes(active: Tensor, before: Tensor, hidden: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """How the new states change with the gates, ``(P, 4, H)``, and the hidden with the cell state, ``(P, H)``.

    Input, forget and candidate gates act on the cell state, ``before`` and ``after`` a step, the output gate on the
    hidden one.
    """
    i, f, g, o = active.chunk(4, dim=1)
    slopes = torch.stack([i * (1 - i) * g, f * (1 - f) * before, i * (1 - g**2), (1 - o) * hidden], dim=1)
    return slopes, o * (1 - after.tanh() ** 2)
