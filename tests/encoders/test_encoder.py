from dataclasses import replace

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models import ResNet101_Weights, resnet101

from caption_utils.encoders import encoder as module
from caption_utils.encoders.efficientnet import load_efficientnet_lite2
from caption_utils.encoders.encoder import ENCODERS, Encoder, encoder_spec, fold_batch_norms, load_encoder
from caption_utils.errors import InputError

CLASSES = ResNet101_Weights.IMAGENET1K_V2.meta["categories"]


@pytest.mark.parametrize(
    ("photo", "sensible"),
    [
        ("chelsea", {"Egyptian cat", "tabby", "tiger cat", "lynx"}),
        ("coffee", {"espresso", "cup", "coffee mug"}),
        ("motorcycle_left", {"motor scooter", "moped"}),
    ],
)
def test_known_photographs_get_sensible_classes(encoder, photo, sensible):
    path = f"{skimage.__path__[0]}/data/{photo}.png"
    probabilities = encoder.classify(encoder.transform(Image.open(path).convert("RGB"))[None])[0]
    best = [CLASSES[i] for i in probabilities.topk(2).indices]
    assert set(best) <= sensible
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)


def test_features_are_the_last_map_region_by_region_in_reading_order(encoder):
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = encoder(images)
    assert (features.shape, features.dtype) == ((2, 49, 1280), torch.float32)
    assert (encoder.grid**2, encoder.width) == (49, 1280)
    normalized = (images / 255 - 0.5) / 0.5
    maps = encoder.feature_map(normalized)
    torch.testing.assert_close(features.reshape(2, 7, 7, 1280), maps.permute(0, 2, 3, 1), atol=1e-4, rtol=1e-4)


def test_local_channels_are_means_of_finer_cells_and_the_last_map_follows(encoder):
    """Each of the 49 cells has the mean of the four cells of 16 pixels that it covers."""
    images = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    both = load_encoder("efficientnet_lite2_local")
    found = both(images)
    assert (found.shape, both.width, both.local) == ((1, 49, 2000), 2000, 720)
    torch.testing.assert_close(found[..., 720:], encoder(images))
    seen = []
    fine = encoder.model._blocks[15]._depthwise_conv
    hook = fine.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    encoder(images)
    hook.remove()
    cells = seen[0].reshape(1, 720, 7, 2, 7, 2).mean(dim=(3, 5))
    torch.testing.assert_close(found[..., :720], cells.flatten(2).mT)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_only_rgb_pictures_are_transformed(encoder, mode):
    with pytest.raises(ValueError, match="^transform takes RGB pictures, as load_image makes them$"):
        encoder.transform(Image.new(mode, (30, 20)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite2", "efficientnet_lite2_local"])
@pytest.mark.parametrize("count", [2, 7])
def test_the_last_stages_make_features_of_the_map_before_them(name, count):
    encoder = load_encoder(name)
    images = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = encoder.before(count)
    maps = before(images)
    assert maps.shape == (1, before.grid**2, before.width) == {2: (1, 196, 120), 7: (1, 12544, 32)}[count]
    assert before.fingerprint != encoder.fingerprint
    torch.testing.assert_close(encoder.after(maps, count), encoder(images))
    changed = {id(each) for each in encoder.last_stages(count).parameters()}
    names = {name for name, each in encoder.model.named_parameters() if id(each) in changed}
    assert {each.split(".")[0] for each in names} == {"_blocks", "_conv_head"}
    assert min(int(each.split(".")[1]) for each in names if each.startswith("_blocks")) == {2: 15, 7: 0}[count]


def test_stages_that_cannot_be_trained(encoder):
    for each, count, range in ((encoder, 8, "1 to 7"), (load_encoder("efficientnet_lite2_local"), 1, "2 to 7")):
        with pytest.raises(InputError, match=f"{each.name}: {count} stages cannot be fine-tuned; choose {range}"):
            each.last_stages(count)


def test_resnets_local_channels_are_those_of_its_third_stage():
    spec = replace(ENCODERS["resnet101_local"], load=lambda: resnet101(weights=None))
    encoder, images = Encoder("resnet101_local", spec), torch.randn(1, 3, 64, 64)
    both, model = encoder.feature_map(images), encoder.model
    finer = model.layer3(model.layer2(model.layer1(model.maxpool(model.relu(model.bn1(model.conv1(images)))))))
    assert both.shape == (1, 3072, 2, 2)
    torch.testing.assert_close(both[:, 1024:], model.layer4(finer))
    torch.testing.assert_close(encoder.feature_map(finer, start=4), both)
    torch.testing.assert_close(both[:, :1024], finer.reshape(1, 1024, 2, 2, 2, 2).mean(dim=(3, 5)))


@pytest.mark.slow
@pytest.mark.parametrize("size", [224, 260])
def test_folded_batch_norms_give_the_same_features(encoder, size):
    published = load_efficientnet_lite2().eval()
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    with torch.no_grad():
        expected = torch.nn.Sequential(*published.stages())(images)
        torch.testing.assert_close(encoder.feature_map(images), expected, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(encoder.model(images), published(images), atol=1e-4, rtol=1e-5)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in encoder.model.modules())


def test_only_a_batch_norm_after_a_convolution_is_folded():
    torch.manual_seed(0)
    conv = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4))
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3), conv, torch.nn.ReLU(), torch.nn.BatchNorm2d(4))
    for norm in (model[0], conv[1], model[3]):
        for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            values.uniform_(0.5, 2.0)
    images = torch.randn(2, 3, 5, 5)
    expected = model.eval()(images)
    folded = fold_batch_norms(model)
    torch.testing.assert_close(folded(images), expected)
    assert [type(layer).__name__ for layer in folded] == ["BatchNorm2d", "Sequential", "ReLU", "BatchNorm2d"]
    assert [type(layer).__name__ for layer in folded[1]] == ["Conv2d", "Identity"]


def test_the_network_is_frozen(encoder):
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not any(layer.training for layer in encoder.model.modules())
    assert not encoder(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)).requires_grad


def test_the_fingerprint_is_that_of_the_published_weights(encoder):
    assert encoder.fingerprint == "031d2ea2d8896519"


class Small(torch.nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = torch.nn.Conv2d(3, 4, 1)


def small_encoder(seed=0, **changed):
    spec = {"load": lambda: Small(seed), "stages": lambda model: [model.layer], "width": 4, "size": 5, "grid": 5}
    return Encoder("small", module.EncoderSpec(**(spec | changed)))


@pytest.mark.parametrize(("side", "place"), [(17, "cpu"), (14, "mps")])
def test_an_apple_gpu_leaves_pooling_that_does_not_divide_to_the_cpu(monkeypatch, side, place):
    """It may refuse to pool 17 by 17 cells to 9 by 9, but not 14 by 14 to 7 by 7."""
    encoder = small_encoder(stages=lambda model: [torch.nn.Identity(), torch.nn.AvgPool2d(1, 2)], local=5)
    pool, places = torch.nn.functional.adaptive_avg_pool2d, []
    watched = lambda maps, side: places.append(maps.device.type) or pool(maps, side)  # noqa: E731
    monkeypatch.setattr("torch.nn.functional.adaptive_avg_pool2d", watched)
    monkeypatch.setattr(torch.Tensor, "to", lambda maps, device: torch.empty(maps.shape, device=device))  # no driver
    with FakeTensorMode():
        both = encoder.feature_map(torch.empty(1, 5, side, side, device="mps"))
    assert (places, both.device.type, both.shape) == ([place], "mps", (1, 10, (side + 1) // 2, (side + 1) // 2))


def test_the_fingerprint_depends_on_weights_and_transform():
    prints = [
        small_encoder().fingerprint,
        small_encoder(seed=1).fingerprint,
        small_encoder(size=6).fingerprint,
        small_encoder(mean=(0.0, 0.5, 0.5)).fingerprint,
    ]
    assert len(set(prints)) == 4
    assert small_encoder().fingerprint == prints[0]


def test_each_channel_is_normalized_by_its_own_mean_and_deviation():
    encoder = small_encoder(stages=lambda model: [torch.nn.Identity()], mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    pixels = torch.tensor([51, 102, 153], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, 5, 5)
    expected = torch.tensor([(0.2 - 0.1) / 0.5, (0.4 - 0.2) / 0.25, (0.6 - 0.3) / 1.0])
    torch.testing.assert_close(encoder(pixels), expected.expand(1, 25, 3))


@pytest.mark.parametrize("use", ["forward", "classify"])
def test_pixels_as_fractions_are_refused(use):
    """They would all count as almost black."""
    with pytest.raises(ValueError, match="images must be bytes from 0 to 255, as transform makes them"):
        getattr(small_encoder(), use)(torch.rand(1, 3, 5, 5))


def test_transform_squashes_to_a_square_of_bytes(encoder):
    picture = Image.new("RGB", (600, 200), "blue")
    picture.paste("red", (0, 0, 20, 200))  # a crop would lose it
    pixels = encoder.transform(picture)
    assert (pixels.shape, pixels.dtype) == ((3, 224, 224), torch.uint8)
    assert pixels[:, 100, 2].tolist() == [255, 0, 0]
    assert pixels[:, 100, -1].tolist() == [0, 0, 255]


def test_transform_keeps_a_picture_of_the_right_size(encoder):
    values = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    assert (encoder.transform(Image.fromarray(values)).permute(1, 2, 0).numpy() == values).all()


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="encoder 'vgg' is unknown; choose one of efficientnet_lite2,"):
        load_encoder("vgg")
    with pytest.raises(InputError, match="is unknown"):
        encoder_spec("")


def test_every_spec_is_known_without_loading():
    found = {name: (spec.grid, spec.width, spec.local) for name, spec in ENCODERS.items()}
    assert found == {
        "efficientnet_lite2": (7, 1280, 0),
        "efficientnet_lite2_260px": (9, 1280, 0),
        "efficientnet_lite2_local": (7, 2000, 720),
        "efficientnet_lite2_local_260px": (9, 2000, 720),
        "resnet101": (7, 2048, 0),
        "resnet101_local": (7, 3072, 1024),
    }


def test_a_larger_picture_has_more_regions_and_another_fingerprint(encoder):
    larger = load_encoder("efficientnet_lite2_260px")
    images = torch.full((2, 3, 260, 260), 90, dtype=torch.uint8)
    assert larger(images).shape == (2, 81, 1280) == (2, larger.grid**2, larger.width)
    assert larger.fingerprint != encoder.fingerprint
