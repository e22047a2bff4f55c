"""Where to look: the additive attention of Bahdanau et al. and the multiplicative attention of Luong et al.

All are called alike and return alike: queries ``(B, T, H)``, T of them for each image, meet its regions ``(B, N, D)``.
Shapes: **B** batch · **T** queries · **N** regions · **D** features · **H** hidden · **A** attention.
"""

import torch
from torch import Tensor, nn

from caption_utils.errors import InputError
from caption_utils.model.normalizers import NORMALIZERS

SCORES = ("dot", "general", "concat")


class Attention(nn.Module):
    """Alignment scores to weights that sum to 1, then the expected feature vector.

    Source: Xu et al. 2015, "Show, Attend and Tell", equations 5 and 13; their softmax is one of ``NORMALIZERS``.
    """

    def __init__(self, normalizer: str = "softmax"):
        super().__init__()
        self.normalize = NORMALIZERS[normalizer]

    def keys(self, features: Tensor) -> Tensor:
        """The part of the score that no query changes, computed once an image: ``(B, N, D)`` to ``(B, N, A)``."""
        raise NotImplementedError

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """Alignment scores ``(B, T, N)`` of queries ``(B, T, H)`` against keys ``(B, N, A)``."""
        raise NotImplementedError

    def forward(self, query: Tensor, features: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Context vectors ``(B, T, D)`` and attention weights alpha ``(B, T, N)`` of queries ``(B, T, H)``."""
        alpha = self.weights(query, keys)  # (B, T, N)
        context = alpha @ features  # (B, T, D)
        return context, alpha

    def weights(self, query: Tensor, keys: Tensor) -> Tensor:
        """Attention weights alpha ``(B, T, N)``."""
        return self.normalize(self.score(query, keys))


class BahdanauAttention(Attention):
    """Additive attention: ``score(h, f_i) = vᵀ tanh(W_f f_i + W_h h)``, asked with the previous state ``h_{t-1}``.

    Source: Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", appendix
    A.1.2; for images Xu et al. 2015, "Show, Attend and Tell", equation 4.
    """

    def __init__(self, feature_dim: int, hidden_dim: int, attention_dim: int, normalizer: str = "softmax"):
        super().__init__(normalizer)
        self.W_f = nn.Linear(feature_dim, attention_dim)
        self.W_h = nn.Linear(hidden_dim, attention_dim, bias=False)
        self.v = nn.Linear(attention_dim, 1, bias=False)

    def keys(self, features: Tensor) -> Tensor:
        return self.W_f(features)

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        return additive_score(self.W_h(query), keys, self.v)


def additive_score(query: Tensor, keys: Tensor, v: nn.Linear) -> Tensor:
    """``vᵀ tanh(key + query)``, ``(B, T, N)``, of projected queries ``(B, T, A)`` and keys ``(B, N, A)``."""
    pairs = keys.unsqueeze(1) + query.unsqueeze(2)  # (B, T, N, A)
    return v(torch.tanh(pairs)).squeeze(-1)


class NoAttention(Attention):
    """What attention is compared with: the same weight for each region, the mean feature for each word."""

    def keys(self, features: Tensor) -> Tensor:
        return features

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        return keys.new_zeros(query.shape[0], query.shape[1], keys.shape[1])


class LuongAttention(Attention):
    """Multiplicative attention, asked with the current state ``h_t``.

    ``score(h, f_i)`` is ``h · f_i`` (``dot``), ``hᵀ W_f f_i`` (``general``), or ``vᵀ tanh(W_f f_i + W_h h)``
    (``concat``, the matrix over ``[h; f_i]`` being written as two).

    Source: Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", equations 7 and 8.
    Raises ``InputError`` for an unknown score, and for ``dot`` where D differs from H.
    """

    def __init__(
        self,
        feature_dim: int,
        hidden_dim: int,
        attention_dim: int,
        score: str = "general",
        normalizer: str = "softmax",
    ):
        super().__init__(normalizer)
        if score not in SCORES:
            raise InputError(f"score {score!r} is unknown; choose one of {', '.join(SCORES)}")
        if score == "dot" and feature_dim != hidden_dim:
            raise InputError(
                f"score 'dot' compares features of width {feature_dim} with a hidden state of width {hidden_dim}; "
                f"set hidden_dim={feature_dim}, or use score 'general'"
            )
        self.kind = score
        if score == "general":
            self.W_f = nn.Linear(feature_dim, hidden_dim, bias=False)
        if score == "concat":
            self.W_f = nn.Linear(feature_dim, attention_dim)
            self.W_h = nn.Linear(hidden_dim, attention_dim, bias=False)
            self.v = nn.Linear(attention_dim, 1, bias=False)

    def keys(self, features: Tensor) -> Tensor:
        return features if self.kind == "dot" else self.W_f(features)

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        if self.kind == "concat":
            return additive_score(self.W_h(query), keys, self.v)
        return query @ keys.mT


def likeliest(alpha: Tensor) -> Tensor:
    """The region of the largest weight as one-hot vectors, ``(…, N)`` like ``alpha``."""
    return torch.zeros_like(alpha).scatter_(-1, alpha.argmax(dim=-1, keepdim=True), 1.0)


def sampled(alpha: Tensor) -> Tensor:
    """A region drawn with the probabilities ``alpha (…, N)`` as one-hot vectors: hard attention, Xu et al. 2015,
    equations 8 and 9.

    Of times that are exponentially distributed with the rates ``alpha_i``, the i-th is the first with probability
    ``alpha_i``. Unlike ``torch.multinomial`` this does not wait for a GPU.
    """
    times = torch.empty_like(alpha, dtype=torch.promote_types(alpha.dtype, torch.float32)).exponential_()
    return likeliest(alpha.detach() / times)
