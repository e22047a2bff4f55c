"""Train, validation and test splits, by image, so that no photo is in two of them, but for ``source_split``."""

import base64
import hashlib
import json
import posixpath
import unicodedata
from collections.abc import Collection
from pathlib import Path

from caption_utils.data.folders import files_in, spelled_as_in, walk
from caption_utils.data.layouts import read_text
from caption_utils.errors import InputError

SPLITS = ("train", "val", "test")
LIST_ENDS = {"trainImages.txt": "train", "devImages.txt": "val", "testImages.txt": "test"}
LISTS = {split: f"Flickr_8k.{end}" for end, split in LIST_ENDS.items()}
FIRST = 6000
DIGEST = 6  # bytes of a photo's name
KNOWN = Path(__file__).with_name("flickr8k_splits.json")  # digests of the names in the official lists, test excepted
LEFT_OUT = 0.05  # of the photos, by lists beside the data set; the official ones leave 1 % of Flickr8k out
FEWEST = {"train": 1, "val": 2, "test": 3}  # images of which a random split has that part
FEW = 20  # images, of which chance would leave some split without any


def shuffled(images: list[str], seed: int) -> list[str]:
    """A permutation that depends on names and seed alone, not on file order, platform or library version."""
    return sorted(images, key=lambda name: _digest(name, seed))


def random_split(images: list[str], seed: int) -> dict[str, str]:
    """Image → split, about 80/10/10, by a digest of its name alone: no image moves when others come or go.

    Fewer than ``FEW`` images, and those of which a split would get none, are ranked by that digest instead.
    """
    assigned = {name: _split_at(int.from_bytes(_digest(name, seed)[:8]) / 2**64) for name in images}
    ranked = len(images) < FEW or len(set(assigned.values())) < len(SPLITS)
    return _ranked(shuffled(images, seed), {"val": 0.1, "test": 0.1}) if ranked else assigned


def first6k_split(images: list[str], seed: int) -> dict[str, str]:
    """Image → split for the first 6,000 images in file order, 80/20 into train and val; the others are left out."""
    return _ranked(shuffled(images[:FIRST], seed), {"val": 0.2})


def source_split(rows: int, seed: int) -> list[str]:
    """The split of each of the first 6,000 caption rows, 80/20 into train and val by chance.

    An image is then on both sides with some of its captions, as in the project that this series follows. Use it to
    compare with that project's figures, and for nothing else.
    """
    numbers = [str(number) for number in range(min(rows, FIRST))]
    assigned = _ranked(shuffled(numbers, seed), {"val": 0.2})
    return [assigned[number] for number in numbers]


def name_digest(photo: str) -> bytes:
    """All that is kept of a photo's name, however a file system spells its accents: ``DIGEST`` bytes."""
    spelled = unicodedata.normalize("NFC", photo).encode(errors="surrogatepass")
    return hashlib.blake2b(spelled, digest_size=DIGEST).digest()


def digests_of(text: str) -> list[bytes]:
    """Digests of names that were joined and written in base 64. Raises ``ValueError`` if they were not."""
    joined = base64.b64decode(text)
    return [joined[start : start + DIGEST] for start in range(0, len(joined), DIGEST)]


def known_split(images: Collection[str]) -> dict[str, str]:
    """Image → train or val for the photos of Flickr8k's official lists, by digests of their names.

    Empty if fewer than half of ``images`` are among them: then it is another data set.
    """
    lists = json.loads(KNOWN.read_text(encoding="utf-8"))
    splits = {digest: split for split, text in lists.items() for digest in digests_of(text)}
    found = {name: splits.get(name_digest(posixpath.basename(name))) for name in images}
    known = {name: split for name, split in found.items() if split}
    return known if 2 * len(known) >= len(found) else {}


def _digest(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogatepass")).digest()


def _split_at(place: float) -> str:
    """The split of an image at ``place``, 0 to 1."""
    return "train" if place < 0.8 else "test" if place < 0.9 else "val"


def _ranked(images: list[str], shares: dict[str, float]) -> dict[str, str]:
    """The last images to the splits of ``shares``, at least one each while one is left to train on, the rest to it."""
    assigned, end = dict.fromkeys(images, "train"), len(images)
    for split, share in shares.items():
        start = max(1, end - max(1, round(share * len(images))))
        assigned.update(dict.fromkeys(images[start:end], split))
        end = start
    return assigned


def listed_split(root: Path, images: set[str], notes: list[str], known: Collection[str] = ()) -> dict[str, str]:
    """Image → split by the official lists, which ``notes`` then names; empty if no list tells.

    Looks up to two levels below the data set's folder ``root``, then in its parent and beside it, and takes the lists
    of the first place with one that names some of ``images``; those outside ``root`` only if they and ``known`` leave
    out hardly any. Lists that cannot be read are left alone. Raises ``InputError`` if two lists put an image into
    different splits.
    """
    inside = list(walk(root, 2))
    for place in dict.fromkeys([*inside, *walk(root.parent, 1)]):
        found = {
            path: _names_in(path, images, notes if place in inside else [])
            for path in files_in(place)
            if path.name.endswith(tuple(LIST_ENDS))
        }
        lists = {path: names for path, names in found.items() if not images.isdisjoint(names)}
        if lists and (place in inside or len(images.difference(known, *lists.values())) <= LEFT_OUT * len(images)):
            shown = (path.relative_to(root) if place in inside else path for path in lists)
            notes.append(f"Split: official, lists {', '.join(map(str, shown))}")
            return _assign(lists)
    return {}


def _names_in(path: Path, images: set[str], notes: list[str]) -> list[str]:
    try:
        lines = filter(None, map(str.strip, read_text(path).split("\n")))
    except InputError as error:
        notes.append(f"List left alone: {error}")
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
