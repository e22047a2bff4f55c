"""Partial hypotheses of many images, the same number for each, and finished ones.

Which of them continue is decided on the CPU, which waits for the decoder's device once a step.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from caption_utils.data.vocab import Vocabulary
from caption_utils.model.decoder import State
from caption_utils.runtime import sent

DEAD = -torch.inf  # the log-probability of a place without a hypothesis


@dataclass(frozen=True)
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
        return torch.stack([tokens.mean(dim=0) for tokens in self.alphas.split(list(lengths))])


@dataclass(frozen=True)
class PartialHypotheses:
    """S partial hypotheses of one length for each of G images, side by side: R = G · S rows.

    Images and words are on the CPU, all else on the decoder's device.
    """

    images: Tensor  # (G,), indices of the images
    ids: Tensor  # (R, T), <bos> first
    state: State  # of the R rows
    alphas: Tensor  # (R, T - 1, N)
    sums: Tensor  # (G, S), log-probabilities, or ``DEAD``

    @classmethod
    def start(cls, state: State, regions: int, sums: Tensor) -> "PartialHypotheses":
        """Hypotheses without words, with the ``sums (G, S)``, from the initial state of each image."""
        images = torch.arange(len(sums))
        rows = images.repeat_interleave(sums.shape[1])
        ids = torch.full((len(rows), 1), Vocabulary.bos)
        return cls(images, ids, state.select(sent(rows, sums.device)), sums.new_empty(len(rows), 0, regions), sums)

    def extend(
        self, images: Tensor, parent: Tensor, word: Tensor, sums: Tensor, alpha: Tensor, state: State
    ) -> "PartialHypotheses":
        """One word longer: ``word (G, S)`` after the rows ``parent (G, S)``, which attended with ``alpha (R, N)``.

        ``images`` continue, as ``going_on`` says; the first three are of these and on the CPU, with the new ``sums``.
        """
        rows, device = parent.flatten(), alpha.device
        ids = torch.cat([self.ids[rows], word.view(-1, 1)], dim=1)
        there, all_stay = sent(rows, device), len(images) == len(self.images)
        state = state.select(there, None if all_stay else sent(images, device))
        alphas = torch.cat([self.alphas, alpha.unsqueeze(1)], dim=1).index_select(0, there)
        return PartialHypotheses(self.images[images], ids, state, alphas, sent(sums, device))

    def finished(self, rows: Tensor, sums: Tensor) -> list[Hypothesis]:
        """Some rows as finished captions, with the log-probabilities ``sums``, ``<eos>`` included; see ``fetched``."""
        alphas = self.alphas.index_select(0, sent(rows, self.alphas.device))
        columns = self.ids[rows, 1:].tolist(), sums.tolist(), alphas
        return [Hypothesis(*caption) for caption in zip(*columns, strict=True)]


def look(*found: Tensor) -> list[Tensor]:
    """Copy tensors of one shape to the CPU together, so that a step waits for a GPU once. Integers below 2²⁴."""
    together = torch.stack([value.float() for value in found]).cpu()
    return [seen.to(value.dtype) for seen, value in zip(together, found, strict=True)]


def fetched(captions: Iterable[Hypothesis]) -> list[Hypothesis]:
    """Finished hypotheses with their alphas on the CPU."""
    return [replace(caption, alphas=caption.alphas.cpu()) for caption in captions]


def going_on(sums: Tensor) -> Tensor:
    """Which of the G images continue: those with a live hypothesis among the log-probabilities ``sums (G, S)``."""
    return (sums > DEAD).any(dim=1).nonzero().squeeze(1)
