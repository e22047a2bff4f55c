"""Partial hypotheses, as many for each of many images, and finished ones.

Which of them go on is decided on the CPU, which looks once a step at what the decoder's device has found.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from caption_utils.data.vocab import Vocabulary
from caption_utils.model.decoder import State
from caption_utils.runtime import sent

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

    def maps(self, lengths: Sequence[int]) -> Tensor:
        """The mean alpha ``(W, N)`` of each of W words, which are of so many tokens."""
        return torch.stack([tokens.mean(dim=0) for tokens in self.alphas.split(list(lengths))])


@dataclass(frozen=True)
class PartialHypotheses:
    """S partial hypotheses of one length for each of G images, side by side: R = G · S rows.

    Images and words are on the CPU, all else is on the device of the decoder.
    """

    images: Tensor  # (G,), which images these are
    ids: Tensor  # (R, T), <bos> first
    state: State  # of R captions
    alphas: Tensor  # (R, T - 1, N)
    sums: Tensor  # (G, S), log-probabilities, or ``DEAD``

    @classmethod
    def start(cls, state: State, regions: int, sums: Tensor) -> "PartialHypotheses":
        """Hypotheses without a word, with the ``sums (G, S)``, from the state of one caption an image."""
        images = torch.arange(len(sums))
        rows = images.repeat_interleave(sums.shape[1])
        ids = torch.full((len(rows), 1), Vocabulary.bos)
        return cls(images, ids, state.select(sent(rows, sums.device)), sums.new_empty(len(rows), 0, regions), sums)

    def extend(
        self, images: Tensor | None, parent: Tensor, word: Tensor, sums: Tensor, alpha: Tensor, state: State
    ) -> "PartialHypotheses":
        """One word longer: ``word (G, S)`` after the rows ``parent (G, S)``, which attended with ``alpha (R, N)``.

        ``sums (G, S)`` are the new ones. All three are those of ``images``, as ``going_on`` tells, and on the CPU.
        """
        rows, device = parent.flatten(), alpha.device
        ids = torch.cat([self.ids[rows], word.view(-1, 1)], dim=1)
        kept = self.images if images is None else self.images[images]
        there, images = sent(rows, device), None if images is None else sent(images, device)
        alphas = torch.cat([self.alphas, alpha.unsqueeze(1)], dim=1).index_select(0, there)
        return PartialHypotheses(kept, ids, state.select(there, images), alphas, sent(sums, device))

    def finished(self, rows: Tensor, sums: Tensor) -> list[Hypothesis]:
        """Some rows as they are, with the log-probabilities ``sums`` that they have with their end; for ``fetched``."""
        alphas = self.alphas.index_select(0, sent(rows, self.alphas.device))
        columns = self.ids[rows, 1:].tolist(), sums.tolist(), alphas
        return [Hypothesis(*caption) for caption in zip(*columns, strict=True)]


def look(*found: Tensor) -> list[Tensor]:
    """Tensors of one shape on the CPU, in one copy: a step's only wait for what a GPU finds. Integers below 2²⁴."""
    together = torch.stack([value.float() for value in found]).cpu()
    return [seen.to(value.dtype) for seen, value in zip(together, found, strict=True)]


def fetched(captions: Iterable[Hypothesis]) -> list[Hypothesis]:
    """Finished hypotheses with their alphas on the CPU."""
    return [replace(caption, alphas=caption.alphas.cpu()) for caption in captions]


def going_on(sums: Tensor) -> Tensor | None:
    """Which of the images ``sums (G, S)`` have a living hypothesis; ``None`` lets all go on.

    The others leave once they are a fifth of all, since it costs a copy of the regions that stay.
    """
    alive = (sums > DEAD).any(dim=1).nonzero().squeeze(1)
    return alive if len(alive) <= 0.8 * len(sums) else None
