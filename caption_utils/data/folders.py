"""Which folders hold photos, data sets or models. Folders are listed; no photo is asked for one by one."""

import os
import posixpath
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from caption_utils.errors import InputError

IMAGE_FOLDERS = ("Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k_images")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif")
KAGGLE_INPUT = Path("/kaggle/input")  # where Kaggle attaches data sets and models
MOST_ENTRIES = 200  # enough of a folder to find the data set or model in it


def walk(folder: Path, depth: int, most: int | None = None) -> Iterator[Path]:
    """``folder``, its subfolders, theirs, and so on: level by level, ``depth`` levels down, hidden folders left out.

    With ``most``, only that many entries of each folder are read: thousands of photos then cost nothing.
    """
    level = [folder]
    yield folder
    for _ in range(depth):
        level = [sub for above in level for sub in subfolders(above, most)]
        yield from level


def subfolders(folder: Path, most: int | None = None) -> list[Path]:
    """Sorted, without hidden ones, from the first ``most`` entries; empty if the folder cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in islice(entries, most) if entry.is_dir()]
    except OSError:
        return []
    return sorted(path for path in found if not path.name.startswith("."))


def find_images(file: Path, names: Iterable[str]) -> tuple[Path, set[str]]:
    """The folder that holds most of ``names``, and its images, written as in ``names``.

    Looks up to two levels below the folder of the caption file ``file``, then in well-known folders beside it.
    Raises ``InputError`` if no folder holds any of ``names``.
    """
    wanted, best, present = set(names), file.parent, set[str]()
    beside = (folder for name in IMAGE_FOLDERS for folder in walk(file.parent.parent / name, depth=1))
    for folder in chain(walk(file.parent, depth=2), beside):
        found = _images_in(folder, wanted)
        if len(found & wanted) > len(present & wanted):
            best, present = folder, found
        if wanted <= present:
            break
    if not present:
        raise InputError(f"{file}: found none of its {len(wanted)} images; put them into Images beside it")
    return best, present


def _images_in(folder: Path, wanted: set[str]) -> set[str]:
    present = set[str]()
    for below in {posixpath.dirname(name) for name in wanted}:
        try:
            paths = [posixpath.join(below, file) for file in os.listdir(folder / below)]
        except OSError:
            continue
        present.update(path for path in paths if path in wanted or path.lower().endswith(IMAGE_SUFFIXES))
    return present


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted, not those in its subfolders. Raises ``InputError`` if there are none."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"{folder}: holds no picture; name a folder with files such as photo.jpg")
    return found


def find_kaggle_layout(base: Path, depth: int, skip: Path | None = None) -> Path | None:
    """The first folder, at most ``depth`` levels below ``base``, with ``captions.txt`` and a folder of images."""
    for folder in walk(base, depth, MOST_ENTRIES):
        images = any((folder / name).is_dir() for name in IMAGE_FOLDERS)
        if images and (folder / "captions.txt").is_file() and folder.resolve() != skip:
            return folder
    return None
