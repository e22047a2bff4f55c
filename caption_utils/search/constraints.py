"""Which words may come next: no special tokens, a maximum length, no n-gram twice."""

import torch
from torch import Tensor

from caption_utils.config import SearchConfig
from caption_utils.data.vocab import SPECIALS, Vocabulary

IMPOSSIBLE = -1e30  # for words that the model rules out but that are not forbidden here


def next_scores(logits: Tensor, ids: Tensor, config: SearchConfig) -> Tensor:
    """Log-probabilities ``(..., V)`` of the words that may follow ``ids (..., T)``, ``<bos>`` first; -inf for the rest.

    They are not renormalised over the allowed words. At least one is finite, whatever the logits are.
    """
    scores = logits.float().log_softmax(dim=-1).nan_to_num(nan=IMPOSSIBLE, neginf=IMPOSSIBLE)
    words, end = ids[..., 1:], scores[..., Vocabulary.eos].clone()
    scores[..., : len(SPECIALS)] = -torch.inf
    if words.shape[-1] == config.max_length:
        scores.fill_(-torch.inf)
    elif config.no_repeat_ngram:
        _forbid_repetition(scores, words, config.no_repeat_ngram)
    scores[..., Vocabulary.eos] = end if words.shape[-1] else -torch.inf  # a caption has at least one word
    return scores


def _forbid_repetition(scores: Tensor, words: Tensor, n: int) -> None:
    """Forbid, in place, each word that would complete an n-gram of ``words (..., T)`` a second time."""
    if words.shape[-1] < n:
        return
    grams = words.unfold(-1, n, 1)  # (..., T - n + 1, n)
    begun = words[..., words.shape[-1] - n + 1 :].unsqueeze(-2)  # the last n - 1 words
    again = (grams[..., :-1] == begun).all(dim=-1)
    scores.scatter_(-1, grams[..., -1].where(again, Vocabulary.pad), -torch.inf)
