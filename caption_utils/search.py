"""From next-word probabilities to the best sentences, many images at once.

A decoder is anything with ``init_state`` and ``step``, whose logits are the search's to overwrite; what it carries from
word to word has ``select``, as ``decoder.State`` has.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from caption_utils.cores import on_each_core
from caption_utils.decoder import Decoder
from caption_utils.errors import InputError
from caption_utils.highest import highest
from caption_utils.hypotheses import Hypothesis, Unfinished
from caption_utils.limits import Limits, next_scores
from caption_utils.packing import by_image
from caption_utils.products import fast_products
from caption_utils.vocab import Vocabulary

BEAMS = 5
LENGTH_PENALTY = 0.7  # a compromise on validation images: BLEU-4 wants less, ROUGE-L wants more
NO_REPEAT = 3  # words; raises every score on validation images a little
ROWS = 16  # for each number of rows, oneDNN prepares kernels of its own, which takes time
IMAGES_AT_ONCE = 250  # for each core; fewer are slower, more hardly faster


@dataclass(frozen=True)
class SearchConfig(Limits):
    """``beams`` captions are kept in view; one is greedy search. Found captions rank by log-probability divided by
    ``length ** length_penalty``: 0 is the model's own score, 1 its score per token. No three words come twice in a
    caption (Paulus et al. 2018), unless ``no_repeat_ngram`` says otherwise.
    """

    beams: int = BEAMS
    length_penalty: float = LENGTH_PENALTY
    no_repeat_ngram: int = field(default=NO_REPEAT, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.beams <= 1000:
            raise InputError(f"beam={self.beams}: choose 1, which is greedy search, or more, up to 1000")
        if not 0 <= self.length_penalty <= 2:
            raise InputError(f"length_penalty={self.length_penalty}: choose a value from 0, which is none, to 2")


@fast_products
def beam_search(decoder: Decoder, features: Tensor, config: SearchConfig | int = BEAMS) -> list[list[Hypothesis]]:
    """1 to ``beams`` captions for each image of ``features (B, N, D)``, best score first; ``config`` may be ``beams``.

    At each step an image keeps, of all one-word continuations of its captions, the K likeliest; those that end leave
    the beam. A caption goes on while it is likelier than the last of the K likeliest that have ended, since words can
    but make it less likely. These K are found by log-probability alone; the length penalty orders them. The greedy
    caption is followed even where the beam has left it, so that the likeliest of the K is never less likely than that
    one: without a penalty, the first is not; with one, the first has the greedy caption's score or better, unless K
    captions likelier than the greedy one were found.
    """
    config = config if isinstance(config, SearchConfig) else SearchConfig(config)
    found = on_each_core(lambda part: _search(decoder, part, config), features, IMAGES_AT_ONCE)
    return [sorted(captions, key=lambda caption: -caption.score(config.length_penalty)) for captions in sum(found, [])]


class Choice(NamedTuple):
    """How the captions of G images go on: some places for each, of which one may be empty."""

    images: Tensor  # (G,)
    sums: Tensor  # (G, J), log-probabilities; minus infinity where a place is empty
    parent: Tensor  # (G, J), the caption that is continued
    word: Tensor  # (G, J), by which
    greedy: Tensor  # (G, J), whether that makes the greedy caption


@torch.inference_mode()
def _search(decoder: Decoder, features: Tensor, config: SearchConfig) -> list[list[Hypothesis]]:
    """The likeliest captions of each image, likeliest first."""
    found: list[list[Hypothesis]] = [[] for _ in features]
    bars = features.new_full((len(features), config.beams), -torch.inf)  # log-probabilities of the best ended captions
    live = Unfinished.start(decoder, features)
    greedy = torch.ones_like(live.images, dtype=torch.bool)  # (R,), which are the greedy captions
    while len(live.images):
        logits, alpha, state = decoder.step(live.ids[:, -1], live.state)
        choice = _choose(next_scores(logits, live.ids, config), live, greedy, config.beams)
        ended = (choice.word == Vocabulary.eos) & (choice.sums > -torch.inf)
        last = choice.parent[ended]
        for image, caption in zip(live.images[last].tolist(), live.finished(last, choice.sums[ended]), strict=True):
            found[image].append(caption)
        sums = torch.cat([bars[choice.images], choice.sums.masked_fill(~ended, -torch.inf)], dim=1)
        bars[choice.images] = sums.topk(config.beams).values
        rows, sums = _rows(choice, ~ended & (choice.sums > bars[choice.images, -1:]))
        live = live.extend(choice.parent[rows], choice.word[rows], sums, alpha, state)
        greedy = choice.greedy[rows] & (sums > -torch.inf)
    return [sorted(captions, key=lambda caption: -caption.log_probability)[: config.beams] for captions in found]


def _choose(gains: Tensor, live: Unfinished, greedy: Tensor, beams: int) -> Choice:
    """Of continuations with the log-probabilities ``gains (R, V)``, each image's best ``beams``, and in a further place
    that of its greedy caption where it is not among them.
    """
    gains, words = highest(gains, min(beams, gains.shape[1]))  # (R, K), best first
    images, owner = live.images.unique_consecutive(return_inverse=True)
    layout = by_image(owner, len(images))
    first = greedy.unsqueeze(1) & (torch.arange(gains.shape[1], device=gains.device) == 0)
    sums, first = layout.spread(live.sums.unsqueeze(1) + gains, -torch.inf).flatten(1), layout.spread(first).flatten(1)
    places = sums.topk(min(beams, sums.shape[1])).indices  # of L · K
    further = first.int().argmax(dim=1, keepdim=True)
    lost = first.any(dim=1, keepdim=True) & ~first.gather(1, places).any(dim=1, keepdim=True)
    places, empty = torch.cat([places, further], dim=1), torch.cat([places < 0, ~lost], dim=1)
    sums = sums.gather(1, places).masked_fill_(empty, -torch.inf)
    row = layout.spread(torch.arange(len(owner), device=owner.device).unsqueeze(1)).squeeze(2)  # (G, L)
    parent = row.gather(1, places // gains.shape[1])
    word = words[parent, places % gains.shape[1]]
    return Choice(images, sums, parent, word, first.gather(1, places) & (sums > -torch.inf))


def _rows(choice: Choice, on: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Places of ``choice`` that make the next captions, and the sums of these: those ``on (G, J)``, and some others, of
    images that have one, which fill them up to a multiple of ``ROWS`` and are as if they were not there.
    """
    others = (~on & on.any(dim=1, keepdim=True)).flatten().nonzero().squeeze(1)[: -int(on.sum()) % ROWS]
    sums = choice.sums.masked_fill(~on, -torch.inf)
    rows = on.flatten().index_fill(0, others, True).view_as(on).nonzero(as_tuple=True)
    return rows, sums[rows]
