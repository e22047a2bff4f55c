"""How to train: the settings of a run and its learning-rate schedules."""

import math
from dataclasses import dataclass

from caption_utils.errors import InputError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. ``learning_rate`` is the peak of ``schedule``; ``patience`` counts epochs without a new best.

    A batch that is too large for the memory is computed in ``accumulate`` parts, with the same gradient. ``precision``
    is that of the matrix products: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for what suits the device.

    The optimiser is Adam (Kingma and Ba 2015), with decoupled ``weight_decay`` (Loshchilov and Hutter 2019) if any.
    ``distillation`` is the weight of teachers' probabilities beside the captions' own words (Hinton et al. 2015).
    Raises ``InputError`` for an unknown schedule or precision.
    """

    epochs: int = 20
    images_per_batch: int = 32
    accumulate: int = 1
    learning_rate: float = 3e-4
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.15
    label_smoothing: float = 0.0
    distillation: float = 0.0
    doubly_stochastic: float = 0.0
    clip_norm: float = 5.0
    patience: int = 5
    mirror: bool = False
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}")


def constant(progress: float, warmup: float) -> float:
    """The same rate throughout."""
    return 1.0


def one_cycle(progress: float, warmup: float) -> float:
    """Up along a half cosine for the ``warmup`` share of the run, then down along another to nothing (Smith 2018)."""
    if progress < warmup:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / warmup)) / 2
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


def cosine(progress: float, warmup: float) -> float:
    """Down along a half cosine to nothing."""
    return one_cycle(progress, 0.0)


SCHEDULES = {"constant": constant, "cosine": cosine, "one_cycle": one_cycle}

# The settings of the notebooks, the same for both attentions: the demo set in a minute, and Flickr8k for real
NOTEBOOKS = {
    "fast": {"epochs": 8, "images_per_batch": 8, "learning_rate": 2e-3, "schedule": "one_cycle", "dropout": 0.3,
             "embed_dim": 128, "attention_dim": 128},
    "full": {"epochs": 10, "images_per_batch": 16, "learning_rate": 2e-3, "schedule": "one_cycle", "dropout": 0.3,
             "feature_dropout": 0.2, "label_smoothing": 0.05, "weight_decay": 0.02, "mirror": True,
             "region_dim": 512, "deep_output": True, "tie_weights": True},
}
