"""Where the data are: a folder that the user names, the repository, Kaggle's, or a download."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from caption_utils.data.datasets import CaptionDataset, load_dataset
from caption_utils.data.folders import DEPTH, IMAGE_FOLDERS, MOST_ENTRIES, walk
from caption_utils.data.layouts import find_caption_file
from caption_utils.errors import InputError
from caption_utils.runtime import KAGGLE_INPUT, repository

KAGGLE_NAME = "adityajn105/flickr8k"


def find_dataset(download: bool = False) -> CaptionDataset:
    """The data set that ``CAPTION_DATA`` names (a path, or ``demo``), else ``data/flickr8k``, else one in
    ``/kaggle/input``, else (only if ``download``) Kaggle's copy, else the demo set. ``notes[0]`` says which.

    A relative path starts from the working directory or else from the repository. Raises ``InputError`` if
    ``CAPTION_DATA`` names nothing readable, if the download fails, or if there is no data.
    """
    root, how, name = _locate(download)
    dataset = load_dataset(root)
    name = name or dataset.name
    return replace(dataset, name=name, notes=[f"Dataset: {name} at {_shown(root)} ({how})", *dataset.notes])


def _locate(download: bool) -> tuple[Path, str, str | None]:
    """The folder, how it was found, and the data set's name if it is not the folder's."""
    repo, setting = repository() or Path.cwd(), os.environ.get("CAPTION_DATA", "")
    demo, local = repo / "data" / "demo", repo / "data" / "flickr8k"
    if setting and setting != "demo":
        given = Path(os.path.expanduser(setting))
        present = list(filter(os.path.exists, (given, repo / given)))  # a notebook's working directory is its own
        if not present:
            raise InputError(f"CAPTION_DATA={setting}: no such folder; correct it, set demo or unset it")
        return present[0], "found by CAPTION_DATA", None
    if not setting:
        if any(local.glob("[!.]*")):
            return local, "found in the repository", None
        if found := find_layout(KAGGLE_INPUT):
            return found, f"found under {KAGGLE_INPUT}", None
        if download:
            return _download(), "downloaded from Kaggle", "flickr8k"
    if not demo.is_dir():
        raise InputError("no data set found; set CAPTION_DATA to a folder that holds captions.txt and Images")
    return demo, "found by CAPTION_DATA" if setting else "the demo set, since no other was found", "demo"


def find_layout(base: Path) -> Path | None:
    """The first folder in or below ``base`` with a caption file and a folder of images, except copies of the demo set,
    which an earlier session's output may hold.
    """
    for folder in walk(base, DEPTH, MOST_ENTRIES):
        drawn = os.path.isfile(folder / "scenes.json")
        if not drawn and any(os.path.isdir(folder / name) for name in IMAGE_FOLDERS):
            with suppress(InputError):
                find_caption_file(folder)
                return folder
    return None


def _download() -> Path:
    try:
        import kagglehub

        return Path(kagglehub.dataset_download(KAGGLE_NAME))
    except Exception as error:  # a missing package, network or account each raises its own type
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{KAGGLE_NAME}: download from Kaggle failed ({reason}); pip install kagglehub, or "
            "download it in a browser and set CAPTION_DATA to its folder"
        ) from None


def _shown(path: Path) -> str:
    """Relative to the repository if inside it, so that stored outputs are the same on every machine."""
    repo = repository()
    return path.relative_to(repo).as_posix() if repo and path.is_relative_to(repo) else str(path)
