from pathlib import Path

import pytest
import torch
from conftest import FakeEncoder, trained_with
from safetensors.torch import load_file

from caption_utils.data.datasets import load_dataset
from caption_utils.data.vocab import Vocabulary
from caption_utils.errors import InputError
from caption_utils.training.checkpoint import load_model
from caption_utils.training.refinement import fine_tune_model, refine_model
from caption_utils.training.run import train_model

SMALL = {"embed_dim": 8, "hidden_dim": 8, "attention_dim": 8, "epochs": 2, "images_per_batch": 3, "learning_rate": 1e-2}
pytestmark = pytest.mark.usefixtures("fake_training")


@pytest.mark.slow
def test_from_a_folder_of_photos_to_a_measured_model(data_folder, tmp_path, capsys):
    out = tmp_path / "runs" / "small"
    history = train_model(data_folder, out, min_count=1, settings=SMALL | {"mirror": True, "seed": 4})
    assert list(history["epoch"]) == [1, 2]
    assert "Split: official, given by captions.txt" in capsys.readouterr().err
    model = load_model(out)
    assert (model.encoder, model.fingerprint) == ("fake", "f4ce")
    assert (model.training["data"], model.training["seed"]) == ("data", 4)


def test_a_model_remembers_by_which_scheme_its_data_were_split(data_folder, tmp_path):
    """Without official lists chance decides, and what is measured later must be split in the same way."""
    table = (data_folder / "captions.txt").read_text().splitlines()
    (data_folder / "captions.txt").write_text("\n".join(line.rsplit(",", 1)[0] for line in table) + "\n")
    train_model(data_folder, tmp_path / "model", min_count=1, settings=SMALL)
    assert load_model(tmp_path / "model").training["split"] == "random"


def test_a_model_remembers_its_training_photos(data_folder, tmp_path):
    train_model(data_folder, tmp_path / "model", min_count=1, settings=SMALL)
    dataset, model = load_dataset(data_folder), load_model(tmp_path / "model")
    assert set(filter(model.saw, dataset.image_names)) == set(dataset.split("train").image_names)


def test_a_run_does_not_go_on_with_other_validation_captions(data_folder, tmp_path):
    train_model(data_folder, tmp_path / "model", min_count=1, settings=SMALL)
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with (data_folder / "captions.txt").open("a") as file:
        file.write("2.png,a red half,val\n")
    with pytest.raises(InputError, match="another run, which differs in validation; choose a new folder"):
        train_model(data_folder, tmp_path / "model", min_count=1, settings=SMALL)
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


def test_two_photos_are_enough_to_train(data_folder, tmp_path):
    """One of them to validate on."""
    (data_folder / "captions.txt").write_text("image,caption\n0.png,red beside green\n")
    with pytest.raises(InputError, match=r"split 'val' of data has no images \(it takes 2 images in all\)"):
        train_model(data_folder, tmp_path / "model", min_count=1, settings=SMALL)
    (data_folder / "captions.txt").write_text("image,caption\n0.png,red beside green\n1.png,red beside green\n")
    assert len(train_model(data_folder, tmp_path / "model", min_count=1, settings=SMALL)) == 2


def test_a_curve_that_cannot_be_written_keeps_the_last_one(data_folder, tmp_path, monkeypatch, curves):
    curve = tmp_path / "model" / "curve.png"
    train_model(data_folder, curve.parent, min_count=1, settings=SMALL)
    before = curve.read_bytes()
    assert before.startswith(b"\x89PNG")

    def fill_up(figure, path, format):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fill_up)
    with pytest.raises(InputError, match=r"curve\.png: cannot be written \(No space left on device\)"):
        train_model(data_folder, curve.parent, min_count=1, settings=SMALL)
    assert curve.read_bytes() == before
    assert not list(curve.parent.glob("*.tmp"))


def test_words_come_from_training_captions_alone(data_folder, tmp_path):
    with (data_folder / "captions.txt").open("a") as file:
        file.write("2.png,a zebra,val\n3.png,a quagga,test\n")
    train_model(data_folder, tmp_path / "model", min_count=1, settings=SMALL)
    vocab = load_model(tmp_path / "model").vocab
    train = load_dataset(data_folder).split("train")
    assert vocab.words == Vocabulary.build(train.table["caption"], 1).words
    assert not {"zebra", "quagga"} & set(vocab.words)


def test_the_same_seed_gives_the_same_model(data_folder, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_model(data_folder, tmp_path / name, min_count=1, settings=SMALL | {"seed": seed})
    one, same, other = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_each_photo_is_encoded_once_and_once_more_mirrored(data_folder, tmp_path, fake_training):
    """Six photos to train on, three to validate on, and the six mirrored; the second run needs no more."""
    train_model(data_folder, tmp_path / "a", min_count=1, settings=SMALL | {"mirror": True})
    assert fake_training.seen == 6 + 3 + 6
    train_model(data_folder, tmp_path / "b", min_count=1, settings=SMALL | {"mirror": True, "attention": "luong"})
    assert fake_training.seen == 6 + 3 + 6


def test_an_interrupted_run_goes_on(data_folder, tmp_path, monkeypatch):
    train_model(data_folder, tmp_path / "whole", min_count=1, settings=SMALL)
    monkeypatch.setattr("caption_utils.training.trainer.Trainer.finished", lambda trainer: len(trainer.history) >= 1)
    train_model(data_folder, tmp_path / "cut", min_count=1, settings=SMALL)
    monkeypatch.undo()
    trained_with(monkeypatch, lambda name, device: FakeEncoder())
    monkeypatch.setattr("caption_utils.encoders.store.writable_dir", lambda name: tmp_path / "cache")
    train_model(data_folder, tmp_path / "cut", min_count=1, settings=SMALL)
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_student_learns_from_a_model_of_the_same_words(data_folder, tmp_path):
    train_model(data_folder, tmp_path / "teacher", min_count=1, settings=SMALL)
    settings = SMALL | {"attention": "luong", "distillation": 0.5}
    train_model(data_folder, tmp_path / "student", min_count=1, settings=settings, teachers=[tmp_path / "teacher"])
    assert load_model(tmp_path / "student").training["teachers"] == ["teacher"]
    for wrong, teachers in ((SMALL, [tmp_path / "teacher"]), (settings, [])):
        with pytest.raises(InputError, match="distillation needs teachers and a share above 0; give both --teacher"):
            train_model(data_folder, tmp_path / "wrong", min_count=1, settings=wrong, teachers=teachers)
    with (data_folder / "captions.txt").open("a") as file:
        file.write("0.png,a zebra,train\n")
    with pytest.raises(InputError, match="teacher: knows other words or another encoder; a teacher needs the same"):
        train_model(data_folder, tmp_path / "other", min_count=1, settings=settings, teachers=[tmp_path / "teacher"])


@pytest.fixture
def word_vectors(tmp_path):
    """A file with vectors of width 3 for some words of the captions."""
    path = tmp_path / "vectors.txt"
    path.write_text("red 1 2 3\nhalf 4 5 6\nzebra 7 8 9\ngreen -1 -2 -3\n")
    return str(path)


@pytest.mark.parametrize("settings", [{}, {"embed_dim": 3}, {"tie_weights": True, "attention": "luong"}])
def test_frozen_word_vectors_stay_as_they_are_and_others_learn(data_folder, tmp_path, word_vectors, settings, capsys):
    settings = SMALL | {"weight_decay": 0.1} | settings
    tables = {}
    for freeze in (True, False):
        out = tmp_path / f"frozen-{freeze}"
        both = settings | {"freeze_word_vectors": freeze}
        train_model(data_folder, out, min_count=1, settings=both, word_vectors=word_vectors)
        assert "vectors.txt, width 3, for 3 of 8 words, " in capsys.readouterr().err
        model = load_model(out)
        assert (model.training["word_vectors"], model.decoder.config.word_dim) == ("vectors.txt", 3)
        tables[freeze] = model.decoder.embedding.weight[[model.vocab.ids[word] for word in ("red", "half", "green")]]
    vectors = torch.tensor([[1.0, 2, 3], [4, 5, 6], [-1, -2, -3]])
    assert torch.equal(tables[True], vectors)
    assert not torch.equal(tables[False], vectors) and torch.allclose(tables[False], vectors, atol=0.5)


def test_a_word_without_a_vector_gets_one_as_long(data_folder, tmp_path, word_vectors):
    settings = SMALL | {"freeze_word_vectors": True}
    train_model(data_folder, tmp_path / "model", min_count=1, settings=settings, word_vectors=word_vectors)
    model = load_model(tmp_path / "model")
    others = [i for i, word in enumerate(model.vocab.words) if word not in ("red", "half", "green")]
    assert 1 < model.decoder.embedding.weight[others].square().mean().sqrt() < 6


def test_a_run_does_not_go_on_with_other_word_vectors_or_tokens(data_folder, tmp_path, word_vectors, tokenizer_file):
    train_model(data_folder, tmp_path / "out", min_count=1, settings=SMALL, word_vectors=word_vectors)
    with pytest.raises(InputError, match="another run, which differs in word_dim, word_vectors; choose a new folder"):
        train_model(data_folder, tmp_path / "out", min_count=1, settings=SMALL)
    with pytest.raises(
        InputError, match="another run, which differs in vocab_size, .*vocabulary, captions, validation"
    ):
        train_model(data_folder, tmp_path / "out", min_count=1, settings=SMALL, tokenizer=str(tokenizer_file))
    Path(word_vectors).write_text("red 1 2 3\n")
    with pytest.raises(InputError, match="another run, which differs in word_vectors; choose a new folder"):
        train_model(data_folder, tmp_path / "out", min_count=1, settings=SMALL, word_vectors=word_vectors)


def test_a_model_of_pieces_says_words(data_folder, tmp_path, tokenizer_file):
    train_model(data_folder, tmp_path / "out", min_count=1, settings=SMALL, tokenizer=str(tokenizer_file))
    model = load_model(tmp_path / "out")
    assert model.training["tokenizer"] == "tokenizer.json" and "##ide" in model.vocab.words
    assert model.vocab.decode(model.vocab.encode("Green beside white")) == "green beside white"
    train_model(data_folder, tmp_path / "words", min_count=1, settings=SMALL)
    settings = SMALL | {"distillation": 0.5}
    with pytest.raises(InputError, match="words: knows other words or another encoder; a teacher needs the same"):
        others = {"tokenizer": str(tokenizer_file), "teachers": [tmp_path / "words"]}
        train_model(data_folder, tmp_path / "taught", min_count=1, settings=settings, **others)


@pytest.mark.parametrize(
    ("settings", "words", "message"),
    [
        (
            {},
            {"word_vectors": "v", "tokenizer": "wordpiece"},
            "word vectors are for whole words, and tokenizer wordpiece",
        ),
        ({"freeze_word_vectors": True}, {}, "freeze_word_vectors has no word vectors to freeze; give --word-vectors"),
        ({"word_dim": 3}, {}, "setting 'word_dim' is unknown"),
    ],
)
def test_words_at_odds_are_told_before_any_work(tmp_path, settings, words, message):
    with pytest.raises(InputError, match=message):
        train_model(tmp_path / "no data here", tmp_path / "out", settings=settings, **words)


@pytest.mark.parametrize("left", ["model.safetensors", "config.json", "vocab.json"])
def test_a_folder_with_files_of_a_model_is_refused_before_any_work(tmp_path, left):
    """An ensemble has only a configuration, and so have models of other projects."""
    nothing, out = tmp_path / "no data here", tmp_path / "model"
    out.mkdir()
    (out / left).touch()
    for train in (
        lambda: train_model(nothing, out, min_count=1, settings=SMALL),
        lambda: refine_model(nothing, out, out),
        lambda: fine_tune_model(nothing, out, out),
    ):
        with pytest.raises(
            InputError, match=f"model: holds {left}, but no run to go on with; choose a new folder, or move them away$"
        ):
            train()
