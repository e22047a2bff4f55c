"""What every notebook begins with: its data and profile, the settings of each profile, and a folder for the model."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from caption_utils.config import ENCODER
from caption_utils.data.datasets import CaptionDataset
from caption_utils.data.folders import attached, files_in
from caption_utils.data.locate import KAGGLE_NAME, find_dataset
from caption_utils.encoders.encoder import load_encoder
from caption_utils.errors import InputError
from caption_utils.files import replacing
from caption_utils.runtime import describe_host, device, host, profile, writable_dir
from caption_utils.training.checkpoint import LAST

# What the notebooks train, for both attentions: the demo set in half a minute, Flickr8k with the best recipe, and
# the settings of the project that this series follows, which had no early stopping
NOTEBOOK_ENCODERS = {"fast": "efficientnet_lite2_local", "full": "resnet101", "source": "resnet101"}
NOTEBOOKS = {
    "fast": {
        "epochs": 5,
        "images_per_batch": 8,
        "learning_rate": 4e-3,
        "schedule": "one_cycle",
        "dropout": 0.1,
        "embed_dim": 64,
        "hidden_dim": 128,
        "attention_dim": 64,
        "region_dim": 128,
        "deep_output": True,
        "score": "concat",  # with general, all weight lies on one region before the decoder knows which
    },
    "full": {
        "epochs": 10,
        "images_per_batch": 16,
        "learning_rate": 2e-3,
        "schedule": "one_cycle",
        "dropout": 0.3,
        "feature_dropout": 0.2,
        "label_smoothing": 0.05,
        "weight_decay": 0.02,
        "mirror": True,
        "region_dim": 512,
        "deep_output": True,
        "tie_weights": True,
        "normalizer": "entmax",
        "from_context": 0.5,
    },
    "source": {
        "epochs": 100,
        "patience": 100,
        "images_per_batch": 16,
        "learning_rate": 3e-4,
        "schedule": "constant",
        "embed_dim": 512,
        "hidden_dim": 256,
    },
}


def begin() -> tuple[CaptionDataset, str]:
    """A notebook's data set and profile, printed together with versions and device.

    The data set is the one that ``find_dataset`` finds; on Kaggle and Colab, Flickr8k is downloaded if there is none.
    """
    dataset, obstacle = _find()
    chosen = profile(dataset.is_demo)
    print(describe_host())
    print(*dataset.notes, sep="\n")
    print("profile:", chosen)
    for line in _warnings(dataset, obstacle):
        rule = "!" * 100
        print(f"{rule}\n{line}\n{rule}", file=sys.stderr)  # notebooks show stderr on red
    return dataset, chosen


def _find() -> tuple[CaptionDataset, str]:
    """The data set, and why Flickr8k could not be downloaded if that failed."""
    try:
        return find_dataset(download=host() != "local"), ""
    except InputError as error:
        return find_dataset(), f" ({error})"  # raises the error again unless it is the download's


def _warnings(dataset: CaptionDataset, obstacle: str) -> list[str]:
    """What must not be overlooked: drawings where a GPU could train on photographs, and a random split."""
    found = []
    if dataset.is_demo and not os.environ.get("CAPTION_DATA") and device().type == "cuda":
        found.append(
            "THERE IS A GPU, BUT NO PHOTOGRAPHS: everything below trains small models on drawn scenes.\n"
            f"Attach the data set {KAGGLE_NAME}, or set CAPTION_DATA to a folder with Flickr8k{obstacle}."
        )
    if dataset.scheme == "random" and not dataset.is_demo:
        found.append("THE SPLIT IS RANDOM: scores cannot be compared with published ones.")
    return found


def recipe(attention: str, dataset: CaptionDataset, chosen: str) -> dict[str, Any]:
    """The arguments of ``train_model`` for a profile and these data."""
    return {
        "encoder_name": usable_encoder(NOTEBOOK_ENCODERS[chosen]),
        "min_count": 3 if len(dataset.table) > 1000 else 1,  # with few captions, keep every word
        "settings": {"attention": attention, **NOTEBOOKS[chosen]},
    }


@cache
def usable_encoder(name: str) -> str:
    """``name`` itself or, if its weights cannot be loaded, the one that is always installed, with a message."""
    if name == ENCODER:
        return name
    try:
        return load_encoder(name).name
    except InputError as error:
        print(f"Using the encoder {ENCODER} instead of {name}: {error}")
        return ENCODER


def model_folder(name: str, dataset: CaptionDataset, arguments: Mapping[str, Any]) -> Path:
    """Where ``train_model`` with these arguments writes its model; other data or settings give another name.

    If Kaggle has attached a run of that name, as the output of an earlier session, it is copied there to be continued.
    """
    digest = hashlib.blake2b(json.dumps(arguments, sort_keys=True, default=str).encode(), digest_size=4)
    digest.update(dataset.table.to_csv(index=False).encode(errors="surrogatepass"))
    folder = writable_dir("models") / f"{name}-{dataset.root.name}-{digest.hexdigest()}"
    earlier = attached(folder.name)
    if earlier and (earlier / LAST).exists() and not (folder / LAST).exists():
        for file in sorted(files_in(earlier), key=lambda file: file.name == LAST):  # when all are there
            with replacing(folder / file.name) as copy:
                shutil.copyfile(file, copy)  # without read-only permissions
        print(f"{folder.name}: continued from {earlier}")
    return folder
