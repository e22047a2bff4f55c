import math

import torch
from fake_decoders import BOS, EOS, PAD, UNK, A, B, C

from caption_utils.config import SearchConfig
from caption_utils.search.constraints import IMPOSSIBLE, next_scores

LOGITS = torch.arange(7.0).log_softmax(0)


def allowed(ids, limits, logits=LOGITS):
    """Words that may follow, after checking that they keep the model's log-probabilities."""
    scores = next_scores(logits.clone(), torch.tensor([BOS, *ids]), limits)
    words = [word for word, score in enumerate(scores.tolist()) if score > -math.inf]
    torch.testing.assert_close(scores[words], logits[words])
    return words


def test_a_caption_begins_with_a_word_and_may_then_end():
    assert allowed([], SearchConfig()) == [A, B, C]
    assert allowed([A], SearchConfig()) == [EOS, A, B, C]
    assert not {PAD, BOS, UNK} & set(allowed([A], SearchConfig()))


def test_lengths():
    limits = SearchConfig(max_length=2)
    assert [allowed([A] * n, limits) for n in range(3)] == [[A, B, C], [EOS, A, B, C], [EOS]]


def test_no_run_of_words_comes_twice():
    assert allowed([A, B], SearchConfig(no_repeat_ngram=1)) == [EOS, C]
    assert allowed([A, B, A], SearchConfig(no_repeat_ngram=2)) == [EOS, A, C]
    assert allowed([A, A], SearchConfig(no_repeat_ngram=2)) == [EOS, B, C]
    assert allowed([A, B, C, A, B], SearchConfig(no_repeat_ngram=3)) == [EOS, A, B]
    assert allowed([A, B], SearchConfig(no_repeat_ngram=3)) == [EOS, A, B, C]


def test_each_caption_has_a_past_of_its_own():
    ids = torch.tensor([[BOS, A], [BOS, B]])
    scores = next_scores(LOGITS.expand(2, -1).clone(), ids, SearchConfig(no_repeat_ngram=1))
    assert (scores > -math.inf).nonzero().tolist() == [[0, 2], [0, 5], [0, 6], [1, 2], [1, 4], [1, 6]]


def test_a_caption_that_no_word_may_continue_ends():
    assert allowed([A, B, C], SearchConfig(no_repeat_ngram=1)) == [EOS]


def test_what_the_model_rules_out_may_still_be_said_where_nothing_else_may():
    logits = torch.full((7,), -math.inf)
    logits[EOS] = 0
    scores = next_scores(logits, torch.tensor([BOS]), SearchConfig())
    assert scores[[A, B, C]].tolist() == [torch.tensor(IMPOSSIBLE).item()] * 3
    assert scores[EOS] == -math.inf


def test_no_caption_has_no_scores():
    assert next_scores(torch.zeros(0, 7), torch.zeros(0, 2, dtype=torch.long), SearchConfig()).shape == (0, 7)
