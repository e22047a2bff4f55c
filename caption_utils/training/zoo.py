"""Which trained models are at hand, and which of them captions photos unless another is named."""

from contextlib import suppress
from pathlib import Path

from caption_utils.data.folders import DEPTH, MOST_ENTRIES, walk
from caption_utils.errors import InputError
from caption_utils.runtime import KAGGLE_INPUT, repository, writable_dir
from caption_utils.training.checkpoint import CONFIG, WEIGHTS, read_json

DEFAULT_MODEL = "bahdanau-flickr8k"
SHIPPED = Path("results", "checkpoints")


def model_folders() -> dict[str, Path]:
    """Label → folder of every model that was shipped, trained or, on Kaggle, attached; ``DEFAULT_MODEL`` first.

    A label is the folder's path below ``results/checkpoints``, ``data/models`` or ``/kaggle/input``; where two are the
    same, the later one begins with ``models`` or ``input``. Raises ``InputError`` if there is no model.
    """
    found: dict[str, Path] = {}
    for base in _bases():
        for folder in filter(_is_model, walk(base, DEPTH, MOST_ENTRIES)):
            if folder not in found.values():
                label = folder.relative_to(base).as_posix()
                found[f"{base.name}/{label}" if label in found else label] = folder
    if not found:
        where = (repository() or Path()) / SHIPPED
        raise InputError(f"{where}: no model here; train one with python -m caption_utils train")
    return dict(sorted(found.items(), key=lambda item: item[0] != DEFAULT_MODEL))


def _bases() -> list[Path]:
    root = repository()
    bases = [root / SHIPPED, root / "data" / "models"] if root else []
    with suppress(InputError):  # where nothing can be written, models may still be read
        bases.append(writable_dir("models"))
    return [*dict.fromkeys(bases), KAGGLE_INPUT]


def _is_model(folder: Path) -> bool:
    """Whether it holds one of ours: others, too, call their files so."""
    try:
        if not (folder / CONFIG).is_file():
            return False
        settings = read_json(folder / CONFIG).keys()
        return "models" in settings or ((folder / WEIGHTS).is_file() and {"decoder", "encoder"} <= settings)
    except OSError:  # a folder that may not be entered
        return False
    except InputError:  # what is wrong is told when it is chosen
        return True


def default_model() -> Path:
    """The folder of ``DEFAULT_MODEL``. Raises ``InputError`` if it is not at hand."""
    folders = model_folders()
    if DEFAULT_MODEL not in folders:
        raise InputError(f"{DEFAULT_MODEL}: this model is not here; name another with --model")
    return folders[DEFAULT_MODEL]
