"""Tests of caption_utils.encoders.efficientnet against the same architecture in timm."""

import pytest
import timm
import torch

from caption_utils.encoders.efficientnet import EfficientNetLite2, load_efficientnet_lite2


@pytest.fixture(scope="module")
def ours():
    return load_efficientnet_lite2().eval()


@pytest.fixture(scope="module")
def reference(ours):
    """timm's network with our weights: it lists the same 386 tensors in the same order under other names."""
    model = timm.create_model("tf_efficientnet_lite2", pretrained=False).eval()
    model.load_state_dict(dict(zip(model.state_dict(), ours.state_dict().values(), strict=True)))
    return model


@pytest.mark.parametrize("size", [224, 260, 193])
def test_features_and_classes_are_timm_s_at_any_size(ours, reference, size):
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(size))
    with torch.no_grad():
        torch.testing.assert_close(ours.features(images), reference.forward_features(images), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours(images), reference(images), atol=1e-4, rtol=1e-4)


def test_all_386_tensors_are_loaded(ours):
    assert len(ours.state_dict()) == 386
    assert not any(tensor.is_meta for tensor in ours.state_dict().values())


def test_weights_of_another_network_do_not_load(monkeypatch):
    other = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    weights = dict(zip(EfficientNetLite2().state_dict(), other.values(), strict=False))
    monkeypatch.setattr(torch, "load", lambda *args, **options: weights)
    with pytest.raises(RuntimeError, match="Missing key|size mismatch"):
        load_efficientnet_lite2()
