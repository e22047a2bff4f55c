"""A run from data set to measured model: what the command line and the notebooks call."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pandas as pd
import torch

from caption_utils.batches import CaptionBatches
from caption_utils.checkpoint import Model, load_model
from caption_utils.datasets import CaptionDataset, load_dataset
from caption_utils.decoder import DecoderConfig, build_decoder
from caption_utils.encoder import load_encoder
from caption_utils.errors import InputError
from caption_utils.features import extract
from caption_utils.metrics import bleu, cider_rouge, perplexity, unknown_rate
from caption_utils.runtime import device, repository, seed_everything
from caption_utils.search import greedy_search
from caption_utils.training import TrainConfig, fit
from caption_utils.vocab import Vocabulary

BATCH = 50  # images at a time in evaluation


def train_model(
    data: str | Path | CaptionDataset, out: str | Path, encoder_name: str = "efficientnet_lite2",
    split: str = "official", min_count: int = 3, settings: Mapping[str, object] | None = None,
) -> pd.DataFrame:
    """Read ``data``, extract its features, build vocabulary and decoder, and ``fit``; returns the history.

    ``settings`` are fields of ``DecoderConfig`` and ``TrainConfig``. Raises ``InputError`` as its parts do.
    """
    settings = settings or {}
    config = TrainConfig(**_fields_of(TrainConfig, settings))
    dataset = data if isinstance(data, CaptionDataset) else _read(data, split)
    train, val = dataset.split("train"), dataset.split("val")
    vocab = Vocabulary.build(train.table["caption"], min_count)
    seed_everything(config.seed)
    encoder = load_encoder(encoder_name, device())
    decoder = build_decoder(DecoderConfig(len(vocab), encoder.width, **_fields_of(DecoderConfig, settings)))
    store = extract(dataset, encoder)
    mirrored = extract(train, encoder, mirror=True) if config.mirror else None
    batches = CaptionBatches(train, store, vocab, config.images_per_batch, device(), mirrored, config.seed)
    model = Model(decoder.to(device()), vocab, encoder.name, encoder.fingerprint, {"data": dataset.name, "split": split})
    return fit(model, batches, CaptionBatches(val, store, vocab, BATCH, device()), config, out)


def evaluate_model(folder: str | Path, data: str | Path | CaptionDataset, split: str = "val") -> dict[str, object]:
    """One row of ``results/metrics.csv``: perplexity by teacher forcing, scores of freely decoded captions."""
    start = time.perf_counter()
    model = load_model(folder, device())
    scheme = str(model.training.get("split", "official"))
    dataset = (data if isinstance(data, CaptionDataset) else _read(data, scheme)).split(split)
    encoder = load_encoder(model.encoder, device())
    batches = CaptionBatches(dataset, extract(dataset, encoder), model.vocab, BATCH, device())
    captions = [model.vocab.decode(found.ids) for batch in batches.in_order()
                for found in greedy_search(model.decoder, batch.features)]
    references = [dataset.captions_of(name) for name in dataset.image_names]
    scores = {"unknown_rate": unknown_rate(batches.in_order(), model.vocab.unk),
              "perplexity": perplexity(model.decoder, batches.in_order()),
              **bleu(captions, references), **cider_rouge(captions, references)}
    return {
        "commit": _commit(), "data": dataset.name, "scheme": scheme, "split": split, "images": len(references),
        "model": Path(folder).name, "encoder": model.encoder, "attention": model.decoder.config.attention,
        "search": "greedy", "seed": model.training.get("seed"), "vocab_size": len(model.vocab),
        **{name: round(value, 4) for name, value in scores.items()},
        "seconds": round(time.perf_counter() - start, 1), "device": device().type,
    }


def append_row(path: str | Path, row: Mapping[str, object]) -> None:
    """Add a row to a csv whose columns are the row's names, creating it; whole or not at all."""
    path = Path(path)
    rows = list(csv.DictReader(path.open(newline="", encoding="utf-8"))) if path.exists() else []
    if rows and list(rows[0]) != list(row):
        raise InputError(f"{path}: its columns are not {', '.join(row)}; record into another file")
    temporary = Path(f"{path}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, row])
    os.replace(temporary, path)


def _read(data: str | Path, scheme: str) -> CaptionDataset:
    dataset = load_dataset(data, scheme)
    print("\n".join(dataset.notes), file=sys.stderr)
    return dataset


def _fields_of(config: type, settings: Mapping[str, object]) -> dict[str, object]:
    names = {field.name for field in fields(config)}
    return {name: value for name, value in settings.items() if name in names}


def _commit() -> str:
    """Short hash of the repository's commit, empty outside one."""
    folder = repository()
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True) if folder else None
    return found.stdout.strip() if found and found.returncode == 0 else ""
