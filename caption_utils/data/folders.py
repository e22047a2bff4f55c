"""Folders that hold photos, data sets or models. Each is listed once; photos are not looked up one by one."""

import math
import os
import posixpath
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

from caption_utils.errors import InputError
from caption_utils.runtime import KAGGLE_INPUT

IMAGE_FOLDERS = ("Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k_images", "flickr30k-images")
IMAGE_SUFFIXES = tuple(  # of all that ``load_image`` reads
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .gif .bmp .dib .webp .tif .tiff .heic .heics .heif .heifs .hif .avif .avifs "
    ".jp2 .j2k .j2c .jpc .jpf .jpx".split()
)
MOST_ENTRIES = 200  # read of a folder to find the data set or model in it
DEPTH = 7  # levels below Kaggle's input at which an attached folder may lie


def listing(folder: Path, most: int | None = None) -> tuple[list[os.DirEntry], list[os.DirEntry]]:
    """Subfolders and files by name, at most ``most`` in all, without hidden ones and what macOS adds to archives.

    Raises ``InputError`` if the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry for entry in islice(found, most) if not _hidden(entry.name)), key=os.fspath)
    except (OSError, ValueError) as error:  # ValueError: not a valid path
        reason = getattr(error, "strerror", error)
        raise InputError(f"{folder}: cannot be listed ({reason}); check its permissions") from None
    folders, files = list[os.DirEntry](), list[os.DirEntry]()
    for entry in entries:
        is_folder = os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()
        (folders if is_folder else files).append(entry)
    return folders, files


def files_in(folder: Path) -> list[Path]:
    """Its files by name, without hidden ones; empty if it cannot be listed."""
    try:
        return list(map(Path, listing(folder)[1]))
    except InputError:
        return []


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def walk(folder: Path, depth: float, most: int | None = None) -> Iterator[Path]:
    """``folder`` and the folders below it, level by level, ``depth`` levels down, each once despite links.

    With ``most``, only that many entries of each folder are read, so that thousands of photos cost nothing.
    """
    level, seen = [folder], set[str]()
    yield folder
    while level and depth > 0:
        seen.update(map(os.path.realpath, level))
        below = dict[str, Path]()
        for above in level:
            with suppress(InputError):
                below |= {os.path.realpath(entry): Path(entry) for entry in listing(above, most)[0]}
        level, depth = [sub for real, sub in below.items() if real not in seen], depth - 1
        yield from level


def attached(name: str) -> Path | None:
    """A read-only folder of this name that Kaggle has attached, such as the output of an earlier session."""
    return next((folder for folder in walk(KAGGLE_INPUT, DEPTH, MOST_ENTRIES) if folder.name == name), None)


def find_images(file: Path, names: Iterable[str]) -> tuple[Path, dict[str, str], list[str]]:
    """The folder that holds most of ``names``, name → spelling of those it holds, and its other images.

    Looks up to two levels below the folder of the caption file ``file``, then in well-known folders beside it.
    Raises ``InputError`` if no folder holds any of ``names``.
    """
    names, best, found, unused = set(names), file.parent, dict[str, str](), set[str]()
    ways = {way for name in names for way in spellings(name)}
    below = set(map(posixpath.dirname, ways))
    beside = (folder for name in IMAGE_FOLDERS for folder in walk(file.parent.parent / name, depth=1))
    for folder in chain(walk(file.parent, depth=2), beside):
        present = _files_below(folder, below)
        if ways.isdisjoint(present):
            continue
        here = {name: real for name in names if (real := spelled_as_in(present, name))}
        if len(here) > len(found):
            best, found, unused = folder, here, present.difference(here.values())
        if len(found) == len(names):
            break
    if not found:
        raise InputError(
            f"{file}: found none of its {len(names)} images, such as {min(names)}; correct the names, or put the "
            "images into Images beside it"
        )
    images = (path for path in unused if path.lower().endswith(IMAGE_SUFFIXES))
    return best, found, sorted(path for path in images if not _hidden(posixpath.basename(path)))


def spelled_as_in(present: Collection[str], name: str) -> str | None:
    """The one of ``present`` that a table or list means by ``name``."""
    return name if name in present else next((way for way in spellings(name) if way in present), None)


def spellings(name: str) -> list[str]:
    r"""Paths that ``name`` may mean: as it is, with ``\`` as ``/``, and with accents composed or decomposed."""
    slashed = name.replace("\\", "/")
    accents = [] if name.isascii() else [unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")]
    return list(dict.fromkeys(map(posixpath.normpath, [name, slashed, *accents])))


def _files_below(folder: Path, below: set[str]) -> set[str]:
    present = set[str]()
    for path in below:
        try:
            present.update(posixpath.join(path, file) for file in os.listdir(folder / path))
        except (OSError, ValueError):  # ValueError: not a valid path
            continue
    return present


def pictures_of(
    paths: Iterable[str | Path], recursive: bool = False
) -> tuple[list[Path], dict[Path, InputError], list[str]]:
    """The pictures of files and folders; the folders without any; a note on each folder's other files.

    A folder stands for its pictures by name, if ``recursive`` also those below it; a file stands for itself, and so
    does a folder that cannot be listed. Raises ``InputError`` if no picture is left.
    """
    pictures, empty, notes = list[Path](), dict[Path, InputError](), list[str]()
    for path in map(Path, paths):
        found, others = _pictures_and_others(path, recursive)
        pictures += found
        if not found:
            empty[path] = InputError(f"{path}: holds no picture; name a folder with files such as photo.jpg")
        elif others:
            notes.append(f"{path}: skipped files that are not pictures: {others}")
    if not pictures:
        reasons = "; ".join(map(str, empty.values()))
        raise InputError(reasons or "no picture is named; name files, or folders that hold some")
    return pictures, empty, notes


def _pictures_and_others(path: Path, recursive: bool) -> tuple[list[Path], int]:
    """The pictures, then what cannot be listed, and how many other files there are, not counting hidden ones."""
    files, closed = list[Path](), list[Path]()
    for folder in walk(path, math.inf if recursive else 0):
        try:
            files += map(Path, listing(folder)[1])
        except InputError:
            closed.append(folder)
    pictures = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    return pictures + closed, len(files) - len(pictures)
