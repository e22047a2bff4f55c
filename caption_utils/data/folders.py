"""Where photos lie: one listing per folder, never a question per photo."""

import os
import posixpath
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from caption_utils.errors import InputError

IMAGE_FOLDERS = ("Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k_images")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif")
KAGGLE_INPUT = Path("/kaggle/input")  # where Kaggle attaches data sets and models
MOST_ENTRIES = 200  # how much of a folder a search for data sets or models reads


def find_images(file: Path, names: Iterable[str]) -> tuple[Path, set[str]]:
    """The folder that holds most of ``names``, and the images in it, written as in ``names``.

    Folders at most two levels below the caption file ``file`` are tried, then well-known ones beside its own
    folder. Raises ``InputError`` if none holds any of ``names``.
    """
    wanted, best, present = set(names), file.parent, set()
    beside = (folder for name in IMAGE_FOLDERS for folder in _below(file.parent.parent / name, depth=1))
    for folder in chain(_below(file.parent, depth=2), beside):
        found = _images_in(folder, wanted)
        if len(found & wanted) > len(present & wanted):
            best, present = folder, found
        if wanted <= present:
            break
    if not present:
        raise InputError(f"{file}: found none of its {len(wanted)} images; put them into Images beside it")
    return best, present


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder by name, its subfolders left out. Raises ``InputError`` if there are none."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"{folder}: holds no picture; name a folder with files such as photo.jpg")
    return found


def _below(base: Path, depth: int) -> Iterator[Path]:
    """``base``, then its subfolders, then theirs, down to ``depth``; hidden folders are left out."""
    level = [base]
    for _ in range(depth + 1):
        yield from level
        level = [sub for folder in level for sub in subfolders(folder)]


def subfolders(folder: Path, most: int | None = None) -> list[Path]:
    """Sorted, without hidden ones, from the first ``most`` entries; none if the folder cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in islice(entries, most) if entry.is_dir()]
    except OSError:
        return []
    return sorted(path for path in found if not path.name.startswith("."))


def _images_in(folder: Path, wanted: set[str]) -> set[str]:
    present = set()
    for below in {posixpath.dirname(name) for name in wanted}:
        try:
            files = os.listdir(folder / below)
        except OSError:
            continue
        paths = (posixpath.join(below, file) for file in files)
        present.update(path for path in paths if path in wanted or path.lower().endswith(IMAGE_SUFFIXES))
    return present


def search_kaggle_layout(base: Path, depth: int, skip: Path | None = None) -> Path | None:
    """The first folder at most ``depth`` below ``base`` with ``captions.txt`` and a folder of images.

    Shallow ones come first. Only the first entries of a folder are read, so thousands of photos cost nothing.
    """
    level = [base]
    for _ in range(depth + 1):
        for folder in level:
            images = any((folder / name).is_dir() for name in IMAGE_FOLDERS)
            if images and (folder / "captions.txt").is_file() and folder.resolve() != skip:
                return folder
        level = [sub for folder in level for sub in subfolders(folder, MOST_ENTRIES)]
    return None
