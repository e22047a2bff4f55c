"""What a run of training begins with: settings checked, data read, a vocabulary, stored features in batches."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from caption_utils.config import (
    FROM_DATA,
    MAX_LENGTH,
    DecoderConfig,
    FineTuneConfig,
    RunConfig,
    SelfCriticalConfig,
    TrainConfig,
)
from caption_utils.data.datasets import CaptionDataset, load_dataset
from caption_utils.data.layouts import summary
from caption_utils.data.vocab import Vocabulary
from caption_utils.data.wordpiece import WordPiece
from caption_utils.encoders.encoder import Encoder, encoder_spec
from caption_utils.encoders.store import FeatureStore, extract
from caption_utils.errors import InputError
from caption_utils.runtime import device
from caption_utils.training.batches import CaptionBatches
from caption_utils.training.checkpoint import Model
from caption_utils.training.processes import join_processes
from caption_utils.training.progress import check_unfinished

BATCH = 50  # images at a time in evaluation
OTHER_RUNS = {  # what the settings of other runs need
    FineTuneConfig: "--start and --fine-tune, or fine_tune_model",
    SelfCriticalConfig: "--self-critical, or refine_model",
}
B = TypeVar("B", bound=CaptionBatches)


def check_settings(encoder_name: str, settings: Mapping[str, Any]) -> None:
    """Raises ``InputError`` for the first setting that is unknown, out of range or does not fit the others."""
    known = {field.name for config in (DecoderConfig, TrainConfig) for field in fields(config)}
    for name in settings:
        if name not in known - {*FROM_DATA}:
            for kind, needed in OTHER_RUNS.items():
                if fields_of(kind, {name: None}):
                    raise InputError(f"setting {name!r} needs {needed}")
            raise InputError(f"setting {name!r} is unknown; the fields of DecoderConfig and TrainConfig are known")
    TrainConfig(**fields_of(TrainConfig, settings))
    spec, shape = encoder_spec(encoder_name), fields_of(DecoderConfig, settings)
    config = DecoderConfig(1, spec.width, local_dim=spec.local, **shape)
    check_context(config, settings.get("from_context", 0.0))


def check_context(decoder: DecoderConfig, from_context: float) -> None:
    """Raises ``InputError`` where the context alone is to say words and reaches them only through the LSTM."""
    reaches_words = decoder.attention == "luong" or (decoder.attention == "bahdanau" and decoder.deep_output)
    if from_context and not reaches_words:
        raise InputError(
            "from_context needs a model whose context has a way to the words: "
            "attention bahdanau with deep_output, or luong"
        )


def check_folder(out: str | Path) -> None:
    """Raises ``InputError`` if the folder to write into, which need not exist, is a file or allows no writing."""
    place = next(folder for folder in (Path(out).absolute(), *Path(out).absolute().parents) if folder.exists())
    if not place.is_dir():
        raise InputError(f"{place}: a file, not a folder; name a folder to write into")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{out}: {place} cannot be written; name another folder, or change its permissions")


def check_out(out: str | Path) -> None:
    """Raises ``InputError`` if no model can be trained into the folder: see ``check_folder``, ``check_unfinished``."""
    check_folder(out)
    check_unfinished(Path(out))


def fields_of(config: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are fields of ``config``."""
    names = {field.name for field in fields(config)}
    return {name: value for name, value in settings.items() if name in names}


def read_dataset(data: str | Path | CaptionDataset, scheme: str) -> CaptionDataset:
    """``load_dataset``, with its notes on the error stream, once for all processes; one that is read stays as it is."""
    if isinstance(data, CaptionDataset):
        return data
    dataset = load_dataset(data, scheme)
    if join_processes().is_main_process:
        print("\n".join(dataset.notes), file=sys.stderr)
    return dataset


def unseen(dataset: CaptionDataset, model: Model) -> CaptionDataset:
    """Without the photos that the model was trained on, as a line on the error stream says, once for all processes."""
    seen = list(filter(model.saw, dataset.image_names))
    if len(seen) == len(dataset.image_names):
        why = ", since the split source divides captions, not photos; train one with --split official"
        remedy = why if dataset.scheme == "source" else "; take others"
        raise InputError(f"{dataset.root}: the model was trained on all {len(seen)} photos of this split{remedy}")
    if seen and join_processes().is_main_process:
        print(f"Photos that the model was trained on (left out): {summary(seen)}", file=sys.stderr)
    return replace(dataset, table=dataset.table[~dataset.table["image"].isin(seen)])


def build_vocabulary(train: CaptionDataset, min_count: int, tokenizer: str = "words") -> Vocabulary:
    """The words of the training captions, or pieces of them. Raises ``InputError`` if none is frequent enough."""
    wordpiece = None if tokenizer == "words" else WordPiece.read(tokenizer)
    vocab = Vocabulary.build(train.table["caption"], min_count, wordpiece)
    if not vocab.counts:
        raise InputError(f"min_count={min_count}: no word of {train.name} is used that often; choose a smaller number")
    return vocab


def training_device() -> torch.device:
    """The device that this process was given, or the best there is."""
    return join_processes().device or device()


def training_batches(
    dataset: CaptionDataset,
    encoder: Encoder,
    vocab: Vocabulary,
    config: RunConfig,
    place: torch.device,
    make: Callable[..., B],
) -> B:
    """Batches as ``make`` makes them; each process extracts its share of the features.

    A line on the error stream says if many captions are longer than a model's own can be.
    """
    train = dataset.split("train")
    store = _extracted(train, encoder, place)
    mirrored = _extracted(train, encoder, place, mirror=True) if config.mirror else None
    batches = make(train, store, vocab, config.images_per_batch, place, mirrored, config.seed)
    long = sum(len(ids) - 2 > MAX_LENGTH for image in batches.captions for ids in image)  # <bos> and <eos> are two
    if 20 * long > len(train.table) and join_processes().is_main_process:
        print(f"Captions of more than {MAX_LENGTH} tokens: {long}; the model's own end there", file=sys.stderr)
    return batches


def validation_batches(val: CaptionDataset, encoder: Encoder, vocab: Vocabulary, place: torch.device) -> CaptionBatches:
    """All validation captions in batches of ``BATCH`` images; each process extracts its share of the features."""
    return CaptionBatches(val, _extracted(val, encoder, place), vocab, BATCH, place)


def _extracted(part: CaptionDataset, encoder: Encoder, place: torch.device, mirror: bool = False) -> FeatureStore:
    processes = join_processes()
    store = extract(part, encoder, mirror=mirror, rows=slice(processes.process_index, None, processes.num_processes))
    processes.wait_for_everyone()
    return store.to(place)
