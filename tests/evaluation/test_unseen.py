from types import SimpleNamespace

import pytest
import torch

from caption_utils.captioner import Captioner
from caption_utils.config import DecoderConfig
from caption_utils.data.datasets import load_dataset
from caption_utils.data.splits import name_digest
from caption_utils.data.vocab import Vocabulary
from caption_utils.encoders.store import extract
from caption_utils.errors import InputError
from caption_utils.evaluation.unseen import best_captions, read_split
from caption_utils.model.decoder import build_decoder
from caption_utils.training import preparation
from caption_utils.training.checkpoint import Model


def trained(split="official", photos=()):
    """A model of a split, which was trained on some photos."""
    return Model(None, None, "fake", "f4ce", {"split": split}, frozenset(map(name_digest, photos)))


def test_the_data_is_split_as_the_model_s_was(data_folder):
    whole, val = read_split(data_folder, trained("first6k"), "val")
    expected = load_dataset(data_folder, "first6k")
    assert (whole.scheme, whole.image_names) == (expected.scheme, expected.image_names)
    assert val.image_names == expected.split("val").image_names
    with pytest.raises(InputError, match="split 'test' of data has no images"):
        read_split(data_folder, trained("first6k"), "test")


@pytest.fixture
def unlisted(data_folder):
    """A data set without splits."""
    load_dataset(data_folder).table[["image", "caption"]].to_csv(data_folder / "captions.txt", index=False)
    return data_folder


@pytest.mark.parametrize(("split", "end"), [("train", "train"), ("val", "dev"), ("test", "test")])
def test_chance_does_not_stand_in_for_the_official_lists(unlisted, split, end):
    """A random split of the folder would hold training photos in each of its parts."""
    expected = (
        f"^{unlisted}: no list tells its {split} photos from those that the model was trained on; "
        f"put Flickr_8k.{end}Images.txt there$"
    )
    for data in (unlisted, load_dataset(unlisted)):
        with pytest.raises(InputError, match=expected):
            read_split(data, trained(), split)
    with pytest.raises(InputError, match="split 'dev' of data has no images"):
        read_split(unlisted, trained(), "dev")


def test_a_model_that_remembers_its_training_photos_needs_no_lists(unlisted, capsys):
    model = trained(photos=load_dataset(unlisted).split("val").image_names[:1])
    with pytest.raises(InputError, match="the model was trained on all 1 photos of this split"):
        read_split(unlisted, model, "val")
    assert read_split(unlisted, model, "test")[1].image_names
    with pytest.raises(InputError, match="no list tells its train photos"):
        read_split(unlisted, model, "train")


def test_a_model_of_a_random_split_needs_no_lists(unlisted):
    whole, val = read_split(unlisted, trained("random"), "val")
    assert (whole.scheme, len(val.image_names)) == ("random", 1)


def test_photos_that_the_model_was_trained_on_are_left_out_and_told(data_folder, monkeypatch, capsys):
    """The validation images are 2, 6 and 10."""
    model = trained(photos=["0.png", "2.png", "6.png", "gone.png"])
    assert read_split(data_folder, model, "val")[1].image_names == ["10.png"]
    assert "Photos that the model was trained on (left out): 2 (2.png, 6.png)\n" in capsys.readouterr().err
    for split, images in (("train", 6), ("test", 3)):
        assert len(read_split(data_folder, model, split)[1].image_names) == images
        assert "left out" not in capsys.readouterr().err
    monkeypatch.setattr(preparation, "join_processes", lambda: SimpleNamespace(is_main_process=False))
    assert read_split(data_folder, model, "val")[1].image_names == ["10.png"]
    assert "left out" not in capsys.readouterr().err


def test_a_split_of_nothing_but_training_photos_is_refused(data_folder):
    with pytest.raises(InputError, match="data: the model was trained on all 3 photos of this split; take others"):
        read_split(data_folder, trained(photos=["2.png", "6.png", "10.png"]), "val")


def test_a_model_of_a_split_by_captions_is_told_why_no_photo_is_left(data_folder):
    photos = load_dataset(data_folder).image_names
    message = "on all . photos of this split, since the split source divides captions, not photos; train one with"
    with pytest.raises(InputError, match=message):
        read_split(data_folder, trained("source", photos), "val")
    assert read_split(data_folder, trained("source", photos[:1]), "val")[1].image_names


def test_best_captions_are_those_of_the_captioner_photo_by_photo(dataset, fake_encoder, cache, monkeypatch):
    monkeypatch.setattr("caption_utils.evaluation.unseen.BATCH", 5)
    torch.manual_seed(0)
    vocab = Vocabulary.build(["a red green blue white half and beside"], min_count=1)
    decoder = build_decoder(DecoderConfig(len(vocab), 6, embed_dim=8, hidden_dim=8, attention_dim=8)).eval()
    torch.nn.init.normal_(decoder.output.weight, std=2.0)  # so that it says more than one thing
    captioner, names = Captioner(Model(decoder, vocab, "fake", "f4ce", {}), fake_encoder), dataset.image_names
    found = best_captions(captioner, extract(dataset, fake_encoder), names, beams=2)
    expected = [captioner.caption(dataset.path(name), beams=2).text for name in names]
    assert [caption.text for caption in found] == expected and len(set(expected)) > 1
