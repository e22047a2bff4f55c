"""Images to regions: the feature map of a frozen convolutional network, one vector for each cell of its grid."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from caption_utils.encoders.efficientnet import EfficientNetLite2, load_efficientnet_lite2
from caption_utils.encoders.resnet import load_resnet101, resnet_features, resnet_two_stages
from caption_utils.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EncoderSpec:
    """What tells one encoder from another: ``load`` returns a classifier, ``features`` maps images to its last map.

    ``local`` of its ``width`` channels, the first, are those of an earlier stage: the decoder attends to them alone.
    """

    load: Callable[[], nn.Module]
    features: Callable[[Any, Tensor], Tensor]
    width: int
    local: int = 0
    grid: int = 7
    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


HALF = (0.5, 0.5, 0.5)
LITE2 = EncoderSpec(load_efficientnet_lite2, EfficientNetLite2.features, 1280, mean=HALF, std=HALF)
LITE2_LOCAL = replace(LITE2, features=EfficientNetLite2.two_stages, width=720 + 1280, local=720)
RESNET101 = EncoderSpec(load_resnet101, resnet_features, 2048)
ENCODERS = {
    "efficientnet_lite2": LITE2,
    "efficientnet_lite2_260px": replace(LITE2, grid=9, size=260),
    "efficientnet_lite2_local": LITE2_LOCAL,
    "efficientnet_lite2_local_260px": replace(LITE2_LOCAL, grid=9, size=260),
    "resnet101": RESNET101,
    "resnet101_local": replace(RESNET101, features=resnet_two_stages, width=1024 + 2048, local=1024),
}


class Encoder(nn.Module):
    """A frozen network: images ``(B, 3, S, S)`` to features ``(B, N, D)``, N = grid · grid regions in reading order."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, spec: EncoderSpec):
        super().__init__()
        self.name, self.spec = name, spec
        self.size, self.grid, self.width, self.local = spec.size, spec.grid, spec.width, spec.local
        model = spec.load().eval().requires_grad_(False)
        self.fingerprint = _fingerprint(name, spec, model)
        self.model = fold_batch_norms(model).to(memory_format=torch.channels_last)
        for part, values in {"mean": spec.mean, "std": spec.std}.items():
            self.register_buffer(part, torch.tensor(values)[:, None, None] * 255, persistent=False)

    def transform(self, image: Image.Image) -> Tensor:
        """RGB picture to ``(3, S, S)``, bytes. Squashed to a square, not cropped: captions name what is at the edge."""
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC, reducing_gap=3.0)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images as bytes ``(B, 3, S, S)`` to float32 features ``(B, N, D)``; a GPU computes them in float16."""
        with torch.autocast(images.device.type, torch.float16, enabled=images.is_cuda):
            maps = self.spec.features(self.model, self._normalized(images))  # (B, D, H', W')
        return maps.flatten(2).transpose(1, 2).float()  # (B, N, D)

    @torch.no_grad()
    def classify(self, images: Tensor) -> Tensor:
        """ImageNet probabilities ``(B, 1000)`` of images as bytes: what the network was trained to see."""
        return self.model(self._normalized(images)).softmax(dim=1)

    def _normalized(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def _fingerprint(name: str, spec: EncoderSpec, model: nn.Module) -> str:
    """Hash of transform and published weights: equal fingerprints give equal features."""
    digest = hashlib.blake2b(repr((name, spec.size, spec.mean, spec.std)).encode(), digest_size=8)
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """``model`` with every batch norm that follows a convolution made part of its weights and bias, for inference."""
    for layer in list(model.modules()):
        for (name, conv), (norm_name, norm) in pairwise(list(layer.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(layer, name, fuse_conv_bn_eval(conv, norm))
                setattr(layer, norm_name, nn.Identity().eval())
    return model


def load_encoder(name: str, device: torch.device | str = "cpu") -> Encoder:
    """The frozen encoder called ``name``. Raises ``InputError`` for an unknown name or weights that cannot be had."""
    return Encoder(name, encoder_spec(name)).to(device)


def encoder_spec(name: str) -> EncoderSpec:
    """What is known of the encoder called ``name`` without loading it. Raises ``InputError`` for an unknown name."""
    if name not in ENCODERS:
        raise InputError(f"encoder {name!r} is unknown; choose one of {', '.join(ENCODERS)}")
    return ENCODERS[name]
