import shutil

import pytest

from caption_utils import models
from caption_utils.errors import InputError


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A repository without models, and a folder for trained ones."""
    monkeypatch.setattr(models, "repository", lambda: tmp_path)
    monkeypatch.setattr(models, "writable_dir", lambda name: tmp_path / "data" / name)
    return tmp_path / "results" / "checkpoints", tmp_path / "data" / "models"


def test_shipped_and_trained_models_are_offered_the_default_first(places, model_folder):
    shipped, trained = places
    for folder in (shipped / "a-model", shipped / models.DEFAULT_MODEL, trained / "runs" / "mine"):
        shutil.copytree(model_folder, folder)
    (shipped / "half").mkdir()
    (shipped / "half" / "config.json").write_text("{}")
    found = models.model_folders()
    assert list(found) == [models.DEFAULT_MODEL, "a-model", "runs/mine"]
    assert found["runs/mine"] == trained / "runs" / "mine"
    assert models.default_model() == shipped / models.DEFAULT_MODEL


def test_no_model_is_one_line(places):
    with pytest.raises(InputError, match="checkpoints: no model here; train one"):
        models.model_folders()


def test_no_default_model_is_one_line(places, model_folder):
    shutil.copytree(model_folder, places[1] / "mine")
    with pytest.raises(InputError, match=f"{models.DEFAULT_MODEL}: this model is not here; name another with --model"):
        models.default_model()


def test_the_repository_ships_the_default_model():
    assert models.default_model().parts[-3:] == ("results", "checkpoints", models.DEFAULT_MODEL)


def test_shipped_models_are_found_where_nothing_can_be_written(places, model_folder, monkeypatch):
    def refuse(name):
        raise InputError("no folder can be written")

    shutil.copytree(model_folder, places[0] / "a-model")
    monkeypatch.setattr(models, "writable_dir", refuse)
    assert list(models.model_folders()) == ["a-model"]
