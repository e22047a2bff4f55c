import csv
import shutil
from pathlib import Path

import pytest

from caption_utils.errors import InputError
from caption_utils.training import zoo as models


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A repository without models, and a folder for trained ones."""
    monkeypatch.setattr(models, "KAGGLE_INPUT", tmp_path / "input")
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


def test_a_trained_model_called_as_a_shipped_one_is_offered_too(places, model_folder):
    for place in places:
        shutil.copytree(model_folder, place / models.DEFAULT_MODEL)
    found = models.model_folders()
    assert list(found) == [models.DEFAULT_MODEL, f"models/{models.DEFAULT_MODEL}"]
    assert found[f"models/{models.DEFAULT_MODEL}"] == places[1] / models.DEFAULT_MODEL


def test_no_model_is_one_line(places):
    with pytest.raises(InputError, match="checkpoints: no model here; train one"):
        models.model_folders()


def test_no_default_model_is_one_line(places, model_folder):
    shutil.copytree(model_folder, places[1] / "mine")
    with pytest.raises(InputError, match=f"{models.DEFAULT_MODEL}: this model is not here; name another with --model"):
        models.default_model()


def test_the_repository_ships_the_default_model():
    assert models.default_model().parts[-3:] == ("results", "checkpoints", models.DEFAULT_MODEL)


def test_the_default_model_is_the_best_of_those_that_are_shipped():
    root = Path(models.__file__).parents[2]
    with (root / "results" / "metrics.csv").open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["data"], row["split"], row["search"]) == ("flickr8k", "val", "beam 5")
            and (root / models.SHIPPED / row["model"]).is_dir()
        ]
    last = {row["model"]: float(row["cider"]) for row in rows}
    assert len(last) > 1 and max(last, key=last.get) == models.DEFAULT_MODEL


def test_attached_models_are_offered_and_foreign_ones_are_not(places, model_folder, tmp_path):
    attached = tmp_path / "input" / "models" / "somebody" / "captions"
    shutil.copytree(model_folder, attached / "mine")
    shutil.copytree(model_folder, attached / "bert")
    (attached / "bert" / "config.json").write_text('{"model_type": "bert"}')
    assert models.model_folders() == {"models/somebody/captions/mine": attached / "mine"}


def test_an_ensemble_is_offered_like_a_model(places, model_folder):
    shutil.copytree(model_folder, places[0] / "one")
    (places[0] / "ensemble").mkdir()
    (places[0] / "ensemble" / "config.json").write_text('{"models": ["one"]}')
    assert list(models.model_folders()) == ["ensemble", "one"]


def test_a_model_of_an_attached_repository_is_offered_once(places, model_folder, monkeypatch):
    shutil.copytree(model_folder, places[0] / "a-model")
    monkeypatch.setattr(models, "KAGGLE_INPUT", places[0].parent.parent)
    assert list(models.model_folders()) == ["a-model"]


def test_a_repository_s_trained_models_are_found_where_it_is_read_only(places, model_folder, monkeypatch, tmp_path):
    shutil.copytree(model_folder, places[1] / "mine")
    monkeypatch.setattr(models, "writable_dir", lambda name: tmp_path / "elsewhere" / name)
    assert list(models.model_folders()) == ["mine"]


def test_a_model_with_a_damaged_configuration_is_offered_and_so_told(places, model_folder):
    shutil.copytree(model_folder, places[0] / "a-model")
    (places[0] / "a-model" / "config.json").write_text("{")
    assert list(models.model_folders()) == ["a-model"]


def test_shipped_models_are_found_where_nothing_can_be_written(places, model_folder, monkeypatch):
    def refuse(name):
        raise InputError("no folder can be written")

    shutil.copytree(model_folder, places[0] / "a-model")
    monkeypatch.setattr(models, "writable_dir", refuse)
    assert list(models.model_folders()) == ["a-model"]
