"""What a run leaves in its folder after each epoch: the state from which it goes on, and its log."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from caption_utils.config import MEASURES
from caption_utils.errors import InputError
from caption_utils.files import replacing
from caption_utils.training.checkpoint import CONFIG, ENCODER_WEIGHTS, LAST, VOCAB, WEIGHTS, save_tensors

LOG_FIELDS = ("epoch", "train_loss", *MEASURES, "learning_rate", "captions_per_second", "seconds")
History = list[dict[str, float]]  # a row for each validation


@dataclass(frozen=True)
class Progress:
    """A run after a validation: weights and moments, rows of its log, and all that is no tensor."""

    tensors: dict[str, Tensor]
    history: History
    settings: dict[str, Any]
    scaler: dict[str, Any]


def weights_of(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Copies of the weights of named modules, as ``MODULE.NAME``."""
    return {
        f"{module}.{name}": value.clone() for module in modules for name, value in modules[module].state_dict().items()
    }


def restore_weights(tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module]) -> None:
    """Undo ``weights_of``. Raises ``RuntimeError`` if the modules have other parameters."""
    for module, each in modules.items():
        each.load_state_dict(
            {n.removeprefix(f"{module}."): t for n, t in tensors.items() if n.startswith(f"{module}.")}
        )


def moments_of(optimizer: Optimizer) -> dict[str, Tensor]:
    """What Adam keeps of the i-th parameter, as ``adam.i.NAME``."""
    state = optimizer.state_dict()["state"]
    return {f"adam.{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}


def restore_moments(tensors: Mapping[str, Tensor], optimizer: Optimizer) -> None:
    """Undo ``moments_of``; each moment lies in memory as its parameter does, which the fused optimiser relies on.

    All are copies: Windows replaces no file that is still mapped into memory.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("adam."):
            _, index, entry = name.split(".")
            state.setdefault(int(index), {})[entry] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    for parameter, entry in optimizer.state.items():
        for name, value in entry.items():
            alike = value.shape == parameter.shape
            entry[name] = torch.empty_like(parameter).copy_(value) if alike else value.clone()


def save_progress(folder: Path, progress: Progress) -> None:
    """Write ``last.safetensors`` whole or not at all."""
    rest = {"history": progress.history, "settings": progress.settings, "scaler": progress.scaler}
    save_tensors(folder / LAST, progress.tensors, {name: json.dumps(value) for name, value in rest.items()})


def check_unfinished(folder: Path) -> None:
    """Raises ``InputError`` if there are files of a model, or others of their names, but nothing to go on from."""
    there = [name for name in (WEIGHTS, CONFIG, VOCAB) if (folder / name).exists()]
    if there and not (folder / LAST).exists():
        raise InputError(
            f"{folder}: holds {' and '.join(there)}, but no run to go on with; choose a new folder, or move them away"
        )


def load_progress(folder: Path) -> Progress | None:
    """What ``save_progress`` wrote, ``None`` if no run has been here.

    Raises ``InputError`` if it is damaged or the model of an earlier epoch is not whole, and as ``check_unfinished``
    does.
    """
    check_unfinished(folder)
    path = folder / LAST
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            rest = {name: json.loads(value) for name, value in file.metadata().items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        progress = Progress(tensors, rest["history"], rest["settings"], rest.get("scaler", {}))
        best_is_last = best(progress.history) is progress.history[-1]  # then the state holds the model's weights
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); the model beside it is whole; train into a new folder") from None
    fine_tuned = any(name.startswith("stages.") for name in tensors)
    names = (WEIGHTS, CONFIG, VOCAB, ENCODER_WEIGHTS) if fine_tuned else (WEIGHTS, CONFIG, VOCAB)
    missing = [name for name in names if not (folder / name).exists()]
    if missing and not best_is_last:
        raise InputError(
            f"{folder}: holds a run, but not {' and '.join(missing)} of its best epoch; "
            "restore the model, or choose a new folder"
        )
    return progress


def best(history: History) -> dict[str, float]:
    """The first row of the lowest perplexity, or of the highest CIDEr, which is what a run was validated by."""
    return min(history, key=lambda row: row["val_perplexity"] if "val_perplexity" in row else -row["val_cider"])


def measure_of(row: dict[str, float]) -> str:
    """The row's measure with its name."""
    return ", ".join(f"{name} {row[key]:.2f}" for key, name in MEASURES.items() if key in row)


def write_log(folder: Path, history: History) -> None:
    """Write ``log.csv`` whole or not at all."""
    names = [name for name in LOG_FIELDS if name in history[-1]]
    rows = [[round(row[name], 6) if name in row else "" for name in names] for row in history]
    with replacing(folder / "log.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *rows])
