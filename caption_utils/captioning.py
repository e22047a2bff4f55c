"""Many photos to captions, in batches: what the command line does with a folder."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from caption_utils.captioner import BATCH, Caption, Captioner
from caption_utils.data.decoding import decoded_batches
from caption_utils.data.folders import IMAGE_SUFFIXES
from caption_utils.errors import InputError

PHOTOS_AT_ONCE = 100  # for the search, which is slower with fewer
MAP_SUFFIXES = (".png", ".jpg", ".pdf", ".svg")

Outcome = list[Caption] | InputError


def photo_paths(arguments: Iterable[str]) -> list[Path]:
    """Files as they are named, for a folder the pictures in it by name, for ``-`` the paths that standard input lists.

    Raises ``InputError`` if a folder holds no picture.
    """
    paths: list[Path] = []
    for argument in arguments:
        if argument == "-":
            paths += photo_paths(line.rstrip("\r\n") for line in sys.stdin if line.strip() and line.strip() != "-")
        elif Path(argument).is_dir():
            paths += pictures_in(Path(argument))
        else:
            paths.append(Path(argument))
    return paths


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder by name, its subfolders left out. Raises ``InputError`` if there are none."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"{folder}: holds no picture; name a folder with files such as photo.jpg")
    return found


def caption_photos(captioner: Captioner, photos: Sequence[Path], beams: int) -> Iterator[tuple[Path, Outcome]]:
    """Each photo in order with its captions, best first, or why it has none; decoding runs ahead of the encoder."""
    waiting: list[Tensor | InputError] = []  # features (N, D) of photos that the search has not seen
    begun = 0
    for batch in decoded_batches(photos, captioner.encoder.transform, BATCH):
        waiting += _encoded(captioner, batch)
        last = begun + len(waiting) == len(photos)
        if last or len(waiting) + BATCH > PHOTOS_AT_ONCE:
            yield from zip(photos[begun:], _searched(captioner, waiting, beams), strict=False)
            begun, waiting = begun + len(waiting), []


def _encoded(captioner: Captioner, batch: list[Tensor | InputError]) -> list[Tensor | InputError]:
    pixels = [item for item in batch if isinstance(item, Tensor)]
    features = iter(captioner.encoder(torch.stack(pixels).to(captioner.device)) if pixels else ())
    return [next(features) if isinstance(item, Tensor) else item for item in batch]


def _searched(captioner: Captioner, waiting: list[Tensor | InputError], beams: int) -> list[Outcome]:
    features = [item for item in waiting if isinstance(item, Tensor)]
    captions = iter(captioner.captions(torch.stack(features), beams) if features else ())
    return [next(captions) if isinstance(item, Tensor) else item for item in waiting]


def map_paths(out: str, photos: Sequence[Path]) -> dict[Path, Path]:
    """Photo → where its attention map goes: ``out`` for one photo, ``out-NAME.png`` beside it for each of several.

    Raises ``InputError`` for an unknown format, for two photos that would share a file, and for a map that would
    replace a photo.
    """
    path = Path(out)
    if path.suffix.lower() not in MAP_SUFFIXES:
        raise InputError(f"{out}: attention maps are saved as {', '.join(MAP_SUFFIXES)}; end the name with one of them")
    taken: dict[Path, Path] = {}
    for photo in dict.fromkeys(photos):
        own = path if len(set(photos)) == 1 else path.with_stem(f"{path.stem}-{photo.stem}")
        if own in taken:
            raise InputError(f"{own}: would hold the maps of both {taken[own]} and {photo}; caption them one at a time")
        taken[own] = photo
    if replaced := {own.resolve() for own in taken} & {photo.resolve() for photo in photos}:
        raise InputError(f"{min(replaced)}: is one of the photos; name another file for the attention map")
    return {photo: own for own, photo in taken.items()}
