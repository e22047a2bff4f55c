"""Where to look: the additive attention of Bahdanau et al. and the multiplicative attention of Luong et al.

Both are called alike and return alike, so that a comparison of the two compares nothing else. B images, N regions of
D features each, hidden state of width H, attention width A; T queries for each image where a decoder can batch them.
"""

import math

import torch
from torch import Tensor, nn

from caption_utils.cores import rows_in_cache
from caption_utils.errors import InputError


class AdditiveScore(nn.Module):
    """``score(h, f_i) = vᵀ tanh(W_f f_i + W_h h)``, with keys ``exp(-2 W_f f_i)``.

    ``tanh(x)`` is computed as ``2 σ(2x) - 1``, and ``σ`` by ``sigmoid_of_sum``, for a few images at a time, so that all
    that is between keys and scores fits into a cache.
    """

    def __init__(self, feature_dim: int, hidden_dim: int, attention_dim: int):
        super().__init__()
        self.feature_projection = nn.Linear(feature_dim, attention_dim)
        self.query_projection = nn.Linear(hidden_dim, attention_dim, bias=False)
        self.v = nn.Linear(attention_dim, 1, bias=False)

    def keys(self, features: Tensor) -> Tensor:
        """Features ``(B, N, D)`` to keys ``(B, N, A)``: the part of the score that no query changes."""
        return exponential(-2 * self.feature_projection(features))

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Alignment scores ``(B, T, N)`` of queries ``(B, T, H)`` against keys ``(B, N, A)``."""
        query, v = exponential(-2 * self.query_projection(query)), 2 * self.v.weight[0]
        size = query.shape[1], *keys.shape[1:]
        images = rows_in_cache(math.prod(size), len(keys), keys.device)
        room = None if torch.is_grad_enabled() else keys.new_empty(images, *size)
        pairs = zip(keys.unsqueeze(1).split(images), query.unsqueeze(2).split(images), strict=True)
        scores = [sigmoid_of_sum(*pair, room) @ v for pair in pairs]
        return torch.cat(scores) - self.v.weight.sum()


def exponential(exponent: Tensor, out: Tensor | None = None) -> Tensor:
    """``e^x`` for ``sigmoid_of_sum``, in float32 at least; x is cut at ±40, so that the product of two is finite."""
    return torch.exp(exponent.clamp(-40, 40).to(torch.promote_types(exponent.dtype, torch.float32)), out=out)


def sigmoid_of_sum(left: Tensor, right: Tensor, room: Tensor | None = None) -> Tensor:
    """``σ(x + y) = 1 / (1 + e^{-x} e^{-y})`` of ``left``, ``e^{-x}``, and ``right``, ``e^{-y}``; into ``room``, if any.

    Pairs take no exponential of their own, only a product and a quotient, which cost a fifth of its time.
    """
    out = None if room is None else room[: len(left)]
    return torch.addcmul(left.new_ones(()), left, right, out=out).reciprocal_()


class GeneralScore(nn.Module):
    """``score(h, f_i) = hᵀ W f_i``, with keys ``W f_i`` of width H."""

    def __init__(self, feature_dim: int, hidden_dim: int):
        super().__init__()
        self.feature_projection = nn.Linear(feature_dim, hidden_dim, bias=False)

    def keys(self, features: Tensor) -> Tensor:
        """Features ``(B, N, D)`` to keys ``(B, N, H)``."""
        return self.feature_projection(features)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Alignment scores ``(B, T, N)`` of queries ``(B, T, H)`` against keys ``(B, N, H)``."""
        return query @ keys.transpose(1, 2)


class DotScore(GeneralScore):
    """``score(h, f_i) = h · f_i``: the general score without a matrix, so D must equal H."""

    def __init__(self, feature_dim: int, hidden_dim: int):
        nn.Module.__init__(self)
        if feature_dim != hidden_dim:
            raise InputError(
                f"score 'dot' compares features of width {feature_dim} with a hidden state of width {hidden_dim}; "
                f"set hidden_dim={feature_dim}, or use score 'general'"
            )

    def keys(self, features: Tensor) -> Tensor:
        """The features themselves."""
        return features


class Attention(nn.Module):
    """Softmax over alignment scores, then the expected feature vector (Xu et al. 2015, equations 5 and 13)."""

    def __init__(self, score: nn.Module):
        super().__init__()
        self.score = score

    def keys(self, features: Tensor) -> Tensor:
        """What ``forward`` needs of the features ``(B, N, D)``, computed once for an image: keys ``(B, N, A)``."""
        return self.score.keys(features)

    def forward(self, query: Tensor, features: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Context ``(B, D)`` and weights alpha ``(B, N)`` of a query ``(B, H)``.

        Queries ``(B, T, H)``, several for each image, give ``(B, T, D)`` and ``(B, T, N)``.
        """
        if query.dim() == 2:
            context, alpha = self(query.unsqueeze(1), features, keys)
            return context.squeeze(1), alpha.squeeze(1)
        alpha = self.score(query, keys).softmax(dim=-1)  # (B, T, N)
        return alpha @ features, alpha


class BahdanauAttention(Attention):
    """Additive attention, asked with the previous hidden state ``h_{t-1}``.

    Source: Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", appendix
    A.1.2; for images Xu et al. 2015, "Show, Attend and Tell", equation 4.
    """

    def __init__(self, feature_dim: int, hidden_dim: int, attention_dim: int):
        super().__init__(AdditiveScore(feature_dim, hidden_dim, attention_dim))


class LuongAttention(Attention):
    """Global attention, asked with the current hidden state ``h_t``; ``score`` is ``dot``, ``general`` or ``concat``.

    Source: Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", equations 7 and 8.
    Raises ``InputError`` for an unknown score, and for ``dot`` where D differs from H.
    """

    def __init__(self, feature_dim: int, hidden_dim: int, attention_dim: int, score: str = "general"):
        scores = {
            "dot": lambda: DotScore(feature_dim, hidden_dim),
            "general": lambda: GeneralScore(feature_dim, hidden_dim),
            "concat": lambda: AdditiveScore(feature_dim, hidden_dim, attention_dim),
        }
        if score not in scores:
            raise InputError(f"score {score!r} is unknown; choose one of {', '.join(scores)}")
        super().__init__(scores[score]())
