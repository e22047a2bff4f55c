"""What ``make run`` ends with: the models that were trained, and captions of sample photographs."""

import os

import skimage.data
from PIL import Image

from caption_utils.captioner import Captioner
from caption_utils.runtime import device, writable_dir
from caption_utils.training.checkpoint import CONFIG, read_json
from caption_utils.training.zoo import default_model

PHOTOGRAPHS = ("camera", "astronaut", "chelsea", "coffee", "rocket")  # scikit-image carries them


def describe_models() -> str:
    """A line for each model folder below ``data/models``: its name and its best validation perplexity."""
    folders = sorted(path.parent for path in writable_dir("models").rglob(CONFIG))
    lines = []
    for folder in folders:
        best = read_json(folder / CONFIG)["training"]["best"]
        score = f"validation perplexity {best['val_perplexity']:.2f} after epoch {best['epoch']}"
        lines.append(f"  {os.path.relpath(folder)}: {score}")
    return "\n".join(lines) or "  nothing"


def caption_samples() -> str:
    """A line for each sample photograph: its name and its caption."""
    captioner = Captioner.load(default_model(), device())
    captions = {name: captioner.caption(Image.fromarray(getattr(skimage.data, name)())) for name in PHOTOGRAPHS}
    return "\n".join(f"  {name:<10} {caption.text}" for name, caption in captions.items())
