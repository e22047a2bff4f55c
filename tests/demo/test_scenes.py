"""The demo set: committed files, pictures, captions, and the truth of captions."""

import csv
import hashlib
import re
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from caption_utils.data.vocab import tokenize
from caption_utils.demo import scenes
from caption_utils.demo.descriptions import KINDS, NOUNS, PLACES, Scene, Thing, captions, is_true, mentions
from caption_utils.demo.drawing import PALETTE, draw
from caption_utils.demo.scenes import DEMO, load_scenes, write_set
from caption_utils.errors import InputError

NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3}
PHRASE = rf"\b(a|an|two|three) ((?:{'|'.join(PALETTE)}) )?({'|'.join(sorted(NOUNS, key=len, reverse=True))})\b"
WORDS_OF_PLACES = {
    "meadow": {"meadow", "grass"},
    "beach": {"beach", "sand"},
    "snow": {"snow"},
    "street": {"street", "night", "dark"},
    "lake": {"lake", "water"},
}


@pytest.fixture(scope="module")
def demo() -> dict[str, Scene]:
    return load_scenes(DEMO)


@pytest.fixture(scope="module")
def told() -> dict[str, list[str]]:
    """File name → captions of the committed set."""
    with open(DEMO / "captions.txt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    by_name = defaultdict(list)
    for row in rows:
        by_name[row["image"]].append(row["caption"])
    return dict(by_name)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def oracle(caption: str, scene: Scene) -> bool:
    """Truth of a grammatical caption, found otherwise: patterns over its words, arithmetic over the boxes."""
    text = caption.lower().replace(" ,", "").replace(",", "").removesuffix(" .")
    groups = []
    for number, colour, noun in re.findall(PHRASE, text):
        group = [t for t in scene.things if t.kind == NOUNS[noun] and colour.strip() in ("", t.colour)]
        if len(group) != NUMBERS[number]:
            return False
        groups.append([t.box for t in group])
    return (
        _definite_holds(text, scene)
        and _place_holds(text, scene)
        and _position_holds(text, groups)
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


def _position_holds(text: str, groups: list) -> bool:
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
        return all(box[2] <= 102 for box in groups[0])
    if "on the right" in text:
        return all(box[0] >= 122 for box in groups[0])
    if "in the middle" in text:
        return all(92 <= (box[0] + box[2]) / 2 <= 132 for box in groups[0])
    return True


@pytest.mark.slow
def test_regenerating_gives_the_committed_bytes(tmp_path):
    write_set(tmp_path / "again")
    assert digests(tmp_path / "again") == digests(DEMO)


def test_the_set_is_complete_and_small(demo, told):
    splits = {split: (DEMO / split).read_text().split() for split in scenes.SPLITS}
    assert {split: len(names) for split, names in splits.items()} == scenes.SPLITS
    listed = [name for names in splits.values() for name in names]
    assert len(listed) == len(set(listed)) == 600
    assert set(listed) == set(demo) == set(told) == {path.name for path in (DEMO / "Images").iterdir()}
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) <= 4_000_000


def test_no_test_scene_occurs_in_training(demo):
    train = {demo[name] for name in (DEMO / "trainImages.txt").read_text().split()}
    rest = {demo[name] for split in ("devImages.txt", "testImages.txt") for name in (DEMO / split).read_text().split()}
    assert not train & rest


def test_every_caption_is_true_and_five_differ(demo, told):
    for name, sentences in told.items():
        assert len(sentences) == len(set(map(str.lower, sentences))) == 5, name
        for sentence in sentences:
            assert is_true(sentence, demo[name]), (name, sentence)
            assert oracle(sentence, demo[name]), (name, sentence)


def test_vocabulary_is_small_and_every_word_can_be_learnt(told):
    words = {name: tokenize(" ".join(sentences)) for name, sentences in told.items()}
    everywhere = set().union(*words.values())
    train = Counter(word for name in (DEMO / "trainImages.txt").read_text().split() for word in words[name])
    assert 40 <= len(everywhere) <= 70
    assert min(train[word] for word in everywhere) >= 3


SWAPS = [
    ("red", "blue"),
    ("green", "purple"),
    ("yellow", "red"),
    ("left", "right"),
    ("above", "below"),
    ("two", "three"),
    ("car", "house"),
    ("kite", "balloon"),
    ("fish", "boat"),
    ("snow", "sand"),
]


@pytest.mark.parametrize("one, other", SWAPS)
def test_captions_with_words_swapped_are_true_only_where_the_scene_says_so(demo, told, one, other):
    swap = {one: other, other: one}
    judged = []
    for name in list(demo)[:200]:
        for caption in told[name]:
            changed = " ".join(swap.get(word, word) for word in caption.split())
            if changed != caption:
                judged.append((is_true(changed, demo[name]), oracle(changed, demo[name]), changed))
    assert judged
    assert [j for j in judged if j[0] and not j[1]] == []
    assert sum(not true for true, *_ in judged) > len(judged) / 2


@pytest.fixture
def yard() -> Scene:
    """Two red balls and a blue kite to the left of, and above, a green tree on the grass."""
    return Scene(
        "meadow",
        (
            Thing("ball", "red", (10, 130, 60, 180)),
            Thing("ball", "red", (70, 150, 120, 200)),
            Thing("tree", "green", (150, 120, 210, 200)),
            Thing("kite", "blue", (20, 10, 80, 90)),
        ),
    )


@pytest.mark.parametrize(
    "caption, truth",
    [
        ("Two red balls lie on the grass .", True),
        ("two red balls are to the left of a green tree", True),
        ("A tree is to the right of two balls.", True),
        ("A blue kite flies above a green tree .", True),
        ("The balls are red .", True),
        ("The tree is green", True),
        ("Two red balls, a green tree and a blue kite .", True),
        ("A green tree is next to a blue kite .", False),
        ("A red ball lies on the grass .", False),
        ("Three red balls lie on the grass .", False),
        ("Two blue balls lie on the grass .", False),
        ("Two red cars are parked on the grass .", False),
        ("Two red balls lie on the sand .", False),
        ("Two red balls are to the right of a green tree .", False),
        ("A blue kite flies below a green tree .", False),
        ("A blue kite on the grass .", False),
        ("The tree is red .", False),
        ("The trees are green .", False),
        ("Two red ball lie on the grass .", False),
        ("Two red balls lies on the grass .", False),
        ("Two red <unk> lie on the grass .", False),
        ("Two red balls lie on the grass the grass .", False),
        ("Two red balls and two balls .", False),
        ("A photograph of a green tree .", False),
        ("", False),
    ],
)
def test_truth(yard, caption, truth):
    assert is_true(caption, yard) is truth


def test_mixed_colours_count_as_one_kind():
    scene = Scene("beach", (Thing("ball", "red", (10, 130, 70, 190)), Thing("ball", "blue", (90, 130, 150, 190))))
    assert is_true("two balls lie on the sand", scene)
    assert is_true("a red ball is next to a blue ball", scene)
    assert not is_true("a ball lies on the sand", scene)
    assert not is_true("two red balls lie on the sand", scene)
    assert not is_true("the balls are red", scene)


def test_a_relation_needs_a_clear_margin():
    def pair(gap):
        return Scene(
            "snow",
            (Thing("car", "red", (10, 130, 90, 180)), Thing("ball", "blue", (90 + gap, 125, 150 + gap, 185))),
        )

    assert is_true("a red car is to the left of a blue ball", pair(10))
    assert not is_true("a red car is to the left of a blue ball", pair(9))
    assert is_true("a red car is next to a blue ball", pair(50))
    assert not is_true("a red car is next to a blue ball", pair(51))


@pytest.mark.parametrize("background", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_scene_gets_five_true_captions(background, kind):
    scene = Scene(background, (Thing(kind, "purple", (40, 120, 100, 190)),))
    five = captions(scene, Random(3))
    assert len(set(five)) == 5
    assert all(is_true(caption, scene) for caption in five)
    assert five == captions(scene, Random(3)) != captions(scene, Random(4))


def test_mentions_names_nouns_alone():
    tokens = tokenize("Two red balls, an umbrella and a blue fish on the dark street .")
    assert mentions(tokens) == {2: "ball", 4: "umbrella", 8: "fish"}
    assert mentions(["<unk>", "a", "dog"]) == {}


def test_boxes_lie_inside_apart_and_fill_a_cell(demo):
    for name, scene in demo.items():
        for i, thing in enumerate(scene.things):
            left, top, right, bottom = thing.box
            assert 0 <= left < right <= 224 and 0 <= top < bottom <= 224, name
            assert min(right - left, bottom - top) >= 45, (name, thing)
            for other in scene.things[:i]:
                a, b = thing.box, other.box
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], name


def test_pictures_show_each_thing_in_its_colour(demo):
    for name, scene in demo.items():
        pixels = np.asarray(Image.open(DEMO / "Images" / name)).astype(np.int16)  # (224, 224, 3)
        assert pixels.shape == (224, 224, 3)
        for thing in scene.things:
            left, top, right, bottom = thing.box
            crop = pixels[top:bottom:2, left:right:2]
            share = {colour: (np.abs(crop - rgb).max(axis=2) < 40).mean() for colour, rgb in PALETTE.items()}
            assert share[thing.colour] > 0.12 and max(share, key=share.get) == thing.colour, (name, thing, share)


def yellow_pixels(things):
    return np.abs(np.asarray(draw(Scene("street", things)), int) - PALETTE["yellow"]).max(axis=2) < 40


def test_a_thing_stays_within_its_box():
    assert not yellow_pixels(()).any()
    for kind in KINDS:
        rows, columns = yellow_pixels((Thing(kind, "yellow", (60, 100, 140, 180)),)).nonzero()
        assert 99 <= rows.min() and rows.max() <= 180 and 59 <= columns.min() and columns.max() <= 140, kind


def test_drawing_is_deterministic(yard):
    assert draw(yard).tobytes() == draw(yard).tobytes()
    assert draw(yard).size == (224, 224)


def test_an_interrupted_run_leaves_the_old_set(tmp_path, monkeypatch):
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "scenes.json").write_text("{}")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(scenes, "captions", interrupted)
    monkeypatch.setattr(scenes, "SPLITS", {"trainImages.txt": 2})
    with pytest.raises(KeyboardInterrupt):
        write_set(folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["demo", "scenes.json"]


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(InputError, match="new or empty folder"):
        write_set(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "dear"


@pytest.mark.parametrize(
    "content", [None, "{", '{"a.jpg": {}}', "[]", '{"a.jpg": {"background": "snow", "things": [3]}}']
)
def test_missing_or_damaged_scenes_name_the_remedy(tmp_path, content):
    if content is not None:
        (tmp_path / "scenes.json").write_text(content)
    with pytest.raises(InputError, match=r"scenes\.json: .*python -m caption_utils\.demo\.scenes"):
        load_scenes(tmp_path)
