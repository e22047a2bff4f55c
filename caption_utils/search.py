"""From next-word probabilities to sentences, on nothing but ``init_state`` and ``step``, many images at once."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from caption_utils.decoder import Decoder
from caption_utils.errors import InputError
from caption_utils.vocab import Vocabulary

BEAMS = 5
MAX_LENGTH = 30  # words; the longest Flickr8k caption has 36, nineteen in twenty have at most 19


@dataclass(frozen=True)
class Hypothesis:
    """A finished caption: word ids without specials, natural log-probability with ``<eos>``, alphas ``(T, N)``."""

    ids: list[int]
    log_probability: float
    alphas: Tensor


@torch.inference_mode()
def beam_search(decoder: Decoder, features: Tensor, beams: int, max_length: int = MAX_LENGTH) -> list[list[Hypothesis]]:
    """The ``beams`` best captions found for each image of ``features (B, N, D)``, best log-probability per word first.

    Of all one-word continuations of its K captions, each image keeps the K likeliest; a caption that has ended keeps
    its place for as long as its probability does. One beam is greedy search. A caption has 1 to ``max_length`` words;
    ``<pad>``, ``<bos>`` and ``<unk>`` are never among them.
    """
    if beams < 1:
        raise InputError(f"beam={beams}: choose 1, which is greedy search, or more")
    state = decoder.init_state(features).map_recurrent(lambda h: h.unsqueeze(1))  # one beam for a start
    scores = features.new_zeros(len(features), 1)  # (B, K)
    ids = torch.full((len(features), 1, 1), Vocabulary.bos, device=features.device)  # (B, K, T)
    alphas = features.new_empty(len(features), 1, 0, features.shape[1])  # (B, K, T, N)
    for position in range(max_length + 1):
        logits, alpha, state = decoder.step(ids[..., -1], state)
        ended = (ids[..., -1] == Vocabulary.eos).unsqueeze(-1)
        gains = torch.where(ended, _only_end(logits), _allowed(logits, position, max_length))  # (B, K, V)
        scores, best = (scores.unsqueeze(-1) + gains).flatten(1).topk(min(beams, gains[0].numel()))
        parent, word = best // gains.shape[-1], best % gains.shape[-1]
        state = state.map_recurrent(lambda h, parent=parent: _follow(h, parent))
        ids = torch.cat([_follow(ids, parent), word.unsqueeze(-1)], dim=-1)
        alphas = _follow(torch.cat([alphas, alpha.unsqueeze(2)], dim=2), parent)
        if (word == Vocabulary.eos).all():
            break
    return [_ranked(_hypotheses(*image)) for image in zip(ids[..., 1:], scores, alphas, strict=True)]


def _ranked(found: list[Hypothesis]) -> list[Hypothesis]:
    """Best log-probability per token first, ``<eos>`` counted; what is impossible is left out."""
    possible = [hypothesis for hypothesis in found if hypothesis.log_probability > -math.inf]
    return sorted(possible, key=lambda hypothesis: -hypothesis.log_probability / (len(hypothesis.ids) + 1))


def _follow(values: Tensor, parent: Tensor) -> Tensor:
    """For each beam the values of the beam it continues: ``(B, J, ...)`` and parent ``(B, K)`` to ``(B, K, ...)``."""
    return values[torch.arange(len(parent), device=parent.device).unsqueeze(1), parent]


def _only_end(logits: Tensor) -> Tensor:
    """Gains ``(..., V)`` that allow ``<eos>`` alone, at no cost."""
    gains = torch.full_like(logits, -torch.inf)
    gains[..., Vocabulary.eos] = 0.0
    return gains


def _allowed(logits: Tensor, position: int, max_length: int) -> Tensor:
    """Log-probabilities ``(..., V)``, minus infinity for what may not come at this position."""
    scores = logits.log_softmax(dim=-1)
    forbidden = [Vocabulary.pad, Vocabulary.bos, Vocabulary.unk] + ([Vocabulary.eos] if position == 0 else [])
    scores[..., forbidden] = -torch.inf
    return scores + _only_end(scores) if position == max_length else scores


def _hypotheses(ids: Tensor, log_probabilities: Tensor, alphas: Tensor) -> list[Hypothesis]:
    """Rows of ids ``(B, T)`` cut at ``<eos>``, each with its alphas."""
    lengths = (ids != Vocabulary.eos).sum(dim=1).tolist()
    rows = zip(ids.tolist(), log_probabilities.tolist(), alphas.cpu(), lengths, strict=True)
    return [Hypothesis(row[:length], score, alpha[:length]) for row, score, alpha, length in rows]
