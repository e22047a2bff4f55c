"""Captions in the making, several for each of many images, and finished ones."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from caption_utils.decoder import Decoder, State
from caption_utils.vocab import Vocabulary


@dataclass(frozen=True)
class Hypothesis:
    """A finished caption: word ids without specials, natural log-probability with ``<eos>``, alphas ``(T, N)``."""

    ids: list[int]
    log_probability: float
    alphas: Tensor

    def score(self, length_penalty: float) -> float:
        """``log_probability / length ** length_penalty``, ``<eos>`` counted (after Wu et al. 2016, equation 14)."""
        return self.log_probability / (len(self.ids) + 1) ** length_penalty


@dataclass(frozen=True)
class Unfinished:
    """K captions in the making for each of B images, all of the same length; ``images (B,)`` says which images."""

    images: Tensor
    state: State
    ids: Tensor  # (B, K, T), <bos> first
    alphas: Tensor  # (B, K, T - 1, N)
    sums: Tensor  # (B, K), log-probabilities; minus infinity where there is no caption

    @classmethod
    def start(cls, decoder: Decoder, features: Tensor, beams: int = 1) -> "Unfinished":
        """``beams`` captions without a word for each image of ``features (B, N, D)``."""
        images = torch.arange(len(features), device=features.device)
        state = decoder.init_state(features).map_recurrent(lambda h: h.unsqueeze(1).expand(-1, beams, -1))
        ids = torch.full((len(features), beams, 1), Vocabulary.bos, device=features.device)
        alphas = features.new_empty(len(features), beams, 0, features.shape[1])
        return cls(images, state, ids, alphas, features.new_zeros(len(features), beams))

    def select(self, rows: Tensor) -> "Unfinished":
        """Some of the images: rows ``(B',)`` of the batch."""
        if len(rows) == len(self.images):
            return self
        tensors = (self.images[rows], self.state.select(rows), self.ids[rows], self.alphas[rows], self.sums[rows])
        return Unfinished(*tensors)

    def extend(self, parent: Tensor, word: Tensor, sums: Tensor, alpha: Tensor, state: State) -> "Unfinished":
        """One word longer: ``word (B, K)`` after caption ``parent (B, K)``, which looked at ``alpha (B, J, N)``."""
        ids = torch.cat([follow(self.ids, parent), word.unsqueeze(-1)], dim=-1)
        alphas = follow(torch.cat([self.alphas, alpha.unsqueeze(2)], dim=2), parent)
        state = state.map_recurrent(lambda h: follow(h, parent))
        return replace(self, state=state, ids=ids, alphas=alphas, sums=sums)

    def finished(self, parent: Tensor, ended: Tensor, sums: Tensor) -> list[tuple[int, int, Hypothesis]]:
        """Image, beam and caption where ``ended (B, K)``: words of ``parent``, log-probability ``sums (B, K)``."""
        row, beam = ended.nonzero(as_tuple=True)
        source = parent[row, beam]
        columns = (self.images[row].tolist(), beam.tolist(), self.ids[row, source, 1:].tolist(),
                   sums[row, beam].tolist(), self.alphas[row, source].cpu())
        return [(image, k, Hypothesis(*caption)) for image, k, *caption in zip(*columns, strict=True)]


def follow(values: Tensor, parent: Tensor) -> Tensor:
    """For each beam the values of the beam it continues: ``(B, J, ...)`` and parent ``(B, K)`` to ``(B, K, ...)``."""
    return values[torch.arange(len(parent), device=parent.device).unsqueeze(1), parent]
