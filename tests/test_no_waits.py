"""On a GPU no step waits for it, and products are computed in half precision: the real code on a fake one."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from conftest import VARIANTS
from fake_gpu import GPU, WAITS, fake_gpu
from torch.func import functional_call
from torchvision.models import resnet101

from caption_utils.config import TrainConfig
from caption_utils.data.vocab import Vocabulary
from caption_utils.encoders.encoder import ENCODERS, Encoder
from caption_utils.encoders.store import extract
from caption_utils.fast.graphs import Graphed, suits
from caption_utils.metrics.perplexity import sums_of_images
from caption_utils.runtime import sent
from caption_utils.search.beam import beam_search
from caption_utils.search.sampling import sample
from caption_utils.training.checkpoint import Model
from caption_utils.training.trainer import Trainer

pytestmark = pytest.mark.slow

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
# What these are made of is tried in the other variants.
REPEATED = {"dot", "general-feeding", "concat-feeding", "tied", "tied-general", "deep-unprojected", "deep-general"}
# Autocast treats both precisions alike. Float16, for which losses are scaled, too, is tried with all others.
IN_BFLOAT16 = ["bahdanau", "general", "dot-feeding", "tied-word-vectors", "hard"]
TRIED = [(name, "float16") for name in VARIANTS if name not in REPEATED] + [(name, "bfloat16") for name in IN_BFLOAT16]
tried = pytest.mark.parametrize(("variant", "precision"), TRIED)
FEW = {"a": ["dog runs", "birds"], "b": ["sea"]}


@pytest.fixture
def train(make_batches, make_decoder, vocab, tmp_path):
    """A training step on the fake GPU, with whatever ``around`` wraps teacher forcing in; returns the trainer."""

    def run(variant, precision, around=lambda forward: forward, **settings):
        config = TrainConfig(precision=precision, **settings)
        batches = make_batches(captions=FEW, mirror=config.mirror)
        with fake_gpu():
            with GPU:
                decoder = make_decoder(variant)
                teachers = [make_decoder(variant)] if config.distillation else []
            batches.device = GPU
            trainer = Trainer(Model(decoder, vocab, "fake", "f4ce"), config, tmp_path, batches, batches, teachers)
            if decoder.config.hard:  # its loss asks the decoder itself
                decoder.forward = around(decoder.forward)
            trainer.forward = around(trainer.forward)
            (share,) = batches.shuffled(1, parts=config.accumulate)
            trainer.train_step(share)
        return trainer

    return run


def noting(found, then=lambda logits: None):
    """Wraps teacher forcing: its logits' precision goes to ``found``, and they go to ``then``."""

    def around(forward):
        def wrapped(*batch):
            logits, alphas = forward(*batch)
            found.append(logits.dtype)
            then(logits)
            return logits, alphas

        return wrapped

    return around


@tried
def test_a_training_step_does_not_wait(variant, precision, train):
    found = []
    trainer = train(variant, precision, noting(found))
    assert found == [HALVES[precision]]
    assert trainer.scaler.is_enabled() == (precision == "float16")
    gradients = [parameter.grad for parameter in trainer.parameters]
    assert {(gradient.dtype, gradient.device) for gradient in gradients} == {(torch.float32, GPU)}


@pytest.mark.parametrize("variant", ["bahdanau", "deep", "entmax", "general-feeding", "none"])
def test_a_step_by_graphs_does_not_wait(variant, train, monkeypatch):
    monkeypatch.setenv("CAPTION_GRAPHS", "1")
    trainer = train(variant, "float16")
    assert isinstance(trainer.forward, Graphed) == suits(trainer.model.decoder.config)


def test_graphs_are_used_only_if_asked_for(train, monkeypatch):
    monkeypatch.delenv("CAPTION_GRAPHS", raising=False)
    trainer = train("bahdanau", "float16")
    assert trainer.forward is trainer.model.decoder


@pytest.mark.parametrize("attention", ["bahdanau", "general"])
def test_a_step_with_all_that_a_loss_can_have_does_not_wait(attention, train):
    recipe = {"doubly_stochastic": 1.0, "distillation": 0.5, "label_smoothing": 0.1, "mirror": True, "accumulate": 2}
    train(attention, "float16", **recipe)


WAITING = {
    "item": lambda logits: logits.sum().item(),
    "tolist": lambda logits: logits.tolist(),
    "nonzero": lambda logits: logits.nonzero(),
    "unique": lambda logits: logits.unique(),
    "bincount": lambda logits: logits.argmax(dim=1).bincount(),
    "mask": lambda logits: logits[logits > 0],
    "if": lambda logits: bool(logits.isnan().any()),
    "cpu": lambda logits: logits.cpu(),
    "to": lambda logits: torch.ones(2).to(logits.device),
    "tensor": lambda logits: torch.tensor([1, 2], device=logits.device),
    "list": lambda logits: logits[[0, 1]],
}


@pytest.mark.parametrize("wait", WAITING)
def test_a_wait_that_is_put_into_a_training_step_is_found(wait, train, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # as where there is a GPU
    with pytest.raises(WAITS):
        train("general", "bfloat16", noting([], WAITING[wait]))


def test_tensors_on_two_devices_are_found(train):
    with pytest.raises(RuntimeError, match="found .*devices"):
        train("general", "bfloat16", noting([], lambda logits: logits + torch.ones(logits.shape)))


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in REPEATED])
def test_a_step_may_follow_the_first_state(variant, make_decoder):
    """cuDNN's LSTM refuses a state that is a stripe of another tensor."""
    with fake_gpu(), GPU:
        decoder = make_decoder(variant)
        logits, _, _ = decoder.step(torch.ones(2, dtype=torch.long), decoder.init_state(torch.ones(2, 5, 6)))
    assert (len(logits), logits.device) == (2, GPU)


@tried
def test_validating_a_batch_does_not_wait(variant, precision, make_decoder, make_batches):
    batches, found = make_batches(captions=FEW), []
    batches.device = GPU
    with fake_gpu(), torch.no_grad(), torch.autocast("cuda", HALVES[precision]):
        with GPU:
            decoder = make_decoder(variant)
        decoder.forward = noting(found)(decoder.forward)
        (batch,) = batches.in_order()
        sums = sums_of_images(decoder, batch)
    assert found == [HALVES[precision]]
    assert (sums.shape, sums.device) == ((2, 2), GPU)


@pytest.fixture(scope="module")
def resnet():
    spec = replace(ENCODERS["resnet101"], load=lambda: resnet101(weights=None))
    return Encoder("resnet101", spec)


def test_extraction_does_not_wait_and_is_in_half_precision(resnet):
    found = []
    with fake_gpu():
        weights = {name: sent(value, GPU) for name, value in [*resnet.named_parameters(), *resnet.named_buffers()]}
        images = torch.zeros(2, 3, 224, 224, dtype=torch.uint8, device=GPU)
        hook = resnet.model.layer4.register_forward_hook(lambda module, inputs, maps: found.append(maps.dtype))
        features = functional_call(resnet, weights, images)
    hook.remove()
    assert found == [torch.float16]
    assert (features.shape, features.dtype, features.device) == ((2, 49, 2048), torch.float32, GPU)


def test_features_on_the_gpu_are_looked_up_without_a_wait(dataset, fake_encoder, tmp_path):
    store = extract(dataset, fake_encoder, tmp_path)
    with fake_gpu():
        store.array = torch.empty(store.array.shape, dtype=torch.float16, device=GPU)
        features = store[dataset.image_names[:3]]
    assert (features.shape, features.device) == ((3, 4, 6), GPU)


SEARCHES = {  # without ``inference_mode``, in which operations are seen before they are taken apart
    "beam": partial(beam_search.__wrapped__, config=2),
    "sampling": partial(sample.__wrapped__, count=3),
}


# What is drawn is drawn alike from every decoder's logits.
@pytest.mark.parametrize(
    ("search", "variant", "precision"),
    [("beam", *each) for each in TRIED] + [("sampling", *each) for each in TRIED if each[0] in IN_BFLOAT16],
)
def test_a_step_of_search_looks_once(search, variant, precision, make_decoder):
    """Whatever is seen at steps 1 and 2 is 0: rows, words, sums. At step 3 it is the end token: all captions end."""
    looks, found = [], []
    with fake_gpu() as gpu:
        with GPU:
            decoder, features = make_decoder(variant), torch.ones(2, 5, 6)
        gpu.answer = lambda shape: torch.full(shape, Vocabulary.eos if len(looks) == 3 else 0)

        def step(tokens, state, step=decoder.step):
            looks.append(gpu.looks)
            logits, alpha, state = step(tokens, state)
            found.append(logits.dtype)
            return logits, alpha, state

        decoder.step = step
        with torch.no_grad(), torch.autocast("cuda", HALVES[precision]):
            captions = SEARCHES[search](decoder, features)
    assert [len(caption.ids) for caption in captions[1]] == [2] * len(captions[1])
    assert [after - before for before, after in pairwise([*looks, gpu.looks])] == [1, 1, 1]
    assert set(found) == {HALVES[precision]}
