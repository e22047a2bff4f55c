"""Photos captioned per second by the command ``caption``, without its start, beside the encoder alone; and ``--help``.

    python benchmarks/bench_captioning.py [--turns 3]

The encoder alone gets the same pictures as tensors in memory. The start is what one photo takes. They take turns, and
medians are printed, with the largest memory of the command.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import torch
from bench_tasks import CAPTION, DISTINCT, LARGE, SMALL, Cost, ended, make_photos, middle, start

from caption_utils.data.folders import pictures_of
from caption_utils.data.images import load_image
from caption_utils.encoders.encode import BATCH
from caption_utils.encoders.encoder import Encoder, load_encoder
from caption_utils.runtime import repository
from caption_utils.training.checkpoint import load_model
from caption_utils.training.zoo import default_model

KINDS = {"one photo": (SMALL, 1), "500 photos of 224 pixels": (SMALL, 500), "100 of 12 megapixels": (LARGE, 100)}
SHARE, MEGABYTES, HELP = 0.72, 700, 0.3  # of the encoder's speed; of memory; seconds of ``--help``


def bare(encoder: Encoder, photos: Path) -> Callable[[], float]:
    """Seconds that the encoder takes for ``photos``."""
    paths = pictures_of([photos])[0]
    pictures = [encoder.transform(load_image(path)) for path in paths[:DISTINCT]]
    images = torch.stack(list(islice(cycle(pictures), len(paths))))

    def run() -> float:
        start = time.perf_counter()
        for batch in images.split(BATCH["cpu"]):
            encoder(batch)
        return time.perf_counter() - start

    return run


def command(*arguments: str) -> Cost:
    """What ``caption`` takes."""
    return ended(start([*CAPTION, *arguments], repository()))


def measure(encoder: Encoder, photos: Path, turns: int) -> tuple[float, Cost]:
    """Seconds of the encoder alone, and what the command takes: medians."""
    alone = bare(encoder, photos)
    seconds, costs = zip(*((alone(), command(str(photos))) for _ in range(turns)), strict=True)
    return statistics.median(seconds), middle(costs)


def main() -> None:
    """Print photos per second of both sides, for small and for large photos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    turns, begin = parser.parse_args().turns, 0.0
    encoder = load_encoder(load_model(default_model()).encoder)
    for kind, (size, count) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            make_photos(Path(folder) / "photos", size, count)
            encoded, cost = measure(encoder, Path(folder) / "photos", turns)
        if count == 1:
            begin = cost.seconds
            continue
        alone, whole = count / encoded, count / (cost.seconds - begin)
        print(f"{kind}: encoder alone {alone:.1f} photos/s, caption {whole:.1f}, {whole / alone:.0%} (bar {SHARE:.0%})")
        print(f"  peak {cost.peak:.0f} MB (bar {MEGABYTES})", flush=True)
    shown = middle(command("--help") for _ in range(turns))
    print(f"caption --help: {shown.seconds:.2f} s (bar {HELP} s)")


if __name__ == "__main__":
    main()
