"""From next-word probabilities to the best sentences, many images at once.

A decoder is anything with ``init_state`` and ``step``; what it carries from word to word has ``select`` and
``map_recurrent``, as ``decoder.State`` has.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from caption_utils.decoder import Decoder
from caption_utils.errors import InputError
from caption_utils.hypotheses import Hypothesis, Unfinished, follow
from caption_utils.limits import Limits, next_scores
from caption_utils.vocab import Vocabulary

BEAMS = 5
LENGTH_PENALTY = 0.7  # a compromise on validation images: BLEU-4 wants less, ROUGE-L wants more
NO_REPEAT = 3  # words; raises every score on validation images a little
IMAGES_AT_ONCE = 50  # fewer are slower, more are not faster


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


@torch.inference_mode()
def beam_search(decoder: Decoder, features: Tensor, config: SearchConfig | int = BEAMS) -> list[list[Hypothesis]]:
    """1 to ``beams`` captions for each image of ``features (B, N, D)``, best score first; ``config`` may be ``beams``.

    At each step an image keeps, of all one-word continuations of its captions, the K likeliest; those that end leave
    the beam. It is done when K ended captions are likelier than all that go on. These K are found by log-probability
    alone; the length penalty orders them. The greedy caption is followed even where the beam has left it, so that the
    likeliest of the K is never less likely than that one: without a penalty, the first is not; with one, the first
    has the greedy caption's score or better, unless K captions likelier than the greedy one were found.
    """
    config = config if isinstance(config, SearchConfig) else SearchConfig(config)
    chunks = features.split(IMAGES_AT_ONCE) if len(features) else ()
    found = [captions for chunk in chunks for captions in _search(decoder, chunk, config)]
    return [sorted(captions, key=lambda caption: -caption.score(config.length_penalty)) for captions in found]


def _search(decoder: Decoder, features: Tensor, config: SearchConfig) -> list[list[Hypothesis]]:
    """The likeliest captions of each image, likeliest first."""
    found: list[list[Hypothesis]] = [[] for _ in features]
    live = Unfinished.start(decoder, features)
    greedy = torch.zeros_like(live.images)  # (B,), which beam is the greedy caption
    bars = features.new_full((len(features), config.beams), -torch.inf)  # log-probabilities of the best ended captions
    while len(live.images):
        logits, alpha, state = decoder.step(live.ids[..., -1], live.state)
        gains = next_scores(logits, live.ids, config)  # (B, J, V)
        sums, choice, greedy = _choose(gains.add_(live.sums.unsqueeze(-1)), greedy, config.beams)
        parent, word = choice // gains.shape[-1], choice % gains.shape[-1]
        ended = (word == Vocabulary.eos) & (sums > -torch.inf)
        for image, _, hypothesis in live.finished(parent, ended, sums):
            found[image].append(hypothesis)
        bars = torch.cat([bars, sums.masked_fill(~ended, -torch.inf)], dim=1).topk(config.beams).values
        live = live.extend(parent, word, sums.masked_fill(ended, -torch.inf), alpha, state)
        rows = (live.sums.amax(dim=1) > bars[:, -1]).nonzero().squeeze(1)
        live, greedy, bars = live.select(rows), greedy[rows], bars[rows]
    return [sorted(captions, key=lambda caption: -caption.log_probability)[: config.beams] for captions in found]


def _choose(sums: Tensor, greedy: Tensor, beams: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of continuations ``sums (B, J, V)`` the best ``beams``, and the greedy one in a further place where it is not
    among them: their sums, their places in J · V, and which is the greedy one. ``greedy (B,)`` tells its parent.
    """
    flat = sums.flatten(1)
    values, places = flat.topk(min(beams, flat.shape[1]))
    if beams == 1:
        return values, places, greedy
    words = follow(sums, greedy.unsqueeze(1)).argmax(dim=-1)  # (B, 1)
    first = greedy.unsqueeze(1) * sums.shape[-1] + words
    among = places == first
    lost = ~among.any(dim=1, keepdim=True)
    values = torch.cat([values, flat.gather(1, first).masked_fill(~lost, -torch.inf)], dim=1)
    return values, torch.cat([places, first], dim=1), torch.cat([among, lost], dim=1).int().argmax(dim=1)
