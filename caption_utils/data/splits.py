"""Train, validation and test splits, by image, so that no photo is in two; ``source_split`` is the exception."""

import base64
import hashlib
import json
import posixpath
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from caption_utils.data.folders import DEPTH, MOST_ENTRIES, files_in, spelled_as_in, walk
from caption_utils.data.layouts import note_names
from caption_utils.errors import InputError
from caption_utils.files import read_text
from caption_utils.runtime import KAGGLE_INPUT

if TYPE_CHECKING:  # takes a second, which captioning does not need
    import pandas as pd

SPLITS = ("train", "val", "test")
SCHEMES = ("official", "first6k", "source", "random")
LIST_ENDS = {"trainImages.txt": "train", "devImages.txt": "val", "testImages.txt": "test"}
LISTS = {split: f"Flickr_8k.{end}" for end, split in LIST_ENDS.items()}
FIRST = 6000
DIGEST = 6  # bytes that are kept of a photo's name
KNOWN = Path(__file__).with_name("flickr8k_splits.json")  # digests of the official training and validation names
LEFT_OUT = 0.05  # share of photos that lists beside the data set may miss; the official ones miss 1 % of Flickr8k
FEWEST = {"train": 1, "val": 2, "test": 3}  # images that a random split with that part needs
FEW = 20  # images; with fewer, chance would leave a split empty


def assign_split(
    table: "pd.DataFrame", scheme: str, seed: int, root: Path, file: Path, notes: list[str]
) -> "tuple[pd.DataFrame, str]":
    """The rows of ``table`` that are in a split, with that split, and the scheme that was used, one of ``SCHEMES``.

    ``official`` takes the split from the caption file itself, else from lists (``*trainImages.txt``, …), else knows
    Flickr8k's training and validation images by their names, else falls back to ``random``, about 80/10/10.
    ``first6k`` takes the first 6,000 images, and ``source`` (by row, not by image) the first 6,000 captions, 80/20 into
    train and val.
    """
    if scheme == "source":
        notes.append(f"Split: source, by caption row, seed {seed} (the same images are on both sides)")
        return table[:FIRST].assign(split=source_split(len(table), seed)).reset_index(drop=True), scheme
    images = list(table["image"].unique())
    assigned = _official_split(table, images, root, file, notes) if scheme == "official" else {}
    if not assigned:
        why = " (official lists asked for, none found)" if scheme == "official" else ""
        scheme = "random" if scheme == "official" else scheme
        assigned = (first6k_split if scheme == "first6k" else random_split)(images, seed)
        notes.append(f"Split: {scheme}, by image, seed {seed}{why}")
    note_names(notes, [name for name in images if name not in assigned], "Images in no split (rows dropped)")
    table = table.assign(split=table["image"].map(assigned))
    return table.dropna(subset="split").reset_index(drop=True), scheme


def _official_split(
    table: "pd.DataFrame", images: list[str], root: Path, file: Path, notes: list[str]
) -> dict[str, str]:
    """Image → split by the caption file, else by lists and known names; empty if none of them tells."""
    given = table.loc[table["split"] != "", ["image", "split"]].drop_duplicates()
    twice = given.loc[given["image"].duplicated(), "image"]
    if len(twice):
        raise InputError(f"{file}: {twice.iloc[0]} is in two splits; give all its rows the same one")
    if len(given):
        notes.append(f"Split: official, given by {file.name}")
        return dict(zip(given["image"], given["split"], strict=True))
    known = known_split(images)
    assigned = listed_split(root, set(images), notes, known)
    note_names(notes, sorted(assigned.keys() - set(images)), "Listed images without a caption or a file")
    by_name = {name: split for name, split in known.items() if split not in assigned.values() and name not in assigned}
    if by_name:
        hint = "" if assigned else "; for the test images, put Flickr_8k.testImages.txt beside the captions"
        notes.append(f"Split: official for {' and '.join(sorted(set(by_name.values())))}, by the photos' names{hint}")
    return assigned | by_name


def shuffled(images: list[str], seed: int) -> list[str]:
    """A permutation that depends on names and seed alone, not on file order, platform or library version."""
    return sorted(images, key=lambda name: _digest(name, seed))


def random_split(images: list[str], seed: int) -> dict[str, str]:
    """Image → split, about 80/10/10, by a digest of its name alone: no image moves when others come or go.

    If there are fewer than ``FEW`` images, or a split would be empty, images are ranked by that digest instead.
    """
    places = {name: int.from_bytes(_digest(name, seed)[:8]) / 2**64 for name in images}  # from 0 to 1
    assigned = {name: "train" if at < 0.8 else "test" if at < 0.9 else "val" for name, at in places.items()}
    ranked = len(images) < FEW or len(set(assigned.values())) < len(SPLITS)
    return _ranked(shuffled(images, seed), {"val": 0.1, "test": 0.1}) if ranked else assigned


def first6k_split(images: list[str], seed: int) -> dict[str, str]:
    """Image → split for the first 6,000 images in file order, 80/20 into train and val; the others are left out."""
    return _ranked(shuffled(images[:FIRST], seed), {"val": 0.2})


def source_split(rows: int, seed: int) -> list[str]:
    """The split of each of the first 6,000 caption rows, 80/20 into train and val at random.

    An image may then be on both sides, as in the project that this series follows. Use it only to compare with that
    project's figures.
    """
    numbers = [str(number) for number in range(min(rows, FIRST))]
    assigned = _ranked(shuffled(numbers, seed), {"val": 0.2})
    return [assigned[number] for number in numbers]


def name_digest(photo: str) -> bytes:
    """``DIGEST`` bytes that stand for a photo's name, however a file system spells its accents."""
    spelled = unicodedata.normalize("NFC", photo).encode(errors="surrogatepass")
    return hashlib.blake2b(spelled, digest_size=DIGEST).digest()


def digests_of(text: str) -> list[bytes]:
    """The digests in a base64 text that joins them. Raises ``ValueError`` for any other text."""
    joined = base64.b64decode(text)
    return [joined[start : start + DIGEST] for start in range(0, len(joined), DIGEST)]


def known_split(images: Collection[str]) -> dict[str, str]:
    """Image → train or val for the photos of Flickr8k's official lists, by digests of their names.

    Empty if fewer than half of ``images`` are among them, as in another data set.
    """
    lists = json.loads(KNOWN.read_text(encoding="utf-8"))
    splits = {digest: split for split, text in lists.items() for digest in digests_of(text)}
    found = {name: splits.get(name_digest(posixpath.basename(name))) for name in images}
    known = {name: split for name, split in found.items() if split}
    return known if 2 * len(known) >= len(found) else {}


def _digest(name: str, seed: int) -> bytes:
    name = unicodedata.normalize("NFC", name)  # file systems differ in how they spell accents
    return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogatepass")).digest()


def _ranked(images: list[str], shares: dict[str, float]) -> dict[str, str]:
    """The last images go to the splits of ``shares``, at least one to each, the others, at least one, to train."""
    assigned, end = dict.fromkeys(images, "train"), len(images)
    for split, share in shares.items():
        start = max(1, end - max(1, round(share * len(images))))
        assigned.update(dict.fromkeys(images[start:end], split))
        end = start
    return assigned


def listed_split(root: Path, images: set[str], notes: list[str], known: Collection[str] = ()) -> dict[str, str]:
    """Image → split by the official lists, which ``notes`` then names; empty if there are none.

    Looks up to two levels below the data set's folder ``root``, then in its parent and beside it, or in all that Kaggle
    has attached if it is there, and takes the lists of the first place with one that names some of ``images``; those
    outside ``root`` count only if they and ``known`` cover nearly all images. Lists that cannot be read or name none of
    them are ignored. Raises ``InputError`` if two lists put an image into different splits.
    """
    inside = list(walk(root, 2))
    kaggle = KAGGLE_INPUT.resolve()  # as root is
    beside = walk(kaggle, DEPTH, MOST_ENTRIES) if root.is_relative_to(kaggle) else walk(root.parent, 1)
    for place in dict.fromkeys([*inside, *beside]):
        own = place in inside
        found = {
            path: _names_in(path, images, notes if own else [])
            for path in files_in(place)
            if path.name.endswith(tuple(LIST_ENDS))
        }
        lists = {path: names for path, names in found.items() if not images.isdisjoint(names)}
        if lists and (own or len(images.difference(known, *lists.values())) <= LEFT_OUT * len(images)):
            shown = (path.relative_to(root) if own else path for path in lists)
            notes.append(f"Split: official, lists {', '.join(map(str, shown))}")
            return _assign(lists)
        if own:
            for path, names in found.items():
                note_names(notes, names, f"List ignored: {path}: names none of the photos")
    return {}


def _names_in(path: Path, images: set[str], notes: list[str]) -> list[str]:
    try:
        lines = filter(None, map(str.strip, read_text(path).split("\n")))
    except InputError as error:
        notes.append(f"List ignored: {error}")
        return []
    return [spelled_as_in(images, line) or line for line in lines]


def _assign(lists: dict[Path, list[str]]) -> dict[str, str]:
    assigned: dict[str, str] = {}
    for path, names in lists.items():
        split = next(split for end, split in LIST_ENDS.items() if path.name.endswith(end))
        for name in names:
            if assigned.setdefault(name, split) != split:
                raise InputError(f"{path}: {name} is also listed for {assigned[name]}; keep it in one list")
    return assigned
