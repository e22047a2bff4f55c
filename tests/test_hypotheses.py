import pytest
import torch
from fake_decoders import A, B, Script, features_of

from caption_utils.hypotheses import Hypothesis, Unfinished, follow


@pytest.mark.parametrize(("penalty", "score"), [(0.0, -6.0), (1.0, -2.0), (0.5, -6 / 3**0.5)])
def test_the_score_counts_the_end_as_a_token(penalty, score):
    assert Hypothesis([A, B], -6.0, torch.empty(2, 5)).score(penalty) == pytest.approx(score)


def test_each_beam_takes_over_what_its_parent_carries():
    values = torch.arange(12).reshape(2, 3, 2)
    assert follow(values, torch.tensor([[2, 2], [0, 1]])).tolist() == [[[4, 5], [4, 5]], [[6, 7], [8, 9]]]


def test_captions_grow_and_end_as_their_parents_words():
    script = Script([{A: 1.0}])
    live = Unfinished.start(script, features_of(0, 0), beams=2)
    sums = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
    for word in (A, B):
        _, alpha, state = script.step(live.ids[..., -1], live.state)
        live = live.extend(torch.tensor([[1, 0], [0, 0]]), torch.full((2, 2), word), sums, alpha, state)
    (ended,) = live.select(torch.tensor([1])).finished(torch.tensor([[1, 0]]), torch.tensor([[False, True]]), sums[1:])
    image, beam, hypothesis = ended
    assert (image, beam, hypothesis.ids, hypothesis.log_probability) == (1, 1, [A, B], -4.0)
    assert hypothesis.alphas.argmax(dim=1).tolist() == [0, 1]
