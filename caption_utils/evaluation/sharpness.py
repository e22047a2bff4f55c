"""How sharp attention is, and how much it moves from word to word."""

from collections.abc import Sequence

import numpy as np

from caption_utils.metrics.bootstrap import Score, grouped_mean


def effective_regions(attention: np.ndarray) -> np.ndarray:
    """Over how many regions each of the maps ``(T, H', W')`` is spread, ``(T,)``: ``exp`` of its entropy.

    It is 1 if all attention is on one region, and N if it is even over N. Source: Hill 1973, diversity of order 1.
    """
    flat = _flat(attention)
    logarithm = np.log(flat, where=flat > 0, out=np.zeros_like(flat))
    return np.exp(-(flat * logarithm).sum(axis=1))


def change(attention: np.ndarray) -> np.ndarray:
    """How much of the attention moves between each word and the next, ``(T - 1,)``, from 0 to 1: total variation."""
    flat = _flat(attention)
    return np.abs(np.diff(flat, axis=0)).sum(axis=1) / 2


def sharpness_scores(maps: Sequence[np.ndarray]) -> dict[str, Score]:
    """Means over all words of the captions' ``maps``, each ``(T, H', W')``.

    ``effective_regions``, ``peak`` (the largest weight) and ``change``, which is missing if no caption has two words.
    Even attention over N regions would give N, ``1 / N`` and 0.
    """
    values = {
        "effective_regions": list(map(effective_regions, maps)),
        "peak": [each.max(axis=(1, 2)) for each in maps],
        "change": list(map(change, maps)),
    }
    return {name: _mean(each) for name, each in values.items() if any(map(len, each))}


def _flat(attention: np.ndarray) -> np.ndarray:
    words, height, width = attention.shape
    return attention.reshape(words, height * width).astype(float)


def _mean(values: Sequence[np.ndarray]) -> Score:
    """The mean of all values, given as an array for each image."""
    images = np.repeat(np.arange(len(values)), list(map(len, values)))
    return grouped_mean(np.concatenate(values), images, len(values))
