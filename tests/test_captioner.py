import io
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from caption_utils.captioner import Captioner, caption_photos
from caption_utils.config import BEAMS, SearchConfig
from caption_utils.data.vocab import Vocabulary
from caption_utils.data.wordpiece import WordPiece
from caption_utils.errors import InputError
from caption_utils.search.beam import beam_search
from caption_utils.search.hypotheses import Hypothesis
from caption_utils.training.checkpoint import Model, load_model

PHOTOS = Path(skimage.__path__[0]) / "data"
PHOTO = str(PHOTOS / "chelsea.png")


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


def test_the_pieces_of_a_word_are_one_word(captioner, monkeypatch):
    rules = {"model": {"continuing_subword_prefix": "##", "unk_token": "[UNK]"}}
    pieces = Vocabulary({"two": 3, "dog": 2, "##s": 1}, 1, WordPiece(rules, ["two", "dog", "##s"]))
    ids = [pieces.ids[piece] for piece in ("two", "dog", "##s")]
    alphas = torch.rand(3, 49).softmax(dim=1)
    monkeypatch.setattr("caption_utils.captioner.beam_search", lambda *args: [[Hypothesis(ids, -2.0, alphas)]])
    model = replace(captioner.model, vocab=pieces)
    (found,) = Captioner(model, captioner.encoder).captions(torch.empty(1))[0]
    assert (found.text, found.tokens, found.per_word) == ("two dogs", ["two", "dogs"], math.exp(-2 / 3))
    np.testing.assert_allclose(found.attention[0].ravel(), alphas[0])
    np.testing.assert_allclose(found.attention[1].ravel(), alphas[1:].mean(dim=0), rtol=1e-6)


def test_a_caption_is_what_search_finds_in_the_features(captioner, encoder):
    found = captioner.caption(PHOTO)
    pixels = encoder.transform(Image.open(PHOTO).convert("RGB"))
    ((expected, *_),) = beam_search(captioner.model.decoder, encoder(pixels[None]), BEAMS)
    assert found.tokens == [captioner.model.vocab.words[i] for i in expected.ids]
    assert found.log_probability == pytest.approx(expected.log_probability, abs=1e-5)
    np.testing.assert_allclose(found.attention.reshape(-1, 49), expected.alphas.numpy(), atol=1e-6)


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr("caption_utils.encoders.encode.BATCH", {"cpu": 2})
    monkeypatch.setattr("caption_utils.captioner.PHOTOS_AT_ONCE", 3)


def test_photos_are_captioned_in_order_as_each_alone_is(captioner, small_batches):
    names = ("coffee.png", "rocket.jpg", "gone.jpg", "chelsea.png", "astronaut.png", "camera.png")
    photos = [PHOTOS / name for name in names]
    found = list(caption_photos(captioner, photos, 2))
    assert str(found.pop(2)).startswith(str(photos.pop(2)))
    for photo, captions in zip(photos, found, strict=True):
        alone = captioner.caption(photo, 2)
        assert captions[0].tokens == alone.tokens
        assert captions[0].log_probability == pytest.approx(alone.log_probability, abs=1e-4)


@pytest.mark.parametrize(("batch", "searched"), [(2, [3, 3, 1]), (5, [5, 2])])
def test_a_search_takes_a_whole_batch_of_the_encoder(captioner, monkeypatch, batch, searched):
    """A GPU has large ones, and starts as many kernels for one photo as for a batch."""
    monkeypatch.setattr("caption_utils.captioner.BATCH", {"cpu": batch})
    monkeypatch.setattr("caption_utils.captioner.PHOTOS_AT_ONCE", 3)
    found, captions = [], captioner.captions
    monkeypatch.setattr(captioner, "captions", lambda features, _: found.append(len(features)) or captions(features, 1))
    assert len(list(caption_photos(captioner, [PHOTO] * 7, 1))) == 7
    assert found == searched


def test_features_of_several_photos_are_those_of_each_alone(captioner, small_batches):
    photos = [PHOTO, PHOTOS / "coffee.png", Image.open(PHOTO).convert("RGB").rotate(180)]
    alone = torch.cat([captioner.features([photo]) for photo in photos])
    torch.testing.assert_close(captioner.features(photos), alone, atol=1e-4, rtol=1e-4)


def test_features_as_a_store_holds_them_are_captioned(captioner):
    features = captioner.features([PHOTO]).half()
    assert captioner.captions(features)[0][0].text == captioner.captions(features.float())[0][0].text


def test_no_photo_gives_no_caption(captioner):
    assert list(caption_photos(captioner, [], 2)) == []
    with pytest.raises(InputError, match="^no photos; give at least one$"):
        captioner.features([])


def test_captions_are_compared_as_objects(captioner, encoder):
    captions = captioner.captions(torch.rand(1, encoder.grid**2, encoder.width), 2)[0]
    assert captions[1] in captions and len({*captions, *captions}) == 2


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
    assert Captioner.load(model_folder).encoder is encoder
    assert asked == [("efficientnet_lite2", "cpu")]


def test_another_encoder_s_features_are_refused(model_folder, fake_encoder):
    with pytest.raises(InputError, match=r"encoder fake: its weights differ .*\(f4ce, not 031d2ea2d8896519\); install"):
        Captioner(load_model(model_folder), fake_encoder)


def test_an_encoder_nobody_knows_is_refused(model_folder, tmp_path, monkeypatch):
    model = load_model(model_folder)
    other = Model(model.decoder, model.vocab, "vgg", model.fingerprint)
    monkeypatch.setattr("caption_utils.captioner.load_model", lambda *args: other)
    with pytest.raises(InputError, match="encoder 'vgg' is unknown; choose one of"):
        Captioner.load(tmp_path)
