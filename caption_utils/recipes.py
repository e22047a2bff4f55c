"""What every notebook begins with: data and profile, announced; what each profile trains, and the folder for it."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from caption_utils.config import ENCODER, NOTEBOOK_ENCODERS, NOTEBOOKS
from caption_utils.data.datasets import KAGGLE_NAME, CaptionDataset, find_dataset
from caption_utils.data.folders import attached
from caption_utils.encoders.encoder import load_encoder
from caption_utils.errors import InputError
from caption_utils.runtime import describe_host, device, host, profile, writable_dir
from caption_utils.training.checkpoint import LAST


def begin() -> tuple[CaptionDataset, str]:
    """The data and the profile of a notebook, announced together with the machine.

    The data are what ``find_dataset`` finds; on Kaggle and Colab, Flickr8k is downloaded if nothing else is found.
    """
    dataset, obstacle = _find()
    chosen = profile(is_demo(dataset))
    print(describe_host())
    print(*dataset.notes, sep="\n")
    print("profile:", chosen)
    for line in _warnings(dataset, obstacle):
        rule = "!" * 100
        print(f"{rule}\n{line}\n{rule}", file=sys.stderr)  # notebooks show it on red
    return dataset, chosen


def _find() -> tuple[CaptionDataset, str]:
    """The data set, and why Flickr8k could not be downloaded if that was tried in vain."""
    try:
        return find_dataset(download=host() != "local"), ""
    except InputError as error:
        return find_dataset(), f" ({error})"  # raises it again unless it was the download's


def is_demo(dataset: CaptionDataset) -> bool:
    """Whether these are the drawn scenes of the demo set."""
    return dataset.root.name == "demo"


def _warnings(dataset: CaptionDataset, obstacle: str) -> list[str]:
    """What must not be overlooked: drawings where a GPU could train on photographs, and a split of one's own."""
    found = []
    if is_demo(dataset) and not os.environ.get("CAPTION_DATA") and device().type == "cuda":
        found.append(
            "THERE IS A GPU, BUT NO PHOTOGRAPHS: all that follows is trained on drawn scenes, in little.\n"
            f"Attach the data set {KAGGLE_NAME}, or set CAPTION_DATA to a folder with Flickr8k{obstacle}."
        )
    if dataset.scheme == "random" and not is_demo(dataset):
        found.append("THE SPLIT IS DRAWN BY CHANCE: scores do not compare with those that others publish.")
    return found


def recipe(attention: str, dataset: CaptionDataset, chosen: str) -> dict[str, Any]:
    """What a profile trains on these data, as arguments of ``train_model``."""
    return {
        "encoder_name": usable_encoder(NOTEBOOK_ENCODERS[chosen]),
        "min_count": 3 if len(dataset.table) > 1000 else 1,  # of few captions every word counts
        "settings": {"attention": attention, **NOTEBOOKS[chosen]},
    }


@cache
def usable_encoder(name: str) -> str:
    """``name`` itself, or where its weights cannot be had, the encoder that comes along, and a line that says so."""
    if name == ENCODER:
        return name
    try:
        return load_encoder(name).name
    except InputError as error:
        print(f"The encoder is {ENCODER}, and not {name}: {error}")
        return ENCODER


def model_folder(name: str, dataset: CaptionDataset, arguments: Mapping[str, Any]) -> Path:
    """Where ``train_model`` with these arguments writes its model: a name of its own for other data or settings.

    A run of that name which Kaggle has attached, as the output of an earlier session, is copied there, to be gone on
    with or used.
    """
    digest = hashlib.blake2b(json.dumps(arguments, sort_keys=True, default=str).encode(), digest_size=4)
    digest.update(dataset.table.to_csv(index=False).encode(errors="surrogatepass"))
    folder = writable_dir("models") / f"{name}-{dataset.root.name}-{digest.hexdigest()}"
    earlier = attached(folder.name)
    if earlier and (earlier / LAST).exists() and not (folder / LAST).exists():
        shutil.copytree(earlier, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
        print(f"{folder.name}: gone on with from {earlier}")
    return folder
