"""Runs that go on from a trained model: self-critical training, fine-tuning of the encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from caption_utils.config import FineTuneConfig, RunConfig, SelfCriticalConfig
from caption_utils.data.datasets import CaptionDataset
from caption_utils.data.splits import name_digest
from caption_utils.encoders.encoder import Encoder, load_encoder
from caption_utils.errors import InputError
from caption_utils.training.batches import CaptionBatches
from caption_utils.training.checkpoint import Model, check_encoder, load_model
from caption_utils.training.fine_tuning import FineTuning
from caption_utils.training.preparation import (
    check_context,
    check_out,
    fields_of,
    read_dataset,
    training_batches,
    training_device,
    unseen,
    validation_batches,
)
from caption_utils.training.run import with_curve
from caption_utils.training.self_critical import DrawnBatches, refine

LOSS = ("label_smoothing", "doubly_stochastic", "from_context", "reinforce", "entropy")  # settings of what is lowered
C = TypeVar("C", bound=RunConfig)


def refine_model(
    data: str | Path | CaptionDataset, start: str | Path, out: str | Path, settings: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Read ``data`` and ``refine`` the model of the folder ``start`` into the folder ``out``; returns the history.

    Words, encoder, split and the shape of the decoder, its dropout too, are those of ``start``; word vectors that it
    kept frozen learn, too; ``settings`` are fields of ``SelfCriticalConfig``. Validation photos that ``start`` was
    trained on are left out, as a line on the error stream says. Else it is as ``train_model``. Raises ``InputError`` as
    its parts do, for other settings, for hard attention and for a single validation photo.
    """
    config = _config_of(SelfCriticalConfig, "self-critical training", settings or {})
    check_out(out)
    place = training_device()
    model = load_model(start, place)
    if model.decoder.config.hard:
        raise InputError(f"{start}: has hard attention, which self-critical training does not know; take another model")
    model, encoder, dataset = _begin(data, model, start, "self_critical")
    photos = unseen(dataset.split("val"), model)
    if len(photos.image_names) == 1:
        raise InputError(f"{dataset.root}: one validation photo has no CIDEr, which chooses the best weights; give two")
    make = partial(DrawnBatches, model.decoder, config)
    train = training_batches(dataset, encoder, model.vocab, config, place, make)
    val = validation_batches(photos, encoder, model.vocab, place)
    return with_curve(refine(model, train, val, config, out), out)


def fine_tune_model(
    data: str | Path | CaptionDataset, start: str | Path, out: str | Path, settings: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Read ``data`` and fine-tune the model of the folder ``start`` into the folder ``out``; returns the history.

    What is stored of each image is the map in front of the first stage that learns. ``settings`` are fields of
    ``FineTuneConfig``, without teachers and word vectors; settings of the loss that they do not name are those that
    ``start`` was trained with. Else it is as ``refine_model``. Raises ``InputError`` as its parts do and for other
    settings.
    """
    settings = settings or {}
    _config_of(FineTuneConfig, "fine-tuning", settings, others=("distillation", "freeze_word_vectors"))
    check_out(out)
    place = training_device()
    model, encoder, dataset = _begin(data, load_model(start, place), start, "fine_tuned")
    earlier = model.training["fine_tuned"]["training"]
    config = FineTuneConfig(**({name: earlier[name] for name in LOSS if name in earlier} | dict(settings)))
    check_context(model.decoder.config, config.from_context)
    encoder.last_stages(config.fine_tune)  # an impossible number is told before any work is done
    before = encoder.before(config.fine_tune)
    val = validation_batches(unseen(dataset.split("val"), model), before, model.vocab, place)
    train = training_batches(dataset, before, model.vocab, config, place, CaptionBatches)
    return with_curve(FineTuning(model, encoder, config, Path(out), train, val).run(), out)


def _begin(
    data: str | Path | CaptionDataset, model: Model, start: str | Path, kind: str
) -> tuple[Model, Encoder, CaptionDataset]:
    """The ``model`` of the folder ``start``, whose ``training`` now tells the kind of run, its encoder and its data.

    Raises ``InputError`` for an ensemble.
    """
    if "models" in model.training:
        raise InputError(f"{start}: an ensemble, whose models are trained one by one; name one of them")
    encoder = model.own_encoder(load_encoder(model.encoder, training_device()))
    check_encoder(model, encoder.name, encoder.fingerprint)
    dataset = read_dataset(data, str(model.training.get("split", "official")))
    before = {"model": Path(start).resolve().name, "training": model.training}
    source = {"data": dataset.name, "split": dataset.scheme, kind: before}
    trained_on = model.trained_on.union(map(name_digest, dataset.split("train").image_names))
    return replace(model, training=source, trained_on=trained_on), encoder, dataset


def _config_of(kind: type[C], name: str, settings: Mapping[str, Any], others: Sequence[str] = ()) -> C:
    """The settings of a run that goes on from a model. ``others`` are fields of ``kind`` that it does not take."""
    known = fields_of(kind, settings)
    if unknown := (settings.keys() - known.keys()) | (known.keys() & {*others}):
        raise InputError(
            f"{', '.join(sorted(unknown))}: no setting of {name}, which takes the model as it is; "
            f"the fields of {kind.__name__} are{', except ' + ' and '.join(others) if others else ''}"
        )
    return kind(**known)
