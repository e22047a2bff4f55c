import pytest
import torch
from fake_decoders import BOS, A, B, Script, features_of

from caption_utils.search.hypotheses import Hypothesis, Unfinished


@pytest.mark.parametrize(("penalty", "score"), [(0.0, -6.0), (1.0, -2.0), (0.5, -6 / 3**0.5)])
def test_the_score_counts_the_end_as_a_token(penalty, score):
    assert Hypothesis([A, B], -6.0, torch.empty(2, 5)).score(penalty) == pytest.approx(score)


def test_captions_grow_and_end_as_their_parents_words():
    script = Script([{A: 1.0}])
    live = Unfinished.start(script, features_of(0, 0), count=2)
    assert live.images.tolist() == [0, 0, 1, 1]
    parents, words = [[0, 1, 3], [1, 0, 2]], [[A, B, A], [B, A, B]]
    for parent, word in zip(torch.tensor(parents), torch.tensor(words), strict=True):
        _, alpha, state = script.step(live.ids[:, -1], live.state)
        live = live.extend(parent, word, torch.tensor([-1.0, -2.0, -3.0]), alpha, state)
    assert live.images.tolist() == [0, 0, 1]
    assert live.ids.tolist() == [[BOS, B, B], [BOS, A, A], [BOS, A, B]]
    (ended,) = live.finished(torch.tensor([2]), torch.tensor([-4.0]))
    assert (ended.ids, ended.log_probability) == ([A, B], -4.0)
    assert ended.alphas.argmax(dim=1).tolist() == [0, 1]
