"""Captions sampled from a decoder's distribution, many images at once."""

import zlib

import torch
from torch import Tensor

from caption_utils.config import SearchConfig
from caption_utils.data.vocab import Vocabulary
from caption_utils.model.decoder import Decoder
from caption_utils.runtime import sent
from caption_utils.search.constraints import next_scores
from caption_utils.search.hypotheses import DEAD, Hypothesis, PartialHypotheses, going_on, look

LIMITS = SearchConfig(no_repeat_ngram=0)


@torch.inference_mode()
def sample(decoder: Decoder, features: Tensor, seed: int = 0, count: int = 1) -> list[list[Hypothesis]]:
    """``count`` captions for each image of ``features (B, N, D)``, in the order drawn; two may be the same.

    The decoder is in evaluation mode, as for ``beam_search``.

    Each word is sampled from the probabilities of those that may follow, rescaled; the log-probabilities returned are
    the model's own, as in ``beam_search``. Samples depend on ``seed`` and on the image's own features, never on the
    other images.
    """
    draws = _draws(features, seed, count, LIMITS.max_length + 1)  # (B, count, steps)
    found: list[dict[int, Hypothesis]] = [{} for _ in features]
    live = PartialHypotheses.start(decoder.init_state(features), features, count)
    while len(live.images):
        ids = sent(live.ids, features.device)
        logits, alpha, state = decoder.step(ids[:, -1], live.state)
        gains = next_scores(logits, ids, LIMITS)  # (R, V)
        draw = sent(draws[live.images, :, live.ids.shape[1] - 1].flatten(), features.device)
        drawn = _at_quantile(gains.softmax(dim=1), draw).unsqueeze(1)  # (R, 1)
        word, gain, alpha = look(drawn, gains.gather(1, drawn), alpha)
        word, sums = word.view_as(live.sums), live.sums + gain.view_as(live.sums)  # (G, S)
        ended = (word == Vocabulary.eos) & (sums > DEAD)
        image, place = ended.nonzero(as_tuple=True)
        captions = live.finished(ended.flatten().nonzero().squeeze(1), sums[ended])
        for i, k, caption in zip(live.images[image].tolist(), place.tolist(), captions, strict=True):
            found[i][k] = caption
        rows = torch.arange(word.numel()).view_as(word)
        sums = sums.masked_fill(ended, DEAD)
        images = going_on(sums)
        live = live.extend(images, rows[images], word[images], sums[images], alpha, state)
    return [[captions[place] for place in range(count)] for captions in found]


def _draws(features: Tensor, seed: int, count: int, steps: int) -> Tensor:
    """Uniform random numbers ``(B, count, steps)``, each image's from a generator seeded with its features."""
    bits = features.cpu().contiguous().view(torch.uint8)  # NumPy has no bfloat16
    generators = [torch.Generator().manual_seed(zlib.crc32(image.numpy(), seed)) for image in bits]
    draws = [torch.rand(count, steps, generator=generator) for generator in generators]
    return torch.stack(draws) if draws else torch.empty(0, count, steps)


def _at_quantile(probabilities: Tensor, draw: Tensor) -> Tensor:
    """Words ``(R,)`` at the quantiles ``draw (R,)`` of ``probabilities (R, V)``: the last that begins before them."""
    before = probabilities.cumsum(dim=1) - probabilities
    reached = before <= draw.unsqueeze(1) * probabilities.sum(dim=1, keepdim=True)
    words = torch.arange(probabilities.shape[1], device=probabilities.device)
    return (words * (reached & (probabilities > 0))).amax(dim=1)
