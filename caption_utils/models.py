"""Which trained models are at hand, and which of them captions photos unless another is named."""

from contextlib import suppress
from pathlib import Path

from caption_utils.checkpoint import CONFIG, WEIGHTS
from caption_utils.errors import InputError
from caption_utils.runtime import repository, writable_dir

DEFAULT_MODEL = "bahdanau-flickr8k"
SHIPPED = Path("results", "checkpoints")


def model_folders() -> dict[str, Path]:
    """Label → folder of every model below ``results/checkpoints`` and ``data/models``, ``DEFAULT_MODEL`` first.

    A label is the folder's path below one of the two. Raises ``InputError`` if there is no model.
    """
    root = repository()
    bases = [root / SHIPPED] if root else []
    with suppress(InputError):  # where nothing can be written, nothing was trained
        bases.append(writable_dir("models"))
    found: dict[str, Path] = {}
    for base in bases:
        for folder in sorted(path.parent for path in base.rglob(CONFIG)):
            if (folder / WEIGHTS).is_file():
                found.setdefault(folder.relative_to(base).as_posix(), folder)
    if not found:
        where = bases[0] if bases else SHIPPED
        raise InputError(f"{where}: no model here; train one with python -m caption_utils train")
    return dict(sorted(found.items(), key=lambda item: item[0] != DEFAULT_MODEL))


def default_model() -> Path:
    """The folder of ``DEFAULT_MODEL``. Raises ``InputError`` if it is not at hand."""
    folders = model_folders()
    if DEFAULT_MODEL not in folders:
        raise InputError(f"{DEFAULT_MODEL}: this model is not here; name another with --model")
    return folders[DEFAULT_MODEL]
