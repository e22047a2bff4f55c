import math
from itertools import product
from unittest import mock

import pytest
import torch
from torch.nn import functional as F

from caption_utils.config import TrainConfig
from caption_utils.metrics.perplexity import perplexity
from caption_utils.training.loss import caption_loss, context_loss, hard_loss


@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_the_cross_entropy_by_hand(make_decoder, make_batches, smoothing):
    decoder = make_decoder()
    (batch,) = make_batches().in_order()
    log_probabilities = decoder(batch.features, batch.tokens, batch.owner)[0].log_softmax(1)
    words = log_probabilities.shape[1]
    total = 0.0
    for row, target in zip(log_probabilities.tolist(), batch.targets.tolist(), strict=True):
        total -= sum((smoothing / words + (1 - smoothing) * (word == target)) * row[word] for word in range(words))
    loss = caption_loss(decoder, batch, TrainConfig(label_smoothing=smoothing))
    assert loss.item() == pytest.approx(total / len(batch.targets), rel=1e-5)


def test_the_doubly_stochastic_penalty_by_hand(make_decoder, make_batches):
    decoder = make_decoder()
    (batch,) = make_batches().in_order()
    plain = caption_loss(decoder, batch, TrainConfig())
    penalized = caption_loss(decoder, batch, TrainConfig(doubly_stochastic=2.0))
    _, alphas = decoder(batch.features, batch.tokens, batch.owner)
    looked = torch.zeros(len(batch.owner), 5)
    position = 0
    for size in batch.tokens.batch_sizes.tolist():
        looked[:size] += alphas[position : position + size]
        position += size
    expected = sum((1 - total) ** 2 for row in looked.tolist() for total in row) / len(looked)
    assert (penalized - plain).item() == pytest.approx(2 * expected, rel=1e-5)
    assert plain.item() == pytest.approx(math.log(perplexity(decoder, [batch])), rel=1e-5)


def test_the_penalty_alone_evens_out_where_the_model_looks(make_decoder, make_batches):
    """Its gradient flows: with nothing else to learn, what each region gets over a caption draws near 1."""
    decoder = make_decoder()
    (batch,) = make_batches().in_order()
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    penalties = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = caption_loss(decoder, batch, TrainConfig(doubly_stochastic=1.0)) - caption_loss(
            decoder, batch, TrainConfig()
        )
        loss.backward()
        optimizer.step()
        penalties.append(loss.item())
    assert penalties[-1] < penalties[0]


@pytest.mark.parametrize(
    "variant",
    [{"deep_output": True}, {"deep_output": True, "region_dim": 6, "tie_weights": True}, {"attention": "luong"}],
)
def test_the_context_alone_tells_the_words_by_hand(make_decoder, make_batches, variant):
    decoder = make_decoder(**variant)
    (batch,) = make_batches().in_order()
    _, alphas = decoder(batch.features, batch.tokens, batch.owner)
    regions, total, position = decoder.regions(batch.features), 0.0, 0
    for size in batch.tokens.batch_sizes.tolist():
        for caption in range(size):
            weighted = zip(alphas[position], regions[batch.owner[caption]], strict=True)
            context, silent = sum(a * f for a, f in weighted), torch.zeros(decoder.config.hidden_dim)
            if decoder.config.attention == "luong":
                output = torch.tanh(decoder.W_c(torch.cat([context, silent])))
            else:
                output = torch.cat([silent, context])
            logits = decoder.output(decoder.to_embedding(output))
            total -= logits.log_softmax(0)[batch.targets[position]].item()
            position += 1
    assert position == len(batch.targets)
    assert context_loss(decoder, alphas, batch).item() == pytest.approx(total, rel=1e-5)
    plain, both = (caption_loss(decoder, batch, TrainConfig(from_context=weight)) for weight in (0, 0.5))
    assert (both - plain).item() == pytest.approx(0.5 * total / len(batch.targets), rel=1e-4)


def test_the_context_alone_teaches_attention_to_point(make_decoder, make_batches):
    """By the context's cross-entropy alone, attention learns which region holds the word."""
    decoder = make_decoder(deep_output=True)
    (batch,) = make_batches().in_order()
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        _, alphas = decoder(batch.features, batch.tokens, batch.owner)
        loss = context_loss(decoder, alphas, batch)
        loss.backward()
        assert decoder.attention.W_h.weight.grad.abs().sum() > 0
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_student_is_held_to_the_mean_of_its_teachers(make_decoder, make_batches, share):
    student, teachers = make_decoder("concat"), [make_decoder("bahdanau"), make_decoder("general")]
    (batch,) = make_batches().in_order()
    config = TrainConfig(distillation=share, label_smoothing=0.1)
    logits, one, other = (each(batch.features, batch.tokens, batch.owner)[0] for each in (student, *teachers))
    mean = (one.softmax(1) + other.softmax(1)) / 2
    taught = -(mean * logits.log_softmax(1)).sum(1).mean()
    plain = caption_loss(student, batch, config)
    loss = caption_loss(student, batch, config, teachers=teachers)
    assert loss.item() == pytest.approx(((1 - share) * plain + share * taught).item(), rel=1e-5)
    loss.backward()
    assert all(parameter.grad is None for teacher in teachers for parameter in teacher.parameters())


@pytest.mark.parametrize("parts", [3, 9])
def test_the_parts_of_a_batch_have_its_loss_and_gradient(make_decoder, make_batches, parts, variant):
    """Four images with different numbers of captions and words, divided for two processes and parts."""
    batches = make_batches()
    decoder, config = make_decoder(variant), TrainConfig(label_smoothing=0.1, doubly_stochastic=0.5)
    (batch,) = next(batches.shuffled(1)).parts
    loss = caption_loss(decoder, batch, config)
    whole = torch.autograd.grad(loss, list(decoder.parameters()))
    shares = [next(batches.shuffled(1, index, 2, parts)) for index in range(2)]
    losses = [
        caption_loss(decoder, part, config, share.tokens, share.captions) for share in shares for part in share.parts
    ]
    added = torch.autograd.grad(sum(losses), list(decoder.parameters()))
    assert len(losses) == 4
    assert sum(losses).item() == pytest.approx(loss.item(), abs=1e-6)
    for one, other in zip(whole, added, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


ZERO = torch.zeros(())


def all_hard(decoder):
    """Every caption looks at samples."""
    return lambda features, tokens, owner, hard: decoder(features, tokens, owner, torch.ones_like(hard))


@pytest.fixture(params=["bahdanau", "general", "concat-feeding"])
def hard_decoder(request, make_decoder):
    return make_decoder(request.param, hard=True)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", [0.0, -7.0])
def test_the_gradient_of_hard_attention_is_exact_on_average(hard_decoder, make_batches, baseline):
    """Over all ways to look at three regions in three steps, weighted by their probabilities."""
    (batch,) = make_batches(captions={"a": ["two birds"]}).in_order()
    batch = batch.__class__(batch.features[:, :3], batch.tokens, batch.targets, batch.owner)
    parameters, config = list(hard_decoder.parameters()), TrainConfig(reinforce=1.0, entropy=0.0)
    estimated, exact, total = [torch.zeros_like(p) for p in parameters], ZERO, ZERO
    for path in product(range(3), repeat=3):
        regions = iter(F.one_hot(torch.tensor(path), 3).float().view(3, 1, 1, 3))
        with mock.patch("caption_utils.model.decoder.sampled", lambda alpha, regions=regions: next(regions)):
            loss, log_words = hard_loss(all_hard(hard_decoder), torch.tensor(baseline), batch, config)
        regions = iter(F.one_hot(torch.tensor(path), 3).float().view(3, 1, 1, 3))
        with mock.patch("caption_utils.model.decoder.sampled", lambda alpha, regions=regions: next(regions)):
            logits, looks = hard_decoder(batch.features, batch.tokens, batch.owner, torch.ones(1, 1, 1))
        chance = (looks[:, 0] * looks[:, 1]).sum(dim=1).prod()
        cross_entropy = F.cross_entropy(logits, batch.targets)
        assert log_words.item() == pytest.approx(-3 * cross_entropy.item(), rel=1e-5)
        exact, total = exact + chance * cross_entropy, total + chance.detach()
        gradients = torch.autograd.grad(loss, parameters)
        for sum_, gradient in zip(estimated, gradients, strict=True):
            sum_ += chance.detach() * gradient
    assert total.item() == pytest.approx(1)
    for one, other in zip(estimated, torch.autograd.grad(exact, parameters), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_the_terms_of_hard_attention_by_hand(hard_decoder, make_batches):
    """Equation 12 in loops: sums over the words of each caption, the coin and the samples as they fell."""
    (batch,) = make_batches().in_order()
    baseline, config = torch.tensor(-3.0), TrainConfig(reinforce=0.5, entropy=0.2, doubly_stochastic=1.0)
    outputs = []

    def forward(*inputs):
        outputs.extend(hard_decoder(*inputs))
        return outputs

    torch.manual_seed(1)
    loss, log_words = hard_loss(forward, baseline, batch, config)
    (logits, looks), captions = outputs, range(len(batch.owner))
    words, regions, entropy = [0.0 for _ in captions], [0.0 for _ in captions], 0.0
    steps = [b for size in batch.tokens.batch_sizes.tolist() for b in range(size)]
    log_probabilities = logits.log_softmax(1).tolist()
    for row, target, (alpha, sample), b in zip(
        log_probabilities, batch.targets.tolist(), looks.tolist(), steps, strict=True
    ):
        words[b] += row[target]
        regions[b] += math.log(alpha[sample.index(1.0)]) if 1.0 in sample else 0.0
        entropy -= sum(a * math.log(a) for a in alpha)
    learnt = sum(0.5 * (word + 3) * region for word, region in zip(words, regions, strict=True))
    plain = caption_loss(lambda *_: (logits, looks[:, 0]), batch, config)
    assert log_words.tolist() == pytest.approx(words, rel=1e-5)
    assert 0 < regions.count(0.0) < len(regions)
    assert loss.item() == pytest.approx(plain.item() - (learnt + 0.2 * entropy) / len(batch.targets), rel=1e-5)


@pytest.mark.slow
def test_one_caption_in_two_keeps_its_expected_context(hard_decoder, make_batches):
    (batch,) = make_batches().in_order()
    coins = []

    def forward(features, tokens, owner, hard):
        coins.append(hard.flatten())
        return hard_decoder(features, tokens, owner, hard)

    torch.manual_seed(0)
    for _ in range(60):
        hard_loss(forward, ZERO, batch, TrainConfig())
    coins = torch.stack(coins)  # (60, 9)
    assert set(coins.flatten().tolist()) == {0, 1}
    assert coins.mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 540**0.5)
    assert (coins.std(dim=1) > 0).sum() > 50  # each caption has its own


def test_a_weight_that_vanishes_leaves_every_gradient_finite(make_decoder, make_batches):
    decoder = make_decoder("bahdanau", hard=True)
    with torch.no_grad():
        decoder.attention.v.weight.mul_(1e4)
    (batch,) = make_batches().in_order()
    loss, _ = hard_loss(all_hard(decoder), ZERO, batch, TrainConfig(entropy=1.0))
    assert decoder(batch.features, batch.tokens, batch.owner)[1].min() == 0
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, list(decoder.parameters())))
