import numpy as np
import pytest

from caption_utils.evaluation.sharpness import change, effective_regions, sharpness_scores

EVEN, LEFT, RIGHT = np.full((3, 3), 1 / 9), np.zeros((3, 3)), np.zeros((3, 3))
LEFT[1, 0], RIGHT[1, 2] = 1, 1


def test_effective_regions_count_what_is_attended():
    pair, uneven = (LEFT + RIGHT) / 2, 0.9 * LEFT + 0.1 * RIGHT
    found = effective_regions(np.stack([EVEN, LEFT, pair, uneven]))
    assert found == pytest.approx([9, 1, 2, np.exp(-0.9 * np.log(0.9) - 0.1 * np.log(0.1))])


def test_float32_maps_with_zeros_give_numbers():
    assert effective_regions(LEFT.astype(np.float32)[None]) == pytest.approx([1])


def test_change_is_the_attention_that_moves():
    maps = np.stack([LEFT, LEFT, RIGHT, (LEFT + RIGHT) / 2])
    assert change(maps) == pytest.approx([0, 1, 0.5])
    assert len(change(maps[:1])) == 0


def test_scores_are_means_over_words_of_all_pictures():
    """Three words on one picture, one word on another."""
    scores = sharpness_scores([np.stack([LEFT, RIGHT, EVEN]), EVEN[None]])
    found = {name: score.value for name, score in scores.items()}
    assert found == pytest.approx(
        {
            "effective_regions": (1 + 1 + 9 + 9) / 4,
            "peak": (1 + 1 + 1 / 9 + 1 / 9) / 4,
            "change": (1 + 8 / 9) / 2,
        }
    )
    assert len(scores["peak"].statistics) == 2


def test_an_empty_caption_counts_for_nothing():
    scores = sharpness_scores([np.zeros((0, 3, 3), np.float32), np.stack([LEFT, RIGHT])])
    assert [score.value for score in scores.values()] == [1, 1, 1]


def test_captions_of_one_word_have_no_change():
    assert list(sharpness_scores([EVEN[None], LEFT[None]])) == ["effective_regions", "peak"]
