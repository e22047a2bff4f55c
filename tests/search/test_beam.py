import math
from dataclasses import replace

import pytest
import torch
from fake_decoders import BOS, EOS, PAD, UNK, A, B, C, Chain, Maze, Script, features_of, may_follow
from hypothesis import given, settings
from hypothesis import strategies as st

from caption_utils.config import MAX_LENGTH, SearchConfig
from caption_utils.errors import InputError
from caption_utils.search.beam import beam_search

seeds = st.integers(0, 2**32)


def greedy_search(decoder, features, max_length=MAX_LENGTH):
    config = SearchConfig(1, max_length=max_length, no_repeat_ngram=0)
    return [best for (best,) in beam_search(decoder, features, config)]


def test_the_likeliest_word_is_taken_at_each_step():
    script = Script([{A: 0.6, B: 0.4}, {C: 0.7, EOS: 0.3}, {EOS: 0.9, A: 0.1}])
    (found,) = greedy_search(script, features_of(0))
    assert found.ids == [A, C]
    assert found.log_probability == pytest.approx(math.log(0.6 * 0.7 * 0.9), abs=1e-5)
    assert found.alphas.argmax(1).tolist() == [0, 1]
    assert found.alphas.shape == (2, 50)


def test_specials_are_never_chosen():
    script = Script([{UNK: 0.5, BOS: 0.2, PAD: 0.2, B: 0.1}, {PAD: 0.9, EOS: 0.1}])
    (found,) = greedy_search(script, features_of(0))
    assert found.ids == [B]
    assert found.log_probability == pytest.approx(math.log(0.1 * 0.1), abs=1e-5)


def test_there_is_at_least_one_word():
    (found,) = greedy_search(Script([{EOS: 0.99, C: 0.01}, {EOS: 1.0}]), features_of(0))
    assert found.ids == [C]
    assert found.log_probability == pytest.approx(math.log(0.01), abs=1e-4)


@pytest.mark.parametrize("longest", [1, 3, MAX_LENGTH])
def test_a_caption_that_would_never_end_is_ended(longest):
    script = Script([{A: 0.75, EOS: 0.25}])
    (found,) = greedy_search(script, features_of(0), max_length=longest)
    assert found.ids == [A] * longest
    assert found.log_probability == pytest.approx(longest * math.log(0.75) + math.log(0.25), abs=1e-4)
    assert found.alphas.shape == (longest, 50)


def test_captions_end_each_at_its_own_time():
    short, long = [{A: 1.0}, {EOS: 0.5, A: 0.4}, {B: 1.0}], [{B: 0.5, C: 0.4}, {C: 1.0}, {A: 1.0}, {EOS: 1.0}]
    script = Script(short, long)
    found = greedy_search(script, features_of(0, 1, 0))
    assert [f.ids for f in found] == [[A], [B, C, A], [A]]
    assert [len(f.alphas) for f in found] == [1, 3, 1]
    alone = [greedy_search(script, features_of(image))[0] for image in (0, 1, 0)]
    assert [f.log_probability for f in found] == pytest.approx([f.log_probability for f in alone], abs=1e-6)


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
def test_decoders_of_other_precision_are_searched(make_decoder, precision):
    decoder, features = make_decoder().to(precision), torch.randn(3, 5, 6).to(precision)
    for captions in beam_search(decoder, features, 3):
        assert all(caption.ids and math.isfinite(caption.log_probability) for caption in captions)


def test_batched_equals_one_at_a_time(make_decoder, variant):
    decoder, features = make_decoder(variant), torch.randn(6, 5, 6) * 4
    together = greedy_search(decoder, features)
    for row, found in enumerate(together):
        (alone,) = greedy_search(decoder, features[row : row + 1])
        assert found.ids == alone.ids
        assert found.log_probability == pytest.approx(alone.log_probability, abs=1e-4)
        torch.testing.assert_close(found.alphas, alone.alphas, atol=1e-5, rtol=0)


def test_the_score_is_the_sum_of_the_steps_and_no_step_has_a_better_word(make_decoder, variant):
    decoder, features = make_decoder(variant), torch.randn(4, 5, 6) * 4
    with torch.no_grad():
        for row, found in enumerate(greedy_search(decoder, features)):
            state, total = decoder.init_state(features[row : row + 1]), 0.0
            for position, (given, wanted) in enumerate(zip([BOS, *found.ids], [*found.ids, EOS], strict=True)):
                logits, alpha, state = decoder.step(torch.tensor([given]), state)
                scores = logits[0].log_softmax(0)
                total += scores[wanted].item()
                if position < MAX_LENGTH:
                    others = [i for i in range(len(scores)) if i not in (PAD, BOS, UNK) and (position or i != EOS)]
                    assert scores[wanted] >= scores[others].max() - 1e-5
                if position < len(found.ids):
                    torch.testing.assert_close(found.alphas[position], alpha[0], atol=1e-5, rtol=0)
            assert found.log_probability == pytest.approx(total, abs=1e-4)
            assert 1 <= len(found.ids) <= MAX_LENGTH


def test_no_gradient_is_kept(make_decoder):
    (found,) = greedy_search(make_decoder(), torch.randn(1, 5, 6))
    assert not found.alphas.requires_grad


def exhaustive(decoder, features, words, limits):
    """Every caption of ``words`` within ``limits`` with its log-probability, worked out one step at a time."""
    found, open_ = {}, [((), 0.0, BOS, decoder.init_state(features))]
    while open_:
        ids, total, read, state = open_.pop()
        logits, _, state = decoder.step(torch.tensor([read]), state)
        scores = logits[0].log_softmax(-1).tolist()
        for word in may_follow(ids, words, limits):
            if word == EOS:
                found[ids] = total + scores[EOS]
            else:
                open_.append(((*ids, word), total + scores[word], word, state))
    return found


def assert_exhaustive(decoder, features, words, config):
    """A beam as wide as there are captions finds all of them, in the order of their scores."""
    with torch.no_grad():
        expected = exhaustive(decoder, features, words, config)
    (found,) = beam_search(decoder, features, replace(config, beams=len(expected)))
    assert {tuple(hypothesis.ids) for hypothesis in found} == set(expected)
    scores = [hypothesis.score(config.length_penalty) for hypothesis in found]
    assert scores == sorted(scores, reverse=True)
    for hypothesis, score in zip(found, scores, strict=True):
        log_probability = expected[tuple(hypothesis.ids)]
        assert hypothesis.log_probability == pytest.approx(log_probability, abs=1e-4)
        assert score == pytest.approx(log_probability / (len(hypothesis.ids) + 1) ** config.length_penalty, abs=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
def test_a_beam_wide_enough_finds_what_exhaustive_search_finds(make_decoder, variant, penalty):
    decoder = make_decoder(variant, vocab_size=7)
    features = torch.randn(1, 4, decoder.config.feature_dim, generator=torch.Generator().manual_seed(1))
    assert_exhaustive(decoder, features, (A, B, C), SearchConfig(length_penalty=penalty, max_length=3))


@given(
    seed=seeds,
    words=st.integers(1, 3),
    longest=st.integers(1, 4),
    ngram=st.integers(0, 3),
    penalty=st.sampled_from([0.0, 0.7, 2.0]),
)
@settings(max_examples=40, deadline=None)
def test_constraints_leave_what_exhaustive_search_leaves(seed, words, longest, ngram, penalty):
    config = SearchConfig(length_penalty=penalty, max_length=longest, no_repeat_ngram=ngram)
    assert_exhaustive(Maze(seed, words), features_of(0), range(4, 4 + words), config)


@given(seed=seeds, beams=st.integers(2, 6), ngram=st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_no_beam_does_worse_than_greedy(seed, beams, ngram):
    maze, features = Maze(seed, 4), features_of(0, 1, 2)
    config = SearchConfig(beams, 0.0, max_length=8, no_repeat_ngram=ngram)
    greedy = beam_search(maze, features, replace(config, beams=1))
    for penalty in (0.0, 1.0):
        for (alone,), found in zip(
            greedy, beam_search(maze, features, replace(config, length_penalty=penalty)), strict=True
        ):
            likeliest = max(hypothesis.log_probability for hypothesis in found)
            assert likeliest >= alone.log_probability - 1e-4
            surpassed = all(hypothesis.log_probability >= alone.log_probability - 1e-4 for hypothesis in found)
            assert surpassed or found[0].score(penalty) >= alone.score(penalty) - 1e-4
            assert len({tuple(hypothesis.ids) for hypothesis in found}) == len(found)
            assert penalty or found[0].log_probability == likeliest


@given(
    seed=seeds,
    beams=st.integers(1, 6),
    ngram=st.integers(0, 3),
    words=st.integers(1, 4),
    broken=st.sampled_from([None, math.nan, math.inf, -math.inf]),
)
@settings(max_examples=50, deadline=None)
def test_there_is_always_a_caption_and_it_keeps_the_rules(seed, beams, ngram, words, broken):
    maze = Maze(seed, words)
    if broken is not None:
        maze.logits[seed % 5 :: 5, seed % (4 + words) :] = broken
    config = SearchConfig(beams, max_length=6, no_repeat_ngram=ngram)
    for found in beam_search(maze, features_of(0, 1), config):
        assert 1 <= len(found) <= beams
        for hypothesis in found:
            said = [*hypothesis.ids, EOS]
            assert said[0] != EOS
            assert all(word in may_follow(tuple(said[:i]), range(4, 4 + words), config) for i, word in enumerate(said))
            assert len(hypothesis.alphas) == len(hypothesis.ids)
            assert not math.isnan(hypothesis.log_probability)


def test_the_greedy_caption_is_followed_where_a_beam_loses_it():
    after = {
        BOS: {A: 0.4, B: 0.35},
        A: {C: 0.3},
        B: {7: 0.5, 8: 0.5},
        C: {EOS: 1.0},
        7: {9: 0.3},
        8: {9: 0.3},
        9: {EOS: 1.0},
    }
    ((greedy,),) = beam_search(Chain(after), features_of(0), 1)
    (found,) = beam_search(Chain(after), features_of(0), SearchConfig(2, 0.0))
    assert greedy.ids == found[0].ids == [A, C]  # with 0.12; after two words both beams begin with B and reach 0.0525
    assert [hypothesis.log_probability for hypothesis in found] == pytest.approx(
        [math.log(0.4 * 0.3), math.log(0.35 * 0.5 * 0.3)], abs=1e-3
    )


def test_an_ended_caption_leaves_its_place_to_others():
    after = {BOS: {A: 0.6, B: 0.4}, A: {EOS: 0.9}, B: {A: 0.5, C: 0.4}, C: {EOS: 1.0}}
    (found,) = beam_search(Chain(after), features_of(0), SearchConfig(2, 0.0))
    assert [hypothesis.ids for hypothesis in found] == [[A], [B, A]]
    (found,) = beam_search(Chain(after), features_of(0), SearchConfig(3, 0.0))
    assert [hypothesis.ids for hypothesis in found] == [[A], [B, A], [B, C]]


def test_the_penalty_orders_but_finds_nothing_else():
    after = {BOS: {A: 0.5, B: 0.5}, A: {EOS: 0.2, C: 0.05}, B: {C: 0.3}, C: {7: 0.9}, 7: {8: 0.9}, 8: {EOS: 0.6}}
    found = {penalty: beam_search(Chain(after), features_of(0), SearchConfig(2, penalty))[0] for penalty in (0.0, 1.0)}
    assert [hypothesis.ids for hypothesis in found[0.0]] == [[A], [B, C, 7, 8]]
    assert [hypothesis.ids for hypothesis in found[1.0]] == [[B, C, 7, 8], [A]]


def test_an_image_whose_search_has_ended_costs_no_more():
    script = Script([{A: 1.0}, {EOS: 1.0}], [{A: 1.0}, {A: 1.0}, {A: 1.0}, {EOS: 1.0}])
    sizes = []
    step = script.step
    script.step = lambda tokens, state: sizes.append(len(tokens)) or step(tokens, state)
    greedy_search(script, features_of(0, 1, 0))
    assert sizes == [3, 3, 1, 1]


def test_keys_are_computed_once_for_each_image(make_decoder, variant, monkeypatch):
    decoder, seen = make_decoder(variant), []
    keys = decoder.attention.keys
    monkeypatch.setattr(decoder.attention, "keys", lambda features: seen.append(len(features)) or keys(features))
    beam_search(decoder, torch.randn(6, 5, 6), 3)
    assert seen == [6]


@pytest.mark.parametrize("beams", [1, 4])
def test_more_images_than_are_searched_at_once(make_decoder, monkeypatch, beams):
    decoder, features = make_decoder(), torch.randn(7, 5, 6) * 4
    together = beam_search(decoder, features, beams)
    monkeypatch.setattr("caption_utils.search.beam.IMAGES_AT_ONCE", 3)
    for one, other in zip(together, beam_search(decoder, features, beams), strict=True):
        assert [hypothesis.ids for hypothesis in one] == [hypothesis.ids for hypothesis in other]


def test_no_image_has_no_caption(make_decoder):
    assert beam_search(make_decoder(), torch.zeros(0, 5, 6)) == []


def test_two_beams_find_what_greed_misses():
    """A is likelier than B, but all that follows A is unlikely."""
    garden = Chain({BOS: {A: 0.6, B: 0.4}, A: {A: 0.3, B: 0.3, C: 0.3, EOS: 0.1}, B: {EOS: 1.0}})
    ((greedy,),) = beam_search(garden, features_of(0), 1)
    ((best, _),) = beam_search(garden, features_of(0), 2)
    assert greedy.ids[0] == A and best.ids == [B]
    assert best.log_probability == pytest.approx(math.log(0.4), abs=1e-4)
    assert best.log_probability > greedy.log_probability


def test_the_attention_follows_its_beam(make_decoder, variant):
    decoder = make_decoder(variant).eval()
    features = torch.randn(2, 4, decoder.config.feature_dim, generator=torch.Generator().manual_seed(2))
    for image, found in enumerate(beam_search(decoder, features, SearchConfig(4, max_length=6))):
        for hypothesis in found:
            state = decoder.init_state(features[image : image + 1])
            for read, alpha in zip([BOS, *hypothesis.ids], hypothesis.alphas, strict=False):
                _, expected, state = decoder.step(torch.tensor([read]), state)
                torch.testing.assert_close(alpha, expected[0], atol=1e-5, rtol=1e-4)


def test_the_attention_follows_its_beam_through_a_maze():
    maze = Maze(seed=3, words=4)
    (found,) = beam_search(maze, features_of(0), SearchConfig(6, max_length=6))
    assert len(found) == 6
    for hypothesis in found:
        state = maze.init_state(features_of(0))
        for read, alpha in zip([BOS, *hypothesis.ids], hypothesis.alphas, strict=False):
            _, expected, state = maze.step(torch.tensor([read]), state)
            assert alpha.tolist() == expected[0].tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 0}, "beams=0 is out of range; choose a value from 1 to 1000"),
        ({"beams": 5000}, "beams=5000 is out of range"),
        ({"length_penalty": -0.1}, "length_penalty=-0.1 is out of range; choose a value from 0 to 2"),
        ({"length_penalty": math.nan}, "length_penalty=nan is out of range"),
        ({"max_length": 0}, "max_length=0 is out of range; choose a value from 1 to 1000"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram=-1 is out of range; choose a value from 0 to 1000"),
    ],
)
def test_settings_out_of_range_are_one_line(settings, message):
    with pytest.raises(InputError, match=message) as error:
        SearchConfig(**settings)
    assert "\n" not in str(error.value)


def test_less_than_one_beam_is_refused(make_decoder):
    with pytest.raises(InputError, match="beams=0 is out of range"):
        beam_search(make_decoder(), torch.zeros(1, 4, 8), 0)


@pytest.mark.parametrize("beams", [1, 4])
def test_by_default_no_three_words_come_twice(make_decoder, beams):
    decoder = make_decoder()
    with torch.no_grad():
        decoder.output.bias[EOS] -= 9
    for found in beam_search(decoder, torch.randn(3, 5, 6), beams):
        for hypothesis in found:
            trigrams = list(zip(hypothesis.ids, hypothesis.ids[1:], hypothesis.ids[2:], strict=False))
            assert len(trigrams) > 3
            assert len(set(trigrams)) == len(trigrams)
