import math

import numpy as np
import pytest

from caption_utils.metrics.bootstrap import Score, grouped_mean, mean_score, paired_difference, ratio


@pytest.fixture
def values():
    return np.random.default_rng(1).normal(50, 10, size=400)


def test_value_is_that_of_the_sums():
    score = Score(np.array([[1.0, 2.0], [3.0, 2.0]]), lambda sums: sums[..., 0] * sums[..., 1])
    assert score.value == 16


def test_resamples_are_the_score_of_images_drawn_with_replacement(values):
    generator = np.random.default_rng(7)
    expected = [values[generator.integers(400, size=400)].mean() for _ in range(5)]
    assert mean_score(values).resampled(5, seed=7) == pytest.approx(expected)


def test_interval_of_a_mean_is_that_of_its_standard_error(values):
    low, high = mean_score(values).interval()
    error = values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_nineteen_in_twenty_intervals_hold_the_truth():
    generator = np.random.default_rng(0)
    intervals = [mean_score(generator.normal(size=60)).interval() for _ in range(100)]
    assert 88 <= sum(low < 0 < high for low, high in intervals) <= 99


def test_a_seed_draws_the_same_images(values):
    score = mean_score(values)
    assert score.interval() == score.interval()
    assert (score.resampled(9, seed=1) != score.resampled(9, seed=2)).any()


def test_equal_scores_do_not_differ(values):
    difference = paired_difference(mean_score(values), mean_score(values))
    assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)


def test_what_the_images_share_cancels(values):
    """Scores that vary by 10 from image to image and differ by 1 in each: the difference is 1, without doubt."""
    difference = paired_difference(mean_score(values + 1), mean_score(values))
    assert (difference.value, difference.low, difference.high) == pytest.approx((1, 1, 1))
    assert difference.p == 0


def test_p_is_the_share_of_resamples_without_the_sign(values):
    noise = np.random.default_rng(2).normal(0.3, 10, size=400)
    first, second = mean_score(values + noise), mean_score(values)
    found = paired_difference(first, second)
    assert 0 < found.p < 0.5
    assert found.p == (first.resampled() <= second.resampled()).mean()
    turned = paired_difference(second, first)
    assert (turned.value, turned.low, turned.high, turned.p) == pytest.approx(
        (-found.value, -found.high, -found.low, found.p)
    )


def test_a_resample_without_a_value_has_no_sign():
    """One image of two has a value, 5 in the first and 2 in the second score: a quarter of the resamples miss it."""
    first, second = (grouped_mean([value], [0], images=2) for value in (5, 2))
    missed = np.isnan(first.resampled()).mean()
    assert 0.2 < missed < 0.3
    for difference in (paired_difference(first, second), paired_difference(second, first)):
        assert abs(difference.value) == 3 and difference.p == missed


def test_other_numbers_of_images_are_no_pairs(values):
    with pytest.raises(ValueError, match="400 and 399 images: no pairs"):
        paired_difference(mean_score(values), mean_score(values[1:]))


def test_grouped_mean_counts_every_value_once():
    score = grouped_mean([1, 2, 6], [0, 0, 2], images=3)
    assert score.value == 3
    assert score.statistics.tolist() == [[3, 2], [0, 0], [6, 1]]


def test_a_mean_of_nothing_is_no_number():
    score = grouped_mean([], [], images=2)
    assert math.isnan(score.value)
    assert np.isnan(ratio(np.zeros((3, 2)))).all()


def test_resamples_without_a_value_are_left_out():
    """One image of two has a value: a quarter of the resamples miss it."""
    low, high = grouped_mean([5], [0], images=2).interval()
    assert (low, high) == (5, 5)


@pytest.mark.filterwarnings("error")
def test_scores_that_are_no_numbers_have_such_bounds_without_a_warning():
    nothing, endless = grouped_mean([], [], images=2), mean_score([math.inf, math.inf])
    assert np.isnan(nothing.interval()).all()
    assert endless.value == math.inf and not np.isfinite(endless.interval()).any()
    assert np.isnan([paired_difference(endless, endless).low, paired_difference(nothing, nothing).value]).all()
