import math

import numpy as np
import pytest
import torch

from caption_utils.demo.scenes import Scene, Thing
from caption_utils.evaluation.grounding import grounding, grounding_scores, truth

# boxes on the borders of 32-pixel regions, 7 by 7 of which make the picture
BALL, HOUSE = Thing("ball", "red", (0, 0, 64, 64)), Thing("house", "blue", (128, 96, 224, 224))
SECOND = Thing("ball", "red", (192, 0, 224, 32))
SCENE, PAIR = Scene("snow", (BALL, HOUSE)), Scene("snow", (BALL, HOUSE, SECOND))


def at(*cells, rest=0.0):
    """An attention map with all its mass except ``rest`` in some cells (row, column)."""
    alpha = torch.full((7, 7), rest / 49)
    for row, column in cells:
        alpha[row, column] += (1 - rest) / len(cells)
    return alpha


def only_row(alpha, word="ball", scene=SCENE):
    (row,) = grounding([["a", word]], [torch.stack([at((6, 6)), alpha])], [scene]).to_dict("records")
    return row


def test_looking_at_the_thing_it_names():
    row = only_row(at((0, 0)))
    assert (row["image"], row["position"], row["word"], row["kind"]) == (0, 1, "ball", "ball")
    assert (row["hit"], row["mass"]) == (1, 1)
    assert row["chance"] == pytest.approx(64 * 64 / 224**2)


def test_looking_elsewhere():
    row = only_row(at((4, 5)))
    assert (row["hit"], row["mass"]) == (0, 0)
    assert only_row(at((4, 5)), "house")["hit"] == 1


def test_mass_counts_the_part_of_a_region_that_is_inside():
    """A box of 16 by 16 pixels is a quarter of its region."""
    scene = Scene("snow", (Thing("ball", "red", (32, 32, 48, 48)),))
    assert only_row(at((1, 1)), scene=scene)["mass"] == pytest.approx(1 / 4)


def test_peak_and_mass_are_two_questions():
    """The strongest region is outside, most of the attention inside."""
    alpha = at((0, 0), (0, 1), (1, 0), (1, 1)) * 0.7
    alpha[4, 0] = 0.3
    row = only_row(alpha)
    assert (row["hit"], row["mass"]) == (0, pytest.approx(0.7))


def test_even_attention_scores_what_chance_does():
    for word in ("ball", "house"):
        row = only_row(torch.full((7, 7), 1 / 49), word)
        assert row["hit"] == pytest.approx(row["chance"], abs=0.02)
        assert row["mass"] == pytest.approx(row["chance"], abs=1e-6)


@pytest.mark.parametrize("grid", [4, 7, 9])
def test_even_attention_has_the_boxes_share_on_any_grid(grid):
    row = grounding([["house"]], [torch.full((1, grid, grid), 1 / grid**2)], [SCENE]).iloc[0]
    assert row["mass"] == pytest.approx(row["chance"], abs=1e-5)


def test_things_of_a_kind_are_one_area():
    assert only_row(at((0, 6)), scene=SCENE)["hit"] == 0
    for word in ("ball", "balls"):
        row = only_row(at((0, 6)), word, PAIR)
        assert (row["hit"], row["mass"]) == (1, 1)
        assert row["chance"] == pytest.approx((64 * 64 + 32 * 32) / 224**2)


def test_what_the_scene_does_not_hold_is_neither_hit_nor_miss():
    row = only_row(at((0, 0)), "boat")
    assert row["kind"] == "boat"
    assert all(math.isnan(row[name]) for name in ("hit", "mass", "chance"))


def test_maps_as_tensor_or_array_are_the_same():
    maps = torch.stack([at((0, 0), rest=0.5), at((3, 3))])
    tables = [
        grounding([["ball", "house"]], [form], [SCENE])
        for form in (maps, maps.numpy(), maps.numpy().astype(np.float16))
    ]
    for table in tables[1:]:
        assert np.allclose(table[["hit", "mass", "chance"]], tables[0][["hit", "mass", "chance"]], atol=1e-3)


def test_scores_are_means_over_words_in_percent():
    tokens = [["ball", "house"], ["a", "boat"], ["ball", "ball"]]
    alphas = [
        torch.stack([at((0, 0)), at((0, 0))]),
        torch.stack([at((0, 0))] * 2),
        torch.stack([at((0, 1)), at((6, 0))]),
    ]
    scores = grounding_scores(grounding(tokens, alphas, [SCENE] * 3), 3)
    assert scores["hit"].value == pytest.approx(50)
    assert scores["mass"].value == pytest.approx(50)
    ball, house = 64 * 64 / 224**2, 96 * 128 / 224**2
    assert scores["chance"].value == pytest.approx(100 * (3 * ball + house) / 4)
    assert scores["absent"].value == pytest.approx(100 / 5)
    assert scores["hit"].statistics[:, 1].tolist() == [2, 0, 2]


def test_captions_that_name_nothing_have_no_score():
    scores = grounding_scores(grounding([["it", "snows"]], [torch.stack([at((0, 0))] * 2)], [SCENE]), 1)
    assert all(math.isnan(score.value) for score in scores.values())


def test_attention_that_is_no_number_is_not_a_thing_that_is_absent():
    scores = grounding_scores(grounding([["ball"]], [torch.full((1, 7, 7), math.nan)], [SCENE]), 1)
    assert math.isnan(scores["hit"].value) and math.isnan(scores["mass"].value)
    assert scores["absent"].value == 0


def test_truth_is_the_share_of_true_captions():
    captions = ["a red ball and a blue house", "two red balls in the snow", "a red ball and a blue house"]
    score = truth(captions, [SCENE, SCENE, PAIR])
    assert score.value == pytest.approx(100 / 3)  # two balls in the third
    assert truth(["two red balls in the snow"], [PAIR]).value == 100
