"""Photos captioned per second by the command ``caption``, without its start, beside the encoder alone.

    python benchmarks/bench_captioning.py [--turns 3]

The encoder alone gets the same pictures as tensors in memory. The start is what one photo takes. They take turns, and
medians are printed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import torch
from bench_tasks import CAPTION, DISTINCT, LARGE, SMALL, ended, make_photos, start

from caption_utils.data.folders import pictures_of
from caption_utils.data.images import load_image
from caption_utils.encoders.encode import BATCH
from caption_utils.encoders.encoder import Encoder, load_encoder
from caption_utils.runtime import repository
from caption_utils.training.checkpoint import load_model
from caption_utils.training.zoo import default_model

KINDS = {"one photo": (SMALL, 1), "500 photos of 224 pixels": (SMALL, 500), "100 of 12 megapixels": (LARGE, 100)}


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


def measure(encoder: Encoder, photos: Path, turns: int) -> tuple[float, float]:
    """Seconds of the encoder alone and of the command, medians."""
    alone = bare(encoder, photos)
    runs = [(alone(), ended(start([*CAPTION, str(photos)], repository())).seconds) for _ in range(turns)]
    encoded, captioned = map(statistics.median, zip(*runs, strict=True))
    return encoded, captioned


def main() -> None:
    """Print photos per second of both sides, for small and for large photos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    turns, begin = parser.parse_args().turns, 0.0
    encoder = load_encoder(load_model(default_model()).encoder)
    for kind, (size, count) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            make_photos(Path(folder) / "photos", size, count)
            encoded, captioned = measure(encoder, Path(folder) / "photos", turns)
        if count == 1:
            begin = captioned
            continue
        alone, whole = count / encoded, count / (captioned - begin)
        print(f"{kind}: encoder alone {alone:.1f} photos/s, caption {whole:.1f} ({whole / alone:.0%})", flush=True)


if __name__ == "__main__":
    main()
