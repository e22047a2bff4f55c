"""Every setting of a decoder, of a training run and of a search. Importing them loads no PyTorch."""

import math
from dataclasses import dataclass, field

from caption_utils.errors import InputError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
MAX_LENGTH = 30  # words; the longest Flickr8k caption has 36, nineteen in twenty have at most 19
BEAMS = 5
LENGTH_PENALTY = 0.7  # a compromise on validation images: BLEU-4 wants less, ROUGE-L wants more
NO_REPEAT = 3  # words; raises every score on validation images a little


@dataclass(frozen=True)
class DecoderConfig:
    """All that shapes a decoder. ``score`` and ``input_feeding`` are Luong's; ``attention_dim`` is additive scores'.

    ``region_dim``, unless 0, is the width to which features are first projected. ``dropout`` falls on embeddings and
    output vectors, ``feature_dropout`` on features and their projection.
    """

    vocab_size: int
    feature_dim: int
    attention: str = "bahdanau"
    score: str = "general"
    input_feeding: bool = False
    embed_dim: int = 512
    hidden_dim: int = 256
    attention_dim: int = 256
    region_dim: int = 0
    dropout: float = 0.5
    feature_dropout: float = 0.0
    deep_output: bool = False
    tie_weights: bool = False

    @property
    def context_dim(self) -> int:
        """Width of what the decoder attends to, and so of the context vector."""
        return self.region_dim or self.feature_dim

    @property
    def through_embedding(self) -> bool:
        """Whether the output vector is as wide as a word's, being added to one or compared with them."""
        return self.deep_output or self.tie_weights

    @property
    def output_dim(self) -> int:
        """Width of the output vector, from which the vocabulary's logits are made."""
        return self.embed_dim if self.through_embedding else self.hidden_dim


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


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """``min_length`` to ``max_length`` words, and no run of ``no_repeat_ngram`` words twice; 0 allows repetition.

    A caption that no word may continue ends, be it shorter than ``min_length``. Raises ``InputError`` for values out
    of range.
    """

    min_length: int = 1
    max_length: int = MAX_LENGTH
    no_repeat_ngram: int = 0

    def __post_init__(self) -> None:
        if self.min_length < 1:
            raise InputError(f"min_length={self.min_length}: a caption has words; choose 1 or more")
        if self.max_length < self.min_length:
            raise InputError(f"max_length={self.max_length}: choose {self.min_length}, the min_length, or more")
        if self.no_repeat_ngram < 0:
            raise InputError(f"no_repeat_ngram={self.no_repeat_ngram}: choose 0, which allows repetition, or more")


@dataclass(frozen=True)
class SearchConfig(Constraints):
    """``beams`` partial hypotheses are kept for each image; one is greedy search.

    Captions rank by log-probability divided by ``length ** length_penalty``: 0 is the model's own score, 1 its score
    per token. No three words come twice in a caption (Paulus et al. 2018), unless ``no_repeat_ngram`` says otherwise.
    """

    beams: int = BEAMS
    length_penalty: float = LENGTH_PENALTY
    no_repeat_ngram: int = field(default=NO_REPEAT, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.beams <= 1000:
            raise InputError(f"beam={self.beams}: choose 1, which is greedy search, or more, up to 1000")
        if not 0 <= self.length_penalty <= 2:
            raise InputError(f"length_penalty={self.length_penalty}: choose a value from 0, which is none, to 2")


# The settings of the notebooks, the same for both attentions: the demo set in a minute, and Flickr8k for real
NOTEBOOKS = {
    "fast": {
        "epochs": 8,
        "images_per_batch": 8,
        "learning_rate": 2e-3,
        "schedule": "one_cycle",
        "dropout": 0.3,
        "embed_dim": 128,
        "attention_dim": 128,
    },
    "full": {
        "epochs": 10,
        "images_per_batch": 16,
        "learning_rate": 2e-3,
        "schedule": "one_cycle",
        "dropout": 0.3,
        "feature_dropout": 0.2,
        "label_smoothing": 0.05,
        "weight_decay": 0.02,
        "mirror": True,
        "region_dim": 512,
        "deep_output": True,
        "tie_weights": True,
    },
}

# What a setting may be, from and to
RANGES = {
    "embed_dim": (1, 1e5),
    "hidden_dim": (1, 1e5),
    "attention_dim": (1, 1e5),
    "region_dim": (0, 1e5),
    "dropout": (0, 0.99),
    "feature_dropout": (0, 0.99),
    "epochs": (1, 1e6),
    "images_per_batch": (1, 1e6),
    "accumulate": (1, 1e6),
    "learning_rate": (0, 1),
    "weight_decay": (0, 1e3),
    "warmup": (0, 0.99),
    "label_smoothing": (0, 0.99),
    "distillation": (0, 1),
    "doubly_stochastic": (0, 1e3),
    "clip_norm": (0, 1e6),
    "patience": (1, 1e6),
    "seed": (0, 2**32 - 1),
}
