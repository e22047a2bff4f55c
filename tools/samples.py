"""The last lines of ``make run``: the models that were trained, and captions of sample photographs."""

import os

from caption_utils.app.photos import sample_photos
from caption_utils.captioner import Captioner
from caption_utils.runtime import device, writable_dir
from caption_utils.training.checkpoint import CONFIG, read_json
from caption_utils.training.progress import measure_of
from caption_utils.training.zoo import default_model


def describe_models() -> str:
    """A line for each model folder below ``data/models``: its name and its best validation score, or what is wrong."""
    lines = []
    for path in sorted(writable_dir("models").rglob(CONFIG)):
        name = os.path.relpath(path.parent)
        try:
            if best := read_json(path).get("training", {}).get("best"):  # an ensemble has none
                lines.append(f"  {name}: {measure_of(best)} after epoch {best['epoch']:.4g}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            lines.append(f"  {name}: damaged ({error})")
    return "\n".join(lines) or "  nothing"


def caption_samples() -> str:
    """A line for each sample photograph: its name and its caption."""
    captioner = Captioner.load(default_model(), device())
    return "\n".join(f"  {photo.stem:<10} {captioner.caption(photo).text}" for photo in sample_photos())
