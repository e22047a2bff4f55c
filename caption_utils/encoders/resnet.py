"""ResNet-101, for inference, from torchvision (He et al. 2016, "Deep Residual Learning for Image Recognition")."""

from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from caption_utils.errors import InputError


def load_resnet101() -> nn.Module:
    """The network with torchvision's ImageNet weights, downloaded once. ``InputError`` if they cannot be loaded."""
    from torchvision.models import ResNet101_Weights, resnet101

    weights = ResNet101_Weights.IMAGENET1K_V2
    try:
        return resnet101(weights=weights)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:  # no network, or a truncated file
        raise InputError(
            f"resnet101: ImageNet weights could not be loaded ({error}); connect to the internet once, or put "
            f"{weights.url.rsplit('/')[-1]} into {torch.hub.get_dir()}/checkpoints, or use efficientnet_lite2"
        ) from None


def resnet_stages(model: Any) -> list[nn.Module]:
    """The parts that make the last feature map, in order: the stem and the four stages."""
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    return [stem, model.layer1, model.layer2, model.layer3, model.layer4]
