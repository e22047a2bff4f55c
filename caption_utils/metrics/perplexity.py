"""How well a model predicts held-out captions, token by token and word by word."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from caption_utils.metrics.bootstrap import Score, ratio
from caption_utils.model.decoder import Batch, Decoder

T = TypeVar("T")


def perplexity(decoder: Decoder, batches: Iterable[Batch]) -> float:
    """``exp(total negative log-likelihood / total tokens)``: ``<eos>`` counts, padding does not, dropout is off.

    Infinite for a model that has diverged. Raises ``ValueError`` if there are no batches.
    """
    return likelihood(decoder, batches).value


@torch.no_grad()
def likelihood(decoder: Decoder, batches: Iterable[Batch]) -> Score:
    """``perplexity`` as a ``Score``, whose statistics are the negative log-likelihood and tokens of each image."""
    was_training = decoder.training
    decoder.eval()
    try:
        rows = _some(sums_of_images(decoder, batch) for batch in batches)
    finally:
        decoder.train(was_training)
    return Score(torch.cat(rows).cpu().double().numpy(), _perplexity)  # a GPU is waited for only here


def sums_of_images(decoder: Decoder, batch: Batch) -> Tensor:
    """Negative log-likelihood and tokens of each image of a batch, ``(G, 2)``."""
    logits, _ = decoder(batch.features, batch.tokens, batch.owner)
    losses = F.cross_entropy(logits, batch.targets, reduction="none").float()  # (P,)
    image = torch.cat([batch.owner[:size] for size in batch.tokens.batch_sizes.tolist()])  # (P,)
    summands = torch.stack([losses, torch.ones_like(losses)], dim=1)
    return summands.new_zeros(len(batch.features), 2).index_add(0, image, summands)


def per_word(likelihood: Score, words: Sequence[int]) -> Score:
    """``likelihood`` per word instead of per token; ``words`` counts those of each image, ends of captions included.

    It compares vocabularies of words and of word pieces. An unknown word costs only as much as its ``<unk>``.
    """
    return Score(np.stack([likelihood.statistics[:, 0], words], axis=1), _perplexity)


def _some(found: Iterable[T]) -> list[T]:
    """What was found of the batches. Raises ``ValueError`` if it is nothing."""
    if not (rows := list(found)):
        raise ValueError("no batches; an iterator can be used once")
    return rows


def _perplexity(sums: np.ndarray) -> np.ndarray:
    entropy = ratio(sums)
    return np.exp(np.where(entropy < 700, entropy, np.inf))


def unknown_rate(batches: Iterable[Batch], unk: int) -> float:
    """Share of target tokens, ``<eos>`` included, that are not in the vocabulary.

    Raises ``ValueError`` if there are no batches.
    """
    counts = _some(((batch.targets == unk).sum().item(), len(batch.targets)) for batch in batches)
    return sum(unknown for unknown, _ in counts) / sum(tokens for _, tokens in counts)
