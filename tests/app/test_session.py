import csv
import io
import math
import shutil
from pathlib import Path

import pytest
import skimage
import torch
from PIL import Image

from caption_utils.app import session as module
from caption_utils.app.photos import Photo
from caption_utils.app.session import Session
from caption_utils.calibration import Calibration, Subspace
from caption_utils.captioner import Captioner
from caption_utils.errors import InputError
from caption_utils.training.checkpoint import load_model

COFFEE, CHELSEA = (Path(skimage.data_dir) / name for name in ("coffee.png", "chelsea.png"))


@pytest.fixture
def encoded(encoder, monkeypatch):
    """How many images went through the encoder."""
    counted = []
    hook = encoder.register_forward_pre_hook(lambda _, images: counted.append(len(images[0])))
    monkeypatch.setattr(module, "load_encoder", lambda name, device: encoder)
    yield counted
    hook.remove()


@pytest.fixture
def session(model_folder, encoded):
    return Session({"one": model_folder, "two": model_folder})


def test_a_photo_is_captioned_as_the_captioner_does(session, model_folder, encoder):
    result = session.caption(Photo("mine.png", COFFEE.read_bytes()), "one", 3)
    expected = Captioner(load_model(model_folder), encoder).caption(COFFEE, 3)
    assert result.captions[0].text == expected.text
    assert result.captions[0].log_probability == pytest.approx(expected.log_probability, abs=1e-5)
    assert (result.photo, result.model, result.beams, len(result.captions)) == ("mine.png", "one", 3, 3)
    assert max(result.preview.size) == module.PREVIEW_SIDE


def test_another_model_or_beam_reuses_the_features(session, encoded):
    for model, beams in (("one", 1), ("one", 5), ("two", 5)):
        session.caption(Photo("a.png", COFFEE.read_bytes()), model, beams)
        session.caption(Photo("b.png", CHELSEA), model, beams)
    assert encoded == [1, 1]


def test_a_file_that_changed_is_read_again(session, encoded, tmp_path):
    photo = shutil.copy(COFFEE, tmp_path / "photo.png")
    session.caption(Photo("photo.png", photo), "one")
    shutil.copy(CHELSEA, photo)
    session.caption(Photo("photo.png", photo), "one")
    assert encoded == [1, 1]


def test_two_models_share_one_encoder(session):
    assert session.captioner("one").encoder is session.captioner("two").encoder
    assert session.captioner("one") is session.captioner("one")


def test_only_so_many_photos_are_kept(session, encoded, monkeypatch):
    monkeypatch.setattr(module, "MOST_KEPT", 1)
    for photo in (COFFEE, CHELSEA, COFFEE):
        session.caption(Photo(photo.name, photo), "one", 1)
    assert encoded == [1, 1, 1]


def test_the_history_is_a_csv_each_caption_once(session):
    name = 'a "b",\n<c>.png'
    for photo in (Photo(name, COFFEE), Photo("other.png", CHELSEA), Photo(name, COFFEE)):
        session.caption(photo, "one", 2)
    header, *rows = csv.reader(io.StringIO(session.csv()))
    assert header == list(module.COLUMNS)
    assert [row[0] for row in rows] == ["other.png", name]
    best = session.history[-1].captions[0]
    assert rows[1][1:] == [best.text, f"{best.log_probability:.4f}", f"{best.per_word:.4f}", "", "one", "2"]


def test_a_model_that_can_tell_says_how_sure_it_is(session, model_folder, tmp_path):
    session.models["sure"] = shutil.copytree(model_folder, tmp_path / "sure")
    photos = Subspace(torch.zeros(1280), torch.zeros(1280, 1))
    Calibration(torch.tensor([math.log(3), 0]), photos, torch.tensor([9.0])).save(tmp_path / "sure")
    assert session.caption(Photo("a.png", COFFEE), "sure", 1).captions[0].confidence == pytest.approx(0.75)
    (row,) = csv.DictReader(io.StringIO(session.csv()))
    assert row["confidence"] == "0.7500"


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1)])
def test_a_picture_of_any_shape_has_a_preview(session, size):
    data = io.BytesIO()
    Image.new("RGB", size, "red").save(data, "PNG")
    preview = session.caption(Photo("line.png", data.getvalue()), "one", 1).preview
    assert sorted(preview.size) == [1, module.PREVIEW_SIDE] and preview.getpixel((0, 0)) == (255, 0, 0)


def test_a_long_history_keeps_all_captions_and_the_last_pictures(session, monkeypatch):
    monkeypatch.setattr(module, "MOST_SHOWN", 2)
    for name in ("a.png", "b.png", "c.png", "d.png", "c.png"):
        session.caption(Photo(name, COFFEE), "one", 1)
    assert [result.photo for result in session.history] == ["d.png", "c.png"]
    assert len(session.rows) == 4
    assert [row[0] for row in csv.reader(io.StringIO(session.csv()))] == ["photo", "a.png", "b.png", "d.png", "c.png"]


def test_what_cannot_be_read_is_named_and_leaves_no_trace(session, tmp_path):
    with pytest.raises(InputError, match="^photo.jpg: the file is empty"):
        session.caption(Photo("photo.jpg", b""), "one")
    with pytest.raises(InputError, match="no such file"):
        session.caption(Photo("gone.jpg", tmp_path / "gone.jpg"), "one")
    assert session.history == []


def test_a_damaged_model_is_named(session, tmp_path):
    session.models["bad"] = tmp_path
    with pytest.raises(InputError, match="config.json: not found"):
        session.caption(Photo("a.png", COFFEE), "bad")
