"""Fine-tuning: the last stages of the encoder learn together with the decoder, at a rate of their own."""

import atexit
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from caption_utils.config import FineTuneConfig
from caption_utils.data.datasets import CaptionDataset
from caption_utils.data.images import cut_out
from caption_utils.data.vocab import Vocabulary
from caption_utils.encoders.encoder import Encoder
from caption_utils.errors import InputError
from caption_utils.metrics.perplexity import perplexity
from caption_utils.model.decoder import Batch
from caption_utils.training.batches import CaptionBatches, Share
from caption_utils.training.checkpoint import Model
from caption_utils.training.trainer import Refinement


class PictureBatches(CaptionBatches):
    """Batches that hold pictures as bytes, ``(G, 3, S, S)``, in the place of features.

    Worker processes decode them when a batch is asked for. What is cut off depends on seed, epoch and picture alone.
    """

    def __init__(
        self, dataset: CaptionDataset, size: int, vocab: Vocabulary, config: FineTuneConfig, device: torch.device
    ):
        paths: Any = [dataset.path(name) for name in dataset.image_names]
        mirrored = paths if config.mirror else None
        super().__init__(dataset, paths, vocab, config.images_per_batch, device, mirrored, config.seed)
        self.paths, self.size, self.crop = paths, size, config.crop

    def shuffled(self, epoch: int, *rest: Any, **named: Any) -> Iterator[Share]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        # for width and height: how much to cut off, and how much of that to the left or above
        self.cuts = torch.rand(len(self.paths), 2, 2, generator=generator)
        return super().shuffled(epoch, *rest, **named)

    def _features(self, chosen: list[int], flip: list[bool]) -> Tensor:
        cuts = (self.cuts[chosen] * torch.tensor([[self.crop], [1.0]])).tolist()
        paths, sizes = [self.paths[i] for i in chosen], [self.size] * len(chosen)
        try:
            pictures = np.stack(list(workers().map(cut_out, paths, sizes, cuts, flip)))
        except BrokenProcessPool:
            workers.cache_clear()
            raise InputError(
                "a process that decodes pictures was ended, perhaps for want of memory; free some and run the same "
                "again, which goes on after the last whole epoch"
            ) from None
        return self._placed(torch.from_numpy(pictures))


@cache
def workers() -> ProcessPoolExecutor:
    """Processes that decode pictures, from their first use on, without PyTorch; a GPU in use allows no forks.

    An interruption, which Jupyter sends to all processes of a kernel, does not end them.
    """
    ignored = signal.SIGINT, signal.SIG_IGN
    pool = ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), signal.signal, ignored)
    atexit.register(pool.shutdown, cancel_futures=True)  # before multiprocessing's own end, which waits for them
    return pool


class FineTuning(Refinement):
    """A run in which the last stages of ``encoder`` learn, too; the model folder also gets their weights.

    ``batches`` and ``val`` hold the features of ``encoder.before(config.fine_tune)``, the maps in front of the first
    stage that learns, or pictures. The stages before it are frozen, and batch norms are part of the convolutions, so
    that nothing else changes. Resume and processes are those of ``fit``. Raises ``InputError`` if the encoder has no
    such stages.
    """

    config: FineTuneConfig

    def __init__(
        self,
        model: Model,
        encoder: Encoder,
        config: FineTuneConfig,
        folder: Path,
        batches: CaptionBatches,
        val: CaptionBatches,
    ):
        self.encoder, self.before = encoder, encoder.before(config.fine_tune)
        self.stages = encoder.last_stages(config.fine_tune).requires_grad_(True)
        super().__init__(model, config, folder, batches, val)

    def modules(self) -> dict[str, nn.Module]:
        return {**super().modules(), "stages": self.stages}

    def rates(self) -> dict[str, float]:
        return {**super().rates(), "stages": self.config.encoder_learning_rate}

    def seen(self, batch: Batch) -> Batch:
        """The batch with the features that the stages make now, with their gradient, of each image once."""
        maps = batch.features if batch.features.dim() == 3 else self.before(batch.features)
        return replace(batch, features=self.encoder.after(maps, self.config.fine_tune))

    def objective(self, part: Batch, share: Share) -> Tensor:
        return super().objective(self.seen(part), share)

    def validate(self) -> tuple[str, float]:
        return "val_perplexity", perplexity(self.model.decoder, map(self.seen, self.val.in_order()))

    def result(self) -> Model:
        """The model with the weights of the stages, and those that an earlier run has changed."""
        learnt = {name: each.detach() for name, each in self.encoder.model.named_parameters() if each.requires_grad}
        weights = {**self.model.encoder_weights, **learnt}
        return replace(self.model, encoder_weights=weights, fingerprint=self.encoder.fingerprint_with(weights))
