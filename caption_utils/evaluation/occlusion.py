"""Does a word depend on what was attended to? Its probability after regions of the photo are greyed out.

The idea is from Samek et al. 2017 and Petsiuk et al. 2018; here the baseline is as many regions chosen at random.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from caption_utils.captioner import Captioner
from caption_utils.data.images import Source, load_image
from caption_utils.data.vocab import Vocabulary
from caption_utils.metrics.bootstrap import Score, grouped_mean
from caption_utils.search.beam import beam_search

GREY = 128
SHARE = 0.2  # of the regions
COLUMNS = ("image", "position", "word", "probability", "attended", "random")


def deletion_test(captioner: Captioner, photos: Sequence[Source], draws: int = 5) -> pd.DataFrame:
    """A row for each word of the greedy caption of each photo: its probability, and how far two deletions lower it.

    ``attended``: the fall when the fifth of the regions most attended to for this word is grey; ``random``: the mean
    fall over ``draws`` random choices of as many regions. The photo is encoded again each time, once for each word and
    draw and twice more; the preceding words are those of the caption (teacher forcing). Raises ``InputError`` for a
    photo that cannot be read.
    """
    regions = max(1, round(SHARE * captioner.encoder.grid**2))
    generator, ties = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    rows = []
    for image, photo in enumerate(photos):
        picture = load_image(photo)
        found = beam_search(captioner.model.decoder, captioner.features([picture]), 1)[0][0]
        words, lengths = zip(*captioner.model.vocab.whole_words(found.ids), strict=True)
        masks = _masks(found.maps(lengths).cpu(), regions, draws, generator, ties)  # (1 + W + draws, N)
        features = captioner.features(_greyed(captioner.encoder.transform(picture), masks))
        falls = _falls(_word_probabilities(captioner, found.ids, lengths, features), len(words))
        rows += [(image, position, word, *fall) for position, (word, fall) in enumerate(zip(words, falls, strict=True))]
    return pd.DataFrame(rows, columns=COLUMNS)


def deletion_scores(table: pd.DataFrame, images: int) -> dict[str, Score]:
    """Mean falls ``attended`` and ``random`` over all words of ``images`` photos, and their ``difference``.

    All are in percentage points; the difference is above 0 if attention is on what matters.
    """
    falls = table[["attended", "random"]].assign(difference=table["attended"] - table["random"])
    return {name: grouped_mean(100 * falls[name], table["image"], images) for name in falls}


def _masks(alphas: Tensor, regions: int, draws: int, generator: torch.Generator, ties: torch.Generator) -> Tensor:
    """Which regions are deleted ``(1 + W + draws, N)``: none, those most attended to for each word, random ones.

    Chance decides between equal weights: the same regions each time would tell of their place, not of attention.
    """
    ranks = torch.cat([alphas, torch.rand(draws, alphas.shape[1], generator=generator)])
    order = torch.from_numpy(np.lexsort([torch.rand(ranks.shape, generator=ties), -ranks]))
    masks = torch.zeros_like(ranks, dtype=torch.bool).scatter(1, order[:, :regions], True)
    return nn.functional.pad(masks, (0, 0, 1, 0))


def _greyed(pixels: Tensor, masks: Tensor) -> list[Image.Image]:
    """The picture ``(3, S, S)`` for each mask ``(M, N)``, with the deleted regions grey."""
    side = round(masks.shape[1] ** 0.5)
    squares = masks.reshape(-1, 1, side, side).float()
    deleted = nn.functional.interpolate(squares, size=pixels.shape[1:]).bool()
    images = torch.where(deleted, GREY, pixels).to(pixels.dtype).permute(0, 2, 3, 1)  # (M, S, S, 3)
    return [Image.fromarray(image) for image in images.contiguous().numpy()]


@torch.no_grad()
def _word_probabilities(captioner: Captioner, ids: list[int], lengths: Sequence[int], features: Tensor) -> Tensor:
    """Probability ``(W, M)`` of each word of a caption after the words before it, given each of M images.

    A word's probability is the product of those of its tokens, whose numbers are ``lengths``.
    """
    inputs = torch.tensor([Vocabulary.bos, *ids[:-1]], device=features.device)
    owner = torch.arange(len(features), device=features.device)
    logits, _ = captioner.model.decoder(features, pack_sequence([inputs] * len(features)), owner)  # (T · M, V)
    probabilities = logits.softmax(dim=1).reshape(len(ids), len(features), -1)
    chosen = torch.stack([row[:, token] for row, token in zip(probabilities, ids, strict=True)]).cpu()  # (T, M)
    return torch.stack([tokens.prod(dim=0) for tokens in chosen.split(list(lengths))])


def _falls(probabilities: Tensor, words: int) -> list[list[float]]:
    """For each word its probability, its fall with its own deletion, and its mean fall with the random ones."""
    whole, deleted, random = probabilities.split([1, words, probabilities.shape[1] - words - 1], dim=1)
    left = torch.stack([deleted.diagonal(), random.mean(dim=1)], dim=1)
    return torch.cat([whole, whole - left], dim=1).tolist()
