"""A folder in any of the known layouts → a table of image, caption and split."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from caption_utils.data.duplicates import close_pairs, fingerprint
from caption_utils.data.folders import find_images
from caption_utils.data.layouts import find_caption_file, find_layout, read_captions, summary
from caption_utils.data.splits import (
    FEWEST,
    FIRST,
    SPLITS,
    first6k_split,
    known_split,
    listed_split,
    random_split,
    source_split,
)
from caption_utils.errors import InputError
from caption_utils.runtime import KAGGLE_INPUT, repository

KAGGLE_NAME = "adityajn105/flickr8k"
SCHEMES = ("official", "first6k", "source", "random")
KAGGLE_DEPTH = 4


@dataclass(frozen=True, eq=False)
class CaptionDataset:
    """Captions and the photos they describe.

    ``table`` has the columns ``image`` (path below ``images``, with ``/``), ``caption`` and ``split`` (train, val or
    test). Each line of ``notes`` says what was chosen, dropped or repaired. ``missing`` names the captioned images
    without a file. ``scheme`` is the one of ``SCHEMES`` that was used in the end.
    """

    name: str
    root: Path
    images: Path
    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    scheme: str = "official"

    def split(self, name: str) -> "CaptionDataset":
        """The rows of one split. Raises ``InputError`` if there are none."""
        table = self.table[self.table["split"] == name].reset_index(drop=True)
        if table.empty:
            present = ", ".join(split for split in SPLITS if split in set(self.table["split"]))
            ways = {
                "random": f" (that takes {FEWEST.get(name)} in all)",
                "official": " (a random split would draw some)",
            }
            way = ways.get(self.scheme, "") if name in SPLITS else ""
            raise InputError(f"split {name!r} of {self.name} has no images{way}; choose one of: {present}")
        return replace(self, table=table)

    @property
    def image_names(self) -> list[str]:
        """Each image once, in file order."""
        return list(self._captions)

    def path(self, name: str) -> Path:
        """Where the photo lies."""
        return self.images / name

    def captions_of(self, name: str) -> list[str]:
        """All captions of one image. Raises ``InputError`` for an image that is not in the table."""
        if name not in self._captions:
            raise InputError(f"{name}: no such image in {self.name}; image_names lists them")
        return list(self._captions[name])

    @cached_property
    def _captions(self) -> dict[str, list[str]]:
        captions: dict[str, list[str]] = {}
        for image, caption in zip(self.table["image"], self.table["caption"], strict=True):
            captions.setdefault(image, []).append(caption)
        return captions

    @cached_property
    def fingerprints(self) -> pd.DataFrame:
        """Digest and perceptual hash of each photo, computed once."""
        splits = self.table.drop_duplicates("image").set_index("image")["split"]
        prints = fingerprint([self.path(name) for name in splits.index])
        return prints.assign(image=list(splits.index), split=list(splits))

    def describe(self) -> pd.DataFrame:
        """Counts of images and captions, in all and by split, and of missing, unreadable and duplicate photos.

        Opens every photo: for thousands of them, this takes seconds.
        """
        prints, rows = self.fingerprints, {"images": len(self.image_names), "captions": len(self.table)}
        for split in SPLITS:
            table = self.table[self.table["split"] == split]
            rows |= {f"{split} images": table["image"].nunique(), f"{split} captions": len(table)}
        rows["missing images"] = len(self.missing)
        rows["unreadable images"] = int(prints["phash"].isna().sum())
        rows["exact duplicates"] = int(prints["digest"].dropna().duplicated().sum())
        rows["near-duplicates across splits"] = len(near_duplicates(self))
        return pd.DataFrame({"count": rows})


def near_duplicates(dataset: CaptionDataset, max_distance: int = 6) -> pd.DataFrame:
    """Pairs of similar photos in different splits, which leak from training into evaluation; the closest first.

    ``distance`` is the Hamming distance of the perceptual hashes, 0 to 64. Resizing and recompressing changes a photo's
    hash by up to 4; unrelated photos of Flickr8k are at least 8 apart.
    """
    prints = dataset.fingerprints.dropna(subset="phash")
    i, j, distance = close_pairs(list(prints["phash"]), max_distance)
    image, split = prints["image"].to_numpy(), prints["split"].to_numpy()
    columns = {"image": image[i], "other": image[j], "split": split[i], "other_split": split[j], "distance": distance}
    pairs = pd.DataFrame(columns)[split[i] != split[j]]
    return pairs.sort_values(["distance", "image", "other"], ignore_index=True)


def load_dataset(
    root: str | Path, split: str = "official", seed: int = 0, require_images: bool = True
) -> CaptionDataset:
    """Read a folder (or its caption file) of any layout in ``layouts``.

    The split is by image. ``official`` takes it from the file itself, else from lists (``*trainImages.txt``, …), else
    tells Flickr8k's training and validation images by their names, else draws a ``random`` one, about 80/10/10.
    ``first6k`` takes the first 6,000 images, 80/20 into train and val, and ``source`` (by row, not by image) the first
    6,000 captions. Rows
    whose photo is missing are dropped and counted in ``notes``; with ``require_images=False``, no photo is looked for.
    Raises ``InputError`` for anything that cannot be read.
    """
    if split not in SCHEMES:
        raise InputError(f"split={split!r} is unknown; use one of {', '.join(SCHEMES)}")
    root = Path(os.path.realpath(os.path.expanduser(root)))
    file = find_caption_file(root)
    root = file.parent if root == file else root
    read = read_captions(file)
    table = pd.DataFrame(read.rows, columns=["image", "caption", "split"], dtype="str")
    notes, images, missing = read.notes, file.parent, list[str]()
    dropped = {reason: len(numbers) for reason, numbers in read.dropped.items()}
    if require_images and len(table):
        table, images, missing = _match_images(file, table, notes)
        dropped["without a photo"] = len(read.rows) - len(table)
    matched = len(table)
    table, scheme = _assign_split(table, split, seed, root, file, notes)
    dropped["in no split"] = matched - len(table)
    if table.empty:
        raise InputError(f"{file}: no usable row; check that the file is complete")
    notes.append(_sum(len(table), dropped))
    return CaptionDataset(read.name or root.name, root, images, table, notes, missing, scheme)


def _match_images(file: Path, table: pd.DataFrame, notes: list[str]) -> tuple[pd.DataFrame, Path, list[str]]:
    """The rows whose photo is there, called as the photo is; where the photos are; the names of the missing ones."""
    names = list(table["image"].unique())
    folder, found, others = find_images(file, names)
    missing = [name for name in names if name not in found]
    _note(notes, missing, "Captioned images without a file (rows dropped)")
    _note(notes, others, "Image files without a caption (not used)")
    return table.assign(image=table["image"].map(found)).dropna(subset="image"), folder, missing


def _sum(kept: int, dropped: dict[str, int]) -> str:
    """What became of the rows; the numbers add up to those of the file."""
    reasons = [f"{number} {reason}" for reason, number in dropped.items() if number]
    lost = f", {sum(dropped.values())} dropped ({', '.join(reasons)})" if reasons else ""
    return f"Rows: {kept + sum(dropped.values())} read, {kept} kept{lost}"


def _assign_split(
    table: pd.DataFrame, scheme: str, seed: int, root: Path, file: Path, notes: list[str]
) -> tuple[pd.DataFrame, str]:
    """The rows of images that are in a split, and the scheme that was used."""
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
    _note(notes, [name for name in images if name not in assigned], "Images in no split (rows dropped)")
    table = table.assign(split=table["image"].map(assigned))
    return table.dropna(subset="split").reset_index(drop=True), scheme


def _official_split(table: pd.DataFrame, images: list[str], root: Path, file: Path, notes: list[str]) -> dict[str, str]:
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
    _note(notes, sorted(assigned.keys() - set(images)), "Listed images without a caption or a file")
    told = {name: split for name, split in known.items() if split not in assigned.values() and name not in assigned}
    if told:
        rest = "" if assigned else "; the test images take the list Flickr_8k.testImages.txt beside the captions"
        notes.append(f"Split: official for {' and '.join(sorted(set(told.values())))}, by the photos' names{rest}")
    return assigned | told


def _note(notes: list[str], names: Sequence[str], what: str) -> None:
    if names:
        notes.append(f"{what}: {summary(names)}")


def find_dataset(download: bool = False, split: str = "official", seed: int = 0) -> CaptionDataset:
    """The data set that ``CAPTION_DATA`` names (a path, or ``demo``), else ``data/flickr8k``, else one in
    ``/kaggle/input``, else (only if ``download``) Kaggle's copy, else the demo set. ``notes[0]`` says which.

    A relative path starts in the working folder, or else in the repository. Raises ``InputError`` if ``CAPTION_DATA``
    names nothing readable, if the download fails, or if there is no data.
    """
    root, how, name = _locate(download)
    dataset = load_dataset(root, split, seed)
    name = name or dataset.name
    return replace(dataset, name=name, notes=[f"Dataset: {name} at {_shown(root)} ({how})", *dataset.notes])


def _locate(download: bool) -> tuple[Path, str, str | None]:
    """The folder, how it was found, and the data set's name where the folder's name does not tell."""
    repo, setting = repository() or Path.cwd(), os.environ.get("CAPTION_DATA", "")
    demo, local = repo / "data" / "demo", repo / "data" / "flickr8k"
    if setting and setting != "demo":
        given = Path(os.path.expanduser(setting))
        present = list(filter(os.path.exists, (given, repo / given)))  # notebooks run in a folder of their own
        if not present:
            raise InputError(f"CAPTION_DATA={setting}: no such folder; correct it, set demo or unset it")
        return present[0], "found by CAPTION_DATA", None
    if not setting:
        if any(local.glob("[!.]*")):
            return local, "found in the repository", None
        if found := find_layout(KAGGLE_INPUT, KAGGLE_DEPTH, skip=demo.resolve()):
            return found, f"found under {KAGGLE_INPUT}", None
        if download:
            return _download(), "downloaded from Kaggle", "flickr8k"
    if not demo.is_dir():
        raise InputError("no data set found; set CAPTION_DATA to a folder that holds captions.txt and Images")
    return demo, "found by CAPTION_DATA" if setting else "the demo set, since no other was found", "demo"


def _download() -> Path:
    try:
        import kagglehub

        return Path(kagglehub.dataset_download(KAGGLE_NAME))
    except Exception as error:  # a missing package, network or account each raises its own type
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{KAGGLE_NAME}: no download from Kaggle ({reason}); pip install kagglehub, or "
            "download it in a browser and set CAPTION_DATA to its folder"
        ) from None


def _shown(path: Path) -> str:
    """Relative to the repository if inside it, so that stored outputs name no machine."""
    repo = repository()
    return path.relative_to(repo).as_posix() if repo and path.is_relative_to(repo) else str(path)
