"""Captions drawn at random from a decoder's distribution, many images at once."""

import zlib

import torch
from torch import Tensor

from caption_utils.decoder import Decoder
from caption_utils.errors import InputError
from caption_utils.hypotheses import Hypothesis, Unfinished
from caption_utils.limits import Limits, next_scores
from caption_utils.products import fast_products
from caption_utils.vocab import Vocabulary

ANY_CAPTION = Limits()


@fast_products
@torch.inference_mode()
def sample(
    decoder: Decoder, features: Tensor, temperature: float = 1.0, top_p: float = 1.0, seed: int = 0, count: int = 1,
    limits: Limits = ANY_CAPTION,
) -> list[list[Hypothesis]]:
    """``count`` captions for each image of ``features (B, N, D)``, in the order drawn; two may be the same.

    Each word is drawn from the probabilities that ``limits`` allow, raised to ``1 / temperature`` and rescaled; of
    these, the fewest words that together hold ``top_p`` (nucleus sampling, Holtzman et al. 2020, section 3.1). The
    log-probabilities returned are the model's own, as in ``beam_search``. What is drawn depends on ``seed`` and on the
    image's own features, never on the other images. Raises ``InputError`` for values out of range.
    """
    _check(temperature, top_p, seed, count)
    luck = _luck(features, seed, count, limits.max_length + 1)
    found: list[Hypothesis | None] = [None] * (len(features) * count)
    live = Unfinished.start(decoder, features, count)
    number = torch.arange(len(found), device=features.device)  # (R,), which of all captions
    while len(number):
        logits, alpha, state = decoder.step(live.ids[:, -1], live.state)
        gains = next_scores(logits, live.ids, limits)  # (R, V)
        word = _draw((gains / temperature).softmax(dim=1), top_p, luck[number, live.ids.shape[1] - 1])
        sums = live.sums + gains.gather(1, word.unsqueeze(1)).squeeze(1)
        at_end = word == Vocabulary.eos
        ended, on = at_end.nonzero().squeeze(1), (~at_end).nonzero().squeeze(1)
        for place, caption in zip(number[ended].tolist(), live.finished(ended, sums[ended]), strict=True):
            found[place] = caption
        live, number = live.extend(on, word[on], sums[on], alpha, state), number[on]
    return [found[start : start + count] for start in range(0, len(found), count)]


def _check(temperature: float, top_p: float, seed: int, count: int) -> None:
    if not 0 < temperature <= 100:
        raise InputError(f"temperature={temperature}: choose a value above 0, up to 100; 1 leaves the model as it is")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p={top_p}: choose a value above 0, up to 1, which keeps all words")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed={seed}: choose a whole number from 0 to 4294967295")
    if not 1 <= count <= 1000:
        raise InputError(f"count={count}: choose 1 to 1000 captions")


def _luck(features: Tensor, seed: int, count: int, steps: int) -> Tensor:
    """Uniform random numbers ``(B · count, steps)``, each image's from a generator seeded with its features."""
    generators = [torch.Generator().manual_seed(zlib.crc32(image.numpy().tobytes(), seed)) for image in features.cpu()]
    draws = [torch.rand(count, steps, generator=generator) for generator in generators]
    return torch.cat(draws).to(features.device) if draws else features.new_empty(0, steps)


def _draw(probabilities: Tensor, top_p: float, luck: Tensor) -> Tensor:
    """Words ``(R,)`` of the nucleus of ``probabilities (R, V)``, at the quantiles ``luck (R,)``."""
    likely, words = probabilities.sort(dim=1, descending=True)
    before = likely.cumsum(dim=1) - likely
    inside = (before < top_p) & (likely > 0)
    mass = (likely * inside).sum(dim=1, keepdim=True)
    place = ((before <= luck.unsqueeze(1) * mass) & inside).sum(dim=1, keepdim=True) - 1
    return words.gather(1, place).squeeze(1)
