"""A model folder to a ``Captioner``: photos in, sentences out, with where the model looked for each word."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caption_utils.calibration import Calibration, gist, load_calibration
from caption_utils.config import BEAMS, SearchConfig
from caption_utils.data.images import Source
from caption_utils.encoders.encode import BATCH, encode, map_stacked
from caption_utils.encoders.encoder import Encoder, load_encoder
from caption_utils.errors import InputError
from caption_utils.search.beam import beam_search
from caption_utils.search.hypotheses import Hypothesis
from caption_utils.training.checkpoint import Model, check_encoder, load_model

PHOTOS_AT_ONCE = 16  # for the search on a CPU, slower with fewer; with more, those that are encoded wait for it


@dataclass(frozen=True, eq=False)
class Caption:
    """A sentence about a picture. ``attention (T, H', W')`` holds one map for each word in ``tokens``.

    Each map sums to 1; that of a word of several pieces is their mean. The best caption of a photo has a
    ``confidence``, from 0 to 1, if the model folder has what it takes, and ``doubt`` tells in words why it is low; see
    ``calibration.Calibration``.
    """

    text: str
    log_probability: float
    tokens: list[str]
    attention: np.ndarray
    confidence: float | None = None
    doubt: str = ""

    @property
    def probability(self) -> float:
        """The model's probability of the whole sentence."""
        return math.exp(self.log_probability)

    @property
    def per_word(self) -> float:
        """Geometric mean of the probabilities of its words and its end, which compares captions of any length."""
        return math.exp(self.log_probability / (len(self.tokens) + 1))


class Captioner:
    """Encoder, decoder and vocabulary together. Build it with ``Captioner.load``.

    Without ``calibration``, captions have no confidence.
    """

    def __init__(self, model: Model, encoder: Encoder, calibration: Calibration | None = None):
        """Raises ``InputError`` if the decoder was trained on another encoder's features."""
        check_encoder(model, encoder.name, encoder.fingerprint)
        self.model, self.encoder, self.calibration = model, encoder, calibration

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> "Captioner":
        """The captioner of a model folder. Raises ``InputError`` if anything in it is missing or does not fit."""
        model = load_model(folder, device)
        encoder = model.own_encoder(load_encoder(model.encoder, device))
        return cls(model, encoder, load_calibration(folder))

    def caption(self, image: Source, beams: int = BEAMS) -> Caption:
        """Caption one picture: a path, bytes or an open image. Raises ``InputError`` if it cannot be read."""
        return self.captions(self.features([image]), beams)[0][0]

    def features(self, images: Iterable[Source]) -> Tensor:
        """What the encoder makes of at least one picture, for ``captions``: ``(B, N, D)``.

        Raises ``InputError`` for the first that cannot be read, and for none.
        """
        found = []
        for item in encode(self.encoder, images):
            if isinstance(item, InputError):
                raise item
            found.append(item)
        if not found:
            raise InputError("no photos; give at least one")
        return torch.stack(found)

    def captions(self, features: Tensor, config: SearchConfig | int = BEAMS) -> list[list[Caption]]:
        """For each image of ``features (B, N, D)`` the captions that ``beam_search`` finds, best first."""
        features = features.float()  # a store's are in float16
        found = beam_search(self.model.decoder, features, config)
        captions = [[self._caption(hypothesis) for hypothesis in hypotheses] for hypotheses in found]
        if self.calibration is None or not captions:
            return captions
        judged = self.calibration.judge(gist(features), [best.per_word for best, *_ in captions])
        pairs = zip(captions, judged, strict=True)
        return [[replace(best, confidence=sure.value, doubt=sure.doubt), *others] for (best, *others), sure in pairs]

    def _caption(self, found: Hypothesis) -> Caption:
        words, lengths = zip(*self.model.vocab.whole_words(found.ids), strict=True)
        maps = found.maps(lengths).reshape(len(words), self.encoder.grid, self.encoder.grid).numpy()
        return Caption(self.model.vocab.decode(found.ids), found.log_probability, list(words), maps)


def caption_photos(captioner: Captioner, photos: Iterable[Source], beams: int) -> Iterator[list[Caption] | InputError]:
    """For each photo in order its captions, best first, or why it has none; many are encoded and searched at once."""
    encoded = encode(captioner.encoder, photos, helping=True)  # the search takes less time than the encoder
    together = max(PHOTOS_AT_ONCE, BATCH[next(captioner.encoder.parameters()).device.type])  # a GPU's whole batch
    while batch := list(islice(encoded, together)):
        yield from map_stacked(lambda features: captioner.captions(features, beams), batch)
