import io
import math
import shutil

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from caption_utils.captioner import Captioner
from caption_utils.config import BEAMS, SearchConfig
from caption_utils.errors import InputError
from caption_utils.search.beam import beam_search
from caption_utils.training.checkpoint import Model, load_model

PHOTO = f"{skimage.__path__[0]}/data/chelsea.png"


@pytest.fixture(scope="module")
def captioner(model_folder, encoder):
    return Captioner(load_model(model_folder), encoder)


def test_a_caption_is_a_sentence_with_a_map_for_each_token(captioner):
    found = captioner.caption(PHOTO)
    assert found.text and found.tokens
    assert found.text == captioner.model.vocab.decode([captioner.model.vocab.ids[token] for token in found.tokens])
    assert found.log_probability < 0
    assert found.attention.shape == (len(found.tokens), 7, 7)
    assert found.attention.sum(axis=(1, 2)) == pytest.approx(np.ones(len(found.tokens)), abs=1e-5)


def test_a_caption_is_what_search_finds_in_the_features(captioner, encoder):
    found = captioner.caption(PHOTO)
    pixels = encoder.transform(Image.open(PHOTO).convert("RGB"))
    ((expected, *_),) = beam_search(captioner.model.decoder, encoder(pixels[None]), BEAMS)
    assert found.tokens == [captioner.model.vocab.words[i] for i in expected.ids]
    assert found.log_probability == pytest.approx(expected.log_probability, abs=1e-5)
    np.testing.assert_allclose(found.attention.reshape(-1, 49), expected.alphas.numpy(), atol=1e-6)


def test_several_photos_are_captioned_as_each_alone(captioner, monkeypatch):
    photos = [PHOTO, f"{skimage.__path__[0]}/data/coffee.png", Image.open(PHOTO).convert("RGB").rotate(180)]
    monkeypatch.setattr("caption_utils.captioner.BATCH", 2)
    features = captioner.features(photos)
    assert features.shape == (3, 49, captioner.encoder.width)
    for photo, found in zip(photos, captioner.captions(features), strict=True):
        alone = captioner.caption(photo)
        assert found[0].tokens == alone.tokens
        assert found[0].log_probability == pytest.approx(alone.log_probability, abs=1e-3)


def test_the_runners_up_follow_the_best(captioner):
    config = SearchConfig(4, length_penalty=0.0, no_repeat_ngram=1, max_length=5)
    (found,) = captioner.captions(captioner.features([PHOTO]), config)
    assert len({caption.text for caption in found}) == 4
    likelihoods = [caption.probability for caption in found]
    assert likelihoods == sorted(likelihoods, reverse=True)
    for caption in found:
        assert caption.probability == pytest.approx(math.exp(caption.log_probability))
        assert len(set(caption.tokens)) == len(caption.tokens) == len(caption.attention) <= 5


def test_the_first_photo_that_cannot_be_read_is_named(captioner):
    with pytest.raises(InputError, match="gone.jpg: no such file"):
        captioner.features([PHOTO, "gone.jpg"])


def test_a_path_bytes_and_a_picture_are_captioned_alike(captioner, tmp_path):
    shutil.copy(PHOTO, tmp_path / "photo.png")
    sources = (tmp_path / "photo.png", (tmp_path / "photo.png").read_bytes(), Image.open(PHOTO))
    assert len({captioner.caption(source).log_probability for source in sources}) == 1


def test_the_same_photo_turned_by_its_camera_gets_the_same_caption(captioner):
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(PHOTO).convert("RGB")
    picture.transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    assert captioner.caption(buffer.getvalue()).log_probability == captioner.caption(picture).log_probability


def test_load_finds_the_encoder_the_model_names(model_folder, encoder, monkeypatch):
    asked = []
    monkeypatch.setattr("caption_utils.captioner.load_encoder", lambda *args: asked.append(args) or encoder)
    captioner = Captioner.load(model_folder)
    assert asked == [("efficientnet_lite2", "cpu")]
    assert captioner.device == torch.device("cpu")


def test_another_encoder_s_features_are_refused(model_folder, fake_encoder):
    with pytest.raises(InputError, match=r"encoder fake: its weights differ .*\(f4ce, not 031d2ea2d8896519\); install"):
        Captioner(load_model(model_folder), fake_encoder)


def test_an_encoder_nobody_knows_is_refused(model_folder, tmp_path, monkeypatch):
    model = load_model(model_folder)
    other = Model(model.decoder, model.vocab, "vgg", model.fingerprint)
    monkeypatch.setattr("caption_utils.captioner.load_model", lambda *args: other)
    with pytest.raises(InputError, match="encoder 'vgg' is unknown; choose one of"):
        Captioner.load(tmp_path)


def test_a_picture_that_cannot_be_read_is_named(captioner):
    with pytest.raises(InputError, match="gone.jpg: no such file"):
        captioner.caption("gone.jpg")
