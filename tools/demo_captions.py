"""Captions of drawn scenes for ``tools/demo_set.py``, sampled from all true sentences."""

from collections.abc import Sequence
from random import Random

from caption_utils.demo.descriptions import COLOURS, RARE, mentions, replaced, true_sentences
from caption_utils.demo.scenes import Scene

RARELY = 0.04  # share of captions that get a rare word


def captions(scene: Scene, rng: Random) -> list[str]:
    """Five different true captions, the types of sentence in turn, that first name a thing of the largest one's kind.

    Those that name more colours are more likely. A few get a rare word.
    """
    pools = [pool for sentences in true_sentences(scene).values() if (pool := _about(_largest(scene), sentences))]
    chosen: list[str] = []
    while len(chosen) < 5:
        pool = pools[len(chosen) % len(pools)]
        rest = [s for s in pool if s not in chosen] or [s for s in pools[0] if s not in chosen]
        weights = [(1 + sum(word in COLOURS for word in sentence.split())) ** 3 for sentence in rest]
        chosen += rng.choices(rest, weights)
    rng.shuffle(chosen)
    worded = [with_rare_word(sentence, rng) if rng.random() < RARELY else sentence for sentence in chosen]
    return [f"{sentence[0].upper()}{sentence[1:]} ." for sentence in worded]


def _largest(scene: Scene) -> str:
    """The kind of the thing with the largest box."""
    largest = max(scene.things, key=lambda t: (t.box[2] - t.box[0]) * (t.box[3] - t.box[1]))
    return largest.kind


def _about(kind: str, sentences: Sequence[str]) -> list[str]:
    """Those of the sentences in which the first thing named is of this kind."""
    return [
        sentence for sentence in sentences if next(iter(mentions(sentence.replace(",", "").split()).values())) == kind
    ]


def with_rare_word(sentence: str, rng: Random) -> str:
    """The sentence with one word replaced by a ``RARE`` synonym, if any of its words has one."""
    words = sentence.split()
    weights = {rare: 1 / (1 + rank) ** 2 for rank, (rare, common) in enumerate(RARE.items()) if common in words}
    if not weights:
        return sentence
    [rare] = rng.choices(list(weights), list(weights.values()))
    return " ".join(replaced(words, words.index(RARE[rare]), rare))
