"""Train, validation and test splits, always by image, so that no photo is in two of them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from caption_utils.data.folders import walk
from caption_utils.data.layouts import read_text
from caption_utils.errors import InputError

SPLITS = ("train", "val", "test")
LIST_ENDS = {"trainImages.txt": "train", "devImages.txt": "val", "testImages.txt": "test"}
LISTS = {split: f"Flickr_8k.{end}" for end, split in LIST_ENDS.items()}
FIRST = 6000


def shuffled(images: list[str], seed: int) -> list[str]:
    """A permutation that depends on names and seed alone, not on file order, platform or library version."""
    return sorted(images, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())


def random_split(images: list[str], seed: int) -> dict[str, str]:
    """Image → split, 80/10/10."""
    return _cut(shuffled(images, seed), {"train": 0.8, "val": 0.9, "test": 1.0})


def first6k_split(images: list[str], seed: int) -> dict[str, str]:
    """Image → split for the first 6,000 images in file order, 80/20 into train and val; the others are left out."""
    return _cut(shuffled(images[:FIRST], seed), {"train": 0.8, "val": 1.0})


def _cut(images: list[str], ends: dict[str, float]) -> dict[str, str]:
    assigned, start = {}, 0
    for split, share in ends.items():
        end = round(share * len(images))
        assigned.update(dict.fromkeys(images[start:end], split))
        start = end
    return assigned


def listed_split(folder: Path, images: set[str]) -> tuple[dict[str, str], list[Path]]:
    """Image → split by the official lists, and the paths of the lists; both empty if no list names any of ``images``.

    Looks in ``folder``, its subfolders, its parent and the parent's subfolders, and takes the lists of the first of
    them that has one which names some of ``images``. Lists may be incomplete. Raises ``InputError`` if two lists put
    an image into different splits.
    """
    for place in dict.fromkeys([*walk(folder, 1), *walk(folder.parent, 1)]):
        lists = {path: names for path, names in _lists_in(place) if not images.isdisjoint(names)}
        if lists:
            return _assign(lists), list(lists)
    return {}, []


def _lists_in(place: Path) -> Iterator[tuple[Path, list[str]]]:
    for path in sorted(place.glob("*Images.txt")):
        if path.name.endswith(tuple(LIST_ENDS)):
            yield path, [name for line in read_text(path).split("\n") if (name := line.strip())]


def _assign(lists: dict[Path, list[str]]) -> dict[str, str]:
    assigned: dict[str, str] = {}
    for path, names in lists.items():
        split = next(split for end, split in LIST_ENDS.items() if path.name.endswith(end))
        for name in names:
            if assigned.setdefault(name, split) != split:
                raise InputError(f"{path}: {name} is also listed for {assigned[name]}; keep it in one list")
    return assigned
