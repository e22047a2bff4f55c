import math
from collections import Counter

import pytest
import torch
from fake_decoders import BOS, EOS, PAD, UNK, A, B, C, Chain, Maze, Script, features_of, may_follow
from hypothesis import given, settings
from hypothesis import strategies as st

from caption_utils.config import MAX_LENGTH
from caption_utils.search.sampling import LIMITS, sample

ONE_WORD = Chain({BOS: {A: 0.6, B: 0.3, C: 0.1}, A: {EOS: 1.0}, B: {EOS: 1.0}, C: {EOS: 1.0}})


@pytest.mark.parametrize("seed", [0, 7])
def test_words_come_as_often_as_they_should(seed):
    (found,) = sample(ONE_WORD, features_of(0), seed, count=1000)
    assert {len(hypothesis.ids) for hypothesis in found} == {1}
    counts = Counter(hypothesis.ids[0] for hypothesis in found)
    assert [counts[word] / 1000 for word in (A, B, C)] == pytest.approx([0.6, 0.3, 0.1], abs=0.05)


def test_the_log_probability_is_the_model_s_own(make_decoder, variant):
    decoder, features = make_decoder(variant), torch.randn(2, 5, 6) * 4
    for image, found in enumerate(sample(decoder, features, count=3)):
        for hypothesis in found:
            state, total = decoder.init_state(features[image : image + 1]), 0.0
            for position, (read, said) in enumerate(zip([BOS, *hypothesis.ids], [*hypothesis.ids, EOS], strict=True)):
                logits, alpha, state = decoder.step(torch.tensor([read]), state)
                total += logits[0].log_softmax(0)[said].item()
                if said != EOS:
                    torch.testing.assert_close(hypothesis.alphas[position], alpha[0], atol=1e-5, rtol=1e-4)
            assert hypothesis.log_probability == pytest.approx(total, abs=1e-4)


def ids_of(found):
    return [[hypothesis.ids for hypothesis in captions] for captions in found]


def test_a_seed_gives_the_same_captions_whatever_the_batch(make_decoder, variant):
    decoder, features = make_decoder(variant), torch.randn(5, 5, 6)
    together = ids_of(sample(decoder, features, seed=3, count=4))
    assert together == ids_of(sample(decoder, features, seed=3, count=4))
    assert together == [ids_of(sample(decoder, image[None], seed=3, count=4))[0] for image in features]
    assert together[::-1] == ids_of(sample(decoder, features.flip(0), seed=3, count=4))
    assert together != ids_of(sample(decoder, features, seed=4, count=4))


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
def test_decoders_of_other_precision_are_sampled(make_decoder, precision):
    decoder, features = make_decoder().to(precision), torch.randn(3, 5, 6).to(precision)
    for captions in sample(decoder, features, count=2):
        assert all(caption.ids and math.isfinite(caption.log_probability) for caption in captions)


def test_images_and_draws_have_luck_of_their_own():
    script = Script(*[[{A: 0.4, B: 0.3, C: 0.3}] * 8 + [{EOS: 1.0}]] * 2)
    found = ids_of(sample(script, features_of(0, 1), count=5))
    assert len({tuple(ids) for captions in found for ids in captions}) == 10


def test_a_caption_that_would_never_end_is_ended():
    (found,) = sample(Script([{A: 0.5, B: 0.5}]), features_of(0), count=2)
    assert [len(hypothesis.ids) for hypothesis in found] == [MAX_LENGTH] * 2


@given(
    seed=st.integers(0, 2**32 - 1),
    words=st.integers(1, 4),
    broken=st.sampled_from([None, math.nan, math.inf, -math.inf]),
)
@settings(max_examples=50, deadline=None)
def test_every_caption_keeps_the_rules(seed, words, broken):
    maze = Maze(seed, words)
    if broken is not None:
        maze.logits[seed % 5 :: 5, seed % (4 + words) :] = broken
    for found in sample(maze, features_of(0, 1), seed, 3):
        assert len(found) == 3
        for hypothesis in found:
            said = [*hypothesis.ids, EOS]
            assert said[0] not in (EOS, PAD, BOS, UNK)
            assert all(word in may_follow(tuple(said[:i]), range(4, 4 + words), LIMITS) for i, word in enumerate(said))
            assert len(hypothesis.alphas) == len(hypothesis.ids)


def test_an_image_whose_captions_have_ended_costs_no_more():
    script = Script([{A: 1.0}, {EOS: 1.0}], [{A: 1.0}, {A: 1.0}, {A: 1.0}, {EOS: 1.0}])
    sizes = []
    step = script.step
    script.step = lambda tokens, state: sizes.append(len(tokens)) or step(tokens, state)
    sample(script, features_of(0, 1, 0), count=2)
    assert sizes == [6, 6, 2, 2]


def test_no_image_has_no_caption(make_decoder):
    assert sample(make_decoder(), torch.zeros(0, 5, 6)) == []
