"""ResNet-101, for inference, from torchvision (He et al. 2016, "Deep Residual Learning for Image Recognition")."""

from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from caption_utils.errors import InputError


def load_resnet101() -> nn.Module:
    """The network with torchvision's ImageNet weights, downloaded once. ``InputError`` if they cannot be had."""
    from torchvision.models import ResNet101_Weights, resnet101

    weights = ResNet101_Weights.IMAGENET1K_V2
    try:
        return resnet101(weights=weights)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:  # no network, or a file cut short
        raise InputError(
            f"resnet101: ImageNet weights could not be had ({error}); connect to the internet once, or put "
            f"{weights.url.rsplit('/')[-1]} into {torch.hub.get_dir()}/checkpoints, or use efficientnet_lite2"
        ) from None


def resnet_features(model: Any, x: Tensor) -> Tensor:
    """The last feature map ``(B, 2048, S/32, S/32)`` of normalised images ``(B, 3, S, S)``."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    return model.layer4(model.layer3(model.layer2(model.layer1(x))))
