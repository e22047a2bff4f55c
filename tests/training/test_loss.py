import math

import pytest
import torch

from caption_utils.config import TrainConfig
from caption_utils.metrics.perplexity import perplexity
from caption_utils.training.loss import caption_loss


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


@pytest.mark.parametrize("parts", [2, 3, 4, 9])
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
