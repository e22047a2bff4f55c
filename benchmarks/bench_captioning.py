"""From files to sentences: one photo, a folder of 500 of 224 px, and one of 100 of 12 megapixels.

    python benchmarks/bench_captioning.py [FOLDER] [--against CHECKOUT] [--turns 3]

The photos are made of those in FOLDER, by default scikit-image's. The sides take turns, and medians are printed: the
command ``caption`` from start to end, with its peak memory; the same command of another CHECKOUT, say a worktree of an
older commit; and the bare encoder on images in memory, with which the command is compared without its start, which is
what one photo takes.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import torch

from caption_utils.app.widget import sample_photos
from caption_utils.data.folders import pictures_of
from caption_utils.data.images import load_image
from caption_utils.encoders.encode import BATCH
from caption_utils.encoders.encoder import Encoder, load_encoder
from caption_utils.runtime import repository
from caption_utils.training.checkpoint import load_model
from caption_utils.training.zoo import default_model

KINDS = {"one photo": ((224, 224), 1), "224 px": ((224, 224), 500), "12 megapixels": ((4000, 3000), 100)}
DISTINCT = 20  # photos; the others are copies
BAR, MEGABYTES = 0.72, 700
# In a small process of its own: the peak of a child counts what its parent held when it was started.
MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
sys.exit(done.returncode)
"""


def make_photos(sources: list[Path], folder: Path, size: tuple[int, int], count: int) -> None:
    """``count`` photos of ``size`` in ``folder``."""
    folder.mkdir()
    for number, source in enumerate(islice(cycle(sources), count)):
        path = folder / f"{number:04d}.jpg"
        if number < DISTINCT:
            load_image(source).resize(size).save(path, quality=90)
        else:
            shutil.copy(folder / f"{number % DISTINCT:04d}.jpg", path)


def bare(encoder: Encoder, photos: Path) -> Callable[[], tuple[float, float]]:
    """Seconds that the encoder takes for ``photos``, and no megabytes."""
    paths = pictures_of([photos])[0]
    pictures = [encoder.transform(load_image(path)) for path in paths[:DISTINCT]]
    images = torch.stack(list(islice(cycle(pictures), len(paths))))

    def run() -> tuple[float, float]:
        start = time.perf_counter()
        for batch in images.split(BATCH["cpu"]):
            encoder(batch)
        return time.perf_counter() - start, 0.0

    return run


def command(checkout: Path, photos: Path) -> Callable[[], tuple[float, float]]:
    """The command ``caption`` of ``checkout`` for photos, as ``process`` times it."""
    return process([sys.executable, "-m", "caption_utils", "caption", str(photos)], checkout)


def process(line: list[str], folder: Path) -> Callable[[], tuple[float, float]]:
    """Seconds and peak megabytes of a command line that is run in ``folder``."""

    def run() -> tuple[float, float]:
        command = [sys.executable, "-c", MEASURE, *line]
        seconds, peak = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split()
        return float(seconds), float(peak)

    return run


def main() -> None:
    """Print photos per second of each side, for each kind of photo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    sources = pictures_of([options.folder])[0] if options.folder else sample_photos()
    encoder = load_encoder(load_model(default_model()).encoder)
    print(f"{torch.get_num_threads()} threads on {os.cpu_count()} cores, medians of {options.turns} turns")
    start = 0.0
    for kind, (size, count) in KINDS.items():
        with tempfile.TemporaryDirectory() as temporary:
            photos = Path(temporary) / "photos"
            make_photos(sources, photos, size, count)
            sides = {"bare encoder": bare(encoder, photos), "caption": command(repository(), photos)}
            if options.against:
                sides[f"caption, {options.against}"] = command(options.against, photos)
            turns = [[run() for run in sides.values()] for _ in range(options.turns)]
        seconds = [statistics.median(turn[side][0] for turn in turns) for side in range(len(sides))]
        start = start or seconds[1]
        share = f": {seconds[0] / (seconds[1] - start):.0%} of the bare encoder (bar {BAR:.0%})" if count > 1 else ""
        print(f"{kind}, {count}{share}")
        for side, name in enumerate(sides):
            peak = max(turn[side][1] for turn in turns)
            memory = f", peak {peak:.0f} MB (bar {MEGABYTES})" if peak else ""
            print(f"  {name}: {count / seconds[side]:.1f} photos/s, {seconds[side]:.1f} s{memory}")


if __name__ == "__main__":
    main()
