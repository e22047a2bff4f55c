"""Captions sampled from a decoder's distribution, many images at once."""

import zlib

import torch
from torch import Tensor

from caption_utils.config import Constraints
from caption_utils.data.vocab import Vocabulary
from caption_utils.errors import InputError
from caption_utils.model.decoder import Decoder
from caption_utils.runtime import sent
from caption_utils.search.constraints import next_scores
from caption_utils.search.hypotheses import DEAD, Hypothesis, PartialHypotheses, fetched, going_on, look

ANY_CAPTION = Constraints()


@torch.inference_mode()
def sample(
    decoder: Decoder,
    features: Tensor,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    count: int = 1,
    constraints: Constraints = ANY_CAPTION,
) -> list[list[Hypothesis]]:
    """``count`` captions for each image of ``features (B, N, D)``, in the order drawn; two may be the same.

    Each word is sampled from the probabilities that ``constraints`` allow, raised to ``1 / temperature`` and rescaled,
    and of these from the fewest words that together hold ``top_p`` (nucleus sampling, Holtzman et al. 2020, section
    3.1). The log-probabilities returned are the model's own, as in ``beam_search``. Samples depend on ``seed`` and on
    the image's own features, never on the other images. Raises ``InputError`` for values out of range.
    """
    _check(temperature, top_p, seed, count)
    draws = _draws(features, seed, count, constraints.max_length + 1)  # (B, count, steps)
    found: list[dict[int, Hypothesis]] = [{} for _ in features]
    live = PartialHypotheses.start(
        decoder.init_state(features), features.shape[1], features.new_zeros(len(features), count)
    )
    while len(live.images):
        ids = sent(live.ids, features.device)
        logits, alpha, state = decoder.step(ids[:, -1], live.state)
        gains = next_scores(logits, ids, constraints)  # (R, V)
        draw = sent(draws[live.images, :, live.ids.shape[1] - 1].flatten(), features.device)
        drawn = _quantile((gains / temperature).softmax(dim=1), top_p, draw).view_as(live.sums)  # (G, S)
        word, sums = look(drawn, live.sums + gains.gather(1, drawn.view(-1, 1)).view_as(live.sums))
        ended = (word == Vocabulary.eos) & (sums > DEAD)
        image, place = ended.nonzero(as_tuple=True)
        captions = live.finished(ended.flatten().nonzero().squeeze(1), sums[ended])
        for i, k, caption in zip(live.images[image].tolist(), place.tolist(), captions, strict=True):
            found[i][k] = caption
        rows = torch.arange(word.numel()).view_as(word)
        sums = sums.masked_fill(ended, DEAD)
        images = going_on(sums)
        live = live.extend(images, rows[images], word[images], sums[images], alpha, state)
    return [fetched(captions[place] for place in range(count)) for captions in found]


def _check(temperature: float, top_p: float, seed: int, count: int) -> None:
    if not 0 < temperature <= 100:
        raise InputError(f"temperature={temperature}: choose a value above 0, up to 100; 1 leaves the model as it is")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p={top_p}: choose a value above 0, up to 1, which keeps all words")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed={seed}: choose a whole number from 0 to 4294967295")
    if not 1 <= count <= 1000:
        raise InputError(f"count={count}: choose 1 to 1000 captions")


def _draws(features: Tensor, seed: int, count: int, steps: int) -> Tensor:
    """Uniform random numbers ``(B, count, steps)``, each image's from a generator seeded with its features."""
    generators = [torch.Generator().manual_seed(zlib.crc32(image.numpy().tobytes(), seed)) for image in features.cpu()]
    draws = [torch.rand(count, steps, generator=generator) for generator in generators]
    return torch.stack(draws) if draws else torch.empty(0, count, steps)


def _quantile(probabilities: Tensor, top_p: float, draw: Tensor) -> Tensor:
    """Words ``(R,)`` of the nucleus of ``probabilities (R, V)``, at the quantiles ``draw (R,)``.

    Sorting, which takes longer than all else, is only needed for a nucleus.
    """
    everyone = torch.arange(probabilities.shape[1], device=probabilities.device).expand_as(probabilities)
    likely, words = (probabilities, everyone) if top_p == 1 else probabilities.sort(dim=1, descending=True)
    before = likely.cumsum(dim=1) - likely
    inside = (before < top_p) & (likely > 0)
    mass = (likely * inside).sum(dim=1, keepdim=True)
    place = (everyone * ((before <= draw.unsqueeze(1) * mass) & inside)).amax(dim=1, keepdim=True)
    return words.gather(1, place).squeeze(1)
