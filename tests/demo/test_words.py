from random import Random

from caption_utils.demo.words import RARE, with_common_words, with_rare_word


def test_rare_words_can_be_replaced_by_common_ones_again():
    common = "there are a blue ball and a purple umbrella"
    rare = {with_rare_word(common, Random(seed)) for seed in range(40)}
    assert all(" ".join(with_common_words(sentence.split())) == common for sentence in rare)
    assert {"there are an azure ball and a purple umbrella", "there are a blue ball and a purple parasol"} < rare
    assert all(len(set(sentence.split()) & RARE.keys()) == 1 for sentence in rare)


def test_a_sentence_without_common_words_stays():
    assert with_rare_word("there is a fish", Random(0)) == "there is a fish"


def test_a_rare_word_after_the_wrong_article_stays():
    assert with_common_words("a azure ball".split()) == "a azure ball".split()
