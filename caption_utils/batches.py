"""Captions and features to training batches: grouped by image, packed by length, no padding computed."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from caption_utils.datasets import CaptionDataset
from caption_utils.features import FeatureStore
from caption_utils.vocab import Vocabulary


@dataclass(frozen=True)
class Batch:
    """G images and the B captions they have, as ``Decoder.forward`` takes them."""

    features: Tensor  # (G, N, D)
    tokens: PackedSequence  # P tokens: each caption from <bos> on, without <eos>
    targets: Tensor  # (P,), the token that follows each
    owner: Tensor  # (B,), whose image each packed caption describes


class CaptionBatches:
    """All captions of a data set, ``images_per_batch`` images and all their captions at a time.

    The captions of an image share its features and attention keys. ``mirrored``, features of the mirrored images,
    stands in for half of the images, drawn anew each epoch. The order of epoch n depends on ``seed`` and n alone.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        store: FeatureStore,
        vocab: Vocabulary,
        images_per_batch: int = 32,
        device: torch.device | str = "cpu",
        mirrored: FeatureStore | None = None,
        seed: int = 0,
    ):
        self.names = dataset.image_names
        self.captions = [[torch.tensor(vocab.encode(text)) for text in dataset.captions_of(n)] for n in self.names]
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
        for chosen in torch.arange(len(self.names)).split(self.images_per_batch):
            yield self._batch(chosen.tolist(), [False] * len(chosen))

    def shuffled(self, epoch: int) -> Iterator[Batch]:
        """Every image once, in the order of this epoch."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        order = torch.randperm(len(self.names), generator=generator)
        flips = torch.rand(len(self.names), generator=generator) < (0.5 if self.mirrored else 0.0)
        for chosen, flip in zip(order.split(self.images_per_batch), flips.split(self.images_per_batch), strict=True):
            yield self._batch(chosen.tolist(), flip.tolist())

    def _batch(self, chosen: list[int], flip: list[bool]) -> Batch:
        pairs = [(owner, ids) for owner, image in enumerate(chosen) for ids in self.captions[image]]
        pairs.sort(key=lambda pair: -len(pair[1]))
        tokens = pack_sequence([ids[:-1] for _, ids in pairs]).to(self.device)
        targets = pack_sequence([ids[1:] for _, ids in pairs]).data.to(self.device)
        owner = torch.tensor([owner for owner, _ in pairs], device=self.device)
        return Batch(self._features(chosen, flip), tokens, targets, owner)

    def _features(self, chosen: list[int], flip: list[bool]) -> Tensor:
        features = self.store[[self.names[i] for i in chosen]]
        if any(flip):
            features[flip] = self.mirrored[[self.names[i] for i, f in zip(chosen, flip, strict=True) if f]]
        return features.to(self.device).float()
