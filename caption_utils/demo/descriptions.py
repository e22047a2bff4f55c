"""What can be said about a drawn scene: the words, and every true sentence.

The sentences form a small finite language, defined by ``TEMPLATES`` alone: the demo set's captions are sampled from the
true sentences of a scene and ``is_true`` looks a caption up among them, so the two cannot disagree.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, permutations, product
from typing import NamedTuple

from caption_utils.data.vocab import tokenize
from caption_utils.demo.scenes import Box, Scene, Thing


class Kind(NamedTuple):
    """The words for a kind of thing.

    ``verbs`` are the singular and the plural; ``preposition``, if any, replaces that of the place.
    """

    plural: str
    verbs: tuple[str, str]
    preposition: str = ""


KINDS = {
    "ball": Kind("balls", ("lies", "lie")),
    "house": Kind("houses", ("stands", "stand")),
    "tree": Kind("trees", ("stands", "stand")),
    "car": Kind("cars", ("is parked", "are parked")),
    "umbrella": Kind("umbrellas", ("stands", "stand")),
    "flower": Kind("flowers", ("grows", "grow")),
    "boat": Kind("boats", ("floats", "float")),
    "fish": Kind("fish", ("swims", "swim"), "in"),
    "kite": Kind("kites", ("flies", "fly"), "over"),
    "balloon": Kind("balloons", ("floats", "float"), "over"),
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
# rare synonym -> common word; each is rarer than the one before it
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
NOUNS |= {rare: NOUNS[common] for rare, common in RARE.items() if common in NOUNS}
MARGIN = 10  # pixels by which a box must clear another box, or the middle of the picture, to be left or right of it
NEAR = 50  # pixels between two boxes that are next to each other, at most


def article(word: str) -> str:
    """``an`` before a vowel, else ``a``."""
    return "an" if word[0] in "aeiou" else "a"


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


def with_common_words(words: list[str]) -> list[str]:
    """The words with each ``RARE`` one replaced by its common synonym, unless its article is wrong ("a azure")."""
    for place, word in enumerate(words):
        if word in RARE and words == replaced(words, place, word):
            words = replaced(words, place, RARE[word])
    return words


def replaced(words: list[str], place: int, word: str) -> list[str]:
    """The words with ``word`` at ``place``, and the article before it, if any, changed to agree."""
    before = words[:place]
    if before and before[-1] in ("a", "an"):
        before[-1] = article(word)
    return [*before, word, *words[place + 1 :]]
