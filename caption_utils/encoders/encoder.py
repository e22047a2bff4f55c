"""Images to regions: the feature map of a frozen convolutional network, one vector for each cell of its grid."""

import hashlib
import math
from collections.abc import Callable, Mapping
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from caption_utils.encoders.efficientnet import EfficientNetLite2, load_efficientnet_lite2
from caption_utils.encoders.resnet import load_resnet101, resnet_stages
from caption_utils.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EncoderSpec:
    """What defines an encoder: ``load`` returns a classifier, ``stages`` its parts that make the last feature map.

    If not 0, ``local`` of its ``width`` channels, the first, come from the map before the last ``least`` stages, and
    only they are attended to; ``expanded`` makes them of the next stage and that map. No fewer than ``least`` stages
    can be fine-tuned.
    """

    load: Callable[[], nn.Module]
    stages: Callable[[Any], list[nn.Module]]
    width: int
    local: int = 0
    least: int = 1
    expanded: Callable[[Any, Tensor], Tensor] = lambda stage, maps: maps
    grid: int = 7
    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


HALF = (0.5, 0.5, 0.5)
LITE2 = EncoderSpec(load_efficientnet_lite2, EfficientNetLite2.stages, 1280, mean=HALF, std=HALF)
LITE2_LOCAL = replace(LITE2, width=720 + 1280, local=720, least=2, expanded=lambda stage, maps: stage[0].expanded(maps))
RESNET101 = EncoderSpec(load_resnet101, resnet_stages, 2048)
ENCODERS = {
    "efficientnet_lite2": LITE2,
    "efficientnet_lite2_260px": replace(LITE2, grid=9, size=260),
    "efficientnet_lite2_local": LITE2_LOCAL,
    "efficientnet_lite2_local_260px": replace(LITE2_LOCAL, grid=9, size=260),
    "resnet101": RESNET101,
    "resnet101_local": replace(RESNET101, width=1024 + 2048, local=1024),
}


class Encoder(nn.Module):
    """A frozen network: images ``(B, 3, S, S)`` to features ``(B, N, D)``, N = grid · grid regions in reading order.

    Its last stages can be fine-tuned, see ``last_stages``; ``with_weights`` loads their weights into a new encoder.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, spec: EncoderSpec):
        super().__init__()
        self.name, self.spec = name, spec
        self.size, self.grid, self.width, self.local = spec.size, spec.grid, spec.width, spec.local
        model = spec.load().eval().requires_grad_(False)
        self.fingerprint = self.published = _fingerprint(name, spec, model)
        self.model = fold_batch_norms(model).to(memory_format=torch.channels_last)
        for part, values in {"mean": spec.mean, "std": spec.std}.items():
            self.register_buffer(part, torch.tensor(values)[:, None, None] * 255, persistent=False)

    def transform(self, image: Image.Image) -> Tensor:
        """RGB picture to ``(3, S, S)``, bytes. Squashed to a square, not cropped: captions name what is at the edge."""
        if image.mode != "RGB":
            raise ValueError("transform takes RGB pictures, as load_image makes them")
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC, reducing_gap=3.0)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images as bytes ``(B, 3, S, S)`` to float32 features ``(B, N, D)``; a GPU computes them in float16."""
        with torch.autocast(images.device.type, torch.float16, enabled=images.is_cuda):
            maps = self.feature_map(self._normalized(images))  # (B, D, H', W')
        return regions(maps).float()

    def feature_map(self, images: Tensor, start: int = 0) -> Tensor:
        """The map ``(B, D, H', W')`` of normalised images, or of what enters stage ``start``, from the end if negative.

        Local channels, of smaller cells, are averaged over those of the last map.
        """
        stages, least = self.spec.stages(self.model), self.spec.least
        fine = nn.Sequential(*stages[start:-least])(images)
        last = nn.Sequential(*stages[-least:])(fine)
        if not self.spec.local:
            return last
        local = self.spec.expanded(stages[-least], fine)
        if local.device.type == "mps" and local.shape[-1] % last.shape[-1]:  # which an Apple GPU may refuse
            local = local.cpu()
        return torch.cat([F.adaptive_avg_pool2d(local, last.shape[-1]).to(last.device), last], dim=1)

    def last_stages(self, count: int) -> nn.ModuleList:
        """The last ``count`` stages. Raises ``InputError`` if so many, or so few, cannot be trained."""
        stages = self.spec.stages(self.model)
        if not self.spec.least <= count < len(stages):
            raise InputError(
                f"{self.name}: {count} stages cannot be fine-tuned; choose {self.spec.least} to {len(stages) - 1}"
            )
        return nn.ModuleList(stages[-count:])

    def before(self, count: int) -> "Encoder":
        """The encoder without its last ``count`` stages, for ``extract``."""
        first = copy(self)
        first.spec = replace(self.spec, stages=lambda model: self.spec.stages(model)[:-count], local=0, least=1)
        first.name, first.fingerprint = f"{self.name}_before_{count}", f"{self.fingerprint} before {count}"
        image = torch.zeros(1, 3, self.size, self.size, dtype=torch.uint8, device=self.mean.device)
        cells, first.width = first(image).shape[1:]
        first.grid = math.isqrt(cells)
        return first

    def after(self, features: Tensor, count: int) -> Tensor:
        """The last ``count`` stages: the output of ``before(count)``, ``(B, N', D')``, to features ``(B, N, D)``."""
        maps = features.transpose(1, 2).unflatten(2, (math.isqrt(features.shape[1]), -1))
        return regions(self.feature_map(maps, -count))

    def with_weights(self, weights: Mapping[str, Tensor]) -> "Encoder":
        """A copy with some of the published weights replaced. Raises ``InputError`` if they do not fit."""
        changed = deepcopy(self)
        try:
            unknown = changed.model.load_state_dict(weights, strict=False).unexpected_keys
        except RuntimeError as error:
            unknown = [str(error).splitlines()[-1].strip()]
        if unknown:
            raise InputError(f"encoder {self.name}: weights that do not fit ({unknown[0]}); restore its model folder")
        changed.fingerprint = self.fingerprint_with(weights)
        return changed

    def fingerprint_with(self, weights: Mapping[str, Tensor]) -> str:
        """The fingerprint with these weights, the same for weights that are equal in float16."""
        digest = hashlib.blake2b(self.published.encode(), digest_size=8)
        for name in sorted(weights):
            digest.update(name.encode() + weights[name].half().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def classify(self, images: Tensor) -> Tensor:
        """ImageNet probabilities ``(B, 1000)`` of images as bytes."""
        return self.model(self._normalized(images)).softmax(dim=1)

    def _normalized(self, images: Tensor) -> Tensor:
        if images.is_floating_point():
            raise ValueError("images must be bytes from 0 to 255, as transform makes them, not floating-point numbers")
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def _fingerprint(name: str, spec: EncoderSpec, model: nn.Module) -> str:
    """Hash of transform and published weights: equal fingerprints give equal features."""
    digest = hashlib.blake2b(repr((name, spec.size, spec.mean, spec.std)).encode(), digest_size=8)
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def regions(maps: Tensor) -> Tensor:
    """Feature maps ``(B, D, H', W')`` cell by cell in reading order, ``(B, N, D)``."""
    return maps.flatten(2).transpose(1, 2)


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """Fold every batch norm that follows a convolution into its weights and bias, for inference."""
    for layer in list(model.modules()):
        for (before, conv), (after, norm) in pairwise(list(layer.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(layer, before, fuse_conv_bn_eval(conv, norm))
                setattr(layer, after, nn.Identity().eval())
    return model


def load_encoder(name: str, device: torch.device | str = "cpu") -> Encoder:
    """The frozen encoder ``name``. Raises ``InputError`` for an unknown name or weights that cannot be loaded."""
    return Encoder(name, encoder_spec(name)).to(device)


def encoder_spec(name: str) -> EncoderSpec:
    """What is known of the encoder called ``name`` without loading it. Raises ``InputError`` for an unknown name."""
    if name not in ENCODERS:
        raise InputError(f"encoder {name!r} is unknown; choose one of {', '.join(ENCODERS)}")
    return ENCODERS[name]
