import pytest
import torch

from caption_utils.highest import highest


@pytest.mark.parametrize("by_word", [False, True])
@pytest.mark.parametrize("words", [1, 2, 7, 8, 9, 16, 17, 100, 3489])
def test_they_are_those_of_topk(words, by_word):
    scores = torch.randn(30, words, generator=torch.Generator().manual_seed(words))
    scores = scores.T.contiguous().T if by_word else scores
    for count in {1, min(5, words), min(40, words)}:
        values, places = highest(scores, count)
        assert torch.equal(values, scores.topk(count).values)
        assert torch.equal(scores.gather(1, places), values)
        assert all(len(set(row)) == count for row in places.tolist())


def test_what_is_forbidden_comes_last():
    scores = torch.full((2, 20), -torch.inf)
    scores[0, 19], scores[1, 3], scores[1, 4] = -3, -1, -2
    values, places = highest(scores, 3)
    assert values.tolist() == [[-3, -torch.inf, -torch.inf], [-1, -2, -torch.inf]]
    assert places[:, 0].tolist() == [19, 3] and places[1, 1] == 4
    assert (places < 20).all()
