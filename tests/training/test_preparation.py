"""Wrong settings and data are told before any work is done."""

import json
import re
from dataclasses import asdict, fields

import numpy as np
import pytest

from caption_utils.config import DecoderConfig, TrainConfig
from caption_utils.errors import InputError
from caption_utils.training.preparation import check_settings
from caption_utils.training.processes import OneProcess
from caption_utils.training.run import train_model


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": "self"}, "attention 'self' is unknown; choose one of bahdanau, luong"),
        ({"attention": "luong", "score": "cosine"}, "score 'cosine' is unknown; choose one of general, dot, concat"),
        ({"attention": "luong", "score": "dot"}, "score 'dot' compares features of width 1280 .* set hidden_dim=1280"),
        ({"schedule": "linear"}, "schedule 'linear' is unknown; choose one of constant, one_cycle"),
        ({"precision": "half"}, "precision 'half' is unknown; choose one of auto, float32, bfloat16, float16"),
        ({"leraning_rate": 1}, "setting 'leraning_rate' is unknown"),
        ({"vocab_size": 9}, "setting 'vocab_size' is unknown"),
        ({"epochs": 0}, "epochs=0 is out of range; choose a value from 1 to 1e.06"),
        ({"images_per_batch": 0}, "images_per_batch=0 is out of range"),
        ({"accumulate": 0}, "accumulate=0 is out of range"),
        ({"hidden_dim": -1}, "hidden_dim=-1 is out of range"),
        ({"dropout": 1.5}, "dropout=1.5 is out of range; choose a value from 0 to 0.99"),
        ({"warmup": 1.0}, "warmup=1.0 is out of range"),
        ({"learning_rate": float("nan")}, "learning_rate=nan is out of range"),
        ({"learning_rate": -0.1}, "learning_rate=-0.1 is out of range"),
        ({"label_smoothing": 2.0}, "label_smoothing=2.0 is out of range"),
        ({"patience": 0}, "patience=0 is out of range"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"epochs": "10"}, "epochs='10' is of the wrong kind; give a whole number"),
        ({"epochs": 2.5}, "epochs=2.5 is of the wrong kind; give a whole number"),
        ({"epochs": True}, "epochs=True is of the wrong kind; give a whole number"),
        ({"hidden_dim": 256.0}, "hidden_dim=256.0 is of the wrong kind; give a whole number"),
        ({"dropout": None}, "dropout=None is of the wrong kind; give a number"),
        ({"mirror": "no"}, "mirror='no' is of the wrong kind; give True or False"),
        ({"gate": 1}, "gate=1 is of the wrong kind; give True or False"),
        ({"input_feeding": True}, "input_feeding is for attention luong; leave it out"),
        (
            {"attention": "none", "from_context": 0.5},
            "from_context needs a model whose .*: attention bahdanau with deep_output, or luong$",
        ),
        ({"fine_tune": 2}, "setting 'fine_tune' needs --start and --fine-tune, or fine_tune_model"),
        ({"samples": 5}, "setting 'samples' needs --self-critical, or refine_model"),
    ],
)
def test_wrong_settings_are_told_before_any_work(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        train_model(tmp_path / "no data here", tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count", [0, -5, "3", 2.0])
def test_a_wrong_least_count_of_words_is_told_before_any_work(tmp_path, count):
    with pytest.raises(InputError, match=f"min_count={count!r} is out of range; choose a whole number from 1"):
        train_model(tmp_path / "no data here", tmp_path / "out", min_count=count)


def test_numbers_of_numpy_and_whole_ones_are_numbers():
    config = TrainConfig(epochs=np.int64(2), learning_rate=1, warmup=np.float32(0.5))
    assert config == TrainConfig(epochs=2, learning_rate=1.0, warmup=0.5)
    assert json.loads(json.dumps(asdict(config)))["epochs"] == 2


def test_every_setting_has_limits_or_names():
    check_settings("resnet101", {})
    free = {
        field.name
        for config in (DecoderConfig, TrainConfig)
        for field in fields(config)
        if field.type in (int, float) and "range" not in field.metadata
    }
    assert not free


def test_an_unknown_encoder_is_told_before_any_work(tmp_path):
    with pytest.raises(InputError, match="encoder 'vgg' is unknown; choose one of efficientnet_lite2,"):
        train_model(tmp_path / "no data here", tmp_path / "out", encoder_name="vgg")


@pytest.mark.parametrize("below", ["", "m/n"])
def test_a_file_in_place_of_the_output_folder_is_named(data_folder, tmp_path, fake_training, below):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="out: a file, not a folder; name a folder"):
        train_model(data_folder, tmp_path / "out" / below)
    assert fake_training.seen == 0


def test_an_output_folder_that_cannot_be_written_is_told_before_any_work(
    data_folder, tmp_path, fake_training, monkeypatch
):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(InputError, match="m: .* cannot be written; name another folder"):
        train_model(data_folder, tmp_path / "runs" / "m")
    assert fake_training.seen == 0


def test_words_too_rare_for_the_vocabulary(data_folder, tmp_path, fake_training):
    with pytest.raises(InputError, match="min_count=100: no word of data is used that often; choose a smaller number"):
        train_model(data_folder, tmp_path / "out", min_count=100)
    assert fake_training.seen == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("words", "main", "told"), [(31, True, ["1"]), (30, True, []), (31, False, [])])
def test_captions_longer_than_a_model_s_are_told_once(
    data_folder, tmp_path, fake_training, monkeypatch, capsys, words, main, told
):
    monkeypatch.setattr(OneProcess, "is_main_process", main)
    with (data_folder / "captions.txt").open("a") as file:
        file.write(f"0.png,{'red ' * words},train\n")
    small = {"embed_dim": 8, "hidden_dim": 8, "attention_dim": 8, "epochs": 1, "mirror": False}
    train_model(data_folder, tmp_path / "out", min_count=1, settings=small)
    found = re.findall(
        r"^Captions of more than 30 tokens: (\d+); the model's own end there$", capsys.readouterr().err, re.M
    )
    assert found == told
