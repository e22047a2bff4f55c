"""Greedy and beam search, many images at once.

A decoder is anything with ``init_state`` and ``step``, whose state has ``select`` as ``model.decoder.State`` does.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from caption_utils.config import BEAMS, SearchConfig
from caption_utils.data.vocab import Vocabulary
from caption_utils.model.decoder import Decoder
from caption_utils.runtime import sent
from caption_utils.search.constraints import next_scores
from caption_utils.search.hypotheses import DEAD, Hypothesis, PartialHypotheses, going_on, look

IMAGES_AT_ONCE = 64  # bounds the memory; as many as a GPU encodes


@torch.inference_mode()
def beam_search(decoder: Decoder, features: Tensor, config: SearchConfig | int = BEAMS) -> list[list[Hypothesis]]:
    """1 to ``beams`` captions for each image of ``features (B, N, D)``, best score first; ``config`` may be ``beams``.

    The decoder is in evaluation mode, or dropout acts on the search.

    At each step an image keeps the K likeliest of all one-word continuations of its partial hypotheses; those that end
    leave the beam. A hypothesis is dropped once K finished ones are likelier, since more words can only make it less
    likely. The greedy caption is followed even if it falls off the beam, so the best of the K is never less likely
    than greedy search's. The K are found by log-probability alone; the length penalty only orders them.
    """
    config = config if isinstance(config, SearchConfig) else SearchConfig(config)
    found = [_search(decoder, part, config) for part in features.split(IMAGES_AT_ONCE)]
    return [sorted(captions, key=lambda caption: -caption.score(config.length_penalty)) for captions in sum(found, [])]


class Beam(NamedTuple):
    """Continuations of the hypotheses of G images, in S places each."""

    parent: Tensor  # (G, S), the row continued
    word: Tensor  # (G, S), the word added
    sums: Tensor  # (G, S), log-probabilities, or ``DEAD``
    greedy: Tensor  # (G, S), whether this is the greedy caption


def _search(decoder: Decoder, features: Tensor, config: SearchConfig) -> list[list[Hypothesis]]:
    """The K likeliest captions of each image, likeliest first."""
    found: list[list[Hypothesis]] = [[] for _ in features]
    best_ended = torch.full((len(features), config.beams), DEAD)  # (B, K), log-probabilities
    live = PartialHypotheses.start(decoder.init_state(features), features)
    greedy = torch.ones_like(live.sums, dtype=torch.bool)  # (G, S), which hypotheses are greedy captions
    while len(live.images):
        ids = sent(live.ids, features.device)
        logits, alpha, state = decoder.step(ids[:, -1], live.state)
        scores = next_scores(logits, ids, config)
        likeliest = scores.topk(min(config.beams, scores.shape[1]))  # (R, W), among them all K
        gains, words, alpha = look(*likeliest, alpha)
        beam = _likeliest(live.sums, gains, words, greedy, config.beams)
        ended = (beam.word == Vocabulary.eos) & (beam.sums > DEAD)
        owner = live.images.unsqueeze(1).expand_as(ended)[ended].tolist()
        for image, caption in zip(owner, live.finished(beam.parent[ended], beam.sums[ended]), strict=True):
            found[image].append(caption)
        candidates = torch.cat([best_ended[live.images], beam.sums.masked_fill(~ended, DEAD)], dim=1)
        best_ended[live.images] = candidates.topk(config.beams).values
        hopeless = beam.sums <= best_ended[live.images, -1:]
        beam = beam._replace(sums=beam.sums.masked_fill(ended | hopeless, DEAD))
        images = going_on(beam.sums)
        used = (beam.sums > DEAD).any(dim=0)  # (S,), places with a live hypothesis of some image
        parent, word, sums, greedy = (value[images][:, used] for value in beam)
        live = live.extend(images, parent, word, sums, alpha, state)
    ranked = [sorted(captions, key=lambda caption: -caption.log_probability) for captions in found]
    return [captions[: config.beams] for captions in ranked]


def _likeliest(sums: Tensor, gains: Tensor, words: Tensor, greedy: Tensor, beams: int) -> Beam:
    """The K likeliest continuations of each image and, in one more place, the greedy caption's if it is not among them.

    ``sums (G, S)`` are the log-probabilities of the hypotheses, ``gains (G · S, W)`` those of the likeliest ``words``
    after each, and ``greedy (G, S)`` marks the greedy hypothesis.
    """
    images, hypotheses = sums.shape
    totals = (sums.view(-1, 1) + gains).view(images, -1)  # (G, S · W)
    best = totals.topk(min(beams, totals.shape[1])).indices  # (G, K)
    further = greedy.int().argmax(dim=1, keepdim=True) * words.shape[1]  # its likeliest word comes first in its row
    place = torch.cat([best, further], dim=1)
    parent = hypotheses * torch.arange(images).unsqueeze(1) + place // words.shape[1]
    is_greedy = (place == further) & greedy.any(dim=1, keepdim=True)
    sums = totals.gather(1, place)
    sums[:, -1].masked_fill_(is_greedy[:, :-1].any(dim=1) | ~is_greedy[:, -1], DEAD)
    return Beam(parent, words.view(images, -1).gather(1, place), sums, is_greedy & (sums > DEAD))
