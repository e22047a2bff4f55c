"""From next-word probabilities to the best sentences, many images at once.

A decoder is anything with ``init_state`` and ``step``; what it carries from word to word has ``select`` and
``map_recurrent``, as ``decoder.State`` has.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from caption_utils.decoder import Decoder
from caption_utils.errors import InputError
from caption_utils.hypotheses import Hypothesis, Unfinished
from caption_utils.limits import Limits, next_scores
from caption_utils.vocab import Vocabulary

BEAMS = 5
LENGTH_PENALTY = 1.0
IMAGES_AT_ONCE = 50


@dataclass(frozen=True)
class SearchConfig(Limits):
    """``beams`` captions are kept in view; one is greedy search. Found captions rank by log-probability divided by
    ``length ** length_penalty``: 0 is the model's own score, 1 its score per token.
    """

    beams: int = BEAMS
    length_penalty: float = LENGTH_PENALTY

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.beams <= 1000:
            raise InputError(f"beam={self.beams}: choose 1, which is greedy search, or more, up to 1000")
        if not 0 <= self.length_penalty <= 2:
            raise InputError(f"length_penalty={self.length_penalty}: choose a value from 0, which is none, to 2")


@torch.inference_mode()
def beam_search(decoder: Decoder, features: Tensor, config: SearchConfig | int = BEAMS) -> list[list[Hypothesis]]:
    """The best captions found for each image of ``features (B, N, D)``, best first: 1 to ``config.beams`` of them."""
    config = config if isinstance(config, SearchConfig) else SearchConfig(config)
    chunks = features.split(IMAGES_AT_ONCE)
    return [found for chunk in chunks for found in _search(decoder, chunk, config)]


def _search(decoder: Decoder, features: Tensor, config: SearchConfig) -> list[list[Hypothesis]]:
    found: list[list[Hypothesis]] = [[] for _ in features]
    live = Unfinished.start(decoder, features)
    greedy = features.new_ones(len(features), dtype=torch.bool)  # is beam 0 the greedy caption?
    best = features.new_full((len(features), config.beams), -torch.inf)  # scores of the best finished ones
    while len(live.images):
        logits, alpha, state = decoder.step(live.ids[..., -1], live.state)
        gains = next_scores(logits, live.ids, config)  # (B, J, V)
        sums, choice = _choose(live.sums.unsqueeze(-1) + gains, greedy, config.beams)
        parent, word = choice // gains.shape[-1], choice % gains.shape[-1]
        ended = (word == Vocabulary.eos) & (sums > -torch.inf)
        for image, _, hypothesis in live.finished(parent, ended, sums):
            found[image].append(hypothesis)
        scores = sums.masked_fill(~ended, -torch.inf) / live.ids.shape[-1] ** config.length_penalty
        best = torch.cat([best, scores], dim=1).topk(config.beams).values
        live = live.extend(parent, word, sums.masked_fill(ended, -torch.inf), alpha, state)
        greedy &= ~ended[:, 0]
        hope = live.sums.amax(dim=1) / (config.max_length + 1) ** config.length_penalty
        rows = (hope > best[:, -1]).nonzero().squeeze(1)
        live, greedy, best = live.select(rows), greedy[rows], best[rows]
    return [sorted(captions, key=lambda h: -h.score(config.length_penalty))[: config.beams] for captions in found]


def _choose(sums: Tensor, greedy: Tensor, beams: int) -> tuple[Tensor, Tensor]:
    """The ``beams`` best of ``sums (B, J, V)`` and their places in J · V; the greedy one, where there is one, first."""
    flat, first = sums.flatten(1), sums[:, 0].argmax(dim=-1, keepdim=True)
    kept = flat.gather(1, first)
    flat.scatter_(1, first, kept.masked_fill(greedy.unsqueeze(1), torch.inf))
    values, places = flat.topk(min(beams, flat.shape[1]))
    values[:, :1] = torch.where(greedy.unsqueeze(1), kept, values[:, :1])
    return values, places
