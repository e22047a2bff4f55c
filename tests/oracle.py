"""The truth of captions of drawn scenes by other means: patterns over their words, arithmetic over the boxes."""

import re

from caption_utils.demo.descriptions import COLOURS, NOUNS, RARE
from caption_utils.demo.scenes import Scene

NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3}
PHRASE = rf"\b(a|an|two|three) ((?:{'|'.join(COLOURS)}) )?({'|'.join(sorted(NOUNS, key=len, reverse=True))})\b"
WORDS_OF_PLACES = {
    "meadow": {"meadow", "grass"},
    "beach": {"beach", "sand"},
    "snow": {"snow"},
    "street": {"street", "night", "dark"},
    "lake": {"lake", "water"},
}


def oracle(caption: str, scene: Scene) -> bool:
    """Whether a grammatical caption is true of ``scene``."""
    text = caption.lower().replace(" ,", "").replace(",", "").removesuffix(" .")
    if re.search(r"\ba [aeiou]|\ban [^aeiou]", text):
        return False
    text = " ".join(RARE.get(word, word) for word in text.split())
    groups = []
    for number, colour, noun in re.findall(PHRASE, text):
        group = [t for t in scene.things if t.kind == NOUNS[noun] and colour.strip() in ("", t.colour)]
        if len(group) != NUMBERS[number]:
            return False
        groups.append([t.box for t in group])
    return (
        _definite_holds(text, scene)
        and _place_holds(text, scene)
        and _position_holds(text, groups, scene.size[0])
        and _disjoint(groups)
    )


def _disjoint(groups: list) -> bool:
    boxes = [box for group in groups for box in group]
    return len(boxes) == len(set(boxes))


def _definite_holds(text: str, scene: Scene) -> bool:
    match = re.fullmatch(r"the (\w+) (is|are) (\w+)", text)
    if not match:
        return True
    group = [t for t in scene.things if t.kind == NOUNS[match[1]]]
    return {t.colour for t in group} == {match[3]} and (len(group) > 1) == (match[2] == "are")


def _place_holds(text: str, scene: Scene) -> bool:
    named = {place for place, words in WORDS_OF_PLACES.items() if words & set(text.split())}
    return named <= {scene.background}


def _position_holds(text: str, groups: list, width: int) -> bool:
    def all_pairs(test):
        return all(test(a, b) for a in groups[0] for b in groups[1])

    if "left of" in text:
        return all_pairs(lambda a, b: b[0] - a[2] >= 10)
    if "right of" in text:
        return all_pairs(lambda a, b: a[0] - b[2] >= 10)
    if "above" in text:
        return all_pairs(lambda a, b: b[1] - a[3] >= 10)
    if "below" in text:
        return all_pairs(lambda a, b: a[1] - b[3] >= 10)
    if "on the left" in text:
        return all(box[2] <= width / 2 - 10 for box in groups[0])
    if "on the right" in text:
        return all(box[0] >= width / 2 + 10 for box in groups[0])
    return True
