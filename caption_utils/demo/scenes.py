"""What a drawn picture shows, and where: scenes, and those of the demo set."""

import json
from dataclasses import dataclass
from pathlib import Path

from caption_utils.errors import InputError

DEMO = Path(__file__).resolve().parents[2] / "data" / "demo"
Box = tuple[int, int, int, int]


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


def load_scenes(folder: str | Path = DEMO) -> dict[str, Scene]:
    """File name → scene of a demo set. Raises ``InputError`` if ``scenes.json`` is missing or damaged."""
    path = Path(folder) / "scenes.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {name: _scene(scene) for name, scene in stored.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        remedy = "draw the set again with make demo"
        raise InputError(f"{path}: missing or damaged ({error}); {remedy}") from None


def _scene(stored: dict) -> Scene:
    width, height = stored["size"]
    return Scene(stored["background"], tuple(map(_thing, stored["things"])), (width, height))


def _thing(stored: dict) -> Thing:
    left, top, right, bottom = stored["box"]
    return Thing(stored["kind"], stored["colour"], (left, top, right, bottom))
