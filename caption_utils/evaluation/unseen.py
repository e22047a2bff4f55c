"""Photos that a model was not trained on, and what it says of them."""

from collections.abc import Sequence
from pathlib import Path

from caption_utils.captioner import Caption, Captioner
from caption_utils.config import BEAMS
from caption_utils.data.datasets import CaptionDataset
from caption_utils.data.splits import LISTS
from caption_utils.encoders.store import FeatureStore
from caption_utils.errors import InputError
from caption_utils.training.checkpoint import Model
from caption_utils.training.preparation import BATCH, read_dataset, unseen


def read_split(data: str | Path | CaptionDataset, model: Model, split: str) -> tuple[CaptionDataset, CaptionDataset]:
    """The data set, split as the model's training data was, and its ``split``; of ``val`` and ``test`` what is unseen.

    Raises ``InputError`` as reading the data does, if only chance could tell the split's photos from the training
    photos, and if no photo is left.
    """
    scheme = str(model.training.get("split", "official"))
    whole = read_dataset(data, scheme)
    if split == "train" or not model.trained_on:
        _refuse_chance(whole, scheme, split)
    photos = whole.split(split)
    return whole, photos if split == "train" else unseen(photos, model)


def best_captions(captioner: Captioner, store: FeatureStore, names: Sequence[str], beams: int = BEAMS) -> list[Caption]:
    """The best caption of each of the photos ``names``, from their stored features."""
    found, device = [], next(captioner.model.decoder.parameters()).device
    for start in range(0, len(names), BATCH):
        features = store[names[start : start + BATCH]].to(device).float()
        found += [best for best, *_ in captioner.captions(features, beams)]
    return found


def _refuse_chance(dataset: CaptionDataset, scheme: str, split: str) -> None:
    """A model of the official split needs the official lists: a random split would mix in its training photos."""
    if scheme == "official" and dataset.scheme != "official" and split in LISTS:
        raise InputError(
            f"{dataset.root}: no list tells its {split} photos from those that the model was trained on; "
            f"put {LISTS[split]} there"
        )
