"""Training data that is drawn at random on the device: as many images and captions as wanted, as long as Flickr8k's.

Images are numbers. There are fifty kinds of them; features are those of the kind and noise, and the kind decides which
ids a caption is made of, so that there is something to learn.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from caption_utils.config import DecoderConfig, TrainConfig
from caption_utils.data.vocab import Vocabulary
from caption_utils.model.decoder import Decoder, build_decoder
from caption_utils.runtime import sent
from caption_utils.training.batches import CaptionBatches
from caption_utils.training.checkpoint import Model
from caption_utils.training.trainer import fit

KINDS, REGIONS, SPECIALS = 50, 49, 4


@dataclass(frozen=True)
class Size:
    """How much to compute: images for training and validation, epochs, width of the features, words, hidden units."""

    images: int
    held_out: int
    epochs: int
    width: int
    words: int = 3500
    hidden: int = 256


class Ids(Vocabulary):
    """A vocabulary for captions that are ids already."""

    def encode(self, text) -> list[int]:
        return [self.bos, *text, self.eos]


class Drawn:
    """Images ``first`` to ``first + count - 1``: both the data set and the store of its features."""

    def __init__(self, size: Size, place: torch.device, first: int, count: int):
        self.image_names, self.words = list(range(first, first + count)), size.words
        kinds = torch.randn(KINDS, REGIONS, size.width, generator=torch.Generator().manual_seed(0)).half().to(place)
        noise = torch.Generator(place).manual_seed(first)
        self.features = torch.randn(count, REGIONS, size.width, dtype=torch.float16, device=place, generator=noise)
        for start in range(0, count, KINDS):
            rows = self.features[start : start + KINDS]
            rows.add_(kinds.roll(-(first + start), dims=0)[: len(rows)])

    def __getitem__(self, images: list[int]) -> Tensor:
        rows = torch.tensor(images) - self.image_names[0]
        return self.features.index_select(0, sent(rows, self.features.device))

    def captions_of(self, image: int) -> list[list[int]]:
        """Five captions of different length; a tenth of their words are any."""
        generator = torch.Generator().manual_seed(image)
        lengths = (torch.randn(5, generator=generator) * 3.9 + 10.8).round().clamp(2, 36).int().tolist()
        ids = (31 * (image % KINDS) + 7 * torch.arange(36)).repeat(5, 1)
        noise = torch.randint(1 << 20, ids.shape, generator=generator)
        ids = SPECIALS + ids.where(noise % 10 > 0, noise) % (self.words - SPECIALS)
        return [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]


class Task:
    """Data of a size on a device, and a decoder to train on it, with other ``settings`` than the default if any."""

    def __init__(self, size: Size, place: torch.device, attention: str = "bahdanau", **settings):
        self.size, self.place, self.attention, self.settings = size, place, attention, settings
        self.vocab = Ids({f"{i:05}": 9 for i in range(size.words - SPECIALS)})
        self.train = Drawn(size, place, 0, size.images)
        self.val = Drawn(size, place, size.images, size.held_out)

    def decoder(self) -> Decoder:
        torch.manual_seed(0)
        sizes = {"embed_dim": 2 * self.size.hidden, "hidden_dim": self.size.hidden, "attention_dim": self.size.hidden}
        settings = sizes | self.settings
        return build_decoder(DecoderConfig(self.size.words, self.size.width, self.attention, **settings)).to(self.place)

    def batches(self, images: int = 32, val: bool = False) -> CaptionBatches:
        data = self.val if val else self.train
        return CaptionBatches(data, data, self.vocab, images, self.place)

    def fit(self, folder: Path, **settings) -> tuple[Decoder, list[dict[str, float]]]:
        """A decoder trained into ``folder``, and its log."""
        config = replace(TrainConfig(epochs=self.size.epochs, patience=1000, learning_rate=1e-3), **settings)
        model = Model(self.decoder(), self.vocab, "drawn", "drawn")
        history = fit(model, self.batches(config.images_per_batch), self.batches(50, val=True), config, folder)
        return model.decoder, history if isinstance(history, list) else history.to_dict("records")
