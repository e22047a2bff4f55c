import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from caption_utils.calibration import CONFIDENCE, Calibration, Subspace, gist, load_calibration
from caption_utils.errors import InputError

PHOTOS = Subspace(torch.tensor([1.0, 0, 0]), torch.tensor([[0.0], [1], [0]]))  # photos differ in the second number
CALIBRATION = Calibration(torch.tensor([2.0, 1]), PHOTOS, torch.tensor([1.0, 4, 9]))
NEAR, ODD, FAR = torch.tensor([[1.0, 50, 0.5], [1, 0, 2], [1, 0, 5]]).split(1)


@pytest.fixture
def folder(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "model")


def test_the_likelier_its_words_the_likelier_a_caption_is_good():
    found = CALIBRATION.likely(torch.tensor([math.exp(-2), 1, 0]))
    assert found.tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-2)), 0])


def test_distances_do_not_count_what_training_photos_differ_in():
    assert PHOTOS.distances(torch.cat([NEAR, ODD, FAR])).tolist() == pytest.approx([0.25, 4, 25])


def test_a_photo_beyond_the_tail_is_the_least_familiar():
    gists = torch.cat([NEAR, ODD, torch.tensor([[1.0, 0, 2.5]]), FAR])
    assert CALIBRATION.familiar(gists).tolist() == pytest.approx([1, 3 / 4, 1 / 2, 1 / 4])


def test_confidence_is_the_product_of_both_and_says_why_it_is_low():
    sure, odd, unsure, strange = CALIBRATION.judge(torch.cat([NEAR, ODD, NEAR, FAR]), [1, 1, math.exp(-4), 1])
    likely = 1 / (1 + math.exp(-2))
    found = [each.value for each in (sure, odd, unsure, strange)]
    assert found == pytest.approx([likely, 0.75 * likely, 1 - likely, 0.25 * likely])
    assert sure.doubt == odd.doubt == "" and unsure.doubt == "unsure"
    assert strange.doubt == "unsure: unlike the photos this model knows"


def test_with_a_tail_of_one_photo_those_beyond_it_are_unlike_them():
    few = Calibration(CALIBRATION.line, PHOTOS, torch.tensor([4.0]))
    near, far = few.judge(torch.cat([NEAR, FAR]), [1, 1])
    assert near.doubt == "" and far.doubt == "unsure: unlike the photos this model knows"


def test_a_gist_is_the_direction_of_the_mean_feature():
    features = torch.tensor([[[2.0, 0], [4, 8]], [[0, 0], [0, -6]]]).half()
    assert gist(features).tolist() == [pytest.approx([0.6, 0.8]), [0, -1]]


def test_a_model_folder_keeps_it(folder):
    assert load_calibration(folder) is None
    CALIBRATION.save(str(folder))
    found = load_calibration(folder)
    assert found.judge(ODD, [0.5]) == CALIBRATION.judge(ODD, [0.5])
    assert load_file(folder / CONFIDENCE)["directions"].dtype == torch.float16


def test_that_of_other_weights_is_refused(folder):
    CALIBRATION.save(folder)
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"output.bias": weights["output.bias"] + 1}, folder / "model.safetensors")
    with pytest.raises(InputError, match="was fitted to captions of other weights; fit it again with python -m"):
        load_calibration(folder)


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_a_damaged_one_is_one_line(folder, content):
    if content is None:
        save_file({"line": torch.zeros(2)}, folder / CONFIDENCE)
    else:
        (folder / CONFIDENCE).write_bytes(content)
    with pytest.raises(InputError, match=rf"{CONFIDENCE}: damaged \(.*\); fit it again") as raised:
        load_calibration(folder)
    assert "\n" not in str(raised.value)
