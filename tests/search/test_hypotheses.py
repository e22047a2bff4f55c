import pytest
import torch
from fake_decoders import BOS, A, B, Script, features_of

from caption_utils.search.hypotheses import DEAD, Hypothesis, PartialHypotheses, going_on


@pytest.mark.parametrize(("penalty", "score"), [(0.0, -6.0), (1.0, -2.0), (0.5, -6 / 3**0.5)])
def test_the_score_counts_the_end_as_a_token(penalty, score):
    assert Hypothesis([A, B], -6.0, torch.empty(2, 5)).score(penalty) == pytest.approx(score)


def test_the_map_of_a_word_is_the_mean_of_its_tokens_maps():
    found = Hypothesis([A, B, A], -1.0, torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
    assert found.maps([1, 2]).tolist() == [[1.0, 0.0], [0.25, 0.75]]
    assert torch.equal(found.maps([1, 1, 1]), found.alphas)


def test_hypotheses_are_compared_as_objects():
    one, two = (Hypothesis([4], -1.0, torch.ones(1, 3)) for _ in range(2))
    assert two in [one, two] and len({one, two}) == 2


def test_captions_grow_and_end_as_their_parents_words():
    script, features = Script([{A: 1.0}], [{A: 1.0}]), features_of(0, 1)
    live = PartialHypotheses.start(script.init_state(features), features, 2)
    assert live.ids.tolist() == [[BOS]] * 4
    parents, words = [[[0, 1], [3, 2]], [[1, 1], [2, 3]]], [[[A, B], [A, B]], [[B, A], [A, B]]]
    for parent, word in zip(torch.tensor(parents), torch.tensor(words), strict=True):
        _, alpha, state = script.step(live.ids[:, -1], live.state)
        live = live.extend(torch.arange(2), parent, word, torch.tensor([[-1.0, -2.0], [-3.0, DEAD]]), alpha, state)
    assert live.ids.tolist() == [[BOS, B, B], [BOS, B, A], [BOS, A, A], [BOS, B, B]]
    assert live.state.image.tolist() == [0, 0, 1, 1]
    (ended,) = live.finished(torch.tensor([2]), torch.tensor([-4.0]))
    assert (ended.ids, ended.log_probability) == ([A, A], -4.0)
    assert ended.alphas.argmax(dim=1).tolist() == [0, 1]


def test_an_image_without_a_living_hypothesis_leaves():
    script, features = Script([{A: 1.0}], [{A: 1.0}], [{A: 1.0}]), features_of(0, 1, 2)
    live = PartialHypotheses.start(script.init_state(features), features, 2)
    _, alpha, state = script.step(live.ids[:, -1], live.state)
    sums = torch.tensor([[-1.0, DEAD], [DEAD, DEAD], [-2.0, -3.0]])
    images = going_on(sums)
    rows, words = torch.arange(6).view(3, 2), torch.full((3, 2), A)
    live = live.extend(images, rows[images], words[images], sums[images], alpha, state)
    assert live.images.tolist() == [0, 2]
    assert live.state.image.tolist() == [0, 0, 2, 2]
