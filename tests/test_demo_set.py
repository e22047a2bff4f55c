"""Tests of tools/demo_set.py: it writes the committed set again."""

import hashlib
import itertools
from pathlib import Path
from types import SimpleNamespace

import demo_set
import PIL
import pytest
from demo_pictures import draw
from demo_set import SIZES, write_set

from caption_utils.demo.descriptions import COLOURS, KINDS, PLACES
from caption_utils.demo.scenes import DEMO, load_scenes


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_regenerating_gives_the_committed_bytes(tmp_path, monkeypatch):
    """All texts, and every 21st picture: these show each kind, colour, background and size."""
    drawn, count = [], itertools.count()

    def sometimes(scene):
        if next(count) % 21:
            return SimpleNamespace(save=lambda path, **options: None)
        drawn.append(scene)
        return draw(scene)

    monkeypatch.setattr(demo_set, "draw", sometimes)
    write_set(tmp_path / "again")
    again, committed = digests(tmp_path / "again"), digests(DEMO)
    assert len(again) == len(drawn) + 5 == 91
    if int(PIL.__version__.split(".")[0]) < 13:  # it rounds a few pixels of a stretched background otherwise
        stretched = {f"Images/{name}" for name, scene in load_scenes().items() if scene.size != SIZES[0]}
        again = {name: again[name] for name in again.keys() - stretched}
    assert again == {name: committed[name] for name in again}
    things = [thing for scene in drawn for thing in scene.things]
    assert {thing.kind for thing in things} == set(KINDS) and {thing.colour for thing in things} == set(COLOURS)
    assert {scene.background for scene in drawn} == set(PLACES) and {scene.size for scene in drawn} == set(SIZES)


def test_an_interrupted_run_leaves_the_old_set(tmp_path, monkeypatch):
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "scenes.json").write_text("{}")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_set, "captions", interrupted)
    monkeypatch.setattr(demo_set, "SPLITS", {"trainImages.txt": 2})
    with pytest.raises(KeyboardInterrupt):
        write_set(folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["demo", "scenes.json"]
