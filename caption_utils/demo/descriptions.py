"""What can be said about a drawn scene: its things, the sentences true of it, and captions chosen from them.

The sentences form a small finite language. ``MANNERS`` is the only place that defines it: ``captions`` draws
from the true sentences of a scene and ``is_true`` looks a caption up among them, so the two cannot disagree.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, permutations
from random import Random

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
    """A background and the one to three things on it."""

    background: str
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Kind:
    """How a kind of thing is spoken of: plural, verb for one and for several, and the
    preposition that overrules the place's own."""

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
COUNTS = {1: "a", 2: "two", 3: "three"}
PLACES = {
    "meadow": (("in", "the meadow"), ("on", "the grass")),
    "beach": (("on", "the beach"), ("on", "the sand")),
    "snow": (("in", "the snow"), ("on", "the snow")),
    "street": (("on", "the dark street"), ("on", "the street at night")),
    "lake": (("on", "the lake"), ("on", "the water")),
}
NOUNS = {noun: name for name, kind in KINDS.items() for noun in (name, kind.plural)}
SIZE = 224  # pixels, both sides of a picture
MARGIN = 10  # pixels by which a box must be clear of another box, or of the middle line of the picture
NEAR = 50  # pixels between two boxes that are still next to each other


@dataclass(frozen=True)
class Phrase:
    """All things of one kind, or of one kind and colour, in a scene: "two red balls"."""

    kind: str
    colour: str
    things: tuple[Thing, ...]

    def __str__(self) -> str:
        words = f"{self.colour} {self.noun}".strip()
        count = "an" if len(self.things) == 1 and words[0] in "aeiou" else COUNTS[len(self.things)]
        return f"{count} {words}"

    @property
    def noun(self) -> str:
        return self.kind if len(self.things) == 1 else KINDS[self.kind].plural

    @property
    def be(self) -> str:
        return "is" if len(self.things) == 1 else "are"

    @property
    def verb(self) -> str:
        return KINDS[self.kind].verbs[len(self.things) > 1]

    @property
    def preposition(self) -> str:
        return KINDS[self.kind].preposition

    @property
    def shared_colour(self) -> str:
        """The colour of all the things, where they have one in common."""
        colours = {thing.colour for thing in self.things}
        return colours.pop() if len(colours) == 1 else ""


def left_of(a: Box, b: Box) -> bool:
    """Whether box ``a`` ends at least ``MARGIN`` pixels left of ``b``."""
    return a[2] + MARGIN <= b[0]


def above(a: Box, b: Box) -> bool:
    """Whether box ``a`` ends at least ``MARGIN`` pixels above ``b``."""
    return a[3] + MARGIN <= b[1]


def next_to(a: Box, b: Box) -> bool:
    """Whether the boxes stand side by side: ``NEAR`` pixels apart at most, half the smaller height shared."""
    gap = max(a[0], b[0]) - min(a[2], b[2])
    shared = min(a[3], b[3]) - max(a[1], b[1])
    return 0 <= gap <= NEAR and 2 * shared >= min(a[3] - a[1], b[3] - b[1])


def _each(relation: Callable[[Box, Box], bool]) -> Callable[..., bool]:
    """``relation`` between phrases: every thing of the first to every thing of the second."""
    return lambda a, b: all(relation(one.box, other.box) for one in a.things for other in b.things)


def _always(*phrases: Phrase) -> bool:
    return True


def _same_preposition(a: Phrase, b: Phrase) -> bool:
    return a.preposition == b.preposition


def _not_coloured_yet(a: Phrase) -> bool:
    return not a.colour and bool(a.shared_colour)


def _on_the_left(a: Phrase) -> bool:
    return all(thing.box[2] + MARGIN <= SIZE // 2 for thing in a.things)


def _on_the_right(a: Phrase) -> bool:
    return all(thing.box[0] - MARGIN >= SIZE // 2 for thing in a.things)


def _in_the_middle(a: Phrase) -> bool:
    return all(abs(thing.box[0] + thing.box[2] - SIZE) <= 4 * MARGIN for thing in a.things)


def _flies(a: Phrase) -> bool:
    return a.preposition == "over"


def _flies_above(a: Phrase, b: Phrase) -> bool:
    return _flies(a) and _each(above)(a, b)


# manner of speaking -> (template, condition on its phrases under which it is true)
MANNERS: dict[str, list[tuple[str, Callable[..., bool]]]] = {
    "place": [
        ("{a} {a.verb} {place}", _always),
        ("{a} {place}", _always),
        ("there {a.be} {a} {place}", _always),
        ("{a} {a.verb} in the sky", _flies),
    ],
    "list": [
        ("{a} and {b}", _always),
        ("there {a.be} {a} and {b}", _always),
        ("{a} and {b} {place}", _same_preposition),
        ("{a}, {b} and {c}", _always),
    ],
    "position": [
        ("{a} {a.be} to the left of {b}", _each(left_of)),
        ("{b} {b.be} to the right of {a}", _each(left_of)),
        ("{a} {a.be} above {b}", _each(above)),
        ("{b} {b.be} below {a}", _each(above)),
        ("{a} {a.verb} above {b}", _flies_above),
        ("{a} {a.be} on the left", _on_the_left),
        ("{a} {a.be} on the right", _on_the_right),
        ("{a} {a.be} in the middle", _in_the_middle),
        ("{a} {a.be} next to {b}", _each(next_to)),
    ],
    "colour": [("the {a.noun} {a.be} {a.shared_colour}", _not_coloured_yet)],
}


def _phrases(scene: Scene) -> list[Phrase]:
    """Every phrase whose count is exact in the scene, with and without colour."""
    keys = dict.fromkeys((thing.kind, colour) for thing in scene.things for colour in (thing.colour, ""))
    matches = {
        (kind, colour): tuple(t for t in scene.things if t.kind == kind and colour in ("", t.colour))
        for kind, colour in keys
    }
    return [Phrase(kind, colour, things) for (kind, colour), things in matches.items()]


def _choices(scene: Scene, size: int) -> Iterator[tuple[Phrase, ...]]:
    """Ordered choices of ``size`` phrases that share no thing."""
    for chosen in permutations(_phrases(scene), size):
        things = [thing for phrase in chosen for thing in phrase.things]
        if len(set(things)) == len(things):
            yield chosen


def true_sentences(scene: Scene) -> dict[str, list[str]]:
    """Manner of speaking → every sentence of the language, lower case, that is true of ``scene``."""
    spoken: dict[str, dict[str, None]] = {manner: {} for manner in MANNERS}
    for manner, templates in MANNERS.items():
        for template, condition in templates:
            names = [name for name in "abc" if f"{{{name}" in template]
            for chosen in _choices(scene, len(names)):
                if condition(*chosen):
                    fill = dict(zip(names, chosen, strict=True))
                    for own, noun in PLACES[scene.background]:
                        place = f"{chosen[0].preposition or own} {noun}"
                        spoken[manner][template.format(**fill, place=place)] = None
    return {manner: list(sentences) for manner, sentences in spoken.items()}


def captions(scene: Scene, rng: Random) -> list[str]:
    """Five different true captions, manners in turn, those that name more colours preferred."""
    pools = [pool for pool in true_sentences(scene).values() if pool]
    chosen: list[str] = []
    while len(chosen) < 5:
        pool = pools[len(chosen) % len(pools)]
        rest = [s for s in pool if s not in chosen] or [s for s in pools[0] if s not in chosen]
        weights = [(1 + sum(word in COLOURS for word in sentence.split())) ** 3 for sentence in rest]
        chosen += rng.choices(rest, weights)
    rng.shuffle(chosen)
    return [f"{sentence[0].upper()}{sentence[1:]} ." for sentence in chosen]


def is_true(caption: str, scene: Scene) -> bool:
    """Whether ``caption`` is a sentence of the language and each of its claims holds in ``scene``.

    Counts are exact ("a red ball" is false of two red balls), and relations hold for every thing named, by
    ``MARGIN`` pixels. Case and punctuation do not matter; a word outside the language makes it false.
    """
    spoken = " ".join(tokenize(caption))
    return any(spoken == sentence.replace(",", "") for sentence in chain(*true_sentences(scene).values()))


def mentions(tokens: Sequence[str]) -> dict[int, str]:
    """Position → kind for each token that is a kind's noun: ``["two", "red", "balls"]`` → ``{2: "ball"}``."""
    return {i: NOUNS[token] for i, token in enumerate(tokens) if token in NOUNS}
