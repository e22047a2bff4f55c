"""A run that goes on from a trained model. The encoder's fine-tuning has tests of its own, ``test_fine_tuning.py``."""

import base64
import json

import pytest

from caption_utils.data.splits import name_digest
from caption_utils.errors import InputError
from caption_utils.training.checkpoint import load_model
from caption_utils.training.refinement import refine_model
from caption_utils.training.run import train_model

SMALL = {"embed_dim": 8, "hidden_dim": 8, "attention_dim": 8, "epochs": 2, "images_per_batch": 3, "learning_rate": 1e-2}
REFINED = {"epochs": 1, "images_per_batch": 3, "validations": 1, "samples": 3, "mirror": False}


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [False, True])
def test_a_model_folder_is_refined_into_another(data_folder, tmp_path, tokenizer_file, fake_training, curves, pieces):
    tokenizer = str(tokenizer_file) if pieces else "words"
    train_model(data_folder, tmp_path / "start", min_count=1, settings=SMALL, tokenizer=tokenizer)
    before = {path.name: path.read_bytes() for path in (tmp_path / "start").iterdir()}
    history = refine_model(data_folder, tmp_path / "start", tmp_path / "refined", REFINED)
    assert history["epoch"].tolist() == [0, 1] and fake_training.seen == 6 + 3
    assert {path.name: path.read_bytes() for path in (tmp_path / "start").iterdir()} == before
    assert (tmp_path / "refined" / "curve.png").read_bytes().startswith(b"\x89PNG")
    start, model = load_model(tmp_path / "start"), load_model(tmp_path / "refined")
    assert model.training["self_critical"] == {"model": "start", "training": start.training}
    assert (model.training["data"], model.training["split"], model.training["samples"]) == ("data", "official", 3)
    assert model.trained_on == start.trained_on and model.vocab.words == start.vocab.words


def test_the_best_is_chosen_on_photos_that_the_start_was_not_trained_on(data_folder, tmp_path, fake_training, capsys):
    """The validation images are 2, 6 and 10; a single one has no CIDEr."""
    train_model(data_folder, tmp_path / "start", min_count=1, settings=SMALL)
    config = json.loads((tmp_path / "start" / "config.json").read_text())

    def refine(*trained_on):
        config["trained_on"] = base64.b64encode(b"".join(sorted(map(name_digest, trained_on)))).decode()
        (tmp_path / "start" / "config.json").write_text(json.dumps(config))
        refine_model(data_folder, tmp_path / "start", tmp_path / "refined", REFINED)

    with pytest.raises(InputError, match="data: one validation photo has no CIDEr, which chooses the best weights"):
        refine("0.png", "2.png", "6.png")
    assert "trained on (left out): 2 (2.png, 6.png)" in capsys.readouterr().err
    assert not (tmp_path / "refined").exists()
    refine("0.png", "2.png")
    assert "trained on (left out): 1 (2.png)" in capsys.readouterr().err


def test_what_cannot_be_refined_is_told_before_any_work(data_folder, tmp_path, fake_training):
    for settings in ({"hard": True}, {}):
        train_model(data_folder, tmp_path / f"hard-{len(settings)}", min_count=1, settings=SMALL | settings)
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "config.json").write_text('{"models": ["hard-0", "hard-0"]}')
    fake_training.sizes.clear()
    fake_training.fingerprint = "0ther"
    for start, settings, message in (
        ("both", {}, "both: an ensemble, whose models are trained one by one; name one of them"),
        ("none", {}, "none/config.json: not found; point to a model folder"),
        (
            "hard-0",
            {"hidden_dim": 4, "label_smoothing": 0.1},
            "hidden_dim, label_smoothing: no setting of self-critical",
        ),
        ("hard-0", {"samples": 1}, "samples=1 is out of range; choose a value from 2 to 1000"),
        ("hard-1", {}, "hard-1: has hard attention, which self-critical training does not know"),
        ("hard-0", {}, "encoder fake: its weights differ from those the model was trained with"),
    ):
        with pytest.raises(InputError, match=message):
            refine_model(tmp_path / "no data here", tmp_path / start, tmp_path / "out", settings)
    assert fake_training.seen == 0 and not (tmp_path / "out").exists()
