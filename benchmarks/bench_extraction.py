"""Images encoded per second: ``extract``, from files to the store, beside the encoder alone.

    python benchmarks/bench_extraction.py [FOLDER] [--images 200] [--encoder efficientnet_lite2]

The encoder alone gets the same batches as tensors in memory: no file, no decoding, nothing stored. FOLDER holds
photos; without it they are the demo set's. Fewer than asked for are repeated. Sides take turns, and the medians are
printed.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from caption_utils.data.datasets import CaptionDataset, load_dataset
from caption_utils.data.folders import pictures_of
from caption_utils.data.images import load_image
from caption_utils.encoders.encode import BATCH
from caption_utils.encoders.encoder import Encoder, load_encoder
from caption_utils.encoders.store import extract
from caption_utils.runtime import device

DEMO = Path(__file__).parent.parent / "data" / "demo" / "Images"


def make_dataset(source: Path, folder: Path, images: int) -> CaptionDataset:
    """Copies of the pictures in ``source``, with a caption each, as a data set in ``folder``."""
    files, *_ = pictures_of([source])
    (folder / "Images").mkdir()
    rows = ["image,caption"]
    for i, path in enumerate(islice(cycle(files), images)):
        shutil.copy(path, folder / "Images" / f"{i}{path.suffix}")
        rows.append(f"{i}{path.suffix},a picture")
    (folder / "captions.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return load_dataset(folder)


def bare(encoder: Encoder, batches: list[Tensor]) -> float:
    """Seconds that the encoder takes for all batches."""
    start = time.perf_counter()
    for batch in batches:
        encoder(batch).cpu()
    return time.perf_counter() - start


def whole(encoder: Encoder, dataset: CaptionDataset) -> float:
    """Seconds from files to a new store."""
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        extract(dataset, encoder, Path(cache))
        return time.perf_counter() - start


def main() -> None:
    """Print images per second of both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=DEMO)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--encoder", default="efficientnet_lite2")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    encoder = load_encoder(options.encoder, device())
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(options.folder, Path(folder), options.images)
        pictures = [encoder.transform(load_image(dataset.path(name))) for name in dataset.image_names]
        batches = [batch.to(device()) for batch in torch.stack(pictures).split(BATCH[device().type])]
        runs = [(bare(encoder, batches), whole(encoder, dataset)) for _ in range(options.repeats + 1)]
    alone, extracted = (len(pictures) / statistics.median(side) for side in zip(*runs[1:], strict=True))
    print(
        f"{torch.get_num_threads()} threads, {device().type}, {options.encoder}, {len(pictures)} images, "
        f"median of {options.repeats}, images per second"
    )
    print(f"encoder alone {alone:.1f}, extract {extracted:.1f}, ratio {extracted / alone:.1%}")


if __name__ == "__main__":
    main()
