"""Which folders hold photos, data sets or models. Folders are listed; no photo is asked for one by one."""

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
MOST_ENTRIES = 200  # enough of a folder to find the data set or model in it
DEPTH = 7  # how far down what Kaggle attaches may lie, as the models of a repository do


def listing(folder: Path, most: int | None = None) -> tuple[list[os.DirEntry], list[os.DirEntry]]:
    """Subfolders and files by name, without what is hidden or what macOS adds to archives; the first ``most`` of all.

    Raises ``InputError`` if the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry for entry in islice(found, most) if not _hidden(entry.name)), key=os.fspath)
    except (OSError, ValueError) as error:  # ValueError: no path at all
        reason = getattr(error, "strerror", error)
        raise InputError(f"{folder}: cannot be listed ({reason}); check its permissions") from None
    folders, files = list[os.DirEntry](), list[os.DirEntry]()
    for entry in entries:
        is_folder = os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()
        (folders if is_folder else files).append(entry)
    return folders, files


def files_in(folder: Path) -> list[Path]:
    """Its files by name, without hidden ones; none if it cannot be listed."""
    try:
        return list(map(Path, listing(folder)[1]))
    except InputError:
        return []


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def walk(folder: Path, depth: float, most: int | None = None) -> Iterator[Path]:
    """``folder``, its subfolders, theirs, and so on: level by level, ``depth`` levels down, each folder once.

    With ``most``, only that many entries of each folder are read: thousands of photos then cost nothing.
    """
    level, seen = [folder], {os.path.realpath(folder)}
    yield folder
    while level and depth > 0:
        subfolders = list[Path]()
        for above in level:
            with suppress(InputError):
                subfolders += map(Path, listing(above, most)[0])
        below = {os.path.realpath(folder): folder for folder in subfolders}
        level = [sub for real, sub in below.items() if real not in seen]
        yield from level
        seen, depth = seen | below.keys(), depth - 1


def attached(name: str) -> Path | None:
    """A folder of this name in what Kaggle has attached, such as the output of an earlier session; read-only."""
    return next((folder for folder in walk(KAGGLE_INPUT, DEPTH, MOST_ENTRIES) if folder.name == name), None)


def find_images(file: Path, names: Iterable[str]) -> tuple[Path, dict[str, str], list[str]]:
    """The folder that holds most of ``names``, what each of them is called in it, and its other images.

    Looks up to two levels below the folder of the caption file ``file``, then in well-known folders beside it.
    Raises ``InputError`` if no folder holds any of ``names``.
    """
    names, best, found, unused = set(names), file.parent, dict[str, str](), set[str]()
    below = {posixpath.dirname(way) for name in names for way in spellings(name)}
    beside = (folder for name in IMAGE_FOLDERS for folder in walk(file.parent.parent / name, depth=1))
    for folder in chain(walk(file.parent, depth=2), beside):
        present = _files_below(folder, below)
        here = {name: real for name in names if (real := spelled_as_in(present, name))}
        if len(here) > len(found):
            best, found, unused = folder, here, present.difference(here.values())
        if len(found) == len(names):
            break
    if not found:
        raise InputError(f"{file}: found none of its {len(names)} images; put them into Images beside it")
    images = (path for path in unused if path.lower().endswith(IMAGE_SUFFIXES))
    return best, found, sorted(path for path in images if not _hidden(posixpath.basename(path)))


def spelled_as_in(present: Collection[str], name: str) -> str | None:
    """The one of ``present`` that a table or list means by ``name``."""
    return name if name in present else next((way for way in spellings(name) if way in present), None)


def spellings(name: str) -> list[str]:
    r"""Paths that ``name`` may mean: itself, with ``\`` read as ``/``, its accents composed or apart (NFC, NFD)."""
    slashed = name.replace("\\", "/")
    accents = [] if name.isascii() else [unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")]
    return list(dict.fromkeys(map(posixpath.normpath, [name, slashed, *accents])))


def _files_below(folder: Path, below: set[str]) -> set[str]:
    present = set[str]()
    for path in below:
        try:
            present.update(posixpath.join(path, file) for file in os.listdir(folder / path))
        except (OSError, ValueError):  # ValueError: no path at all
            continue
    return present


def pictures_at(path: Path, recursive: bool = False) -> list[Path]:
    """A folder's pictures by name, if ``recursive`` also those below it.

    What is no folder, or one that cannot be listed, stands for itself. Raises ``InputError`` if a folder holds no
    picture.
    """
    try:
        files, closed = _files_at(path, recursive)
    except InputError:
        return [path]
    found = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES] + closed
    if not found:
        raise InputError(f"{path}: holds no picture; name a folder with files such as photo.jpg")
    return found


def others_at(folder: Path, recursive: bool = False) -> int:
    """How many files ``pictures_at`` leaves out, those not counted that are hidden."""
    return sum(file.suffix.lower() not in IMAGE_SUFFIXES for file in _files_at(folder, recursive)[0])


def pictures_of(names: Iterable[str], recursive: bool) -> tuple[list[Path], dict[Path, InputError], list[str]]:
    """The pictures that files and folders stand for; folders that hold none; a note of each folder's other files.

    Raises ``InputError`` if there are only folders that hold none.
    """
    pictures, empty, notes = list[Path](), dict[Path, InputError](), list[str]()
    for path in map(Path, names):
        try:
            found = pictures_at(path, recursive)
            if found != [path] and (others := others_at(path, recursive)):
                notes.append(f"{path}: other files, which are no pictures: {others} (skipped)")
            pictures += found
        except InputError as error:
            empty[path] = error
    if empty and not pictures:
        raise InputError("; ".join(map(str, empty.values())))
    return pictures, empty, notes


def _files_at(folder: Path, recursive: bool) -> tuple[list[Path], list[Path]]:
    """Files, and folders below that cannot be listed. Raises ``InputError`` if ``folder`` itself cannot be."""
    files, closed = list(map(Path, listing(folder)[1])), list[Path]()
    for place in islice(walk(folder, math.inf if recursive else 0), 1, None):
        try:
            files += map(Path, listing(place)[1])
        except InputError:
            closed.append(place)
    return files, closed
