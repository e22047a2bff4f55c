"""What a caption may say next: no specials, a length within bounds, no run of words twice."""

from dataclasses import dataclass

import torch
from torch import Tensor

from caption_utils.cores import rows_in_cache
from caption_utils.errors import InputError
from caption_utils.vocab import Vocabulary

MAX_LENGTH = 30  # words; the longest Flickr8k caption has 36, nineteen in twenty have at most 19
NEVER_SAID = [Vocabulary.pad, Vocabulary.bos, Vocabulary.unk]
IMPOSSIBLE = -1e30  # log-probability of a word that the model rules out but that nothing here forbids


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``min_length`` to ``max_length`` words, and no run of ``no_repeat_ngram`` words twice; 0 allows repetition.

    A caption that no word may continue ends, be it shorter than ``min_length``. Raises ``InputError`` for values out
    of range.
    """

    min_length: int = 1
    max_length: int = MAX_LENGTH
    no_repeat_ngram: int = 0

    def __post_init__(self) -> None:
        if self.min_length < 1:
            raise InputError(f"min_length={self.min_length}: a caption has words; choose 1 or more")
        if self.max_length < self.min_length:
            raise InputError(f"max_length={self.max_length}: choose {self.min_length}, the min_length, or more")
        if self.no_repeat_ngram < 0:
            raise InputError(f"no_repeat_ngram={self.no_repeat_ngram}: choose 0, which allows repetition, or more")


def next_scores(logits: Tensor, ids: Tensor, limits: Limits) -> Tensor:
    """Log-probabilities ``(..., V)`` of what may follow ``ids (..., T)``, ``<bos>`` first; minus infinity for the rest.

    They are the model's own: what is forbidden keeps its share. At least one is finite, whatever the logits are, whose
    memory they take.
    """
    scores = log_probabilities(logits)
    scores[..., NEVER_SAID] = -float("inf")
    length = ids.shape[-1] - 1
    end = scores[..., Vocabulary.eos].clone()
    if length == limits.max_length:
        scores.fill_(-float("inf"))
    elif limits.no_repeat_ngram:
        _forbid_repetition(scores, ids[..., 1:], limits.no_repeat_ngram)
    if length < limits.min_length:
        scores[..., Vocabulary.eos] = -float("inf")
        end = end.masked_fill(scores.amax(dim=-1) > -float("inf"), -float("inf"))
    scores[..., Vocabulary.eos] = end
    return scores


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax of ``logits (..., V)``, in their place and a few words at a time, so that these stay in a cache."""
    words = logits.shape[-1]
    parts = logits.split(rows_in_cache(logits.numel() // words, words, logits.device), dim=-1)
    total = torch.stack([part.logsumexp(dim=-1, keepdim=True) for part in parts]).logsumexp(dim=0)
    for part in parts:
        part.sub_(total).nan_to_num_(nan=IMPOSSIBLE, neginf=IMPOSSIBLE)
    return logits


def _forbid_repetition(scores: Tensor, words: Tensor, n: int) -> None:
    """Forbid, in place, each word that would complete an n-gram of ``words (..., T)`` a second time."""
    if words.shape[-1] < n:
        return
    grams = words.unfold(-1, n, 1)  # (..., T - n + 1, n)
    begun = words[..., words.shape[-1] - n + 1 :].unsqueeze(-2)  # the last n - 1 words
    again = (grams[..., :-1] == begun).all(dim=-1)
    scores.scatter_(-1, grams[..., -1].where(again, Vocabulary.pad), -float("inf"))
