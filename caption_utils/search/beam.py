"""From next-word probabilities to the best captions, many images at once.

A decoder is anything with ``init_state`` and ``step``; what it carries from word to word has ``select``, as
``model.State`` has.
"""

import torch
from torch import Tensor

from caption_utils.config import BEAMS, SearchConfig
from caption_utils.data.vocab import Vocabulary
from caption_utils.model.decoder import Decoder
from caption_utils.search.constraints import next_scores
from caption_utils.search.hypotheses import DEAD, Hypothesis, PartialHypotheses

IMAGES_AT_ONCE = 100  # bounds the memory


@torch.inference_mode()
def beam_search(decoder: Decoder, features: Tensor, config: SearchConfig | int = BEAMS) -> list[list[Hypothesis]]:
    """1 to ``beams`` captions for each image of ``features (B, N, D)``, best score first; ``config`` may be ``beams``.

    At each step an image keeps, of all one-word continuations of its partial hypotheses, the K likeliest; those that
    end leave the beam. A hypothesis goes on while it is likelier than the last of the K likeliest that have ended,
    since words can but make it less likely. The greedy caption is followed even where the beam has lost it, so that
    the likeliest of the K is never less likely than that one. The K are found by log-probability alone; the length
    penalty orders them.
    """
    config = config if isinstance(config, SearchConfig) else SearchConfig(config)
    found = [_search(decoder, part, config) for part in features.split(IMAGES_AT_ONCE) if len(part)]
    return [sorted(captions, key=lambda caption: -caption.score(config.length_penalty)) for captions in sum(found, [])]


def _search(decoder: Decoder, features: Tensor, config: SearchConfig) -> list[list[Hypothesis]]:
    """The K likeliest captions of each image, likeliest first."""
    found: list[list[Hypothesis]] = [[] for _ in features]
    best_ended = features.new_full((len(features), config.beams), DEAD)  # (B, K), log-probabilities
    live = PartialHypotheses.start(
        decoder.init_state(features), features.shape[1], features.new_zeros(len(features), 1)
    )
    greedy = torch.zeros_like(live.images)  # (G,), which of an image's hypotheses is the greedy one
    while (live.sums > DEAD).any():
        logits, alpha, state = decoder.step(live.ids[:, -1], live.state)
        scores = next_scores(logits, live.ids, config)
        parent, word, sums, greedy = _likeliest(live.sums, scores, greedy, config.beams)
        ended = (word == Vocabulary.eos) & (sums > DEAD)  # (G, S)
        owner = live.images.unsqueeze(1).expand_as(ended)[ended].tolist()
        for image, caption in zip(owner, live.finished(parent[ended], sums[ended]), strict=True):
            found[image].append(caption)
        candidates = torch.cat([best_ended[live.images], sums.masked_fill(~ended, DEAD)], dim=1)
        best_ended[live.images] = candidates.topk(config.beams).values
        hopeless = sums <= best_ended[live.images, -1:]
        live, kept = live.extend(parent, word, sums.masked_fill(ended | hopeless, DEAD), alpha, state)
        greedy = greedy[kept]
    return [sorted(captions, key=lambda caption: -caption.log_probability)[: config.beams] for captions in found]


def _likeliest(sums: Tensor, gains: Tensor, greedy: Tensor, beams: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The K likeliest continuations of each image, likeliest first, and in a further place the greedy caption's.

    ``sums (G, S)`` are log-probabilities of the hypotheses, ``gains (G · S, V)`` those of the words after each, and
    ``greedy (G,)`` tells which hypothesis is the greedy one. Returns parent rows, words and sums ``(G, K + 1)``, and
    the new ``greedy``; where it is among the K, the further place is dead.
    """
    images = len(sums)
    gains, words = gains.topk(min(beams, gains.shape[1]))  # (G · S, W): none of the K lies further down its row
    totals = (sums.view(-1, 1) + gains).view(images, -1)  # (G, S · W)
    best = totals.topk(min(beams, totals.shape[1])).indices  # (G, K)
    place = torch.cat([best, greedy.unsqueeze(1) * words.shape[1]], dim=1)  # the greedy word is the first of its row
    again = (best == place[:, -1:]).any(dim=1)
    sums = totals.gather(1, place)
    sums[again, -1] = DEAD
    rows = torch.arange(images, device=place.device).unsqueeze(1) * (totals.shape[1] // words.shape[1])
    greedy = (place == place[:, -1:]).int().argmax(dim=1)
    return rows + place // words.shape[1], words.view(images, -1).gather(1, place), sums, greedy
