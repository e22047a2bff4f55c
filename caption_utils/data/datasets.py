"""A folder in any of the known layouts → a table of image, caption and split."""

import os
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from caption_utils.data.duplicates import close_pairs, fingerprint
from caption_utils.data.folders import find_images
from caption_utils.data.layouts import find_caption_file, note_names, passed_over, read_captions
from caption_utils.data.splits import FEWEST, SCHEMES, SPLITS, assign_split
from caption_utils.errors import InputError

UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{8}")  # Thai to Japanese


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

    @property
    def is_demo(self) -> bool:
        """Whether this is the demo set, or a copy of it: drawn scenes, with their ``scenes.json``."""
        return (self.root / "scenes.json").is_file()

    def split(self, name: str) -> "CaptionDataset":
        """The rows of one split. Raises ``InputError`` if there are none."""
        table = self.table[self.table["split"] == name].reset_index(drop=True)
        if table.empty:
            present = ", ".join(split for split in SPLITS if split in set(self.table["split"]))
            lost = f"captioned images without a file: {len(self.missing)}; " if self.missing else ""
            hints = {
                "random": f" (it takes {FEWEST.get(name)} images in all)",
                "official": f' ({lost}name some in a column "split" of the captions, or take a random split)',
            }
            hint = hints.get(self.scheme, "") if name in SPLITS else ""
            raise InputError(f"split {name!r} of {self.name} has no images{hint}; choose one of: {present}")
        return replace(self, table=table)

    @property
    def image_names(self) -> list[str]:
        """Each image once, in file order."""
        return list(self._captions)

    def path(self, name: str) -> Path:
        """The photo's file."""
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
        images = self.table[["image", "split"]].drop_duplicates("image", ignore_index=True)
        return fingerprint(list(map(self.path, images["image"]))).join(images)

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
    """Read a folder (or its caption file) of any layout in ``layouts``, and split it as ``assign_split`` does.

    Rows whose photo is missing are dropped and counted in ``notes``; with ``require_images=False``, no photo is looked
    for. Raises ``InputError`` for anything that cannot be read.
    """
    if split not in SCHEMES:
        raise InputError(f"split={split!r} is unknown; use one of {', '.join(SCHEMES)}")
    root = Path(os.path.realpath(os.path.expanduser(root)))
    file = find_caption_file(root)
    read = read_captions(file)
    if root == file:
        root = file.parent
    else:
        note_names(read.notes, passed_over(file), "Other caption files, not read (to read one, point to it)")
    table = pd.DataFrame(read.rows, columns=["image", "caption", "split"], dtype="str")
    notes, images, missing = read.notes, file.parent, list[str]()
    dropped = {reason: len(numbers) for reason, numbers in read.dropped.items()}
    if require_images and len(table):
        table, images, missing = _match_images(file, table, notes)
        dropped["without a photo"] = len(read.rows) - len(table)
    matched = len(table)
    table, scheme = assign_split(table, split, seed, root, file, notes)
    dropped["in no split"] = matched - len(table)
    if table.empty:
        raise InputError(f"{file}: no usable row; check that the file is complete")
    joined = sum(map(bool, map(UNSPACED.search, table["caption"])))
    if 2 * joined > len(table):
        notes.append(f"Captions without spaces between words: {joined}; put spaces there, or each counts as one word")
    notes.append(_row_counts(len(table), dropped))
    return CaptionDataset(read.name or root.name, root, images, table, notes, missing, scheme)


def _match_images(file: Path, table: pd.DataFrame, notes: list[str]) -> tuple[pd.DataFrame, Path, list[str]]:
    """The rows that have a photo, with its name as in the folder; that folder; the names of the missing photos."""
    names = list(table["image"].unique())
    folder, found, others = find_images(file, names)
    missing = [name for name in names if name not in found]
    note_names(notes, missing, f"Captioned images without a file in {folder} (rows dropped)")
    note_names(notes, others, "Image files without a caption (not used)")
    return table.assign(image=table["image"].map(found)).dropna(subset="image"), folder, missing


def _row_counts(kept: int, dropped: dict[str, int]) -> str:
    """One line that accounts for every row of the file."""
    reasons = [f"{number} {reason}" for reason, number in dropped.items() if number]
    lost = f", {sum(dropped.values())} dropped ({', '.join(reasons)})" if reasons else ""
    return f"Rows: {kept + sum(dropped.values())} read, {kept} kept{lost}"
