"""Every setting of a decoder, a training run and a search. Importing them does not load PyTorch."""

import math
from dataclasses import KW_ONLY, MISSING, dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from caption_utils.errors import InputError

ENCODER = "efficientnet_lite2"
MAX_LENGTH = 30  # tokens; in words, Flickr8k's longest caption has 36, 95 % have at most 18
BEAMS = 5
FROM_DATA = ("vocab_size", "feature_dim", "local_dim", "word_dim")  # settings that follow from the data
LENGTH_PENALTY = 0.7  # a compromise on validation images: less is better for BLEU-4, more for ROUGE-L
KINDS: dict[Any, tuple[type, str]] = {  # a field's type -> what is taken for it, NumPy's numbers too, and that in words
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "True or False"),
    str: (str, "a name"),
}


def within(low: float, high: float, default: Any = MISSING) -> Any:
    """A field with values from ``low`` to ``high``."""
    return field(default=default, metadata={"range": (low, high)})


def one_of(*choices: str) -> Any:
    """A field with one of these values, by default the first."""
    return field(default=choices[0], metadata={"choices": choices})


@dataclass(frozen=True)
class Settings:
    """The base of all settings: raises ``InputError`` for a value of another kind than its field, and for one that
    ``within`` or ``one_of`` does not allow.
    """

    def __post_init__(self) -> None:
        for each in fields(self):
            value, choices = getattr(self, each.name), each.metadata.get("choices", ())
            low, high = each.metadata.get("range", (value, value))
            if choices and value not in choices:
                raise InputError(f"{each.name} {value!r} is unknown; choose one of {', '.join(choices)}")
            kind: Any = each.type
            taken, wanted = KINDS[kind]
            if not isinstance(value, taken) or isinstance(value, bool) != (kind is bool):
                raise InputError(f"{each.name}={value!r} is of the wrong kind; give {wanted}")
            if not low <= value <= high:
                raise InputError(f"{each.name}={value} is out of range; choose a value from {low} to {high:g}")
            object.__setattr__(self, each.name, kind(value))  # JSON takes no number of NumPy's


def constant(progress: float, warmup: float) -> float:
    """The same rate throughout."""
    return 1.0


def one_cycle(progress: float, warmup: float) -> float:
    """Up along a half cosine for the ``warmup`` share of the run, then down along another to 0 (Smith 2018)."""
    if progress < warmup:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / warmup)) / 2
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


SCHEDULES = {"constant": constant, "one_cycle": one_cycle}
MEASURES = {"val_perplexity": "validation perplexity", "val_cider": "validation CIDEr"}  # that choose the best epoch


@dataclass(frozen=True)
class DecoderConfig(Settings):
    """The shape of a decoder. ``score`` and ``input_feeding`` are Luong's; ``attention_dim`` is for additive scores.

    ``word_dim``, unless 0, is the width of pretrained word vectors, which are projected to ``embed_dim``.
    ``local_dim``, unless 0, is how many features of a region, the first, are attended to; the initial state comes from
    all of them. ``region_dim``, unless 0, is the width to which those attended to are projected first. ``dropout``
    applies to embeddings and output vectors, ``feature_dropout`` to features and their projection. ``attention`` may be
    ``none``: the mean feature for each word. Of Xu et al. 2015, ``gate`` weighs the context against the words (4.2.1),
    and ``hard`` attention samples one region for each word in training (4.1); afterwards it uses the expected context
    or, with ``likeliest``, the likeliest region. ``normalizer`` turns scores into weights.
    Raises ``InputError`` for values that are out of range or contradict each other.
    """

    vocab_size: int = within(1, 1e9)
    feature_dim: int = within(1, 1e9)
    attention: str = one_of("bahdanau", "luong", "none")
    score: str = one_of("general", "dot", "concat")
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
        dot = self.attention == "luong" and self.score == "dot"
        for wrong, remedy in (
            (self.input_feeding and self.attention != "luong", "input_feeding is for attention luong; leave it out"),
            (self.gate and self.attention == "luong", "gate is for attention bahdanau or none"),
            (self.hard and not attending, "hard chooses among regions; take attention bahdanau or luong"),
            (sparse and not attending, "a normalizer is for attention bahdanau or luong; leave it out"),
            (sparse and self.hard, "hard attention must be able to try every region; leave normalizer softmax"),
            (self.local_dim > self.feature_dim, f"local_dim exceeds feature_dim; choose at most {self.feature_dim}"),
            (self.likeliest and not self.hard, "likeliest is for hard attention; set hard too"),
            (
                dot and self.context_dim != self.hidden_dim,
                f"score 'dot' compares features of width {self.context_dim} with a hidden state of width "
                f"{self.hidden_dim}; set hidden_dim={self.context_dim}, or use score 'general'",
            ),
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
        """Whether the output vector has the width of embeddings, because it is added to or compared with them."""
        return self.deep_output or self.tie_weights

    @property
    def output_dim(self) -> int:
        """Width of the output vector, from which the vocabulary's logits are made."""
        return self.embed_dim if self.through_embedding else self.hidden_dim


@dataclass(frozen=True)
class RunConfig(Settings):
    """The settings of all training. ``learning_rate`` is the peak of ``schedule``; ``patience`` counts epochs without a
    new best. Each epoch is validated and saved ``validations`` times. Gradients whose norm exceeds ``clip_norm`` are
    scaled down to it; 0 leaves them as they are.

    A batch that is too large for the memory is computed in ``accumulate`` parts, with the same gradient. ``precision``
    is that of matrix products: ``float32``, ``bfloat16``, ``float16``, or ``auto``, which depends on the device.

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

    ``distillation`` is the weight of the teachers' probabilities against the captions' words (Hinton et al. 2015).
    ``from_context`` is the weight of the cross-entropy of predicting each word from its context vector alone.
    ``freeze_word_vectors`` keeps pretrained word vectors as they are.
    ``reinforce`` and ``entropy`` are for hard attention only (Xu et al. 2015, the two λ of section 4.1).
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
    """How to train on the scores of ``samples`` captions per image: CIDEr-D plus ``bleu`` times BLEU-4, see ``refine``.

    Against overfitting, the learning rate is low, images are mirrored, and each epoch is validated six times.
    """

    epochs: int = within(1, 1e6, 2)
    learning_rate: float = within(0, 1, 3e-5)
    patience: int = within(1, 1e6, 1)
    validations: int = within(1, 1e6, 6)
    mirror: bool = True
    samples: int = within(2, 1000, 5)
    bleu: float = within(0, 1e3, 0.5)


@dataclass(frozen=True)
class FineTuneConfig(TrainConfig):
    """How to go on by teacher forcing with the decoder and the last ``fine_tune`` stages of its encoder.

    They learn at ``encoder_learning_rate``; both rates follow ``schedule``.
    """

    epochs: int = within(1, 1e6, 4)
    learning_rate: float = within(0, 1, 2e-4)
    patience: int = within(1, 1e6, 2)
    mirror: bool = True
    fine_tune: int = within(1, 1000, 2)
    encoder_learning_rate: float = within(0, 1, 5e-5)


@dataclass(frozen=True)
class SearchConfig(Settings):
    """``beams`` partial hypotheses are kept for each image; one is greedy search.

    Captions rank by log-probability divided by ``length ** length_penalty``: 0 is the model's own score, 1 its score
    per token. They have at most ``max_length`` tokens (words, or pieces of words). By default no sequence of three
    tokens occurs twice in a caption (Paulus et al. 2018), which raises every score on validation images a little; a
    ``no_repeat_ngram`` of 0 allows repetition.
    """

    beams: int = within(1, 1000, BEAMS)
    length_penalty: float = within(0, 2, LENGTH_PENALTY)
    _: KW_ONLY
    max_length: int = within(1, 1000, MAX_LENGTH)
    no_repeat_ngram: int = within(0, 1000, 3)
