"""Where to look: the additive attention of Bahdanau et al. and the multiplicative attention of Luong et al.

All share one interface: queries ``(B, T, H)``, T for each image, are compared with its regions ``(B, N, D)``.
Shapes: **B** batch · **T** queries · **N** regions · **D** features · **H** hidden · **A** attention, or H in Luong's
``dot`` and ``general``.
"""

from torch import Tensor, nn

from caption_utils.model.normalizers import NORMALIZERS


class Attention(nn.Module):
    """Alignment scores become weights that sum to 1, with which the features are averaged.

    A subclass scores. Here all regions score alike, and every context is the mean feature, as without attention.
    Source: Xu et al. 2015, "Show, Attend and Tell", equations 5 and 13; their softmax is one of ``NORMALIZERS``.
    """

    def __init__(self, normalizer: str = "softmax"):
        super().__init__()
        self.normalize = NORMALIZERS[normalizer]

    def keys(self, features: Tensor) -> Tensor:
        """The part of the score that no query changes, computed once an image: ``(B, N, D)`` to ``(B, N, A)``."""
        return features

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """Alignment scores ``(B, T, N)`` of queries ``(B, T, H)`` against keys ``(B, N, A)``."""
        return keys.new_zeros(query.shape[0], query.shape[1], keys.shape[1])

    def weights(self, query: Tensor, keys: Tensor) -> Tensor:
        """Attention weights alpha ``(B, T, N)``."""
        return self.normalize(self.score(query, keys))

    def forward(self, query: Tensor, features: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Context vectors ``(B, T, D)`` and attention weights alpha ``(B, T, N)`` of queries ``(B, T, H)``."""
        alpha = self.weights(query, keys)  # (B, T, N)
        context = alpha @ features  # (B, T, D)
        return context, alpha


class BahdanauAttention(Attention):
    """Additive attention: ``score(h, f_i) = vᵀ tanh(W_f f_i + W_h h)``. The query is the previous state ``h_{t-1}``.

    Source: Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", appendix
    A.1.2; for images Xu et al. 2015, equation 4.
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
    return v(pairs.tanh_()).squeeze(-1)  # in place, for they are many


class LuongAttention(Attention):
    """Multiplicative attention. The query is the current state ``h_t``.

    ``score(h, f_i)`` is ``hᵀ f_i`` (``dot``, where D is H), ``hᵀ W_f f_i`` (``general``), or
    ``vᵀ tanh(W_f f_i + W_h h)`` (``concat``; the paper writes the two matrices as one, times ``[h; f_i]``).

    Source: Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", section 3.1.
    """

    def __init__(
        self, feature_dim: int, hidden_dim: int, attention_dim: int, score: str = "general", normalizer: str = "softmax"
    ):
        super().__init__(normalizer)
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
