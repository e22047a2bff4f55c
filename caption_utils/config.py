"""Every setting of a decoder, of a training run and of a search. Importing them loads no PyTorch."""

import math
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any

from caption_utils.errors import InputError

ENCODER = "efficientnet_lite2"
MAX_LENGTH = 30  # words; the longest Flickr8k caption has 36, nineteen in twenty have at most 19
BEAMS = 5
FROM_DATA = ("vocab_size", "feature_dim", "local_dim", "word_dim")  # settings that are nobody's choice
LENGTH_PENALTY = 0.7  # a compromise on validation images: BLEU-4 wants less, ROUGE-L wants more


def within(low: float, high: float, default: float) -> Any:
    """A field whose values go from ``low`` to ``high``."""
    return field(default=default, metadata={"range": (low, high)})


def one_of(*choices: str) -> Any:
    """A field that has one of these values, the first unless told otherwise."""
    return field(default=choices[0], metadata={"choices": choices})


@dataclass(frozen=True)
class Settings:
    """What all settings share: ``InputError`` is raised for a value that ``within`` or ``one_of`` does not allow."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value, choices = getattr(self, each.name), each.metadata.get("choices", ())
            low, high = each.metadata.get("range", (value, value))
            if choices and value not in choices:
                raise InputError(f"{each.name} {value!r} is unknown; choose one of {', '.join(choices)}")
            if not low <= value <= high:
                raise InputError(f"{each.name}={value} is out of range; choose a value from {low} to {high:g}")


def constant(progress: float, warmup: float) -> float:
    """The same rate throughout."""
    return 1.0


def one_cycle(progress: float, warmup: float) -> float:
    """Up along a half cosine for the ``warmup`` share of the run, then down along another to nothing (Smith 2018)."""
    if progress < warmup:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / warmup)) / 2
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


SCHEDULES = {"constant": constant, "one_cycle": one_cycle}
MEASURES = {"val_perplexity": "validation perplexity", "val_cider": "validation CIDEr"}  # by which the best is kept


@dataclass(frozen=True)
class DecoderConfig(Settings):
    """All that shapes a decoder. ``score`` and ``input_feeding`` are Luong's; ``attention_dim`` is additive scores'.

    ``word_dim``, unless 0, is the width of pretrained word vectors, which are projected to ``embed_dim``.
    ``local_dim``, unless 0, is how many of the features are attended to, the first; the initial state comes from all.
    ``region_dim``, unless 0, is the width to which those attended to are first projected. ``dropout`` falls on
    embeddings and output vectors, ``feature_dropout`` on features and their projection. ``attention`` may be ``none``:
    the mean feature for each word. Of Xu et al. 2015, ``gate`` weighs the context against the words (4.2.1), and
    ``hard`` attention learns to look at one region a word (4.1); what it looks at afterwards is the expected context,
    or with ``likeliest`` the likeliest region. ``normalizer`` makes weights of scores.
    Raises ``InputError`` for values out of range, and for those that make no sense together.
    """

    vocab_size: int
    feature_dim: int
    attention: str = "bahdanau"
    score: str = "general"
    input_feeding: bool = False
    embed_dim: int = within(1, 1e5, 512)
    hidden_dim: int = within(1, 1e5, 256)
    attention_dim: int = within(1, 1e5, 256)
    region_dim: int = within(0, 1e5, 0)
    dropout: float = within(0, 0.99, 0.5)
    feature_dropout: float = within(0, 0.99, 0.0)
    deep_output: bool = False
    tie_weights: bool = False
    gate: bool = False
    hard: bool = False
    likeliest: bool = False
    normalizer: str = one_of("softmax", "sparsemax", "entmax")
    word_dim: int = within(0, 1e5, 0)
    local_dim: int = within(0, 1e5, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        attending, sparse = self.attention != "none", self.normalizer != "softmax"
        for wrong, remedy in (
            (self.gate and self.attention == "luong", "gate is for attention bahdanau or none"),
            (self.hard and not attending, "hard chooses among regions; take attention bahdanau or luong"),
            (sparse and not attending, "a normalizer is for attention bahdanau or luong; leave it out"),
            (sparse and self.hard, "hard attention must be able to try every region; leave normalizer softmax"),
            (self.likeliest and not self.hard, "likeliest is for hard attention; set hard too"),
        ):
            if wrong:
                raise InputError(remedy)

    @property
    def attended_dim(self) -> int:
        """How many features of a region the decoder attends to."""
        return self.local_dim or self.feature_dim

    @property
    def context_dim(self) -> int:
        """Width of what the decoder attends to, and so of the context vector."""
        return self.region_dim or self.attended_dim

    @property
    def through_embedding(self) -> bool:
        """Whether the output vector is as wide as a word's, being added to one or compared with them."""
        return self.deep_output or self.tie_weights

    @property
    def context_speaks(self) -> bool:
        """Whether a context vector of attention has a way of its own to the logits."""
        return self.attention == "luong" or (self.attention == "bahdanau" and self.deep_output)

    @property
    def output_dim(self) -> int:
        """Width of the output vector, from which the vocabulary's logits are made."""
        return self.embed_dim if self.through_embedding else self.hidden_dim


@dataclass(frozen=True)
class RunConfig(Settings):
    """What all training has. ``learning_rate`` is the peak of ``schedule``; ``patience`` counts epochs without a new
    best. An epoch is validated, and saved, ``validations`` times.

    A batch that is too large for the memory is computed in ``accumulate`` parts, with the same gradient. ``precision``
    is that of the matrix products: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for what suits the device.

    The optimiser is Adam (Kingma and Ba 2015), with decoupled ``weight_decay`` (Loshchilov and Hutter 2019) if any.
    Raises ``InputError`` for an unknown schedule or precision and for a value out of range.
    """

    epochs: int = within(1, 1e6, 20)
    images_per_batch: int = within(1, 1e6, 32)
    accumulate: int = within(1, 1e6, 1)
    learning_rate: float = within(0, 1, 3e-4)
    weight_decay: float = within(0, 1e3, 0.0)
    schedule: str = one_of(*SCHEDULES)
    warmup: float = within(0, 0.99, 0.15)
    clip_norm: float = within(0, 1e6, 5.0)
    patience: int = within(1, 1e6, 5)
    validations: int = within(1, 1e6, 1)
    mirror: bool = False
    precision: str = one_of("auto", "float32", "bfloat16", "float16")
    seed: int = within(0, 2**32 - 1, 0)


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """How to train by teacher forcing.

    ``distillation`` is the weight of teachers' probabilities beside the captions' own words (Hinton et al. 2015).
    ``from_context`` is the weight of the words' cross-entropy when the context vector alone must tell them.
    ``freeze_word_vectors`` leaves pretrained word vectors as they are.
    ``reinforce`` and ``entropy`` are hard attention's alone (Xu et al. 2015, the two λ of section 4.1).
    """

    label_smoothing: float = within(0, 0.99, 0.0)
    distillation: float = within(0, 1, 0.0)
    doubly_stochastic: float = within(0, 1e3, 0.0)
    from_context: float = within(0, 1e3, 0.0)
    reinforce: float = within(0, 1e3, 0.1)
    entropy: float = within(0, 1e3, 0.01)
    freeze_word_vectors: bool = False


@dataclass(frozen=True)
class SelfCriticalConfig(RunConfig):
    """How to learn from the score of ``samples`` captions an image: CIDEr-D plus ``bleu`` times BLEU-4, see ``refine``.

    Few images are soon learnt by heart: the rate is small, pictures are mirrored, and an epoch is validated six times.
    """

    epochs: int = within(1, 1e6, 2)
    learning_rate: float = within(0, 1, 3e-5)
    patience: int = within(1, 1e6, 1)
    validations: int = within(1, 1e6, 6)
    mirror: bool = True
    samples: int = within(2, 1000, 5)
    bleu: float = within(0, 1e3, 0.5)


@dataclass(frozen=True, kw_only=True)
class Constraints(Settings):
    """At most ``max_length`` words, and no run of ``no_repeat_ngram`` words twice; 0 allows repetition.

    Raises ``InputError`` for values out of range.
    """

    max_length: int = within(1, 1000, MAX_LENGTH)
    no_repeat_ngram: int = within(0, 1000, 0)


@dataclass(frozen=True)
class SearchConfig(Constraints):
    """``beams`` partial hypotheses are kept for each image; one is greedy search.

    Captions rank by log-probability divided by ``length ** length_penalty``: 0 is the model's own score, 1 its score
    per token. No three words come twice in a caption (Paulus et al. 2018), which raises every score on validation
    images a little, unless ``no_repeat_ngram`` says otherwise.
    """

    beams: int = within(1, 1000, BEAMS)
    length_penalty: float = within(0, 2, LENGTH_PENALTY)
    _: KW_ONLY
    no_repeat_ngram: int = within(0, 1000, 3)


# What the notebooks train, the same for both attentions: the demo set in a minute, Flickr8k with the better recipe, and
# what the project trained that this series follows, which had no early stopping
NOTEBOOK_ENCODERS = {"fast": "efficientnet_lite2_local", "full": "resnet101", "source": "resnet101"}
NOTEBOOKS = {
    "fast": {
        "epochs": 5,
        "images_per_batch": 8,
        "learning_rate": 2e-3,
        "schedule": "one_cycle",
        "dropout": 0.3,
        "embed_dim": 128,
        "attention_dim": 128,
        "region_dim": 128,
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
        "normalizer": "entmax",
        "from_context": 0.5,
    },
    "source": {
        "epochs": 100,
        "patience": 100,
        "images_per_batch": 16,
        "learning_rate": 3e-4,
        "schedule": "constant",
        "embed_dim": 512,
        "hidden_dim": 256,
    },
}
