"""Regions to words: LSTM decoders that attend, one with Bahdanau's attention and one with Luong's.

Shapes: **B** captions · **G** images that they describe · **T** steps · **N** regions · **D** features ·
**E** embedding · **H** hidden · **O** output vector, E or H · **V** vocabulary · **P** tokens of a packed batch: step
by step, captions from longest to shortest, without padding (``torch.nn.utils.rnn.PackedSequence``).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from caption_utils.config import DecoderConfig
from caption_utils.model.attention import Attention, BahdanauAttention, LuongAttention
from caption_utils.model.embedding import ProjectedEmbedding, word_embedding
from caption_utils.model.hard import likeliest, sampled


@dataclass(frozen=True)
class Batch:
    """G images and their B captions, as ``Decoder.forward`` takes them, with what it should predict."""

    features: Tensor  # (G, N, D)
    tokens: PackedSequence  # P tokens: each caption from <bos> on, without <eos>
    targets: Tensor  # (P,), the token that follows each
    owner: Tensor  # (B,), which image each packed caption describes


@dataclass(frozen=True)
class State:
    """What a decoder carries from word to word: the regions of G images and the memory of B captions.

    Captions of an image lie side by side, as many for each: B is a multiple of G.
    """

    features: Tensor  # (G, N, D)
    keys: Tensor  # (G, N, A)
    hidden: Tensor  # (B, H)
    cell: Tensor  # (B, H)
    attentional: Tensor | None = None  # (B, O), only with input feeding
    hard: Tensor | None = None  # (B, 1, 1), only where hard attention learns: 1 if a caption looks at samples, else 0

    def select(self, captions: Tensor, images: Tensor | None = None) -> "State":
        """The memory of some captions and, unless all stay, the regions of some images; both may repeat.

        ``index_select`` adds up its gradient in a fixed order, so that runs repeat to the last bit on a CPU.
        """
        features, keys = self.features, self.keys
        if images is not None:
            features, keys = features.index_select(0, images), keys.index_select(0, images)
        names = ("hidden", "cell", "attentional", "hard")
        memory = {name: value.index_select(0, captions) for name in names if (value := getattr(self, name)) is not None}
        return replace(self, features=features, keys=keys, **memory)

    def first(self, count: int) -> "State":
        """The state of the first captions, if each has regions of its own."""
        return replace(self, **{name: value[:count] for name, value in vars(self).items() if value is not None})


class Decoder(nn.Module):
    """What both decoders share; ``recur`` of a subclass attends and steps the LSTM, in its own order."""

    baseline: Tensor  # only with hard attention: a moving average of the captions' log-probability

    def __init__(self, config: DecoderConfig, attention: Attention):
        super().__init__()
        self.config, self.attention = config, attention
        self.dropout, self.feature_dropout = nn.Dropout(config.dropout), nn.Dropout(config.feature_dropout)
        self.embedding = word_embedding(config)
        self.project = nn.Linear(config.attended_dim, config.region_dim) if config.region_dim else None
        self.initial = nn.Linear(config.feature_dim if config.local_dim else config.context_dim, 2 * config.hidden_dim)
        self.to_embedding: nn.Module = nn.Identity()
        output_dim = self.embedding.embedding_dim if config.tie_weights else config.output_dim
        self.output = nn.Linear(output_dim, config.vocab_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        if config.tie_weights:
            self.output.weight = self.embedding.weight
        if config.hard:
            self.register_buffer("baseline", torch.zeros(()))

    def regions(self, features: Tensor) -> Tensor:
        """What is attended to: the features ``(G, N, D)`` themselves, or ``relu(W f_i)`` of width ``region_dim``.

        If the encoder has local channels, only these are attended to: they have not seen the whole picture.
        """
        features = self.feature_dropout(features[..., : self.config.attended_dim])
        return features if self.project is None else self.feature_dropout(torch.relu(self.project(features)))

    def init_state(self, features: Tensor) -> State:
        """The state before the first word, for one caption of each image: ``h_0`` and ``c_0`` from the mean feature.

        Source: Xu et al. 2015, section 3.1.2. Raises ``ValueError`` for features of another width.
        """
        if features.dim() != 3 or features.shape[2] != self.config.feature_dim:
            raise ValueError(f"features {tuple(features.shape)}: this decoder takes (G, N, {self.config.feature_dim})")
        regions = self.regions(features)
        whole = self.feature_dropout(features) if self.config.local_dim else regions
        start = torch.tanh(self.initial(whole.mean(dim=1))).to(self.initial.weight.dtype)  # (G, 2H)
        hidden, cell = start.chunk(2, dim=-1)
        return State(regions, self.attention.keys(regions), hidden, cell)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Read a word: tokens ``(B,)`` to logits ``(B, V)`` of the next word, alpha ``(B, N)`` and the new state."""
        embedded = self.dropout(self.embedding(tokens))  # (B, E)
        output, alpha, state = self.recur(embedded, state)
        return self.logits(output, embedded), alpha, state

    def forward(
        self, features: Tensor, tokens: PackedSequence, owner: Tensor, hard: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Teacher forcing: logits ``(P, V)`` of the word after each token, and alphas ``(P, N)``.

        ``features (G, N, D)`` belong to G images; ``owner (B,)`` says which of them each packed caption describes.
        With ``hard (B, 1, 1)`` regions are sampled, and alphas are ``(P, 2, N)``: see ``attend``.
        """
        embedded = self.dropout(self.embedding(tokens.data))  # (P, E)
        state = replace(self.init_state(features).select(owner, owner), hard=hard)
        outputs, alphas = [], []
        for words in embedded.split(tokens.batch_sizes.tolist()):  # T × (b, E)
            output, alpha, state = self.recur(words, state.first(len(words)))  # captions that have ended drop out
            outputs.append(output)
            alphas.append(alpha)
        return self.logits(torch.cat(outputs), embedded), torch.cat(alphas)

    def recur(self, embedded: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """One step from a word's embedding ``(B, E)``: the output vector, alpha ``(B, N)`` and the new state."""
        raise NotImplementedError

    def attend(self, hidden: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Context ``(B, D)`` and alpha ``(B, N)`` of queries ``(B, H)``, each in the image of its caption.

        Hard attention takes one region's features as context (Xu et al. 2015, equation 9). In training it returns alpha
        and the sample ``s_t``, ``(B, 2, N)``; where ``state.hard`` is 0, the sample is 0 and alpha makes the context.
        """
        query = hidden.unflatten(0, (len(state.features), -1))  # (G, B / G, H)
        alpha = self.attention.weights(query, state.keys)  # (G, B / G, N)
        if state.hard is not None:  # here G is B
            sample = state.hard * sampled(alpha)  # (B, 1, N)
            context = (sample + (1 - state.hard) * alpha) @ state.features
            return context.flatten(0, 1), torch.cat([alpha, sample], dim=1)
        context = (likeliest(alpha) if self.config.likeliest else alpha) @ state.features
        return context.flatten(0, 1), alpha.flatten(0, 1)

    def output_vector(self, hidden: Tensor, context: Tensor) -> Tensor:
        """From hidden states ``(P, H)`` and contexts ``(P, D)``, what ``logits`` makes words of."""
        raise NotImplementedError

    def context_logits(self, context: Tensor) -> Tensor:
        """Logits ``(P, V)`` from contexts ``(P, D)`` alone: hidden state and last word are 0."""
        hidden, embedded = (context.new_zeros(len(context), n) for n in (self.config.hidden_dim, self.config.embed_dim))
        return self.logits(self.output_vector(hidden, context), embedded)

    def logits(self, output: Tensor, embedded: Tensor) -> Tensor:
        """Logits ``(P, V)`` from output vectors and the embeddings ``(P, E)`` of the words just read.

        Deep output is ``L_o (E y_{t-1} + L_h h_t + L_z z_t)``: Xu et al. 2015, equation 7. With Luong's attention
        ``h̃_t``, which contains the context ``z_t``, replaces the last two: Luong et al. 2015, equation 6.
        """
        output = self.to_embedding(self.dropout(output))
        if self.config.deep_output:
            output = self.dropout(output + embedded)
        if self.config.tie_weights and isinstance(self.embedding, ProjectedEmbedding):
            output = output @ self.embedding.projection.weight  # o · W e_w = Wᵀo · e_w
        return self.output(output)


class BahdanauDecoder(Decoder):
    """Attend with ``h_{t-1}``, then step the LSTM on ``[embedding; context]``; without attention, on the mean feature.

    The gate scales the context by a number, ``β_t = σ(f_β(h_{t-1}))``: how much the picture counts for this word.
    Source: Bahdanau et al. 2015, section 3.1; Xu et al. 2015, section 3.1.2, equations 1 to 3, and section 4.2.1.
    """

    def __init__(self, config: DecoderConfig):
        sizes = config.context_dim, config.hidden_dim, config.attention_dim
        attending = config.attention != "none"
        super().__init__(config, BahdanauAttention(*sizes, config.normalizer) if attending else Attention())
        self.gate = nn.Linear(config.hidden_dim, 1) if config.gate else None
        self.lstm = nn.LSTMCell(config.embed_dim + config.context_dim, config.hidden_dim)
        if config.through_embedding:
            width = config.hidden_dim + (config.context_dim if config.deep_output else 0)
            self.to_embedding = nn.Linear(width, config.embed_dim)

    def recur(self, embedded: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        context, alpha = self.attend(state.hidden, state)
        if self.gate is not None:
            context = torch.sigmoid(self.gate(state.hidden)) * context
        hidden, cell = self.lstm(torch.cat([embedded, context], dim=-1), (state.hidden, state.cell))
        return self.output_vector(hidden, context), alpha, replace(state, hidden=hidden, cell=cell)

    def output_vector(self, hidden: Tensor, context: Tensor) -> Tensor:
        return torch.cat([hidden, context], dim=-1) if self.config.deep_output else hidden


class LuongDecoder(Decoder):
    """Step the LSTM on the embedding, attend with ``h_t``, then form the attentional vector ``h̃_t``.

    ``h̃_t = tanh(W_c [context; h_t])`` is the output vector; with input feeding ``h̃_{t-1}`` enters the LSTM beside the
    embedding, and the LSTM goes step by step.
    Source: Luong et al. 2015, section 3, equation 5; input feeding is section 3.3.
    """

    def __init__(self, config: DecoderConfig):
        sizes = config.context_dim, config.hidden_dim, config.attention_dim
        super().__init__(config, LuongAttention(*sizes, config.score, config.normalizer))
        fed = config.output_dim if config.input_feeding else 0
        kind = nn.LSTMCell if config.input_feeding else nn.LSTM
        self.lstm = kind(config.embed_dim + fed, config.hidden_dim)
        self.W_c = nn.Linear(config.context_dim + config.hidden_dim, config.output_dim)

    def init_state(self, features: Tensor) -> State:
        state = super().init_state(features)
        hidden, cell = state.hidden.contiguous(), state.cell.contiguous()  # cuDNN's LSTM takes no others
        fed = hidden.new_zeros(len(hidden), self.config.output_dim) if self.config.input_feeding else None
        return replace(state, hidden=hidden, cell=cell, attentional=fed)

    def recur(self, embedded: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        if state.attentional is not None:
            hidden, cell = self.lstm(torch.cat([embedded, state.attentional], dim=-1), (state.hidden, state.cell))
        else:
            hidden, cell = (value[0] for value in self.run_lstm(embedded[None], state)[1])
        context, alpha = self.attend(hidden, state)
        attentional = self.output_vector(hidden, context)
        fed = attentional if self.config.input_feeding else None
        return attentional, alpha, replace(state, hidden=hidden, cell=cell, attentional=fed)

    def forward(
        self, features: Tensor, tokens: PackedSequence, owner: Tensor, hard: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As in ``Decoder``. Without input feeding no step waits for the attention: one call attends for all steps."""
        if self.config.input_feeding or self.config.hard:
            return super().forward(features, tokens, owner, hard)
        embedded = self.dropout(self.embedding(tokens.data))  # (P, E)
        state = self.init_state(features).select(owner, owner)
        packed, _ = self.run_lstm(tokens._replace(data=embedded), state)
        hidden, lengths = pad_packed_sequence(packed, batch_first=True)  # (B, T, H)
        attended = self.attention(hidden, state.features, state.keys)  # (B, T, D), (B, T, N)
        context, alpha = (pack_padded_sequence(each, lengths, batch_first=True).data for each in attended)
        return self.logits(self.output_vector(packed.data, context), embedded), alpha

    def output_vector(self, hidden: Tensor, context: Tensor) -> Tensor:
        return torch.tanh(self.W_c(torch.cat([context, hidden], dim=-1)))

    def run_lstm(self, inputs: Tensor | PackedSequence, state: State) -> tuple:
        """``nn.LSTM`` over the inputs of all steps, in float32 or, on a GPU, in the float16 of its autocast.

        Some CPUs have no LSTM in bfloat16. On a GPU autocast makes float16 of it, whose gradients vanish unscaled.
        """
        place = state.hidden.device.type
        scaled = place == "cuda" and torch.get_autocast_dtype(place) is torch.float16
        with torch.autocast(place, enabled=scaled and torch.is_autocast_enabled(place)):
            return self.lstm(inputs, (state.hidden[None], state.cell[None]))


def build_decoder(config: DecoderConfig) -> Decoder:
    """The decoder that ``config`` describes."""
    return LuongDecoder(config) if config.attention == "luong" else BahdanauDecoder(config)
