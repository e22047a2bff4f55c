"""From next-word probabilities to sentences, on nothing but ``init_state`` and ``step``, many images at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from caption_utils.decoder import Decoder
from caption_utils.vocab import Vocabulary

MAX_LENGTH = 30  # words; the longest Flickr8k caption has 36, nineteen in twenty have at most 19


@dataclass(frozen=True)
class Hypothesis:
    """A finished caption: word ids without specials, natural log-probability with ``<eos>``, alphas ``(T, N)``."""

    ids: list[int]
    log_probability: float
    alphas: Tensor


@torch.inference_mode()
def greedy_search(decoder: Decoder, features: Tensor, max_length: int = MAX_LENGTH) -> list[Hypothesis]:
    """The likeliest word at each step, for features ``(B, N, D)`` of B images; 1 to ``max_length`` words.

    ``<pad>``, ``<bos>`` and ``<unk>`` are never chosen. At ``max_length`` a caption ends as if ``<eos>`` had come.
    """
    state = decoder.init_state(features)
    tokens = torch.full((len(features),), Vocabulary.bos, device=features.device)
    ended = torch.zeros(len(features), dtype=torch.bool, device=features.device)
    chosen, gains, alphas = [], [], []
    for position in range(max_length + 1):
        logits, alpha, state = decoder.step(tokens, state)
        gain, tokens = _allowed(logits, position, max_length).max(dim=-1)
        gains.append(gain.masked_fill(ended, 0.0))
        tokens = tokens.masked_fill(ended, Vocabulary.eos)
        chosen.append(tokens)
        alphas.append(alpha)
        ended = ended | (tokens == Vocabulary.eos)
        if ended.all():
            break
    return _hypotheses(torch.stack(chosen, 1), torch.stack(gains, 1).sum(1), torch.stack(alphas, 1))


def _allowed(logits: Tensor, position: int, max_length: int) -> Tensor:
    """Log-probabilities ``(..., V)``, minus infinity for what may not come at this position."""
    scores = logits.log_softmax(dim=-1)
    forbidden = [Vocabulary.pad, Vocabulary.bos, Vocabulary.unk] + ([Vocabulary.eos] if position == 0 else [])
    scores[..., forbidden] = -torch.inf
    if position == max_length:
        only_end = torch.full_like(scores, -torch.inf)
        only_end[..., Vocabulary.eos] = scores[..., Vocabulary.eos]
        return only_end
    return scores


def _hypotheses(ids: Tensor, log_probabilities: Tensor, alphas: Tensor) -> list[Hypothesis]:
    """Rows of ids ``(B, T)`` cut at ``<eos>``, each with its alphas."""
    lengths = (ids != Vocabulary.eos).sum(dim=1).tolist()
    rows = zip(ids.tolist(), log_probabilities.tolist(), alphas.cpu(), lengths, strict=True)
    return [Hypothesis(row[:length], score, alpha[:length]) for row, score, alpha, length in rows]
