"""A run from data set to trained model: what the command line and the notebooks call."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import fields, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from caption_utils.config import (
    ENCODER,
    FROM_DATA,
    DecoderConfig,
    FineTuneConfig,
    RunConfig,
    SelfCriticalConfig,
    TrainConfig,
)
from caption_utils.data.datasets import CaptionDataset, load_dataset
from caption_utils.data.splits import name_digest
from caption_utils.data.vocab import Vocabulary
from caption_utils.data.word_vectors import WordVectors, load_word_vectors
from caption_utils.data.wordpiece import WordPiece
from caption_utils.encoders.encoder import Encoder, encoder_spec, load_encoder
from caption_utils.encoders.store import FeatureStore, extract
from caption_utils.errors import InputError
from caption_utils.files import replacing
from caption_utils.model.decoder import Decoder, build_decoder
from caption_utils.plots import learning_curve
from caption_utils.runtime import device, gpu_count, seed_everything
from caption_utils.training.batches import CaptionBatches
from caption_utils.training.checkpoint import Model, check_encoder, load_model
from caption_utils.training.fine_tuning import FineTuning, PictureBatches
from caption_utils.training.processes import join_processes
from caption_utils.training.self_critical import DrawnBatches, refine
from caption_utils.training.trainer import fit

BATCH = 50  # images at a time in evaluation
LOSS = ("label_smoothing", "doubly_stochastic", "from_context", "reinforce", "entropy")  # settings of what is lowered


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
    _check_words(tokenizer, word_vectors, settings)
    _check_folder(out)
    processes = join_processes()
    place = _place()
    config = TrainConfig(**_fields_of(TrainConfig, settings))
    dataset = read_dataset(data, split, processes.is_main_process)
    train = dataset.split("train")
    vocab = build_vocabulary(train, min_count, tokenizer)
    vectors = load_word_vectors(word_vectors, vocab.counts) if word_vectors is not None else None
    if vectors and processes.is_main_process:
        print(vectors.coverage(vocab.counts), file=sys.stderr)
    encoder = load_encoder(encoder_name, place)
    decoders = [load_teacher(folder, vocab, encoder.fingerprint, place) for folder in teachers]
    seed_everything(config.seed)
    found = {"local_dim": encoder.local, "word_dim": vectors.width if vectors else 0}
    shape = _fields_of(DecoderConfig, settings) | found
    decoder = build_decoder(DecoderConfig(len(vocab), encoder.width, **shape))
    if vectors:
        insert_word_vectors(decoder, vocab, vectors, config.freeze_word_vectors)
    batches = _to_train_on(dataset, encoder, vocab, config, place, CaptionBatches)
    val = _to_validate_on(dataset, encoder, vocab, place)
    source = {
        "data": dataset.name,
        "split": dataset.scheme,
        "teachers": [Path(folder).name for folder in teachers],
        "tokenizer": Path(tokenizer).name,
        "word_vectors": vectors.name if vectors else None,
    }
    trained_on = frozenset(map(name_digest, train.image_names))
    model = Model(decoder.to(place), vocab, encoder.name, encoder.fingerprint, source, trained_on)
    return _with_curve(fit(model, batches, val, config, out, decoders), out)


def refine_model(
    data: str | Path | CaptionDataset, start: str | Path, out: str | Path, settings: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Read ``data`` and ``refine`` the model of the folder ``start`` into the folder ``out``; returns the history.

    Words, encoder, split and the shape of the decoder, its dropout too, are those of ``start``; ``settings`` are fields
    of ``SelfCriticalConfig``. Else it is as ``train_model``. Raises ``InputError`` as its parts do, for other settings
    and for hard attention.
    """
    config = _config_of(SelfCriticalConfig, "self-critical training", settings or {})
    _check_folder(out)
    place = _place()
    model = load_model(start, place)
    if model.decoder.config.hard:
        raise InputError(f"{start}: has hard attention, which self-critical training does not know; take another model")
    model, encoder, dataset = _begin(data, model, start, "self_critical")
    make = partial(DrawnBatches, model.decoder, config)
    train = _to_train_on(dataset, encoder, model.vocab, config, place, make)
    val = _to_validate_on(dataset, encoder, model.vocab, place)
    return _with_curve(refine(model, train, val, config, out), out)


def fine_tune_model(
    data: str | Path | CaptionDataset, start: str | Path, out: str | Path, settings: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Read ``data`` and fine-tune the model of the folder ``start`` into the folder ``out``; returns the history.

    What is stored of each image is the map in front of the first stage that learns. ``settings`` are fields of
    ``FineTuneConfig``, without teachers and word vectors; what the loss is made of stays, if they do not tell it, as
    ``start`` was trained. Else it is as ``refine_model``. Raises ``InputError`` as its parts do and for other settings.
    """
    settings = settings or {}
    _config_of(FineTuneConfig, "fine-tuning", settings, others=("distillation", "freeze_word_vectors"))
    _check_folder(out)
    place = _place()
    model, encoder, dataset = _begin(data, load_model(start, place), start, "fine_tuned")
    before = model.training["fine_tuned"]["training"]
    config = FineTuneConfig(**({name: before[name] for name in LOSS if name in before} | dict(settings)))
    _check_context(model.decoder.config, config.from_context)
    encoder.last_stages(config.fine_tune)  # an impossible number is told before any work is done
    before = encoder.before(config.fine_tune)
    val = _to_validate_on(dataset, before, model.vocab, place)
    train: CaptionBatches
    if config.crop:
        train = PictureBatches(dataset.split("train"), encoder.size, model.vocab, config, place)
    else:
        train = _to_train_on(dataset, before, model.vocab, config, place, CaptionBatches)
    return _with_curve(FineTuning(model, encoder, config, Path(out), train, val).run(), out)


def _begin(
    data: str | Path | CaptionDataset, model: Model, start: str | Path, kind: str
) -> tuple[Model, Encoder, CaptionDataset]:
    """The ``model`` of the folder ``start``, whose ``training`` now tells the kind of run, its encoder and its data.

    Raises ``InputError`` for an ensemble.
    """
    if "models" in model.training:
        raise InputError(f"{start}: an ensemble, whose models are trained one by one; name one of them")
    encoder = model.own_encoder(load_encoder(model.encoder, _place()))
    check_encoder(model, encoder.name, encoder.fingerprint)
    dataset = read_dataset(data, str(model.training.get("split", "official")), join_processes().is_main_process)
    before = {"model": Path(start).resolve().name, "training": model.training}
    source = {"data": dataset.name, "split": dataset.scheme, kind: before}
    trained_on = model.trained_on.union(map(name_digest, dataset.split("train").image_names))
    return replace(model, training=source, trained_on=trained_on), encoder, dataset


def _place() -> torch.device:
    return join_processes().device or device()


B = TypeVar("B", bound=CaptionBatches)


def _to_train_on(
    dataset: CaptionDataset,
    encoder: Encoder,
    vocab: Vocabulary,
    config: RunConfig,
    place: torch.device,
    make: Callable[..., B],
) -> B:
    """Batches as ``make`` makes them; each process extracts its share of the features."""
    train = dataset.split("train")
    store = _extracted(train, encoder, place)
    mirrored = _extracted(train, encoder, place, mirror=True) if config.mirror else None
    return make(train, store, vocab, config.images_per_batch, place, mirrored, config.seed)


def _to_validate_on(
    dataset: CaptionDataset, encoder: Encoder, vocab: Vocabulary, place: torch.device
) -> CaptionBatches:
    val = dataset.split("val")
    return CaptionBatches(val, _extracted(val, encoder, place), vocab, BATCH, place)


def _extracted(part: CaptionDataset, encoder: Encoder, place: torch.device, mirror: bool = False) -> FeatureStore:
    processes = join_processes()
    store = extract(part, encoder, mirror=mirror, rows=slice(processes.process_index, None, processes.num_processes))
    processes.wait_for_everyone()
    return store.to(place)


def _check_folder(out: str | Path) -> None:
    if Path(out).exists() and not Path(out).is_dir():
        raise InputError(f"{out}: a file, not a folder; name a folder to write the model into")


C = TypeVar("C", bound=RunConfig)


def _config_of(kind: type[C], name: str, settings: Mapping[str, Any], others: Sequence[str] = ()) -> C:
    """The settings of a run that goes on from a model. ``others`` are fields of ``kind`` that it does not take."""
    known = _fields_of(kind, settings)
    if unknown := (settings.keys() - known.keys()) | (known.keys() & {*others}):
        raise InputError(
            f"{', '.join(sorted(unknown))}: no setting of {name}, which takes the model as it is; "
            f"the fields of {kind.__name__} are"
        )
    return kind(**known)


def _check_teachers(teachers: Sequence[str | Path], settings: Mapping[str, Any]) -> None:
    if bool(teachers) != bool(settings.get("distillation")):
        raise InputError("distillation needs teachers and a share above 0; give both --teacher and --distillation")


def _check_words(tokenizer: str, word_vectors: str | None, settings: Mapping[str, Any]) -> None:
    if word_vectors is not None and tokenizer != "words":
        raise InputError(f"word vectors are for whole words, and tokenizer {tokenizer} makes pieces; leave one out")
    if settings.get("freeze_word_vectors") and word_vectors is None:
        raise InputError("freeze_word_vectors has no word vectors to freeze; give --word-vectors too")


def _with_curve(history: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """The history, of which the main process draws ``curve.png``."""
    if join_processes().is_main_process:
        with replacing(Path(folder) / "curve.png") as path:
            learning_curve(history).savefig(path, format="png")
    return history


def train_on_all_gpus(*arguments: Any, **named: Any) -> pd.DataFrame:
    """``train_model``, which takes the same arguments, in one process for each GPU of the machine; for notebooks.

    The processes are forks, which can use no GPU that was used before. So call it before anything else uses one; later,
    and with one GPU or none, it is ``train_model``. A line says on how many GPUs it trains.
    """
    bound = signature(train_model).bind(*arguments, **named)
    bound.apply_defaults()
    count = gpu_count()
    if count > 1 and torch.cuda.is_initialized():
        print(f"Training on 1 of {count} GPUs: this process has used one; restart the kernel to train on all")
    if count < 2 or torch.cuda.is_initialized():
        return train_model(*bound.args)
    from accelerate import notebook_launcher

    print(f"Training on {count} GPUs, with a process for each")
    notebook_launcher(_train_in_fork, bound.args, num_processes=count)
    return pd.read_csv(Path(bound.arguments["out"]) / "log.csv")


def _train_in_fork(*arguments: Any) -> None:
    torch.set_num_threads(1)  # those that the parent's work on the CPU has started are not there in a fork
    with open(1, "w", buffering=1, closefd=False) as out, redirect_stdout(out):  # nor is a notebook's thread for it
        try:
            train_model(*arguments)
        except InputError as error:
            print(error)  # the launcher reports the process that ended first, which may be one that waited for this
            raise


def check_settings(encoder_name: str, settings: Mapping[str, Any]) -> None:
    """Raises ``InputError`` for the first setting that is unknown, out of range or does not fit the others."""
    known = {field.name for config in (DecoderConfig, TrainConfig) for field in fields(config)}
    for name in settings:
        if name not in known - {*FROM_DATA}:
            raise InputError(f"setting {name!r} is unknown; the fields of DecoderConfig and TrainConfig are known")
    TrainConfig(**_fields_of(TrainConfig, settings))
    spec, shape = encoder_spec(encoder_name), _fields_of(DecoderConfig, settings)
    config = DecoderConfig(1, spec.width, local_dim=spec.local, **shape)
    _check_context(config, settings.get("from_context", 0.0))


def _check_context(decoder: DecoderConfig, from_context: float) -> None:
    if from_context and not decoder.context_speaks:
        raise InputError("from_context needs attention, whose context has a way to the words; set deep_output")


def load_teacher(folder: str | Path, vocab: Vocabulary, fingerprint: str, place: torch.device) -> Decoder:
    """The decoder of a model folder. Raises ``InputError`` if it has other words or another encoder."""
    model = load_model(folder, place)
    if model.vocab.fingerprint() != vocab.fingerprint() or model.fingerprint != fingerprint:
        raise InputError(f"{folder}: knows other words or another encoder; a teacher needs the same of both")
    return model.decoder


@torch.no_grad()
def insert_word_vectors(decoder: Decoder, vocab: Vocabulary, vectors: WordVectors, freeze: bool) -> None:
    """Give words their vectors, and the words that have none vectors drawn with the same mean square.

    ``freeze`` keeps all as they are in training.
    """
    known = torch.tensor(np.stack(list(vectors.vectors.values())))
    rows = torch.tensor([vocab.ids[word] for word in vectors.vectors])
    table = decoder.embedding.weight
    torch.nn.init.normal_(table, std=known.square().mean().sqrt().item())
    table[rows] = known
    table.requires_grad_(not freeze)


def build_vocabulary(train: CaptionDataset, min_count: int, tokenizer: str = "words") -> Vocabulary:
    """The words of the training captions, or pieces of them. Raises ``InputError`` if none is frequent enough."""
    wordpiece = None if tokenizer == "words" else WordPiece.read(tokenizer)
    vocab = Vocabulary.build(train.table["caption"], min_count, wordpiece)
    if not vocab.counts:
        raise InputError(f"min_count={min_count}: no word of {train.name} is used that often; choose a smaller number")
    return vocab


def read_dataset(data: str | Path | CaptionDataset, scheme: str, tell: bool = True) -> CaptionDataset:
    """``load_dataset``; a data set that is read already stays as it is. ``tell`` prints notes on the error stream."""
    if isinstance(data, CaptionDataset):
        return data
    dataset = load_dataset(data, scheme)
    if tell:
        print("\n".join(dataset.notes), file=sys.stderr)
    return dataset


def _fields_of(config: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(config)}
    return {name: value for name, value in settings.items() if name in names}
