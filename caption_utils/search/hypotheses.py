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
        self, images: Tensor | None, parent: Tensor, word: Tensor, sums: Tensor, alpha: Tensor, state: State
    ) -> "PartialHypotheses":
        """One word longer: ``word (G, S)`` after the rows ``parent (G, S)``, which attended with ``alpha (R, N)``.

        ``sums (G, S)`` are the new ones. All three are those of ``images``, as ``going_on`` tells.
        """
        rows = parent.flatten()
        ids = torch.cat([self.ids[rows], word.view(-1, 1)], dim=1)
        alphas = torch.cat([self.alphas[rows], alpha[rows].unsqueeze(1)], dim=1)
        kept = self.images if images is None else self.images[images]
        return PartialHypotheses(kept, state.select(rows, images), ids, alphas, sums)

    def finished(self, rows: Tensor, sums: Tensor) -> list[Hypothesis]:
        """Some rows as they are, with the log-probabilities ``sums`` that they have with their end."""
        columns = self.ids[rows, 1:].tolist(), sums.tolist(), self.alphas[rows].cpu()
        return [Hypothesis(*caption) for caption in zip(*columns, strict=True)]


def going_on(sums: Tensor) -> Tensor | None:
    """Which of the images ``sums (G, S)`` have a living hypothesis; ``None`` lets all go on.

    The others leave once they are a fifth of all, since it costs a copy of the regions that stay.
    """
    alive = (sums > DEAD).any(dim=1).nonzero().squeeze(1)
    return alive if len(alive) <= 0.8 * len(sums) else None
