"""The words of the demo set's captions: kinds, colours and places, and rare synonyms for some of them."""

from random import Random
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of thing: its width and height in pixels at scale 1, and the words for it.

    ``verbs`` are the singular and the plural; ``preposition``, if any, replaces that of the place.
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
SKY = ("kite", "balloon")  # kinds that fly, and cast no shadow
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


def article(word: str) -> str:
    """``an`` before a vowel, else ``a``."""
    return "an" if word[0] in "aeiou" else "a"


def with_rare_word(sentence: str, rng: Random) -> str:
    """The sentence with one word replaced by a ``RARE`` synonym, if any of its words has one."""
    words = sentence.split()
    weights = {rare: 1 / (1 + rank) ** 2 for rank, (rare, common) in enumerate(RARE.items()) if common in words}
    if not weights:
        return sentence
    [rare] = rng.choices(list(weights), list(weights.values()))
    return " ".join(_replaced(words, words.index(RARE[rare]), rare))


def with_common_words(words: list[str]) -> list[str]:
    """The words with each ``RARE`` one replaced by its common synonym, unless its article is wrong ("a azure")."""
    for place, word in enumerate(words):
        if word in RARE and words == _replaced(words, place, word):
            words = _replaced(words, place, RARE[word])
    return words


def _replaced(words: list[str], place: int, word: str) -> list[str]:
    """The words with ``word`` at ``place``, and the article before it, if any, changed to agree."""
    before = words[:place]
    if before and before[-1] in ("a", "an"):
        before[-1] = article(word)
    return [*before, word, *words[place + 1 :]]
