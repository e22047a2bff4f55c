"""How far a score would move with other photographs: bootstrap over images (Efron 1979)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Score:
    """A corpus score that depends only on sums over images, so that resampling needs no scorer.

    ``statistics (I, S)`` holds the summands of I images; ``corpus`` maps sums ``(..., S)`` to scores ``(...)``.
    """

    statistics: np.ndarray
    corpus: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """The score of all images."""
        return float(self.corpus(self.statistics.sum(axis=0)))

    def resampled(self, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
        """Scores ``(R,)`` of R samples of all images with replacement; a seed always draws the same images."""
        with np.errstate(invalid="ignore"):  # an infinite summand times zero
            sums = [times @ self.statistics for times in _draws(len(self.statistics), resamples, seed)]
        return self.corpus(np.stack(sums))

    def interval(self) -> tuple[float, float]:
        """Bounds of the 95 % percentile interval."""
        return _bounds(self.resampled())


@dataclass(frozen=True)
class Difference:
    """A first score minus a second: value, 95 % interval, and ``p``, the share of resamples without its sign.

    A resample in which a score is not a number counts as without its sign. Where ``p`` is below 0.025, the interval
    leaves out zero.
    """

    value: float
    low: float
    high: float
    p: float


def paired_difference(first: Score, second: Score) -> Difference:
    """Paired bootstrap (Koehn 2004): both scores on the same resampled images, so that the images' difficulty cancels.

    Raises ``ValueError`` if the two were measured on different numbers of images.
    """
    if len(first.statistics) != len(second.statistics):
        raise ValueError(f"{len(first.statistics)} and {len(second.statistics)} images: no pairs")
    value = first.value - second.value
    with np.errstate(invalid="ignore"):  # infinity less infinity
        found = first.resampled() - second.resampled()
    return Difference(value, *_bounds(found), float((~(found * np.sign(value) > 0)).mean()))


def mean_score(values: Sequence[float] | np.ndarray) -> Score:
    """The mean of one value for each image."""
    return Score(np.stack([np.asarray(values, float), np.ones(len(values))], axis=1), ratio)


def grouped_mean(values: Sequence[float] | np.ndarray, image: Sequence[int] | np.ndarray, images: int) -> Score:
    """The mean of any number of values for each of ``images`` images; ``image`` says which image each belongs to."""
    place = np.asarray(image, int)
    sums = np.bincount(place, np.asarray(values, float), minlength=images)
    return Score(np.stack([sums, np.bincount(place, minlength=images)], axis=1), ratio)


def ratio(sums: np.ndarray) -> np.ndarray:
    """First statistic over second; not a number where both are zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[..., 0] / sums[..., 1]


def _draws(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """For each resample, how often it has each image, ``(I,)``."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(images, size=images), minlength=images)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the values that are numbers; two NaNs if none is."""
    numbers, tail = values[~np.isnan(values)], (1 - LEVEL) / 2
    if not len(numbers):
        return np.nan, np.nan
    with np.errstate(invalid="ignore"):  # between infinities
        low, high = np.quantile(numbers, (tail, 1 - tail))
    return float(low), float(high)
