import math
from dataclasses import dataclass
from itertools import pairwise, product

import pytest
import torch

from caption_utils.errors import InputError
from caption_utils.limits import MAX_LENGTH
from caption_utils.search import SearchConfig, beam_search
from caption_utils.vocab import Vocabulary

PAD, BOS, EOS, UNK = Vocabulary.pad, Vocabulary.bos, Vocabulary.eos, Vocabulary.unk
A, B, C = 4, 5, 6  # the three words


@dataclass(frozen=True)
class Position:
    image: torch.Tensor
    step: int

    def map_recurrent(self, change):  # all beams of an image are at the same step
        return self

    def select(self, rows):
        return Position(self.image[rows], self.step)


class Script:
    """A decoder whose log-probabilities are written down: ``table[image][step]`` maps word to probability.

    Its attention at step t is all on region t. Image i is told by its only feature.
    """

    def __init__(self, *tables, words=7, regions=50):
        self.words, self.regions = words, regions
        self.tables = tables

    def init_state(self, features):
        return Position(features[:, 0, 0].long(), 0)

    def step(self, tokens, state):
        logits = torch.full((*tokens.shape, self.words), -20.0)  # (B, K, V)
        for row, image in enumerate(state.image.tolist()):
            table = self.tables[image]
            for word, probability in table[min(state.step, len(table) - 1)].items():
                logits[row, :, word] = math.log(probability)
        alpha = torch.zeros(*tokens.shape, self.regions)  # (B, K, N)
        alpha[..., state.step] = 1
        return logits, alpha, Position(state.image, state.step + 1)


def greedy_search(decoder, features, max_length=MAX_LENGTH):
    return [best for (best,) in beam_search(decoder, features, SearchConfig(1, max_length=max_length))]


def features_of(*images):
    return torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 1).expand(-1, 50, 1)


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


def exhaustive(decoder, features, words, longest):
    """Every caption of 1 to ``longest`` of ``words``, with its log-probability, worked out one step at a time."""
    scores = {}
    for length in range(1, longest + 1):
        for ids in product(words, repeat=length):
            state, total = decoder.init_state(features), 0.0
            for read, said in pairwise([BOS, *ids, EOS]):
                logits, _, state = decoder.step(torch.tensor([read]), state)
                total += logits.log_softmax(-1)[0, said].item()
            scores[ids] = total
    return scores


def test_a_beam_wide_enough_finds_what_exhaustive_search_finds(make_decoder, variant):
    decoder = make_decoder(variant, vocab_size=7).eval()
    features = torch.randn(1, 4, decoder.config.feature_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scores = exhaustive(decoder, features, (A, B, C), longest=3)
    (found,) = beam_search(decoder, features, SearchConfig(len(scores), max_length=3))
    assert {tuple(hypothesis.ids) for hypothesis in found} == set(scores)
    for hypothesis in found:
        assert hypothesis.log_probability == pytest.approx(scores[tuple(hypothesis.ids)], abs=1e-4)
    per_word = [scores[tuple(hypothesis.ids)] / (len(hypothesis.ids) + 1) for hypothesis in found]
    assert per_word == sorted(per_word, reverse=True)


def test_two_beams_find_what_greed_misses():
    class Garden:
        """A is likelier than B, but all that follows A is unlikely."""

        def init_state(self, features):
            return Position(features[:, 0, 0].long(), 0)

        def step(self, tokens, state):
            follow = {BOS: {A: 0.6, B: 0.4}, A: {A: 0.3, B: 0.3, C: 0.3, EOS: 0.1}, B: {EOS: 1.0}, EOS: {EOS: 1.0}}
            logits = torch.full((*tokens.shape, 7), -20.0)
            for place in product(*map(range, tokens.shape)):
                for word, probability in follow.get(tokens[place].item(), {EOS: 1.0}).items():
                    logits[(*place, word)] = math.log(probability)
            return logits, torch.full((*tokens.shape, 50), 1 / 50), Position(state.image, state.step + 1)

    ((greedy,),) = beam_search(Garden(), features_of(0), 1)
    ((best, _),) = beam_search(Garden(), features_of(0), 2)
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


def test_less_than_one_beam_is_refused(make_decoder):
    with pytest.raises(InputError, match="beam=0: choose 1"):
        beam_search(make_decoder(), torch.zeros(1, 4, 8), 0)
