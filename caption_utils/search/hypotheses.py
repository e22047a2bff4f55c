"""Partial hypotheses, as many for each of many images, and finished ones."""

from dataclasses import dataclass

import torch
from torch import Tensor

from caption_utils.data.vocab import Vocabulary
from caption_utils.model.decoder import State

DEAD = -torch.inf  # the sum of a place that holds no partial hypothesis


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
class PartialHypotheses:
    """S partial hypotheses of one length for each of G images, side by side: R = G · S rows."""

    images: Tensor  # (G,), which images these are
    state: State  # of R captions
    ids: Tensor  # (R, T), <bos> first
    alphas: Tensor  # (R, T - 1, N)
    sums: Tensor  # (G, S), log-probabilities, or ``DEAD``

    @classmethod
    def start(cls, state: State, regions: int, sums: Tensor) -> "PartialHypotheses":
        """Hypotheses without a word, with the ``sums (G, S)``, from the state of one caption an image."""
        images = torch.arange(len(sums), device=sums.device)
        rows = images.repeat_interleave(sums.shape[1])
        ids = torch.full((len(rows), 1), Vocabulary.bos, device=sums.device)
        return cls(images, state.select(rows), ids, sums.new_empty(len(rows), 0, regions), sums)

    def extend(
        self, parent: Tensor, word: Tensor, sums: Tensor, alpha: Tensor, state: State
    ) -> tuple["PartialHypotheses", Tensor]:
        """One word longer: ``word (G, S)`` after the rows ``parent (G, S)``, which attended with ``alpha (R, N)``.

        ``sums (G, S)`` are the new ones. Images of which all hypotheses are dead leave, once they are a fifth of all,
        since it costs a copy of the others' regions. Also returns which of the images are kept.
        """
        kept = (sums > DEAD).any(dim=1).nonzero().squeeze(1)
        if leave := len(kept) <= 0.8 * len(sums):
            parent, word, sums = parent[kept], word[kept], sums[kept]
        else:
            kept = torch.arange(len(sums), device=sums.device)
        rows = parent.flatten()
        ids = torch.cat([self.ids[rows], word.view(-1, 1)], dim=1)
        alphas = torch.cat([self.alphas[rows], alpha[rows].unsqueeze(1)], dim=1)
        state = state.select(rows, kept if leave else None)
        return PartialHypotheses(self.images[kept], state, ids, alphas, sums), kept

    def finished(self, rows: Tensor, sums: Tensor) -> list[Hypothesis]:
        """Some rows as they are, with the log-probabilities ``sums`` that they have with their end."""
        columns = self.ids[rows, 1:].tolist(), sums.tolist(), self.alphas[rows].cpu()
        return [Hypothesis(*caption) for caption in zip(*columns, strict=True)]
