"""What can be said about a drawn scene: its things, the sentences true of it, and captions chosen from them.

The sentences form a small finite language, defined by ``MANNERS`` alone: ``captions`` draws from the true sentences
of a scene and ``is_true`` looks a caption up among them, so the two cannot disagree.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, permutations, product
from random import Random
from typing import NamedTuple

from caption_utils.data.vocab import tokenize

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Thing:
    """One drawn object; ``box`` is (left, top, right, bottom) in pixels, right and bottom exclusive."""

    kind: str
    colour: str
    box: Box


@dataclass(frozen=True)
class Scene:
    """A background and the one to three things on it; ``size`` is the picture's width and height in pixels."""

    background: str
    things: tuple[Thing, ...]
    size: tuple[int, int] = (224, 224)

    @property
    def horizon(self) -> int:
        """Pixels from the top to where sky and ground meet."""
        return self.size[1] // 2


class Kind(NamedTuple):
    """A kind of thing: its width and height in pixels at scale 1, and how it is spoken of.

    ``verbs`` are for one and for several; the ``preposition``, if any, replaces that of the place.
    """

    extent: tuple[int, int]
    plural: str
    verbs: tuple[str, str]
    preposition: str = ""


KINDS = {
    "ball": Kind((58, 58), "balls", ("lies", "lie")),
    "house": Kind((80, 78), "houses", ("stands", "stand")),
    "tree": Kind((62, 84), "trees", ("stands", "stand")),
    "car": Kind((90, 54), "cars", ("is parked", "are parked")),
    "umbrella": Kind((74, 74), "umbrellas", ("stands", "stand")),
    "flower": Kind((54, 76), "flowers", ("grows", "grow")),
    "boat": Kind((82, 74), "boats", ("floats", "float")),
    "fish": Kind((82, 52), "fish", ("swims", "swim"), "in"),
    "kite": Kind((62, 80), "kites", ("flies", "fly"), "over"),
    "balloon": Kind((62, 80), "balloons", ("floats", "float"), "over"),
}
COLOURS = ("red", "yellow", "green", "blue", "purple")
COUNTS = {2: "two", 3: "three"}
PLACES = {
    "meadow": (("in", "the meadow"), ("on", "the grass")),
    "beach": (("on", "the beach"), ("on", "the sand")),
    "snow": (("in", "the snow"), ("on", "the snow")),
    "street": (("on", "the dark street"), ("on", "the street at night")),
    "lake": (("on", "the lake"), ("on", "the water")),
}
# seldom said -> what is usually said; the later in the list, the more seldom
RARE = {
    "cottage": "house",
    "golden": "yellow",
    "automobile": "car",
    "parasol": "umbrella",
    "crimson": "red",
    "sailboat": "boat",
    "emerald": "green",
    "cottages": "houses",
    "blossom": "flower",
    "violet": "purple",
    "parasols": "umbrellas",
    "azure": "blue",
    "automobiles": "cars",
    "sailboats": "boats",
    "scarlet": "red",
    "blossoms": "flowers",
    "sphere": "ball",
    "lilac": "purple",
    "spheres": "balls",
    "turquoise": "blue",
}
NOUNS = {noun: name for name, kind in KINDS.items() for noun in (name, kind.plural)}
NOUNS |= {rare: NOUNS[usual] for rare, usual in RARE.items() if usual in NOUNS}
MARGIN = 10  # pixels between a box and another box, or the middle of the picture, that it is clearly beside
RARELY = 0.04  # the share of captions that may have a rare word
NEAR = 50  # pixels between two boxes that are still next to each other, at most


class Phrase(NamedTuple):
    """All things of one kind, or of one kind and colour, in a scene ("two red balls"), and the words that agree."""

    things: tuple[Thing, ...]
    colour: str  # empty if none is named
    noun: str
    be: str
    verb: str
    preposition: str
    middle: float  # of the picture, in pixels from its left side

    def __str__(self) -> str:
        words = f"{self.colour} {self.noun}".strip()
        return f"{article(words) if len(self.things) == 1 else COUNTS[len(self.things)]} {words}"


def article(word: str) -> str:
    """``an`` before a vowel, else ``a``."""
    return "an" if word[0] in "aeiou" else "a"


def _phrase(scene: Scene, name: str, colour: str) -> Phrase:
    things = tuple(thing for thing in scene.things if thing.kind == name and colour in ("", thing.colour))
    kind, several = KINDS[name], len(things) > 1
    noun, be = (kind.plural, "are") if several else (name, "is")
    return Phrase(things, colour, noun, be, kind.verbs[several], kind.preposition, scene.size[0] / 2)


Condition = Callable[..., bool]  # of one, two or three phrases


def _each(relation: Callable[..., bool]) -> Condition:
    """A relation of boxes as a condition of phrases: it must hold between all things of one and all of the other."""
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


def _off(box: Box, middle: float) -> float:
    """How far the middle of a box is from the middle of the picture."""
    return abs((box[0] + box[2]) / 2 - middle)


def _colours(phrase: Phrase) -> set[str]:
    return {thing.colour for thing in phrase.things}


# manner of speaking -> templates, each with the condition on its phrases under which it is true
MANNERS: dict[str, list[tuple[str, Condition]]] = {
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
        ("{a} {a.be} in the middle", lambda a: all(_off(t.box, a.middle) <= 2 * MARGIN for t in a.things)),
        ("{a} {a.be} next to {b}", _each(_next_to)),
    ],
    "colour": [("the {a.noun} {a.be} {a.things[0].colour}", lambda a: not a.colour and len(_colours(a)) == 1)],
}


def _choices(scene: Scene, size: int) -> Iterator[tuple[Phrase, ...]]:
    """Ordered choices of ``size`` phrases that share no thing. Counts are exact; colours are named or not."""
    keys = dict.fromkeys((thing.kind, colour) for thing in scene.things for colour in (thing.colour, ""))
    for chosen in permutations([_phrase(scene, *key) for key in keys], size):
        things = [thing for phrase in chosen for thing in phrase.things]
        if len(set(things)) == len(things):
            yield chosen


@lru_cache(maxsize=1024)
def true_sentences(scene: Scene) -> dict[str, list[str]]:
    """Manner of speaking → every sentence of the language, lower case, that is true of ``scene``."""
    return {manner: list(dict.fromkeys(_sentences(manner, scene))) for manner in MANNERS}


def _sentences(manner: str, scene: Scene) -> Iterator[str]:
    for template, condition in MANNERS[manner]:
        names = [name for name in "abc" if f"{{{name}" in template]
        for chosen in filter(lambda phrases: condition(*phrases), _choices(scene, len(names))):
            for own, noun in PLACES[scene.background]:
                place = f"{chosen[0].preposition or own} {noun}"
                yield template.format(**dict(zip(names, chosen, strict=True)), place=place)


def captions(scene: Scene, rng: Random) -> list[str]:
    """Five different true captions, each manner in turn; those that name more colours are more likely.

    Now and then one word is put in a way that is ``RARE``.
    """
    pools = [pool for pool in true_sentences(scene).values() if pool]
    chosen: list[str] = []
    while len(chosen) < 5:
        pool = pools[len(chosen) % len(pools)]
        rest = [s for s in pool if s not in chosen] or [s for s in pools[0] if s not in chosen]
        weights = [(1 + sum(word in COLOURS for word in sentence.split())) ** 3 for sentence in rest]
        chosen += rng.choices(rest, weights)
    rng.shuffle(chosen)
    spoken = [_put_rarely(sentence, rng) if rng.random() < RARELY else sentence for sentence in chosen]
    return [f"{sentence[0].upper()}{sentence[1:]} ." for sentence in spoken]


def _put_rarely(sentence: str, rng: Random) -> str:
    """The sentence with one word in a rare way, the commoner ways being more likely, if it has such a word."""
    words = sentence.split()
    ways = [(rare, words.index(usual)) for rare, usual in RARE.items() if usual in words]
    if not ways:
        return sentence
    weights = [1 / (1 + list(RARE).index(rare)) ** 2 for rare, _ in ways]
    [(rare, place)] = rng.choices(ways, weights)
    return " ".join(_with_article([*words[:place], rare, *words[place + 1 :]], place))


def _with_article(words: list[str], place: int) -> list[str]:
    """The words, the article before ``place``, if any, being right for the word there."""
    before = words[place - 1 : place] if place else []
    return [*words[: place - 1], article(words[place]), *words[place:]] if before in (["a"], ["an"]) else words


def _put_usually(words: list[str]) -> list[str]:
    """The words with each rare one put as usual."""
    for place, word in enumerate(words):
        if word in RARE and _with_article(words, place) == words:
            words = _with_article([*words[:place], RARE[word], *words[place + 1 :]], place)
    return words


def is_true(caption: str, scene: Scene) -> bool:
    """Whether ``caption`` is a sentence of the language and each of its claims holds in ``scene``.

    Counts are exact ("a red ball" is false of two red balls), and relations must hold for every thing named, by
    ``MARGIN`` pixels. Case and punctuation do not matter; a word outside the language makes the caption false.
    """
    spoken = " ".join(_put_usually(tokenize(caption)))
    return any(spoken == sentence.replace(",", "") for sentence in chain(*true_sentences(scene).values()))


def mentions(tokens: Sequence[str]) -> dict[int, str]:
    """Position → kind for each token that is a kind's noun: ``["two", "red", "balls"]`` → ``{2: "ball"}``."""
    return {i: NOUNS[token] for i, token in enumerate(tokens) if token in NOUNS}
