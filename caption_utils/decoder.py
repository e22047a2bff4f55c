"""Regions to words: LSTM decoders that attend, one with Bahdanau's attention and one with Luong's.

Shapes: **B** captions · **G** images those captions are of · **T** caption steps · **N** regions · **D** features ·
**E** embedding · **H** hidden · **A** attention width · **O** output vector, E or H · **V** vocabulary · **P** real
tokens of a batch, packed: ``torch.nn.utils.rnn.PackedSequence`` order, captions from longest to shortest, no padding.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from caption_utils.attention import BahdanauAttention, LuongAttention
from caption_utils.dropout import Dropout
from caption_utils.errors import InputError
from caption_utils.lstm import hidden_states
from caption_utils.packing import ByImage, by_image, one_each, owner_of_tokens
from caption_utils.unroll import make_plan, unroll


@dataclass(frozen=True)
class DecoderConfig:
    """All that shapes a decoder. ``score`` and ``input_feeding`` are Luong's; ``attention_dim`` is additive scores'.

    ``region_dim``, unless 0, is the width to which features are first projected. ``dropout`` falls on embeddings and
    output vectors, ``feature_dropout`` on features and their projection.
    """

    vocab_size: int
    feature_dim: int
    attention: str = "bahdanau"
    score: str = "general"
    input_feeding: bool = False
    embed_dim: int = 512
    hidden_dim: int = 256
    attention_dim: int = 256
    region_dim: int = 0
    dropout: float = 0.5
    feature_dropout: float = 0.0
    deep_output: bool = False
    tie_weights: bool = False

    @property
    def context_dim(self) -> int:
        """Width of what the decoder attends to, and so of the context vector."""
        return self.region_dim or self.feature_dim

    @property
    def through_embedding(self) -> bool:
        """Whether the output vector is as wide as a word's, being added to one or compared with them."""
        return self.deep_output or self.tie_weights

    @property
    def output_dim(self) -> int:
        """Width of the output vector, from which the vocabulary's logits are made."""
        return self.embed_dim if self.through_embedding else self.hidden_dim


@dataclass(frozen=True)
class State:
    """What a decoder carries from word to word: G images, and the memory of each of B captions of them."""

    features: Tensor  # (G, N, D)
    keys: Tensor  # (G, N, A)
    layout: ByImage  # whose image each caption describes
    hidden: Tensor  # (B, H)
    cell: Tensor  # (B, H)
    attentional: Tensor | None = None  # (B, O), only with input feeding

    def select(self, captions: Tensor) -> "State":
        """The state of some captions, in this order; one may come several times.

        Images without any leave once they are a fifth of all: it costs a copy of the others.
        The gradient adds up in a fixed order, unlike that of ``value[captions]``, so that runs repeat to the last bit.
        """
        features, keys, owner = self.features, self.keys, self.layout.owner[captions]
        kept, place = owner.unique(return_inverse=True)
        if len(kept) <= 0.8 * len(features):
            features, keys, owner = features.index_select(0, kept), keys.index_select(0, kept), place
        state = replace(self, features=features, keys=keys, layout=by_image(owner, len(features)))
        return state._map_recurrent(lambda value: value.index_select(0, captions))

    def first(self, layout: ByImage) -> "State":
        """The state of the first captions, those of ``layout``."""
        features, keys = self.features[: layout.images], self.keys[: layout.images]
        state = replace(self, features=features, keys=keys, layout=layout)
        return state._map_recurrent(lambda value: value[: len(layout.cells)])

    def _map_recurrent(self, change: Callable[[Tensor], Tensor]) -> "State":
        fed = None if self.attentional is None else change(self.attentional)
        return replace(self, hidden=change(self.hidden), cell=change(self.cell), attentional=fed)


class Decoder(nn.Module):
    """What both decoders share; a subclass says in ``recur`` in which order to attend and to step the LSTM."""

    def __init__(self, config: DecoderConfig, attention: nn.Module, fed_dim: int):
        """``fed_dim``: width of what enters the LSTM beside the embedding, 0 for nothing."""
        super().__init__()
        self.config = config
        self.attention = attention
        self.embedding = nn.Embedding(config.vocab_size, config.embed_dim)
        self.lstm = nn.LSTM(config.embed_dim, config.hidden_dim)
        self.fed_gates = nn.Linear(fed_dim, 4 * config.hidden_dim, bias=False) if fed_dim else None
        self.project = projection(config)
        self.initial = nn.Linear(config.context_dim, 2 * config.hidden_dim)
        self.to_embedding: nn.Module = nn.Identity()
        self.output = nn.Linear(config.output_dim, config.vocab_size)
        self.dropout = Dropout(config.dropout)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        if config.tie_weights:
            self.output.weight = self.embedding.weight

    def init_state(self, features: Tensor) -> State:
        """The state before the first word of one caption an image, from its mean feature (Xu et al. 2015, 3.1.2)."""
        regions = self.project(features)
        hidden, cell = torch.tanh(self.initial(regions.mean(dim=1))).chunk(2, dim=-1)
        return State(regions, self.attention.keys(regions), one_each(len(regions), regions.device), hidden, cell)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Read one word: tokens ``(B,)`` to logits ``(B, V)`` of the next word, alpha ``(B, N)`` and the new state.

        Captions that read the same word share its embedding's gates, and in training its dropout.
        """
        words, place = tokens.unique(return_inverse=True)
        embedded = self.dropout(self.embedding(words))
        output, alpha, state = self.recur(self.input_gates(embedded).index_select(0, place), state)
        return self.logits(output, embedded.index_select(0, place)), alpha, state

    def forward(self, features: Tensor, tokens: PackedSequence, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing: logits ``(P, V)`` of the word after each token, and alphas ``(P, N)``.

        ``features (G, N, D)`` belong to G images; ``owner (B,)`` says whose image each packed caption describes.
        Everything that does not wait for the recurrence (keys, the embedding's half of the gates, the vocabulary) is
        one product for all steps. The captions of an image share its regions; those that have ended leave the loop.
        """
        embedded = self.dropout(self.embedding(tokens.data))
        gates = self.input_gates(embedded).split(tokens.batch_sizes.tolist())  # T × (b, 4H)
        state = self.init_state(features).select(owner)
        steps = make_plan(tokens.batch_sizes, state.layout.owner, state.layout.images).steps
        outputs, alphas = [], []
        for gate, step in zip(gates, steps, strict=True):
            output, alpha, state = self.recur(gate, state.first(step.layout))
            outputs.append(output)
            alphas.append(alpha)
        return self.logits(torch.cat(outputs), embedded), torch.cat(alphas)

    def recur(self, gates: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """One step from the embedding's gates ``(B, 4H)``: what ``logits`` needs, alpha ``(B, N)``, new state."""
        raise NotImplementedError

    def look(self, query: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Context ``(B, D)`` and alpha ``(B, N)`` of queries ``(B, H)``, each into the image of its caption."""
        context, alpha = self.attention(state.layout.spread(query), state.features, state.keys)
        return state.layout.collect(context), state.layout.collect(alpha)

    def input_gates(self, embedded: Tensor) -> Tensor:
        """The embedding's part of the LSTM's gates, ``(..., E)`` to ``(..., 4H)``, both biases included."""
        return F.linear(embedded, self.lstm.weight_ih_l0, self.lstm.bias_ih_l0 + self.lstm.bias_hh_l0)

    def lstm_step(self, gates: Tensor, fed: Tensor | None, state: State) -> tuple[Tensor, Tensor]:
        """New hidden and cell state from the embedding's gates and ``fed``.

        ``W [embedding; fed]`` is computed as ``W_1 embedding + W_2 fed``, since only the second has to wait.
        """
        gates = gates + F.linear(state.hidden, self.lstm.weight_hh_l0)
        if fed is not None:
            gates = gates + self.fed_gates(fed)
        i, f, g, o = gates.chunk(4, dim=-1)
        cell = f.sigmoid() * state.cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell

    def logits(self, output: Tensor, embedded: Tensor) -> Tensor:
        """What ``recur`` returned and the words just read ``(P, E)`` to logits ``(P, V)``.

        Deep output is ``L_o (E y_{t-1} + L_h h_t + L_z z_t)``: Xu et al. 2015, equation 7. With Luong's attention
        ``h̃_t``, which has the context ``z_t`` in it, takes the place of the last two.
        """
        output = self.to_embedding(self.dropout(output))
        output = self.dropout(output + embedded) if self.config.deep_output else output
        if torch.is_grad_enabled():
            return self.output(output)
        return torch.addmm(self.output.bias.unsqueeze(1), self.output.weight, output.T).T  # a third faster, V being odd


class BahdanauDecoder(Decoder):
    """Attend with ``h_{t-1}``, then step the LSTM on ``[embedding; context]``.

    Source: Bahdanau et al. 2015, section 3.1; Xu et al. 2015, section 3.1.2.
    """

    def __init__(self, config: DecoderConfig):
        attention = BahdanauAttention(config.context_dim, config.hidden_dim, config.attention_dim)
        super().__init__(config, attention, config.context_dim)
        if config.through_embedding:
            width = config.hidden_dim + (config.context_dim if config.deep_output else 0)
            self.to_embedding = nn.Linear(width, config.embed_dim)

    def recur(self, gates: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        context, alpha = self.look(state.hidden, state)
        hidden, cell = self.lstm_step(gates, context, state)
        output = torch.cat([hidden, context], dim=-1) if self.config.deep_output else hidden
        return output, alpha, replace(state, hidden=hidden, cell=cell)

    def forward(self, features: Tensor, tokens: PackedSequence, owner: Tensor) -> tuple[Tensor, Tensor]:
        """As in ``Decoder``, by the faster ``unroll``."""
        embedded = self.dropout(self.embedding(tokens.data))
        gates = self.input_gates(embedded)
        state, score = self.init_state(features), self.attention.score
        hidden, cell = (value.index_select(0, owner) for value in (state.hidden, state.cell))
        weight = torch.cat([self.lstm.weight_hh_l0, -2 * score.query_projection.weight])
        plan = make_plan(tokens.batch_sizes, owner, len(features))
        values = self.fed_gates(state.features)
        outputs, alphas = unroll(gates, hidden, cell, state.keys, values, weight, 2 * score.v.weight[0], plan)
        if self.config.deep_output:
            contexts = plan.tokens.collect(plan.tokens.spread(alphas) @ state.features)
            outputs = torch.cat([outputs, contexts], dim=1)
        return self.logits(outputs, embedded), alphas


class LuongDecoder(Decoder):
    """Step the LSTM on the embedding, attend with ``h_t``, then form the attentional vector ``h̃_t``.

    ``h̃_t = tanh(W_c [context; h_t])`` is the output vector; with input feeding ``h̃_{t-1}`` enters the LSTM beside the
    embedding.
    Source: Luong et al. 2015, sections 3.1 and 3.3, equation 5.
    """

    def __init__(self, config: DecoderConfig):
        attention = LuongAttention(config.context_dim, config.hidden_dim, config.attention_dim, config.score)
        super().__init__(config, attention, config.output_dim if config.input_feeding else 0)
        self.combine = nn.Linear(config.context_dim + config.hidden_dim, config.output_dim)

    def init_state(self, features: Tensor) -> State:
        state = super().init_state(features)
        fed = state.hidden.new_zeros(len(state.hidden), self.config.output_dim) if self.config.input_feeding else None
        return replace(state, attentional=fed)

    def recur(self, gates: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        hidden, cell = self.lstm_step(gates, state.attentional, state)
        context, alpha = self.look(hidden, state)
        attentional = torch.tanh(self.combine(torch.cat([context, hidden], dim=-1)))
        fed = attentional if self.config.input_feeding else None
        return attentional, alpha, replace(state, hidden=hidden, cell=cell, attentional=fed)

    def forward(self, features: Tensor, tokens: PackedSequence, owner: Tensor) -> tuple[Tensor, Tensor]:
        """As in ``Decoder``. Without input feeding no step waits for the attention, which is one call for all steps.

        ``W_c`` meets the regions before the attention, once for an image: ``W_c Σ α_i f_i = Σ α_i (W_c f_i)``.
        """
        if self.config.input_feeding:
            return super().forward(features, tokens, owner)
        state = self.init_state(features)
        embedded = self.dropout(self.embedding(tokens.data))
        start = state.hidden.index_select(0, owner), state.cell.index_select(0, owner)
        hidden = hidden_states(self.lstm, PackedSequence(embedded, tokens.batch_sizes), *start)
        layout = by_image(owner_of_tokens(tokens.batch_sizes, owner), len(features))
        of_context, of_hidden = self.combine.weight.split([self.config.context_dim, self.config.hidden_dim], dim=1)
        contexts, alphas = self.attention(layout.spread(hidden), F.linear(state.features, of_context), state.keys)
        attentional = torch.tanh(layout.collect(contexts) + F.linear(hidden, of_hidden, self.combine.bias))
        return self.logits(attentional, embedded), layout.collect(alphas)


def projection(config: DecoderConfig) -> nn.Module:
    """Features ``(B, N, D)`` to what is attended to: themselves, or ``relu(W f_i)`` of width ``region_dim``."""
    dropout = Dropout(config.feature_dropout)
    if not config.region_dim:
        return dropout
    return nn.Sequential(dropout, nn.Linear(config.feature_dim, config.region_dim), nn.ReLU(), dropout)


DECODERS = {"bahdanau": BahdanauDecoder, "luong": LuongDecoder}


def build_decoder(config: DecoderConfig) -> Decoder:
    """The decoder that ``config`` describes. Raises ``InputError`` for an unknown attention."""
    if config.attention not in DECODERS:
        raise InputError(f"attention {config.attention!r} is unknown; choose one of {', '.join(DECODERS)}")
    return DECODERS[config.attention](config)
