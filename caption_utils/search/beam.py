"""From next-word probabilities to the best captions, many images at once.

A decoder is anything with ``init_state`` and ``step``; what it carries from word to word has ``select``, as
``model.State`` has.
"""

import torch
from torch import Tensor

from caption_utils.config import BEAMS, SearchConfig
from caption_utils.data.vocab import Vocabulary
from caption_utils.model.decoder import Decoder, State
from caption_utils.search.constraints import next_scores
from caption_utils.search.hypotheses import DEAD, Hypothesis, PartialHypotheses

IMAGES_AT_ONCE = 100  # bounds the memory


@torch.inference_mode()
def beam_search(decoder: Decoder, features: Tensor, config: SearchConfig | int = BEAMS) -> list[list[Hypothesis]]:
    """1 to ``beams`` captions for each image of ``features (B, N, D)``, best score first; ``config`` may be ``beams``.

    At each step an image keeps, of all one-word continuations of its K partial hypotheses, the K likeliest; those that
    end leave the beam. A hypothesis goes on while it is likelier than the last of the K likeliest that have ended,
    since words can but make it less likely. The greedy caption is a candidate too, whether or not the beam lost it.
    The K likeliest are kept by log-probability alone; the length penalty orders them.
    """
    config = config if isinstance(config, SearchConfig) else SearchConfig(config)
    found = [_search_images(decoder, part, config) for part in features.split(IMAGES_AT_ONCE) if len(part)]
    return [sorted(captions, key=lambda caption: -caption.score(config.length_penalty)) for captions in sum(found, [])]


def _search_images(decoder: Decoder, features: Tensor, config: SearchConfig) -> list[list[Hypothesis]]:
    """The K likeliest captions of each image, likeliest first."""
    state, regions = decoder.init_state(features), features.shape[1]
    found = _expand(decoder, state, features.new_zeros(len(features), 1), regions, config)
    if config.beams > 1:
        start = features.new_full((len(features), config.beams), DEAD)
        start[:, 0] = 0  # at first all K are the same caption, which counts once
        for greedy, captions in zip(found, _expand(decoder, state, start, regions, config), strict=True):
            greedy += [caption for caption in captions if caption.ids != greedy[0].ids]
    return [sorted(captions, key=lambda caption: -caption.log_probability)[: config.beams] for captions in found]


def _expand(decoder: Decoder, state: State, sums: Tensor, regions: int, config: SearchConfig) -> list[list[Hypothesis]]:
    """Every caption that ends in a beam which starts with ``sums (G, K)``."""
    found: list[list[Hypothesis]] = [[] for _ in sums]
    best_ended = torch.full_like(sums, DEAD)  # (G, K), log-probabilities of the K likeliest captions that have ended
    live = PartialHypotheses.start(state, regions, sums)
    while len(live.images):
        logits, alpha, state = decoder.step(live.ids[:, -1], live.state)
        parent, word, sums = _likeliest(live.sums, next_scores(logits, live.ids, config))
        ended = (word == Vocabulary.eos) & (sums > DEAD)  # (G, K)
        owner = live.images.unsqueeze(1).expand_as(ended)[ended].tolist()
        for image, caption in zip(owner, live.finished(parent[ended], sums[ended]), strict=True):
            found[image].append(caption)
        candidates = torch.cat([best_ended[live.images], sums.masked_fill(~ended, DEAD)], dim=1)
        best_ended[live.images] = candidates.topk(sums.shape[1]).values
        hopeless = sums <= best_ended[live.images, -1:]
        live = live.extend(parent, word, sums.masked_fill(ended | hopeless, DEAD), alpha, state)
    return found


def _likeliest(sums: Tensor, gains: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The K likeliest continuations of each image, likeliest first, all ``(G, K)``: parent row, word and new sum.

    ``sums (G, K)`` are log-probabilities of the hypotheses, ``gains (G · K, V)`` those of the words after each.
    """
    images, beams = sums.shape
    gains, words = gains.topk(min(beams, gains.shape[1]))  # (G · K, W): no image takes more from one hypothesis
    totals = sums.unsqueeze(2) + gains.view(images, beams, -1)  # (G, K, W)
    sums, place = totals.flatten(1).topk(beams)
    first_row = beams * torch.arange(images, device=sums.device).unsqueeze(1)
    return first_row + place // words.shape[1], words.view(images, -1).gather(1, place), sums
