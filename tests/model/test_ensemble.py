import pytest
import torch

from caption_utils.data.vocab import Vocabulary
from caption_utils.metrics.perplexity import perplexity
from caption_utils.model.ensemble import Ensemble
from caption_utils.search.beam import beam_search


@pytest.fixture
def members(make_decoder):
    return [make_decoder("general"), make_decoder("deep")]


def test_a_word_s_probability_is_the_mean_and_attention_that_of_the_first(members, make_batches):
    (batch,) = make_batches().in_order()
    given = batch.features, batch.tokens, batch.owner
    (first, alphas), (second, _) = (member(*given) for member in members)
    logits, attended = Ensemble(members)(*given)
    torch.testing.assert_close(logits.exp(), (first.softmax(dim=1) + second.softmax(dim=1)) / 2)
    torch.testing.assert_close(attended, alphas)


def test_steps_equal_teacher_forcing(members, make_batches):
    (batch,) = make_batches().in_order()
    ensemble, first = Ensemble(members), batch.tokens.batch_sizes[0]
    tokens, owner = batch.tokens.data[:first], batch.owner
    state = ensemble.init_state(batch.features).select(owner, owner)
    logits, alphas, _ = ensemble.step(tokens, state)
    whole, attended = ensemble(batch.features, batch.tokens, owner)
    torch.testing.assert_close(logits, whole[:first])
    torch.testing.assert_close(alphas, attended[:first])


def test_an_ensemble_is_in_the_mode_of_its_members(make_decoder, make_batches):
    """Perplexity, which restores the mode, must not turn their dropout on."""
    members = [make_decoder(dropout=0.5), make_decoder(dropout=0.5)]
    ensemble = Ensemble(members)
    perplexity(ensemble, make_batches().in_order())
    assert not any(part.training for part in (ensemble, *members))
    assert Ensemble([member.train() for member in members]).training


def test_an_ensemble_of_one_captions_like_its_member(members):
    features = torch.randn(3, 5, 6)
    alone, together = (beam_search(each, features, 3) for each in (members[0], Ensemble(members[:1])))
    assert [[caption.ids for caption in found] for found in together] == [[c.ids for c in found] for found in alone]


def test_a_search_goes_by_all_members(members):
    """The log-probability of a caption that was found is that of its words by teacher forcing."""
    features = torch.randn(1, 5, 6)
    ensemble = Ensemble(members)
    best = beam_search(ensemble, features, 3)[0][0]
    state, total = ensemble.init_state(features), 0.0
    for token, word in zip([Vocabulary.bos, *best.ids], [*best.ids, Vocabulary.eos], strict=True):
        logits, _, state = ensemble.step(torch.tensor([token]), state)
        total += logits[0, word].item()
    assert best.log_probability == pytest.approx(total, abs=1e-4)
