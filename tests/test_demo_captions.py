"""Tests of tools/demo_captions.py."""

from collections import Counter
from random import Random

import pytest
from demo_captions import captions, with_rare_word
from oracle import oracle

from caption_utils.data.vocab import tokenize
from caption_utils.demo.descriptions import KINDS, PLACES, RARE, is_true, with_common_words
from caption_utils.demo.scenes import Scene, Thing


@pytest.mark.parametrize("background", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_scene_gets_five_true_captions(background, kind):
    scene = Scene(background, (Thing(kind, "purple", (40, 120, 100, 190)),))
    five = captions(scene, Random(3))
    assert len(set(five)) == 5
    assert all(is_true(caption, scene) for caption in five)
    assert five == captions(scene, Random(3)) != captions(scene, Random(4))


@pytest.mark.slow
def test_rare_words_are_rarer_the_later_they_are_listed():
    scene = Scene("meadow", (Thing("ball", "red", (10, 130, 70, 190)), Thing("umbrella", "blue", (90, 130, 150, 190))))
    rng = Random(0)
    told = [caption for _ in range(3000) for caption in captions(scene, rng)]
    assert all(is_true(caption, scene) and oracle(caption, scene) for caption in set(told))
    rare = Counter(word for caption in told for word in tokenize(caption) if word in RARE)
    pairs = (("crimson", "scarlet"), ("azure", "turquoise"), ("parasol", "sphere"))
    assert all(rare[common] > rare[late] > 0 for common, late in pairs)
    assert 0.01 < rare.total() / len(told) < 0.05


def test_rare_words_can_be_replaced_by_common_ones_again():
    common = "there are a blue ball and a purple umbrella"
    rare = {with_rare_word(common, Random(seed)) for seed in range(40)}
    assert all(" ".join(with_common_words(sentence.split())) == common for sentence in rare)
    assert {"there are an azure ball and a purple umbrella", "there are a blue ball and a purple parasol"} < rare
    assert all(len(set(sentence.split()) & RARE.keys()) == 1 for sentence in rare)


def test_a_sentence_without_common_words_stays():
    assert with_rare_word("there is a fish", Random(0)) == "there is a fish"
