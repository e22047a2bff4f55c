"""The fast loop gives the values and gradients of the plain one, ``BahdanauDecoder.forward``."""

import pytest
import torch

from caption_utils.fast.bahdanau import make_plan, teacher_forcing
from caption_utils.model.decoder import BahdanauDecoder


@pytest.fixture(
    params=["bahdanau", "tied", "projected", "deep", "deep-unprojected", "sparsemax", "entmax", "local", "word-vectors"]
)
def decoder(make_decoder, request):
    settings = {"attention": "bahdanau"} if request.param == "entmax" else {}
    return make_decoder(request.param, **settings).double()


@pytest.fixture
def batch(make_batches):
    (batch,) = make_batches().in_order()
    return batch


def everything(forward, decoder, features, batch, owner):
    """Logits and alphas, and the gradients of features and parameters through both."""
    features = features.double().requires_grad_()
    logits, alphas = forward(decoder, features, batch.tokens, owner)
    loss = logits.log_softmax(dim=1)[:, 2].sum() + (alphas**3).sum()
    return [logits, alphas, *torch.autograd.grad(loss, [features, *decoder.parameters()])]


@pytest.mark.parametrize("images", [[0, 1, 2, 3], [3, 1, 0, 2], [5, 0, 2, 4]])
def test_values_and_gradients_are_those_of_the_plain_loop(decoder, batch, images):
    """Also where the images come in another order, or some have no caption."""
    owner, features = torch.tensor(images)[batch.owner], torch.randn(6, 5, 6)
    fast = everything(teacher_forcing, decoder, features, batch, owner)
    plain = everything(BahdanauDecoder.forward, decoder, features, batch, owner)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def test_a_saturated_score_keeps_its_gradient(decoder, batch):
    with torch.no_grad():
        decoder.attention.W_f.weight.mul_(30)
    fast = everything(teacher_forcing, decoder, batch.features, batch, batch.owner)
    plain = everything(BahdanauDecoder.forward, decoder, batch.features, batch, batch.owner)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def test_features_without_a_gradient_leave_the_others_unchanged(decoder, batch):
    wanted = everything(teacher_forcing, decoder, batch.features, batch, batch.owner)[3:]
    logits, alphas = teacher_forcing(decoder, batch.features.double(), batch.tokens, batch.owner)
    loss = logits.log_softmax(dim=1)[:, 2].sum() + (alphas**3).sum()
    for one, other in zip(torch.autograd.grad(loss, list(decoder.parameters())), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_only_running_captions_and_their_images_take_part():
    plan = make_plan(torch.tensor([3, 2, 1]), torch.tensor([0, 1, 0]), 3)
    assert [size for size, *_ in plan.steps] == [3, 2, 1]
    assert [list(range(6)[rows]) for _, rows, _ in plan.steps] == [[0, 1, 2], [3, 4], [5]]
    assert [(layout.images, layout.longest) for *_, layout in plan.steps] == [(2, 2), (2, 1), (1, 1)]
    assert (plan.tokens.images, plan.tokens.longest) == (3, 4)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_lower_precision_around_the_loop_trains_in_the_parameters_precision(decoder, batch, precision):
    decoder.float()
    wanted = decoder(batch.features, batch.tokens, batch.owner)
    with torch.autocast("cpu", precision):
        logits, alphas = teacher_forcing(decoder, batch.features, batch.tokens, batch.owner)
        (logits.float().sum() + alphas.square().sum()).backward()
    assert alphas.dtype == torch.float32
    torch.testing.assert_close(alphas, wanted[1], atol=0.02, rtol=0)
    assert all(parameter.grad.isfinite().all() for parameter in decoder.parameters())
