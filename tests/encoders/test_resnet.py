import urllib.error
from copy import deepcopy

import pytest
import torch
from torchvision.models import resnet101

from caption_utils.encoders.encoder import load_encoder
from caption_utils.encoders.resnet import resnet_stages
from caption_utils.errors import InputError


@pytest.mark.parametrize(
    "error",
    [urllib.error.URLError("no route"), OSError("disk"), RuntimeError("invalid hash\nvalue"), EOFError("cut short")],
)
def test_missing_resnet_weights_name_the_remedy(monkeypatch, error):
    def fail(weights):
        raise error

    monkeypatch.setattr("torchvision.models.resnet101", fail)
    with pytest.raises(InputError, match="resnet101: ImageNet weights .*, or use efficientnet_lite2") as seen:
        load_encoder("resnet101")
    assert "resnet101-cd907fc2.pth" in str(seen.value)
    assert "\n" not in str(seen.value)


@pytest.mark.slow
def test_resnet_features(monkeypatch):
    torch.manual_seed(0)
    published = resnet101(weights=None).eval()
    for layer in published.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1), layer.running_var.uniform_(0.8, 1.2)
    monkeypatch.setattr("torchvision.models.resnet101", lambda weights: deepcopy(published))
    encoder = load_encoder("resnet101")
    images = torch.full((2, 3, 224, 224), 90, dtype=torch.uint8)
    features = encoder(images)
    with torch.no_grad():
        last = torch.nn.Sequential(*resnet_stages(published))(encoder._normalized(images))
    expected = last.flatten(2).transpose(1, 2)
    torch.testing.assert_close(features, expected, atol=1e-5 * expected.max().item(), rtol=1e-4)  # the norms are folded
    assert features.shape == (2, 49, 2048) == (2, encoder.grid**2, encoder.width)
    logits = encoder.model.fc(features.mean(dim=1))  # the network's own head is an average pool and one layer
    torch.testing.assert_close(logits.softmax(dim=1), encoder.classify(images), atol=1e-5, rtol=1e-3)
