import numpy as np
import pytest

from caption_utils.captioner import Caption
from caption_utils.data.datasets import load_dataset
from caption_utils.data.vocab import tokenize
from caption_utils.demo.scenes import DEMO, Scene, Thing
from caption_utils.errors import InputError
from caption_utils.evaluation import attention as module
from caption_utils.evaluation.attention import attention_scores
from caption_utils.metrics.bootstrap import mean_score


def even(text):
    """A caption with even attention."""
    tokens = tokenize(text)
    return Caption(text, -1.0, tokens, np.full((len(tokens), 7, 7), 1 / 49))


@pytest.mark.slow
def test_scenes_are_checked_for_what_is_true_and_where_it_is():
    """People's captions are true, and even attention has the boxes' share of the picture inside them."""
    dataset = load_dataset(DEMO).split("val")
    texts = [dataset.captions_of(name)[0] for name in dataset.image_names]
    scores = attention_scores(None, dataset, list(map(even, texts)))
    assert list(scores) == ["true", *(f"pointing_{name}" for name in ("hit", "mass", "chance", "absent"))]
    assert {len(score.statistics) for score in scores.values()} == {300}
    assert scores["true"].value == 100 and scores["pointing_absent"].value == 0
    assert 5 < scores["pointing_chance"].value < 40
    assert scores["pointing_mass"].value == pytest.approx(scores["pointing_chance"].value, abs=0.01)
    assert scores["pointing_hit"].value == pytest.approx(scores["pointing_chance"].value, abs=0.01)
    turned = attention_scores(None, dataset, list(map(even, texts[1:] + texts[:1])))
    assert turned["true"].value < 20 and turned["pointing_absent"].value > 50


@pytest.mark.parametrize(
    ("text", "measured"),
    [
        ("it snows", {"true"}),
        ("a boat", {"true", "pointing_absent"}),
        ("a ball", {"true", "pointing_absent", "pointing_hit", "pointing_mass", "pointing_chance"}),
    ],
)
def test_scores_of_no_word_are_missing(text, measured):
    """No caption names a thing, or none that is there."""
    scene = Scene("snow", (Thing("ball", "red", (0, 0, 64, 64)),))
    assert module._pointing_scores([even(text)], [scene]).keys() == measured


def test_photographs_are_put_to_the_deletion_test(dataset, monkeypatch):
    monkeypatch.setattr(module, "PHOTOS", 2)
    monkeypatch.setattr(module, "deletion_test", lambda captioner, photos: photos)
    monkeypatch.setattr(module, "deletion_scores", lambda photos, images: {"attended": mean_score(range(images))})
    scores = attention_scores(None, dataset, [])
    assert list(scores) == ["fall_attended"] and len(scores["fall_attended"].statistics) == 2


def test_a_photo_among_the_scenes(data_folder):
    (data_folder / "scenes.json").write_text("{}")
    dataset = load_dataset(data_folder).split("val")
    expected = r"data/scenes\.json: has no scene 2\.png; take the photo out of the demo set$"
    with pytest.raises(InputError, match=expected):
        attention_scores(None, dataset, [even("red")] * 3)
