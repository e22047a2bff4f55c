import itertools

import numpy as np
import pandas as pd
import pytest

from caption_utils.data import exploration
from caption_utils.data.vocab import Vocabulary, tokenize
from caption_utils.metrics.scores import bleu
from caption_utils.runtime import repository


@pytest.mark.parametrize(
    ("text", "nouns", "verbs"),
    [
        ("Two brown dogs are running through a grassy field", "dogs field", "running"),
        ("A black and white dog jumps over a fence", "dog fence", "jumps"),
        ("A building with a red roof", "building roof", ""),
        ("The kite is red", "kite", ""),
        ("A boy dressed in his best suit", "boy best", "dressed"),
        ("A girl in an ice-cream shop", "girl ice-cream", ""),
        ("A woman on the bus during the storm", "woman bus storm", ""),
        ("People walk outside", "", ""),
        ("", "", ""),
    ],
)
def test_nouns_and_verbs(text, nouns, verbs):
    assert exploration.nouns_and_verbs(tokenize(text)) == (nouns.split(), verbs.split())


def test_overlap_counts_each_word_once():
    assert exploration.overlap(["a", "a", "dog"], ["a", "cat"]) == 1 / 3


IMAGES = [
    ["a dog runs on the grass", "a dog runs on the lawn", "the dog runs on the grass"],
    ["two red balls lie there", "two red balls are there now"],
]


def tokenized(images):
    return [[tokenize(text) for text in texts] for texts in images]


def test_human_bleu_scores_each_caption_against_the_others():
    scores = exploration.human_bleu(tokenized(IMAGES))
    assert list(scores.index) == [1, 2, 3]
    for k in (0, 1):
        expected = bleu([texts[k] for texts in IMAGES], [texts[:k] + texts[k + 1 :] for texts in IMAGES])
        assert dict(scores.loc[k + 1]) == pytest.approx(expected)
    assert dict(scores.loc[3]) == pytest.approx(bleu([IMAGES[0][2]], [IMAGES[0][:2]]))


def test_an_image_with_one_caption_is_not_scored():
    images = tokenized(IMAGES)
    pd.testing.assert_frame_equal(exploration.human_bleu([*images, [["alone"]]]), exploration.human_bleu(images))


def test_single_captions_have_no_bleu():
    scores = exploration.human_bleu(tokenized([["a dog"], ["a cat"]]))
    assert (
        scores.empty
        and list(scores.columns) == ["bleu1", "bleu2", "bleu3", "bleu4"]
        and np.isnan(scores["bleu4"].mean())
    )


def test_unknown_words_match_nothing_though_references_keep_them():
    images = tokenized([["a red dog", "a red dog"]])
    vocab = Vocabulary({"a": 5, "dog": 5}, 1)
    assert exploration.human_bleu(images)["bleu1"].tolist() == pytest.approx([100, 100])
    assert exploration.human_bleu(images, vocab)["bleu1"].tolist() == pytest.approx([200 / 3, 200 / 3])


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (exploration.nouns_and_verbs, ["a dog runs"]),
        (exploration.overlap, ["a dog", "a cat"]),
        (exploration.overlap, [["a", "dog"], "a cat"]),
        (exploration.human_bleu, [IMAGES]),
        (exploration.human_bleu, [IMAGES[0]]),
        (exploration.unknown_percent, [IMAGES[0], Vocabulary({"a": 1}, 1)]),
        (exploration.threshold_table, [IMAGES[0], IMAGES[1]]),
    ],
)
def test_text_is_not_read_letter_by_letter(function, arguments):
    with pytest.raises(ValueError, match="must be lists of tokens, as tokenize makes them, not text"):
        function(*arguments)


def test_row_split_leaks_counts_images_on_both_sides():
    assert {exploration.row_split_leaks(["x", "y", "y"], 1, seed) for seed in range(20)} == {(1, 0), (1, 1)}
    assert exploration.row_split_leaks(["x", "x", "y"], 3, 0) == (2, 0)
    assert exploration.row_split_leaks(["x", "x", "y"], 0, 0) == (0, 0)


@pytest.mark.parametrize("sizes", [[1, 1, 1], [2, 2, 2], [1, 2, 4]])
def test_expected_leaks_equal_the_mean_over_all_draws(sizes):
    rows = [image for image, size in enumerate(sizes) for _ in range(size)]
    draws = list(itertools.combinations(range(len(rows)), 2))
    tests, leaks = [], []
    for draw in draws:
        inside = {rows[i] for i in draw}
        tests.append(len(inside))
        leaks.append(len(inside & {rows[i] for i in range(len(rows)) if i not in draw}))
    assert exploration.expected_leaks(sizes, 2) == pytest.approx((np.mean(tests), np.mean(leaks)))


TRAIN = tokenized([["a dog runs", "a dog and a cat", "the cat runs"]])[0]
VAL = tokenized([["a bird runs", "the dog"]])[0]


def test_unknown_percent_counts_the_end_of_each_caption():
    assert exploration.unknown_percent(VAL, Vocabulary({"a": 1, "runs": 1, "the": 1}, 1)) == 100 * 2 / 7


def test_threshold_table():
    table = exploration.threshold_table(TRAIN, VAL, [1, 2])
    assert table["words"].tolist() == [6, 4]
    assert table["kept"].tolist() == pytest.approx([100, 400 / 6])
    assert table["unknown_train"].tolist() == pytest.approx([0, 200 / 14])
    assert table["unknown_val"].tolist() == pytest.approx([100 / 7, 200 / 7])
    assert table["captions_val"].tolist() == [50, 100]
    assert table["unknown_if_counted"].tolist() == pytest.approx([0, 100 / 7])


def test_the_stored_tables_of_flickr8k_are_complete():
    folder = repository() / "results" / "exploration"
    assert pd.read_csv(folder / "flickr8k_human_bleu.csv", index_col="k").shape == (5, 4)
    table = pd.read_csv(folder / "flickr8k_vocabulary.csv", index_col="min_count")
    assert tuple(table.index) == exploration.THRESHOLDS
    assert list(table.columns) == [*exploration.threshold_table(TRAIN, VAL, [1]).columns, "people_bleu4"]
    assert table["words"].is_monotonic_decreasing and table["unknown_val"].is_monotonic_increasing
