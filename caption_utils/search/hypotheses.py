"""Partial hypotheses of many images, the same number for each, and finished ones.

Which of them continue is decided on the CPU, which waits for the decoder's device once a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from caption_utils.data.vocab import Vocabulary
from caption_utils.model.decoder import State
from caption_utils.runtime import sent

DEAD = -torch.inf  # the log-probability of a place without a hypothesis


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A finished caption: word ids without specials, natural log-probability with ``<eos>``, alphas ``(T, N)``."""

    ids: list[int]
    log_probability: float
    alphas: Tensor

    def score(self, length_penalty: float) -> float:
        """``log_probability / length ** length_penalty``, ``<eos>`` counted (after Wu et al. 2016, equation 14)."""
        return self.log_probability / (len(self.ids) + 1) ** length_penalty

    def maps(self, lengths: Sequence[int]) -> Tensor:
        """The mean alpha ``(W, N)`` of each of W words, whose numbers of tokens are ``lengths``."""
        return torch.segment_reduce(self.alphas, "mean", lengths=torch.tensor(lengths))


@dataclass(frozen=True)
class PartialHypotheses:
    """S partial hypotheses of one length for each of G images, side by side: R = G · S rows.

    The state is on the decoder's ``device``, all else on the CPU.
    """

    images: Tensor  # (G,), indices of the images
    ids: Tensor  # (R, T), <bos> first
    state: State  # of the R rows
    alphas: Tensor  # (R, T - 1, N)
    sums: Tensor  # (G, S), log-probabilities, or ``DEAD``
    device: torch.device

    @classmethod
    def start(cls, state: State, features: Tensor, places: int = 1) -> "PartialHypotheses":
        """S = ``places`` hypotheses without words for each image of ``features (G, N, D)``, from its initial state."""
        images, device = torch.arange(len(features)), features.device
        rows = images.repeat_interleave(places)
        ids, alphas = torch.full((len(rows), 1), Vocabulary.bos), torch.empty(len(rows), 0, features.shape[1])
        return cls(images, ids, state.select(sent(rows, device)), alphas, torch.zeros(len(images), places), device)

    def extend(
        self, images: Tensor, parent: Tensor, word: Tensor, sums: Tensor, alpha: Tensor, state: State
    ) -> "PartialHypotheses":
        """One word longer: ``word (G, S)`` after the rows ``parent (G, S)``, which attended with ``alpha (R, N)``.

        ``images`` continue, as ``going_on`` says; ``parent``, ``word`` and the new ``sums`` are theirs.
        """
        rows, all_stay = parent.flatten(), len(images) == len(self.images)
        ids = torch.cat([self.ids[rows], word.view(-1, 1)], dim=1)
        state = state.select(sent(rows, self.device), None if all_stay else sent(images, self.device))
        alphas = torch.cat([self.alphas, alpha.unsqueeze(1)], dim=1).index_select(0, rows)
        return PartialHypotheses(self.images[images], ids, state, alphas, sums, self.device)

    def finished(self, rows: Tensor, sums: Tensor) -> list[Hypothesis]:
        """Some rows as finished captions, with the log-probabilities ``sums``, ``<eos>`` included."""
        columns = self.ids[rows, 1:].tolist(), sums.tolist(), self.alphas.index_select(0, rows)
        return [Hypothesis(*caption) for caption in zip(*columns, strict=True)]


def look(*found: Tensor) -> list[Tensor]:
    """Copy tensors to the CPU together, so that a step waits for a GPU once. Integers below 2²⁴."""
    together = torch.cat([value.float().flatten() for value in found]).cpu()
    parts = together.split([value.numel() for value in found])
    return [seen.view(value.shape).to(value.dtype) for seen, value in zip(parts, found, strict=True)]


def going_on(sums: Tensor) -> Tensor:
    """Which of the G images continue: those with a live hypothesis among the log-probabilities ``sums (G, S)``."""
    return (sums > DEAD).any(dim=1).nonzero().squeeze(1)
