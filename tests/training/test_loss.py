import math

import pytest
import torch
from torch.nn import functional as F

from caption_utils.config import TrainConfig
from caption_utils.metrics.perplexity import perplexity
from caption_utils.training.loss import caption_loss, cross_entropy


@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("numbers", [1, 40, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [6, 600])
def test_cross_entropy_and_its_gradient_are_those_of_pytorch(monkeypatch, smoothing, numbers, dtype, size):
    monkeypatch.setattr("caption_utils.model.cores.CACHED", numbers)
    torch.manual_seed(0)
    logits, targets = (torch.randn(9, 13, dtype=dtype) * size).requires_grad_(), torch.randint(13, (9,))
    ours = cross_entropy(logits * 1, targets, smoothing)
    theirs = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    (grad,), (wanted,) = (torch.autograd.grad(loss * 0.3, logits) for loss in (ours, theirs))
    torch.testing.assert_close(grad, wanted)


def test_logits_that_are_needed_elsewhere_are_missed_there():
    logits = torch.randn(3, 5, requires_grad=True) * 1
    squares = logits.square().sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (squares + cross_entropy(logits, torch.tensor([0, 1, 2]))).backward()


def test_logits_that_were_overwritten_cannot_be_used_again():
    logits = torch.randn(3, 5, requires_grad=True) * 1
    loss = cross_entropy(logits, torch.tensor([0, 1, 2]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_logits_that_nobody_can_make_again_are_refused():
    with pytest.raises(ValueError, match="would overwrite these logits"):
        cross_entropy(torch.randn(3, 5, requires_grad=True), torch.tensor([0, 1, 2]))


def test_there_is_no_gradient_of_the_gradient():
    logits = torch.randn(3, 5, requires_grad=True)
    loss = cross_entropy(logits * 1, torch.tensor([0, 1, 2]))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, logits, create_graph=True)


def test_cross_entropy_of_halves_is_summed_in_single_precision():
    logits, targets = torch.randn(5000, 8, dtype=torch.bfloat16, requires_grad=True), torch.randint(8, (5000,))
    loss = cross_entropy(logits, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(F.cross_entropy(logits.double(), targets, reduction="sum").item(), rel=1e-5)
    loss.backward()
    assert logits.grad.dtype == torch.bfloat16


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


@pytest.mark.parametrize("variant", ["deep", "general"])
def test_steps_captured_as_graphs_have_the_losses_of_plain_ones(make_decoder, make_batches, variant):
    torch.compiler.reset()
    captured = torch.compile(caption_loss, backend="aot_eager")  # captures forward and backward; needs no compiler
    curves, (batch,) = {}, next(make_batches(2).shuffled(1)).parts
    for loss_of in (caption_loss, captured):
        decoder, curve = make_decoder(variant, dropout=0, feature_dropout=0).train(), []
        optimizer = torch.optim.AdamW(decoder.parameters(), lr=5e-3)
        for _ in range(4):
            loss = loss_of(decoder, batch, TrainConfig(label_smoothing=0.1, doubly_stochastic=0.5))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        curves[loss_of] = curve
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert curves[captured] == pytest.approx(curves[caption_loss], rel=1e-5)
