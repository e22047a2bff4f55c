"""Several decoders that caption as one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from caption_utils.model.decoder import Decoder, State


@dataclass(frozen=True)
class EnsembleState:
    """What the decoders of an ensemble carry from word to word, one ``State`` each."""

    states: tuple[State, ...]

    def select(self, captions: Tensor, images: Tensor | None = None) -> "EnsembleState":
        """As ``State.select``."""
        return EnsembleState(tuple(state.select(captions, images) for state in self.states))


class Ensemble(nn.Module):
    """Decoders for the same features and vocabulary: a word's probability is the mean of theirs.

    Attention is that of the first. In place of logits, which are free up to a constant, come log-probabilities.
    """

    def __init__(self, decoders: Sequence[Decoder]):
        super().__init__()
        self.decoders = cast(list[Decoder], nn.ModuleList(decoders))
        self.config, self.training = decoders[0].config, decoders[0].training

    def init_state(self, features: Tensor) -> EnsembleState:
        """As ``Decoder.init_state``."""
        return EnsembleState(tuple(decoder.init_state(features) for decoder in self.decoders))

    def step(self, tokens: Tensor, state: EnsembleState) -> tuple[Tensor, Tensor, EnsembleState]:
        """As ``Decoder.step``."""
        steps = [decoder.step(tokens, each) for decoder, each in zip(self.decoders, state.states, strict=True)]
        logits, alphas, states = zip(*steps, strict=True)
        return mean_of(logits), alphas[0], EnsembleState(states)

    def forward(self, features: Tensor, tokens: PackedSequence, owner: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Decoder.forward``."""
        logits, alphas = zip(*(decoder(features, tokens, owner) for decoder in self.decoders), strict=True)
        return mean_of(logits), alphas[0]


def mean_of(logits: Sequence[Tensor]) -> Tensor:
    """Logarithms of the mean of probabilities whose logits ``(…, V)`` are given."""
    return torch.stack([each.float().log_softmax(dim=-1) for each in logits]).logsumexp(dim=0) - math.log(len(logits))
