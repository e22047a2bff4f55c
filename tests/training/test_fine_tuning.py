from dataclasses import replace

import pytest
import torch
from conftest import RandomStore, trained_with
from fake_gpu import GPU, fake_gpu
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from caption_utils.app.photos import Photo
from caption_utils.app.session import Session
from caption_utils.captioner import Captioner
from caption_utils.config import FineTuneConfig
from caption_utils.encoders.encoder import Encoder, EncoderSpec
from caption_utils.errors import InputError
from caption_utils.evaluation.report import evaluate_model
from caption_utils.runtime import sent
from caption_utils.training import fine_tuning, refinement, trainer
from caption_utils.training.checkpoint import ENCODER_WEIGHTS, LAST, WEIGHTS, Model, load_model
from caption_utils.training.fine_tuning import FineTuning
from caption_utils.training.progress import load_progress, save_progress
from caption_utils.training.refinement import fine_tune_model
from caption_utils.training.run import train_model

SMALL = {"embed_dim": 8, "hidden_dim": 8, "attention_dim": 8, "epochs": 2, "images_per_batch": 3, "learning_rate": 1e-2}
TUNE = {"fine_tune": 2, "epochs": 2, "images_per_batch": 3, "encoder_learning_rate": 1e-2}


class Stages(nn.Module):
    """A stem that halves the map, and three stages with batch norm, the second of which halves it again."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        shapes = [(3, 4, 2), (4, 5, 1), (5, 6, 2), (6, 6, 1)]
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.BatchNorm2d(o), nn.ReLU()) for i, o, stride in shapes
        )


SPEC = EncoderSpec(Stages, lambda model: list(model.parts), 6, grid=2, size=8)


def published(name="small", device="cpu"):
    return Encoder("small", SPEC)


@pytest.fixture(autouse=True)
def small(monkeypatch, cache):
    """The small encoder under any name, on the CPU, with its features below ``tmp_path``."""
    for room in ("captioner", "app.session"):
        monkeypatch.setattr(f"caption_utils.{room}.load_encoder", published)
    trained_with(monkeypatch, published)
    monkeypatch.setattr("caption_utils.evaluation.report.device", lambda: torch.device("cpu"))


@pytest.fixture
def start(data_folder, tmp_path):
    """The folder of a trained model."""
    train_model(data_folder, tmp_path / "start", min_count=1, settings=SMALL | {"label_smoothing": 0.1})
    return tmp_path / "start"


@pytest.fixture
def tune(data_folder, start, tmp_path):
    def go(out, **settings):
        return fine_tune_model(data_folder, start, tmp_path / out, TUNE | settings)

    return go


@pytest.mark.slow
def test_stages_learn_and_those_before_stay_to_the_bit(tune, start, tmp_path):
    history = tune("tuned", epochs=20, patience=20, encoder_learning_rate=3e-2, learning_rate=3e-2)
    assert history["epoch"].tolist() == list(range(21))
    assert history["train_loss"].iloc[-3:].mean() < 0.9 * history["train_loss"].iloc[1]
    before, after = published(), Captioner.load(tmp_path / "tuned").encoder
    for (name, old), new in zip(before.model.state_dict().items(), after.model.state_dict().values(), strict=True):
        assert torch.equal(old, new) == name.startswith(("parts.0.", "parts.1.")), name
    changed = load_file(tmp_path / "tuned" / ENCODER_WEIGHTS)
    assert {name.split(".")[1] for name in changed} == {"2", "3"}
    model = load_model(tmp_path / "tuned")
    assert model.fingerprint == after.fingerprint != before.fingerprint
    assert model.training["fine_tune"] == 2 and model.training["fine_tuned"]["model"] == "start"
    assert model.training["label_smoothing"] == 0.1  # the loss is that of the start
    assert load_model(start).encoder_weights == {}


@pytest.mark.slow
def test_the_model_folder_is_used_as_any(tune, start, data_folder, tmp_path, no_java):
    """Its features are its own, on the disk and in the memory of a page, and it does what training has measured."""
    tune("tuned", epochs=6, patience=6)
    found = evaluate_model(str(tmp_path / "tuned"), str(data_folder), "val", 1)
    best = load_model(tmp_path / "tuned").training["best"]["val_perplexity"]
    assert found.report()["perplexity"] == pytest.approx(best, rel=0.01)
    photo = data_folder / "Images" / "1.png"
    session = Session({"before": start, "after": tmp_path / "tuned"})
    for name, folder in session.models.items():
        alone, result = Captioner.load(folder).caption(photo), session.caption(Photo("1.png", str(photo)), name)
        assert result.captions[0].log_probability == pytest.approx(alone.log_probability, abs=1e-5)
    encoders = [session.captioner(name).encoder for name in session.models]
    assert not torch.equal(*(each(each.transform(Image.open(photo))[None]) for each in encoders))


@pytest.mark.slow
def test_a_second_run_keeps_what_the_first_has_changed(tune, data_folder, tmp_path):
    tune("tuned", patience=9)
    fine_tune_model(data_folder, tmp_path / "tuned", tmp_path / "again", TUNE | {"fine_tune": 1, "patience": 9})
    first, second = (load_file(tmp_path / name / ENCODER_WEIGHTS) for name in ("tuned", "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first if name.startswith("parts.2."))
    assert Captioner.load(tmp_path / "again")


class Crash(BaseException):
    """The end of a process, as far as the files can tell."""


@pytest.mark.slow
def test_a_run_that_crashed_goes_on_to_the_same_bits(tune, tmp_path, monkeypatch):
    tune("whole")
    save = trainer.Trainer.save

    def crashing(self):
        save(self)
        if len(self.history) in (1, 2):
            raise Crash

    monkeypatch.setattr(trainer.Trainer, "save", crashing)
    for _ in range(2):
        with pytest.raises(Crash):
            tune("crashed")
    tune("crashed")
    for name in (LAST, WEIGHTS, ENCODER_WEIGHTS):
        one, two = (load_file(tmp_path / folder / name) for folder in ("whole", "crashed"))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert any(name.startswith("stages.") for name in load_file(tmp_path / "whole" / LAST))
    with pytest.raises(InputError, match="another run, which differs in encoder_learning_rate; choose a new folder"):
        tune("whole", encoder_learning_rate=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fine_tune": 4}, "small: 4 stages cannot be fine-tuned; choose 1 to 3"),
        ({"fine_tune": 0}, "fine_tune=0 is out of range"),
        ({"hidden_dim": 9}, "hidden_dim: no setting of fine-tuning, which takes the model as it is"),
        ({"distillation": 0.5}, "distillation: no setting of fine-tuning"),
        ({"from_context": 0.5}, "from_context needs a model whose .*: attention bahdanau with deep_output, or luong$"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(tune, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        tune("tuned", **settings)
    assert not (tmp_path / "tuned").exists()


def test_encoder_weights_that_are_missing_or_do_not_fit(tune, tmp_path):
    tune("tuned")
    path = tmp_path / "tuned" / ENCODER_WEIGHTS
    stored = path.read_bytes()
    path.unlink()
    with pytest.raises(InputError, match=r"encoder\.safetensors: no weights here"):
        Captioner.load(tmp_path / "tuned")
    path.write_bytes(stored[:100])
    with pytest.raises(InputError, match=r"encoder\.safetensors: damaged"):
        Captioner.load(tmp_path / "tuned")
    for wrong in ({"parts.3.0.weight": torch.ones(2)}, {"parts.9.0.weight": torch.ones(2)}):
        with pytest.raises(InputError, match="encoder small: weights that do not fit"):
            published().with_weights(wrong)


def test_an_encoder_stays_as_it_is_when_others_get_their_weights_from_it():
    encoder = published()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    good, bad = {"parts.3.0.bias": torch.ones(6)}, {"parts.3.0.bias": torch.zeros(6), "parts.9.0.weight": torch.ones(2)}
    changed = encoder.with_weights(good)
    with pytest.raises(InputError, match="encoder small: weights that do not fit"):
        encoder.with_weights(bad)
    assert encoder.fingerprint == published().fingerprint != changed.fingerprint
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(changed.model.parts[3][0].bias, torch.ones(6))


def test_a_run_whose_best_encoder_is_gone_does_not_go_on(tune, tmp_path):
    tune("tuned")
    progress = load_progress(tmp_path / "tuned")
    (tmp_path / "tuned" / ENCODER_WEIGHTS).unlink()
    worse = progress.history[-1] | {"val_perplexity": 1e9}
    save_progress(tmp_path / "tuned", replace(progress, history=[*progress.history, worse]))
    with pytest.raises(InputError, match=r"holds a run, but not encoder\.safetensors of its best epoch; restore"):
        tune("tuned")


def test_a_start_without_finite_values_is_to_be_replaced(tune, tmp_path, monkeypatch):
    monkeypatch.setattr(fine_tuning, "perplexity", lambda decoder, batches: float("nan"))
    with pytest.raises(InputError, match="^the model to start from gives no finite value; take another$"):
        tune("tuned")


def test_a_model_of_another_encoder_is_told_at_once(tune, monkeypatch):
    monkeypatch.setattr(refinement, "load_encoder", lambda name, device: Encoder("small", replace(SPEC, size=9)))
    with pytest.raises(InputError, match="its weights differ from those the model was trained with"):
        tune("tuned")


@pytest.mark.slow
def test_a_step_on_a_gpu_does_not_wait(make_decoder, make_batches, vocab, tmp_path):
    """The stages compute in half precision, and their gradients arrive."""
    batches, encoder, found = make_batches(), published(), []
    batches.device, batches.store = GPU, RandomStore(16, 5)
    encoder.model.parts[3].register_forward_hook(lambda module, inputs, maps: found.append(maps.dtype))
    config = FineTuneConfig(precision="float16", label_smoothing=0.1)
    with fake_gpu():
        for layer in encoder.modules():
            layer._parameters |= {
                name: nn.Parameter(sent(value, GPU), requires_grad=False) for name, value in layer._parameters.items()
            }
            layer._buffers |= {name: sent(value, GPU) for name, value in layer._buffers.items()}
        with GPU:
            decoder = make_decoder("bahdanau")
        run = FineTuning(Model(decoder, vocab, "small", "f4ce"), encoder, config, tmp_path, batches, batches)
        (share,) = batches.shuffled(1)
        run.train_step(share)
    assert set(found) == {torch.float16}
    gradients = [parameter.grad for parameter in run.stages.parameters()]
    assert {(gradient.dtype, gradient.device) for gradient in gradients} == {(torch.float32, GPU)}
