import pytest

from caption_utils.metrics.diversity import diversity

CAPTIONS = ["a dog runs", "a dog runs", "a man and a man", "the dog's ball"]
TRAINING = ["A dog runs .", "Two birds .", "A man, and a woman ."]


def test_each_count_by_hand():
    assert diversity(CAPTIONS, TRAINING) == {
        "distinct": 75.0,  # the first comes twice
        "words_used": 8,  # a dog runs man and the 's ball
        "mean_length": 15 / 4,
        "training_copies": 50.0,  # both of the first
        "repeated_bigram": 25.0,  # "a man"
    }


def test_case_and_punctuation_do_not_hide_a_copy():
    assert diversity(["Two birds!"], TRAINING)["training_copies"] == 100
    assert diversity(["birds two"], TRAINING)["training_copies"] == 0


def test_without_training_captions_copies_are_unknown():
    assert diversity(CAPTIONS, [])["training_copies"] is None


@pytest.mark.parametrize(("caption", "repeats"), [("a a", 0), ("a a a", 100), ("a b c a", 0), ("a b c a b", 100)])
def test_a_bigram_repeats_if_it_starts_twice(caption, repeats):
    assert diversity([caption], [])["repeated_bigram"] == repeats


def test_the_same_words_in_another_dress_are_not_distinct():
    assert diversity(["A dog.", "a dog"], [])["distinct"] == 50
