import hashlib
import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import PIL
import pytest

from caption_utils.data.vocab import tokenize
from caption_utils.demo import scenes
from caption_utils.demo.drawing import draw
from caption_utils.demo.scenes import DEMO, load_scenes, write_set
from caption_utils.demo.words import COLOURS, KINDS, PLACES, RARE
from caption_utils.errors import InputError


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_regenerating_gives_the_committed_bytes(tmp_path, monkeypatch, demo):
    """All texts, and every 21st picture: these show each kind, colour, background and size."""
    drawn, count = [], itertools.count()

    def sometimes(scene):
        if next(count) % 21:
            return SimpleNamespace(save=lambda path, **options: None)
        drawn.append(scene)
        return draw(scene)

    monkeypatch.setattr(scenes, "draw", sometimes)
    write_set(tmp_path / "again")
    again, committed = digests(tmp_path / "again"), digests(DEMO)
    assert len(again) == len(drawn) + 5 == 91
    if int(PIL.__version__.split(".")[0]) < 13:  # it rounds a few pixels of a stretched background otherwise
        stretched = {f"Images/{name}" for name, scene in demo.items() if scene.size != scenes.SIZES[0]}
        again = {name: again[name] for name in again.keys() - stretched}
    assert again == {name: committed[name] for name in again}
    things = [thing for scene in drawn for thing in scene.things]
    assert {thing.kind for thing in things} == set(KINDS) and {thing.colour for thing in things} == set(COLOURS)
    assert {scene.background for scene in drawn} == set(PLACES) and {scene.size for scene in drawn} == set(scenes.SIZES)


def test_the_set_is_complete_and_small(demo, told):
    splits = {split: (DEMO / split).read_text().split() for split in scenes.SPLITS}
    assert {split: len(names) for split, names in splits.items()} == scenes.SPLITS
    listed = [name for names in splits.values() for name in names]
    assert len(listed) == len(set(listed)) == 1800
    assert set(listed) == set(demo) == set(told) == {path.name for path in (DEMO / "Images").iterdir()}
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) <= 6_000_000


def test_no_test_scene_occurs_in_training(demo):
    train = {demo[name] for name in (DEMO / "trainImages.txt").read_text().split()}
    rest = {demo[name] for split in ("devImages.txt", "testImages.txt") for name in (DEMO / split).read_text().split()}
    assert not train & rest


def test_vocabulary_is_small_with_a_tail_of_rare_words(told):
    words = {name: tokenize(" ".join(sentences)) for name, sentences in told.items()}
    train = Counter(word for name in (DEMO / "trainImages.txt").read_text().split() for word in words[name])
    common = set().union(*words.values()) - set(RARE)
    assert 60 <= len(common) <= 70 and min(train[word] for word in common) >= 4
    counts = [train[word] for word in RARE]
    assert sum(0 < count < 3 for count in counts) >= 2 and sum(3 <= count < 15 for count in counts) >= 5


def test_pictures_have_several_shapes(demo):
    sizes = Counter(scene.size for scene in demo.values())
    assert set(sizes) == set(scenes.SIZES) and min(sizes.values()) > 300


def test_boxes_are_inside_apart_and_as_large_as_a_cell(demo):
    for name, scene in demo.items():
        for i, thing in enumerate(scene.things):
            left, top, right, bottom = thing.box
            assert 0 <= left < right <= scene.size[0] and 0 <= top < bottom <= scene.size[1], name
            assert min(right - left, bottom - top) >= 45, (name, thing)
            for other in scene.things[:i]:
                a, b = thing.box, other.box
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], name


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


@pytest.mark.parametrize(
    "content",
    [None, "{", '{"a.jpg": {}}', "[]", '{"a.jpg": {"background": "snow", "things": [3]}}', "[" * 10**5, "1" * 5000],
)
def test_missing_or_damaged_scenes_name_the_remedy(tmp_path, content):
    if content is not None:
        (tmp_path / "scenes.json").write_text(content)
    with pytest.raises(InputError, match=r"scenes\.json: .*python -m caption_utils\.demo\.scenes"):
        load_scenes(tmp_path)
