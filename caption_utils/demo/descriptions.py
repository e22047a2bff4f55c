"""What can be said about a drawn scene: every true sentence, and captions sampled from them.

The sentences form a small finite language, defined by ``TEMPLATES`` alone: ``captions`` samples the true sentences of a
scene and ``is_true`` looks a caption up among them, so the two cannot disagree.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, permutations, product
from random import Random
from typing import NamedTuple

from caption_utils.data.vocab import tokenize
from caption_utils.demo.words import (
    COLOURS,
    COUNTS,
    KINDS,
    NOUNS,
    PLACES,
    article,
    with_common_words,
    with_rare_word,
)

Box = tuple[int, int, int, int]
MARGIN = 10  # pixels by which a box must clear another box, or the middle of the picture, to be left or right of it
NEAR = 50  # pixels between two boxes that are next to each other, at most
RARELY = 0.04  # share of captions that get a rare word


@dataclass(frozen=True)
class Thing:
    """One drawn object; ``box`` is (left, top, right, bottom) in pixels, right and bottom exclusive."""

    kind: str
    colour: str
    box: Box


@dataclass(frozen=True)
class Scene:
    """A background with one to three things; ``size`` is the picture's width and height in pixels."""

    background: str
    things: tuple[Thing, ...]
    size: tuple[int, int] = (224, 224)

    @property
    def horizon(self) -> int:
        """Pixels from the top to where sky and ground meet."""
        return self.size[1] // 2


class Phrase(NamedTuple):
    """All things of one kind, or of one kind and colour, in a scene ("two red balls"), and the words that agree."""

    things: tuple[Thing, ...]
    colour: str  # empty if none is named
    noun: str
    be: str
    verb: str
    preposition: str
    middle: float  # of the picture, in pixels from its left edge

    def __str__(self) -> str:
        words = f"{self.colour} {self.noun}".strip()
        return f"{article(words) if len(self.things) == 1 else COUNTS[len(self.things)]} {words}"


def _phrase(scene: Scene, name: str, colour: str) -> Phrase:
    things = tuple(thing for thing in scene.things if thing.kind == name and colour in ("", thing.colour))
    kind, several = KINDS[name], len(things) > 1
    noun, be = (kind.plural, "are") if several else (name, "is")
    return Phrase(things, colour, noun, be, kind.verbs[several], kind.preposition, scene.size[0] / 2)


Condition = Callable[..., bool]  # on one, two or three phrases


def _each(relation: Callable[..., bool]) -> Condition:
    """A relation of boxes as a condition on phrases: it must hold for every combination of their things."""
    return lambda *phrases: all(relation(*(t.box for t in things)) for things in product(*(p.things for p in phrases)))


def _always(*phrases: Phrase) -> bool:
    return True


def _left_of(a: Box, b: Box) -> bool:
    return a[2] + MARGIN <= b[0]


def _above(a: Box, b: Box) -> bool:
    return a[3] + MARGIN <= b[1]


def _next_to(a: Box, b: Box) -> bool:
    """Side by side: at most ``NEAR`` pixels apart, and level for at least half the smaller height."""
    gap = max(a[0], b[0]) - min(a[2], b[2])
    shared = min(a[3], b[3]) - max(a[1], b[1])
    return 0 <= gap <= NEAR and 2 * shared >= min(a[3] - a[1], b[3] - b[1])


# type of sentence -> templates, each with the condition on its phrases under which it is true
TEMPLATES: dict[str, list[tuple[str, Condition]]] = {
    "place": [
        ("{a} {a.verb} {place}", _always),
        ("{a} {place}", _always),
        ("there {a.be} {a} {place}", _always),
        ("{a} {a.verb} in the sky", lambda a: a.preposition == "over"),
    ],
    "list": [
        ("{a} and {b}", _always),
        ("there {a.be} {a} and {b}", _always),
        ("{a} and {b} {place}", lambda a, b: a.preposition == b.preposition),
        ("{a}, {b} and {c}", _always),
    ],
    "position": [
        ("{a} {a.be} to the left of {b}", _each(_left_of)),
        ("{b} {b.be} to the right of {a}", _each(_left_of)),
        ("{a} {a.be} above {b}", _each(_above)),
        ("{b} {b.be} below {a}", _each(_above)),
        ("{a} {a.verb} above {b}", lambda a, b: a.preposition == "over" and _each(_above)(a, b)),
        ("{a} {a.be} on the left", lambda a: all(t.box[2] + MARGIN <= a.middle for t in a.things)),
        ("{a} {a.be} on the right", lambda a: all(t.box[0] - MARGIN >= a.middle for t in a.things)),
        ("{a} {a.be} next to {b}", _each(_next_to)),
    ],
    "colour": [
        ("the {a.noun} {a.be} {a.things[0].colour}", lambda a: not a.colour and len({t.colour for t in a.things}) == 1)
    ],
}


def _choices(scene: Scene, size: int) -> Iterator[tuple[Phrase, ...]]:
    """Ordered choices of ``size`` phrases that share no thing, each with its colour named or not."""
    keys = dict.fromkeys((thing.kind, colour) for thing in scene.things for colour in (thing.colour, ""))
    for chosen in permutations([_phrase(scene, *key) for key in keys], size):
        things = [thing for phrase in chosen for thing in phrase.things]
        if len(set(things)) == len(things):
            yield chosen


@lru_cache(maxsize=1024)
def true_sentences(scene: Scene) -> dict[str, list[str]]:
    """Type of sentence → every sentence of the language, in lower case, that is true of ``scene``."""
    return {name: list(dict.fromkeys(_sentences(scene, templates))) for name, templates in TEMPLATES.items()}


def _sentences(scene: Scene, templates: list[tuple[str, Condition]]) -> Iterator[str]:
    for template, condition in templates:
        names = [name for name in "abc" if f"{{{name}" in template]
        for chosen in filter(lambda phrases: condition(*phrases), _choices(scene, len(names))):
            for own, noun in PLACES[scene.background]:
                place = f"{chosen[0].preposition or own} {noun}"
                yield template.format(**dict(zip(names, chosen, strict=True)), place=place)


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


def is_true(caption: str, scene: Scene) -> bool:
    """Whether ``caption`` is a sentence of the language and everything it says holds in ``scene``.

    Counts are exact ("a red ball" is false of two red balls), and relations must hold for every thing named, by
    ``MARGIN`` pixels. Case and punctuation do not matter; a word outside the language makes the caption false.
    """
    said = " ".join(with_common_words(tokenize(caption)))
    return any(said == sentence.replace(",", "") for sentence in chain(*true_sentences(scene).values()))


def mentions(tokens: Sequence[str]) -> dict[int, str]:
    """Position → kind for each token that is a kind's noun: ``["two", "red", "balls"]`` → ``{2: "ball"}``."""
    return {i: NOUNS[token] for i, token in enumerate(tokens) if token in NOUNS}
