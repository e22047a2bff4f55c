"""Self-critical training: of captions drawn from the model, those that score better than the others grow likelier."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from caption_utils.config import SelfCriticalConfig
from caption_utils.data.vocab import EOS, tokenize
from caption_utils.metrics.cider import CiderD
from caption_utils.metrics.scores import sentence_bleu
from caption_utils.model.decoder import Batch, Decoder
from caption_utils.search.beam import beam_search
from caption_utils.search.hypotheses import Hypothesis
from caption_utils.search.sampling import sample
from caption_utils.training.batches import CaptionBatches, Share
from caption_utils.training.checkpoint import Model
from caption_utils.training.loss import TeacherForcing, of_captions
from caption_utils.training.trainer import Refinement


class Reward:
    """CIDEr-D, with the document frequencies of the training references, plus ``bleu`` times BLEU-4.

    ``<eos>`` counts as a word of captions and references: without it captions soon end in fragments.
    """

    def __init__(self, references: Sequence[Sequence[str]], bleu: float):
        """Raises ``ValueError`` unless there is a list of texts for each image."""
        if any(isinstance(texts, str) for texts in references):
            raise ValueError("references must be a list of captions for each image")
        self.cider = CiderD([[[*tokenize(text), EOS] for text in texts] for texts in references])
        self.bleu = bleu

    def __call__(self, image: int, captions: Sequence[Sequence[str]]) -> Tensor:
        """Rewards ``(S,)`` of S captions of an image, each a sequence of tokens without ``<eos>``.

        Raises ``ValueError`` for captions that are not tokenised.
        """
        if any(isinstance(caption, str) for caption in captions):
            raise ValueError("Reward takes lists of tokens, not strings; tokenize captions first")
        ended = [[*caption, EOS] for caption in captions]
        bleu = sentence_bleu(ended, self.cider.references[image])
        return torch.tensor(self.cider.scores(image, ended)) + self.bleu * torch.tensor(bleu, dtype=torch.float32)


@dataclass(frozen=True)
class Drawn(Batch):
    """Drawn captions as ``Decoder.forward`` takes them, longest first, and what they are worth."""

    rewards: Tensor  # (B,)
    advantages: Tensor  # (B,), by how much each is better than the mean of the image's others


class DrawnBatches(CaptionBatches):
    """Captions that ``decoder`` draws, ``config.samples`` an image, in the place of the data set's.

    They are drawn without dropout once their batch is asked for. What is drawn depends on seed, epoch, weights and the
    image's features alone.
    """

    def __init__(self, decoder: Decoder, config: SelfCriticalConfig, *rest: Any):
        """``rest`` is what ``CaptionBatches`` takes."""
        super().__init__(*rest)
        self.decoder, self.samples, self.reward = decoder, config.samples, Reward(self.texts, config.bleu)
        self.sizes = torch.tensor([[0, config.samples]]).expand(len(self.names), 2)  # tokens are not known before
        self.sampling_seed = 0

    def shuffled(self, epoch: int, *rest: Any, **named: Any) -> Iterator[Share]:
        self.sampling_seed = (self.seed * 100_003 + epoch) % 2**32
        return super().shuffled(epoch, *rest, **named)

    def _made_ahead(self, make: Callable, items: Iterable) -> Iterator:
        return map(make, items)  # by the weights that the step before has left

    def _batch(self, chosen: list[int], flip: list[bool]) -> Drawn:
        features = self._features(chosen, flip)
        self.decoder.eval()
        drawn = sample(self.decoder, features, seed=self.sampling_seed, count=self.samples)
        self.decoder.train()
        words = [[words_of(self, caption) for caption in captions] for captions in drawn]
        rewards = torch.stack([self.reward(*pair) for pair in zip(chosen, words, strict=True)])  # (G, S)
        ids = [torch.tensor([self.vocab.bos, *one.ids, self.vocab.eos]) for captions in drawn for one in captions]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        batch = self._packed(features, [(i // self.samples, ids[i]) for i in order])
        worth = (self._placed(values.flatten()[order]) for values in (rewards, advantages(rewards)))
        return Drawn(*vars(batch).values(), *worth)


def words_of(batches: CaptionBatches, caption: Hypothesis) -> list[str]:
    return [word for word, _ in batches.vocab.whole_words(caption.ids)]


def advantages(rewards: Tensor) -> Tensor:
    """By how much each of S rewards ``(G, S)`` exceeds the mean of the others of its image (Luo 2020, equation 2)."""
    return rewards - (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)


def self_critical_loss(forward: TeacherForcing, batch: Drawn, captions: int | None = None) -> Tensor:
    """Minus the mean reward of drawn captions, with REINFORCE's gradient: ``-(r - b) ∇ log p(caption)`` for each.

    Source: Rennie et al. 2017, equations 4 to 6; what is subtracted from the reward r is that of ``advantages``. Sums
    are divided by ``captions``, by default the batch's own.
    """
    logits, _ = forward(batch.features, batch.tokens, batch.owner)
    log_words = -F.cross_entropy(logits.float(), batch.targets, reduction="none")  # (P,)
    learnt = (batch.advantages * of_captions(log_words, batch)).sum()  # autocast would round @
    return -(batch.rewards.sum() + learnt - learnt.detach()) / (captions or len(batch.owner))


class SelfCritical(Refinement):
    """A run that raises the reward of drawn captions, and keeps what has the best CIDEr on validation images."""

    def __init__(
        self, model: Model, config: SelfCriticalConfig, folder: Path, batches: DrawnBatches, val: CaptionBatches
    ):
        super().__init__(model, config, folder, batches, val)
        self.cider = CiderD([[tokenize(text) for text in texts] for texts in val.texts])

    def objective(self, part: Batch, share: Share) -> Tensor:
        return self_critical_loss(self.forward, cast(Drawn, part), share.captions)

    def validate(self) -> tuple[str, float]:
        """CIDEr of the captions that beam search finds, times 100 as in ``caption_scores``."""
        decoder = self.model.decoder.eval()
        best = [captions[0] for batch in self.val.in_order() for captions in beam_search(decoder, batch.features)]
        scores = [self.cider.scores(image, [words_of(self.val, caption)])[0] for image, caption in enumerate(best)]
        return "val_cider", 100 * fmean(scores)


def refine(
    model: Model, train: DrawnBatches, val: CaptionBatches, config: SelfCriticalConfig, folder: str | Path
) -> pd.DataFrame:
    """Train ``model.decoder`` by the score of the captions it draws, and return the history, one row a validation.

    Self-critical sequence training (Rennie et al. 2017), with the baseline of Luo 2020, "A Better Variant of
    Self-Critical Sequence Training". Its first row, of epoch 0, is the model as it came. ``train`` draws from the same
    decoder. Folder, resume and processes are those of ``fit``.
    """
    return SelfCritical(model, config, Path(folder), train, val).run()
