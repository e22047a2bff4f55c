from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_dataset
from scipy.stats import spearmanr

from caption_utils.calibration import CONFIDENCE, Calibration, Subspace, load_calibration
from caption_utils.captioner import Captioner
from caption_utils.config import DecoderConfig
from caption_utils.data.datasets import load_dataset
from caption_utils.data.vocab import Vocabulary
from caption_utils.encoders.store import extract
from caption_utils.errors import InputError
from caption_utils.evaluation import confidence as module
from caption_utils.evaluation.confidence import (
    Captioned,
    calibrate,
    fit_confidence,
    gists_of,
    halves,
    platt,
    reliability,
)
from caption_utils.metrics.scores import caption_scores
from caption_utils.model.decoder import build_decoder
from caption_utils.training.checkpoint import Model, load_model, name_digest, save_model


def test_platt_finds_the_line_that_captions_were_drawn_from():
    rng = np.random.default_rng(0)
    per_word = np.exp(rng.uniform(-3, 0, 20000))
    good = rng.uniform(size=20000) < 1 / (1 + np.exp(-(4 + 3 * np.log(per_word))))
    assert platt(per_word, good).tolist() == pytest.approx([4, 3], rel=0.05)


def test_platt_stays_finite_where_a_threshold_tells_all():
    per_word = np.linspace(0.1, 0.9, 40)
    for good in (per_word > 0.5, per_word > 1):
        intercept, slope = platt(per_word, good).tolist()
        assert np.isfinite([intercept, slope]).all()
        share = 1 / (1 + np.exp(-(intercept + slope * np.log(per_word))))
        assert share.sum() == pytest.approx(np.where(good, (good.sum() + 1) / (good.sum() + 2), 0).sum(), abs=1)


def gists(*points):
    return torch.nn.functional.normalize(torch.tensor(points), dim=1)


def random_captioned(photos, seed=0):
    """Captions whose scores follow their words' probabilities, of photos that differ in two of six numbers."""
    rng = np.random.default_rng(seed)
    per_word = rng.uniform(0.1, 0.9, photos)
    points = np.concatenate([5 + rng.normal(size=(photos, 2)), 0.1 * rng.normal(size=(photos, 4))], axis=1)
    return Captioned(gists(*points.astype(np.float32).tolist()), per_word, 100 * per_word + rng.normal(0, 20, photos))


def test_calibrated_on_photos_other_pictures_are_strange():
    calibration = calibrate(random_captioned(200), random_captioned(500, 1).gists)
    assert len(calibration.tail) == 10 and calibration.line[1] > 0
    familiar = calibration.familiar(random_captioned(400, 2).gists)
    assert (familiar == 1).float().mean() == pytest.approx(0.95, abs=0.03)
    assert calibration.familiar(gists([0.0, 0, 1, 0, 0, 0], [5.0, 5, 0, 0, 3, 0])).tolist() == pytest.approx(
        2 * [1 / 11]
    )


def test_a_fifth_of_the_captions_is_as_good_as_its_confidence():
    first, second = random_captioned(4000), random_captioned(5000, 3)
    found = reliability(calibrate(first, random_captioned(500, 1).gists), first, second)
    assert found.fitted == 4000 and found.table["captions"].tolist() == 5 * [1000]
    assert found.table["confidence"].is_monotonic_increasing
    np.testing.assert_allclose(found.table["confidence"], found.table["above_median"], atol=0.08)
    confidence = calibrate(first, random_captioned(500, 1).gists).judge(second.gists, second.per_word.tolist())
    assert found.rank_correlation == pytest.approx(spearmanr([each.value for each in confidence], second.cider)[0])


def test_the_table_counts_by_hand():
    """Ten captions, of which the more confident half scores above 20, the median of the photos it was fitted to."""
    sure = Calibration(torch.tensor([0.0, 1]), Subspace(torch.zeros(2), torch.zeros(2, 1)), torch.tensor([9.0]))
    per_word, cider = np.linspace(0.1, 1, 10), np.arange(10.0) * 4 + 3
    order = [3, 8, 1, 0, 9, 2, 7, 4, 6, 5]
    second = Captioned(torch.zeros(10, 2), per_word[order], cider[order])
    found = reliability(sure, Captioned(torch.zeros(3, 2), np.ones(3), np.array([0.0, 20, 90])), second)
    expected = {
        "captions": [2] * 5,
        "confidence": (per_word / (1 + per_word)).reshape(5, 2).mean(axis=1),
        "above_median": [0, 0, 0.5, 1, 1],
        "cider": cider.reshape(5, 2).mean(axis=1),
    }
    pd.testing.assert_frame_equal(found.table, pd.DataFrame(expected), check_exact=False, rtol=1e-5)
    assert (found.fitted, found.rank_correlation) == (3, pytest.approx(1))


@pytest.fixture
def data(tmp_path):
    return load_dataset(write_dataset(tmp_path / "many", 240))


@pytest.fixture
def folder(tmp_path, monkeypatch, cache, fake_encoder):
    """A model folder on the fake encoder, on the CPU."""
    for where in ("caption_utils.captioner.load_encoder", "caption_utils.evaluation.confidence.load_encoder"):
        monkeypatch.setattr(where, lambda name, device: fake_encoder)
    monkeypatch.setattr(module, "device", lambda: torch.device("cpu"))
    torch.manual_seed(0)
    vocab = Vocabulary.build(["a red green blue white half and beside"], min_count=1)
    decoder = build_decoder(DecoderConfig(len(vocab), 6, embed_dim=8, hidden_dim=8, attention_dim=8)).eval()
    torch.nn.init.normal_(decoder.output.weight, std=2.0)  # so that it says more than one thing
    save_model(tmp_path / "small", Model(decoder, vocab, "fake", "f4ce", {"split": "official"}))
    return tmp_path / "small"


def test_the_halves_are_told_by_name_and_hold_what_the_captioner_says(folder, data):
    captioner, val = Captioner.load(folder), data.split("val")
    first, second = halves(captioner, val)
    names = [[name for name in val.image_names if name_digest(name)[0] % 2 == half] for half in (0, 1)]
    assert [len(first.cider), len(second.cider)] == [len(part) for part in names]
    found = [captioner.caption(data.path(name)) for name in names[1][:2]]
    assert second.per_word[:2] == pytest.approx([caption.per_word for caption in found], rel=1e-2)
    everyone = captioner.captions(extract(val, captioner.encoder)[val.image_names].float())
    texts = [best.text for best, *_ in everyone]
    cider = caption_scores(texts, [val.captions_of(name) for name in val.image_names])["cider"].statistics[:, 0]
    assert second.cider == pytest.approx([cider[val.image_names.index(name)] for name in names[1]])


def test_a_fitted_model_is_sure_or_not_of_its_captions(folder, data, fake_encoder):
    found = fit_confidence(folder, data)
    assert found.fitted + found.table["captions"].sum() == 60
    caption, *others = Captioner.load(folder).captions(fake_encoder(torch.zeros(1, 3, 8, 8)))[0]
    assert 0 < caption.confidence < 1 and {other.confidence for other in others} == {None}
    (expected,) = load_calibration(folder).judge(torch.zeros(1, 6), [caption.per_word])
    assert (caption.confidence, caption.doubt) == (pytest.approx(expected.value), expected.doubt)
    seen = fake_encoder.seen
    fit_confidence(folder, data)
    assert fake_encoder.seen == seen, "features that are stored were computed again"


def test_it_is_fitted_to_the_first_half_and_the_training_photos(folder, data):
    fit_confidence(folder, data)
    captioner, train = Captioner.load(folder), data.split("train")
    looks = gists_of(extract(train, captioner.encoder), train.image_names)
    expected, found = calibrate(halves(captioner, data.split("val"))[0], looks), load_calibration(folder)
    for name in ("line", "tail"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert torch.equal(found.photos.mean, expected.photos.mean) and found.photos.directions.shape == (6, 3)


def test_too_few_photos_are_one_line(folder, dataset):
    with pytest.raises(
        InputError,
        match="the halves of its validation photos are [23] and [01]; to fit a confidence takes 20 or more in each$",
    ):
        fit_confidence(folder, dataset)
    assert not (folder / CONFIDENCE).exists()


def test_data_that_the_model_was_not_trained_on_leave_its_confidence_alone(folder, data, fake_encoder):
    model = load_model(folder)
    save_model(folder, replace(model, trained_on=frozenset([name_digest("elsewhere.png")])))
    message = "many: the model was trained on none of the training photos here; give the data that it was trained on$"
    with pytest.raises(InputError, match=message):
        fit_confidence(folder, data)
    assert fake_encoder.seen == 0 and not (folder / CONFIDENCE).exists()
    save_model(folder, replace(model, trained_on=frozenset([name_digest(data.split("train").image_names[-1])])))
    fit_confidence(folder, data)
    assert (folder / CONFIDENCE).exists()


def test_a_folder_that_cannot_be_written_is_told_before_any_work(folder, data, fake_encoder, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != folder)
    with pytest.raises(InputError, match="small cannot be written; name another folder, or change its permissions"):
        fit_confidence(folder, data)
    assert fake_encoder.seen == 0
