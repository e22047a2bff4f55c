"""What notebooks begin with, on made-up hosts: data found or not, a GPU or none, an earlier session's output."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import write_dataset

from caption_utils import recipes, runtime
from caption_utils.config import ENCODER
from caption_utils.data import folders, locate
from caption_utils.data.datasets import load_dataset
from caption_utils.errors import InputError
from caption_utils.training.checkpoint import LAST
from caption_utils.training.preparation import check_settings


@pytest.fixture(autouse=True)
def nothing_remembered():
    yield
    recipes.usable_encoder.cache_clear()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A repository with the demo set, on Colab or Kaggle, with nothing attached and no internet."""
    for name in ("CAPTION_DATA", "CAPTION_PROFILE", "CAPTION_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    for module in (locate, folders):
        monkeypatch.setattr(module, "KAGGLE_INPUT", tmp_path / "input")
    monkeypatch.setattr(locate, "repository", lambda: tmp_path)
    monkeypatch.setattr(recipes, "host", lambda: "colab")
    monkeypatch.setattr(recipes, "describe_host", lambda: "host       colab")
    monkeypatch.setattr(recipes, "writable_dir", lambda name: tmp_path / "work" / name)

    def no_internet(name):
        raise ConnectionError("no route to kaggle.com")

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=no_internet))
    (write_dataset(tmp_path / "data" / "demo", 12) / "scenes.json").write_text("{}")
    return tmp_path


@pytest.fixture
def gpu(monkeypatch):
    for module in (runtime, recipes):
        monkeypatch.setattr(module, "device", lambda: torch.device("cuda"))


def test_a_gpu_without_photographs_gives_a_loud_warning(place, gpu, capsys):
    dataset, chosen = recipes.begin()
    told = capsys.readouterr()
    assert (dataset.name, chosen) == ("demo", "fast")
    assert "Dataset: demo" in told.out and "profile: fast" in told.out
    assert told.err.startswith("!" * 100 + "\nTHERE IS A GPU, BUT NO PHOTOGRAPHS")
    assert "adityajn105/flickr8k" in told.err and "no route to kaggle.com" in told.err


def test_no_warning_without_a_gpu_or_if_the_demo_set_was_chosen(place, gpu, monkeypatch, capsys):
    monkeypatch.setenv("CAPTION_DATA", "demo")
    recipes.begin()
    monkeypatch.delenv("CAPTION_DATA")
    monkeypatch.setattr(recipes, "device", lambda: torch.device("cpu"))
    recipes.begin()
    assert capsys.readouterr().err == ""


def test_a_host_downloads_the_photographs(place, gpu, monkeypatch, capsys):
    root = write_dataset(place / "versions" / "1", 12)
    rows = (root / "captions.txt").read_text().splitlines()
    (root / "captions.txt").write_text("\n".join(row.rsplit(",", 1)[0] for row in rows))  # without a split
    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=lambda name: str(root)))
    dataset, chosen = recipes.begin()
    assert (dataset.name, dataset.root, chosen) == ("flickr8k", root, "full")
    assert "THE SPLIT IS RANDOM" in capsys.readouterr().err


def test_photographs_in_a_folder_called_demo_are_not_the_demo_set(place, gpu, monkeypatch, capsys):
    root = write_dataset(place / "mine" / "demo", 12)
    rows = (root / "captions.txt").read_text().splitlines()
    (root / "captions.txt").write_text("\n".join(row.rsplit(",", 1)[0] for row in rows))  # without a split
    monkeypatch.setenv("CAPTION_DATA", str(root))
    assert recipes.begin()[1] == "full"
    assert "THE SPLIT IS RANDOM" in capsys.readouterr().err


def test_a_wrong_setting_is_still_an_error(place, monkeypatch):
    monkeypatch.setenv("CAPTION_DATA", "/no/such")
    with pytest.raises(InputError, match="^CAPTION_DATA=/no/such: no such folder"):
        recipes.begin()


@pytest.mark.parametrize("chosen", runtime.PROFILES)
@pytest.mark.parametrize("attention", ["bahdanau", "luong"])
def test_each_profile_can_be_trained(dataset, monkeypatch, chosen, attention):
    monkeypatch.setattr(recipes, "load_encoder", lambda name: SimpleNamespace(name=name))
    how = recipes.recipe(attention, dataset, chosen)
    check_settings(how["encoder_name"], how["settings"])
    assert how["min_count"] == 1 and how["settings"]["attention"] == attention
    assert how["encoder_name"].startswith("efficientnet" if chosen == "fast" else "resnet101")


def test_missing_weights_fall_back_to_the_default_encoder_with_a_message(monkeypatch, capsys):
    def not_to_be_had(name):
        raise InputError("resnet101: ImageNet weights could not be loaded")

    monkeypatch.setattr(recipes, "load_encoder", not_to_be_had)
    assert [recipes.usable_encoder("resnet101") for _ in range(2)] == [ENCODER, ENCODER]
    assert capsys.readouterr().out.splitlines() == [
        f"Using the encoder {ENCODER} instead of resnet101: resnet101: ImageNet weights could not be loaded"
    ]


def test_a_model_s_folder_is_named_after_data_and_settings(place, data_folder):
    how = {"encoder_name": ENCODER, "min_count": 1, "settings": {"epochs": 2}}
    dataset = load_dataset(data_folder)
    folder = recipes.model_folder("luong-fast", dataset, how)
    assert folder == recipes.model_folder("luong-fast", load_dataset(data_folder), how)
    assert folder.parent == place / "work" / "models" and folder.name.startswith("luong-fast-data-")
    others = {recipes.model_folder("luong-fast", dataset, how | {"settings": {"epochs": 3}})}
    with (data_folder / "captions.txt").open("a") as file:
        file.write("0.png,one caption more,train\n")
    others.add(recipes.model_folder("luong-fast", load_dataset(data_folder), how))
    assert len(others | {folder}) == 3


def test_an_earlier_session_s_output_is_continued(place, dataset, capsys):
    folder = recipes.model_folder("luong-fast", dataset, {})
    attached = place / "input" / "notebooks" / "somebody" / "session" / "models" / folder.name
    attached.mkdir(parents=True)
    assert not recipes.model_folder("luong-fast", dataset, {}).exists()  # there is no run in it
    (attached / LAST).write_bytes(b"epoch 3")
    (attached / LAST).chmod(0o444)
    assert (recipes.model_folder("luong-fast", dataset, {}) / LAST).read_bytes() == b"epoch 3"
    assert capsys.readouterr().out == f"{folder.name}: continued from {attached}\n"
    assert (folder / LAST).stat().st_mode & 0o200
    (folder / LAST).write_bytes(b"epoch 4")  # the copy is not made again
    assert (recipes.model_folder("luong-fast", dataset, {}) / LAST).read_bytes() == b"epoch 4"
    assert capsys.readouterr().out == ""


def test_of_an_earlier_session_s_output_the_state_comes_last_and_whole(place, dataset, monkeypatch):
    """A kill while it is copied leaves no state, so that the next start copies again."""
    folder, copyfile = recipes.model_folder("luong-fast", dataset, {}), shutil.copyfile
    attached = place / "input" / folder.name
    attached.mkdir(parents=True)
    names = ["config.json", LAST, "log.csv", "vocab.json"]
    for name in names:
        (attached / name).touch()
    attached.chmod(0o555)

    def without_state(source, copy):
        assert Path(copy).name != LAST and not (folder / LAST).exists()
        copyfile(source, copy)

    monkeypatch.setattr(shutil, "copyfile", without_state)
    recipes.model_folder("luong-fast", dataset, {})
    assert sorted(path.name for path in folder.iterdir()) == names
    assert folder.stat().st_mode & 0o200


def test_arguments_may_be_paths(place, dataset, tmp_path):
    assert recipes.model_folder("x", dataset, {"word_vectors": tmp_path}) != recipes.model_folder("x", dataset, {})
