"""A run from data set to trained model: what the command line and the notebooks call."""

import sys
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from caption_utils.config import ENCODER, DecoderConfig, TrainConfig
from caption_utils.data.datasets import CaptionDataset
from caption_utils.data.splits import name_digest
from caption_utils.data.vocab import Vocabulary
from caption_utils.data.word_vectors import WordVectors, load_word_vectors
from caption_utils.encoders.encoder import Encoder, load_encoder
from caption_utils.errors import InputError
from caption_utils.files import replacing
from caption_utils.model.decoder import Decoder, build_decoder
from caption_utils.plots import learning_curve
from caption_utils.runtime import device, gpu_count, seed_everything
from caption_utils.training.batches import CaptionBatches
from caption_utils.training.checkpoint import Model, load_model
from caption_utils.training.preparation import (
    build_vocabulary,
    check_out,
    check_settings,
    fields_of,
    read_dataset,
    training_batches,
    training_device,
    validation_batches,
)
from caption_utils.training.processes import call_in_forks, join_processes
from caption_utils.training.trainer import fit


def train_model(
    data: str | Path | CaptionDataset,
    out: str | Path,
    encoder_name: str = ENCODER,
    split: str = "official",
    min_count: int = 3,
    settings: Mapping[str, Any] | None = None,
    teachers: Sequence[str | Path] = (),
    tokenizer: str = "words",
    word_vectors: str | None = None,
) -> pd.DataFrame:
    """Read ``data``, extract its features, build vocabulary and decoder, and ``fit``; returns the history.

    Beside the model folder's files, ``out`` gets the learning curve as ``curve.png``. Started in several processes, all
    train the one model on the devices they were given.

    ``settings`` are fields of ``DecoderConfig`` and ``TrainConfig``; ``teachers`` are model folders to learn from, to
    the share that the setting ``distillation`` gives them. ``tokenizer`` is ``words``, ``wordpiece`` or the path of a
    ``tokenizer.json``; ``word_vectors`` is what ``load_word_vectors`` takes. Raises ``InputError`` as its parts do, and
    for settings unknown, out of range or at odds before any work is done.
    """
    settings = settings or {}
    check_settings(encoder_name, settings)
    _check_teachers(teachers, settings)
    _check_words(min_count, tokenizer, word_vectors, settings)
    check_out(out)
    processes = join_processes()
    place = training_device()
    config = TrainConfig(**fields_of(TrainConfig, settings))
    dataset = read_dataset(data, split)
    train = dataset.split("train")
    vocab = build_vocabulary(train, min_count, tokenizer)
    vectors = load_word_vectors(word_vectors, vocab.counts) if word_vectors is not None else None
    if vectors and processes.is_main_process:
        print(vectors.coverage(vocab.counts), file=sys.stderr)
    encoder = load_encoder(encoder_name, place)
    decoders = [load_teacher(folder, vocab, encoder.fingerprint, place) for folder in teachers]
    decoder = new_decoder(encoder, vocab, vectors, settings, config)
    batches = training_batches(dataset, encoder, vocab, config, place, CaptionBatches)
    val = validation_batches(dataset.split("val"), encoder, vocab, place)
    source = {
        "data": dataset.name,
        "split": dataset.scheme,
        "teachers": [Path(folder).name for folder in teachers],
        "tokenizer": Path(tokenizer).name,
        "word_vectors": vectors.name if vectors else None,
    }
    trained_on = frozenset(map(name_digest, train.image_names))
    model = Model(decoder.to(place), vocab, encoder.name, encoder.fingerprint, source, trained_on)
    return with_curve(fit(model, batches, val, config, out, decoders), out)


def new_decoder(
    encoder: Encoder, vocab: Vocabulary, vectors: WordVectors | None, settings: Mapping[str, Any], config: TrainConfig
) -> Decoder:
    """The decoder that a run begins with: weights drawn by its seed, and word vectors, if any."""
    seed_everything(config.seed)
    found = {"local_dim": encoder.local, "word_dim": vectors.width if vectors else 0}
    shape = fields_of(DecoderConfig, settings) | found
    decoder = build_decoder(DecoderConfig(len(vocab), encoder.width, **shape))
    if vectors:
        insert_word_vectors(decoder, vocab, vectors, config.freeze_word_vectors)
    return decoder


def _check_teachers(teachers: Sequence[str | Path], settings: Mapping[str, Any]) -> None:
    if bool(teachers) != bool(settings.get("distillation")):
        raise InputError("distillation needs teachers and a share above 0; give both --teacher and --distillation")


def _check_words(min_count: int, tokenizer: str, word_vectors: str | None, settings: Mapping[str, Any]) -> None:
    if not isinstance(min_count, int) or min_count < 1:
        raise InputError(f"min_count={min_count!r} is out of range; choose a whole number from 1")
    if word_vectors is not None and tokenizer != "words":
        raise InputError(f"word vectors are for whole words, and tokenizer {tokenizer} makes pieces; leave one out")
    if settings.get("freeze_word_vectors") and word_vectors is None:
        raise InputError("freeze_word_vectors has no word vectors to freeze; give --word-vectors too")


def load_teacher(folder: str | Path, vocab: Vocabulary, fingerprint: str, place: torch.device) -> Decoder:
    """The decoder of a model folder. Raises ``InputError`` if it has other words or another encoder."""
    model = load_model(folder, place)
    if model.vocab.fingerprint() != vocab.fingerprint() or model.fingerprint != fingerprint:
        raise InputError(f"{folder}: knows other words or another encoder; a teacher needs the same of both")
    return model.decoder


@torch.no_grad()
def insert_word_vectors(decoder: Decoder, vocab: Vocabulary, vectors: WordVectors, freeze: bool) -> None:
    """Give words their vectors; words without one get random vectors of the same mean square.

    ``freeze`` keeps all as they are in training.
    """
    known = torch.tensor(np.stack(list(vectors.vectors.values())))
    rows = torch.tensor([vocab.ids[word] for word in vectors.vectors])
    table = decoder.embedding.weight
    torch.nn.init.normal_(table, std=known.square().mean().sqrt().item())
    table[rows] = known
    table.requires_grad_(not freeze)


def with_curve(history: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """The history, of which the main process draws ``curve.png``."""
    if join_processes().is_main_process:
        with replacing(Path(folder) / "curve.png") as path:
            learning_curve(history).savefig(path, format="png")
    return history


def train_on_all_gpus(*arguments: Any, **named: Any) -> pd.DataFrame:
    """``train_model``, which takes the same arguments, in one process for each GPU of the machine; for notebooks.

    The processes are forks, which can use no GPU that was used before, nor compute gradients if this process has. So
    call it before anything else does. After gradients alone it fails; after a GPU was used, and with one GPU or none,
    it is ``train_model``. A line says on how many GPUs it trains.
    """
    bound = signature(train_model).bind(*arguments, **named)
    bound.apply_defaults()
    count = gpu_count() if device().type == "cuda" else 0
    if count > 1 and torch.cuda.is_initialized():
        print(f"Training on 1 of {count} GPUs: this process has used one; restart the kernel to train on all")
    if count < 2 or torch.cuda.is_initialized():
        return train_model(*bound.args)
    print(f"Training on {count} GPUs, with a process for each")
    call_in_forks(count, train_model, *bound.args)
    return pd.read_csv(Path(bound.arguments["out"]) / "log.csv")
