"""Captions in the making, any number for each of many images, and finished ones."""

from dataclasses import dataclass

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
    """R captions in the making, all of the same length, those of an image side by side."""

    images: Tensor  # (R,), which image each describes
    state: State
    ids: Tensor  # (R, T), <bos> first
    alphas: Tensor  # (R, T - 1, N)
    sums: Tensor  # (R,), log-probabilities

    @classmethod
    def start(cls, decoder: Decoder, features: Tensor, count: int = 1) -> "Unfinished":
        """``count`` captions without a word for each image of ``features (B, N, D)``."""
        images = torch.arange(len(features), device=features.device).repeat_interleave(count)
        ids = torch.full((len(images), 1), Vocabulary.bos, device=features.device)
        alphas = features.new_empty(len(images), 0, features.shape[1])
        return cls(images, decoder.init_state(features).select(images), ids, alphas, features.new_zeros(len(images)))

    def extend(self, parent: Tensor, word: Tensor, sums: Tensor, alpha: Tensor, state: State) -> "Unfinished":
        """One word longer: ``word (R',)`` after each caption of ``parent (R',)``, which looked at ``alpha (R, N)``."""
        ids = torch.cat([self.ids[parent], word.unsqueeze(1)], dim=1)
        alphas = torch.cat([self.alphas, alpha.unsqueeze(1)], dim=1)[parent]
        return Unfinished(self.images[parent], state.select(parent), ids, alphas, sums)

    def finished(self, captions: Tensor, sums: Tensor) -> list[Hypothesis]:
        """Some captions, as they are, with the log-probabilities ``sums`` that they have with their end."""
        columns = self.ids[captions, 1:].tolist(), sums.tolist(), self.alphas[captions].cpu()
        return [Hypothesis(*caption) for caption in zip(*columns, strict=True)]
