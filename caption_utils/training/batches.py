"""Captions and features to training batches: grouped by image, packed by length, no padding computed."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from caption_utils.data.vocab import Vocabulary
from caption_utils.model.decoder import Batch
from caption_utils.prefetch import prefetch
from caption_utils.runtime import sent

if TYPE_CHECKING:
    from caption_utils.data.datasets import CaptionDataset
    from caption_utils.encoders.store import FeatureStore

S = TypeVar("S")
T = TypeVar("T")
ALL = slice(None)


@dataclass(frozen=True)
class Share:
    """What one process computes of a batch, part by part. ``tokens`` and ``captions`` count the whole batch."""

    parts: list[Batch]
    tokens: int
    captions: int


class CaptionBatches:
    """All captions of a data set, ``images_per_batch`` images and all their captions at a time.

    The captions of an image share its features and attention keys. ``mirrored``, features of the mirrored images,
    stands in for half of the images, drawn anew each epoch. The order of epoch n depends on ``seed`` and n alone.
    """

    def __init__(
        self,
        dataset: "CaptionDataset",
        store: "FeatureStore",
        vocab: Vocabulary,
        images_per_batch: int = 32,
        device: torch.device | str = "cpu",
        mirrored: "FeatureStore | None" = None,
        seed: int = 0,
    ):
        self.names, self.vocab = dataset.image_names, vocab
        self.texts = [list(dataset.captions_of(name)) for name in self.names]
        self.captions = [[torch.tensor(vocab.encode(text)) for text in texts] for texts in self.texts]
        self.sizes = torch.tensor([(sum(len(ids) - 1 for ids in image), len(image)) for image in self.captions])
        self.store, self.mirrored = store, mirrored
        self.images_per_batch, self.device, self.seed = images_per_batch, torch.device(device), seed

    def fingerprint(self) -> str:
        """Hash of the images' names and their encoded captions."""
        digest = hashlib.blake2b(repr(self.names).encode(), digest_size=8)
        digest.update(repr([[ids.tolist() for ids in captions] for captions in self.captions]).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return -(-len(self.names) // self.images_per_batch)

    def in_order(self) -> Iterator[Batch]:
        """Every image once, in file order, never mirrored."""
        order = torch.arange(len(self.names)).split(self.images_per_batch)
        return self._made_ahead(lambda chosen: self._batch(chosen.tolist(), [False] * len(chosen)), order)

    def shuffled(
        self, epoch: int, index: int = 0, count: int = 1, parts: int = 1, steps: slice = ALL
    ) -> Iterator[Share]:
        """Every image once, in the order of this epoch: the share of process ``index`` of ``count`` in each batch.

        ``parts`` divides each share again. Batch and order depend on none of the three. ``steps`` leaves batches out.
        """
        generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        order = torch.randperm(len(self.names), generator=generator)
        flips = torch.rand(len(self.names), generator=generator) < (0.5 if self.mirrored else 0.0)
        pairs = zip(order.split(self.images_per_batch), flips.split(self.images_per_batch), strict=True)
        return self._made_ahead(lambda pair: self._share(*pair, index, count, parts), list(pairs)[steps])

    def _share(self, chosen: Tensor, flip: Tensor, index: int, count: int, parts: int) -> Share:
        """Of the batch of images ``chosen`` what process ``index`` of ``count`` gets, in ``parts``.

        A small batch leaves some without an image.
        """
        pieces = (each.tensor_split(count)[index].tensor_split(parts) for each in (chosen, flip))
        divided = zip(*pieces, strict=True)
        mine = [self._batch(images.tolist(), flips.tolist()) for images, flips in divided if len(images)]
        return Share(mine, *self.sizes[chosen].sum(dim=0).tolist())

    def _batch(self, chosen: list[int], flip: list[bool]) -> Batch:
        pairs = [(owner, ids) for owner, image in enumerate(chosen) for ids in self.captions[image]]
        return self._packed(self._features(chosen, flip), sorted(pairs, key=lambda pair: -len(pair[1])))

    def _packed(self, features: Tensor, pairs: Sequence[tuple[int, Tensor]]) -> Batch:
        """The batch of captions, longest first, each with the place of its image in ``features``."""
        tokens = pack_sequence([ids[:-1] for _, ids in pairs])
        tokens = tokens._replace(data=self._placed(tokens.data))
        targets = self._placed(pack_sequence([ids[1:] for _, ids in pairs]).data)
        return Batch(features, tokens, targets, self._placed(torch.tensor([owner for owner, _ in pairs])))

    def _features(self, chosen: list[int], flip: list[bool]) -> Tensor:
        features = self.store[[self.names[i] for i in chosen]]
        if self.mirrored and any(flip):
            rows = [row for row, flipped in enumerate(flip) if flipped]
            mirrored = self.mirrored[[self.names[chosen[row]] for row in rows]]
            features.index_copy_(0, sent(torch.tensor(rows), features.device), sent(mirrored, features.device))
        return self._placed(features).float()

    def _placed(self, value: Tensor) -> Tensor:
        return sent(value, self.device)

    def _made_ahead(self, make: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
        """``make`` of each item; for a GPU the next while it works on this one. A CPU has no time to spare."""
        return prefetch(make, items, threads=1, ahead=1) if self.device.type == "cuda" else map(make, items)
