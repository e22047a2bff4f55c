"""Photos captioned per second, from files to sentences, beside the bare encoder on the same images in memory.

    python benchmarks/bench_captioning.py [--photos 500]

The photos are scikit-image's, repeated under other names in a temporary folder. The two sides take turns, a share of
the photos each time, in one process; the medians of their images per second are printed, for the default model and
beams.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from caption_utils.app.widget import sample_photos
from caption_utils.captioner import Captioner, caption_photos
from caption_utils.config import BEAMS
from caption_utils.data.images import load_image
from caption_utils.encoders.encode import BATCH
from caption_utils.training.zoo import default_model

TURNS, BAR = 5, 0.7


def repeated(folder: Path, count: int) -> list[Path]:
    """``count`` files in ``folder``, copies of the sample photos in turn."""
    samples = sample_photos()
    paths = []
    for number in range(count):
        sample = samples[number % len(samples)]
        paths.append(Path(shutil.copy(sample, folder / f"{number:04d}{sample.suffix}")))
    return paths


def rate(work: Callable[[], object], images: int) -> float:
    """Images per second."""
    start = time.perf_counter()
    work()
    return images / (time.perf_counter() - start)


def encode(captioner: Captioner, pixels: Tensor) -> None:
    """The encoder alone."""
    for batch in pixels.split(BATCH):
        captioner.encoder(batch)


def main() -> None:
    """Print both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=500)
    count = parser.parse_args().photos // TURNS
    captioner = Captioner.load(default_model())
    with tempfile.TemporaryDirectory() as folder:
        paths = repeated(Path(folder), count)
        pixels = torch.stack([captioner.encoder.transform(load_image(path)) for path in paths])
        sides = {
            "bare encoder": lambda: encode(captioner, pixels),
            "files to captions": lambda: list(caption_photos(captioner, paths, BEAMS)),
        }
        rates = {name: [] for name in sides}
        for _ in range(TURNS):
            for name, work in sides.items():
                rates[name].append(rate(work, count))
    bare, whole = (statistics.median(values) for values in rates.values())
    print(f"{count * TURNS} photos, {BEAMS} beams, {torch.get_num_threads()} threads on {os.cpu_count()} cores")
    print(f"bare encoder {bare:.1f} images/s, files to captions {whole:.1f}: {whole / bare:.0%} (bar {BAR:.0%})")


if __name__ == "__main__":
    main()
