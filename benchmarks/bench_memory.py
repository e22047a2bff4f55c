"""How much memory training takes when the features are larger than what it may have: those of 123,000 COCO photos.

    python benchmarks/bench_memory.py [--images 123000] [--limit 2]

Makes a temporary store of that size, a sparse file of zeros, and trains a small decoder on all of it, one epoch in a
child process to which the system refuses to give more than the limit. The limit (``RLIMIT_DATA``, on Linux) is on what
a process has for itself; pages of the mapped store are not counted, since the system takes them back whenever it needs
them. Both are printed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from caption_utils.config import DecoderConfig, TrainConfig
from caption_utils.data.vocab import Vocabulary
from caption_utils.encoders.store import FeatureStore
from caption_utils.model.decoder import build_decoder
from caption_utils.training.batches import CaptionBatches
from caption_utils.training.checkpoint import Model
from caption_utils.training.trainer import Trainer

REGIONS, WIDTH, WORDS = 81, 1280, 3500  # of EfficientNet-Lite2 at 260 pixels
GIB = 2**30


class RandomCaptions:
    """As much of a data set as batches need: images without files, one caption of twelve words each."""

    def __init__(self, names: list[str]):
        self.image_names = names

    def captions_of(self, name: str) -> list[str]:
        """The caption of an image, always the same."""
        return [" ".join(f"w{word}" for word in np.random.default_rng(int(name)).integers(WORDS, size=12))]


def write_store(folder: Path, images: int) -> float:
    """A store of zeros as ``extract`` leaves it; returns its size in gibibytes."""
    shape = (images, REGIONS, WIDTH)
    array = np.lib.format.open_memmap(folder / "features.npy", mode="w+", dtype=np.float16, shape=shape)
    index = {"encoder": "none", "fingerprint": "0", "names": [str(i) for i in range(images)]}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return array.nbytes / GIB


def memory() -> dict[str, float]:
    """Gibibytes of this process: its own, and pages of mapped files."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    values = {parts[0]: int(parts[1]) * 1024 / GIB for parts in lines if parts[0] in ("RssAnon:", "RssFile:")}
    return {"own": values["RssAnon:"], "mapped": values["RssFile:"]}


def train(folder: Path) -> None:
    """In the child: one epoch; prints the peaks."""
    store = FeatureStore(folder)
    vocab = Vocabulary({f"w{i}": 1 for i in range(WORDS)}, min_count=1)
    decoder = build_decoder(DecoderConfig(len(vocab), WIDTH, embed_dim=16, hidden_dim=16, attention_dim=16))
    batches = CaptionBatches(RandomCaptions(list(store.row)), store, vocab)
    trainer = Trainer(Model(decoder, vocab, "none", "0"), TrainConfig(), folder, batches, batches)
    peaks, start = memory(), time.perf_counter()
    for share in batches.shuffled(1):
        trainer.train_step(share)
        peaks = {name: max(value, peaks[name]) for name, value in memory().items()}
    print(json.dumps({**peaks, "seconds": time.perf_counter() - start}))


def main() -> None:
    """Print the store's size, the limit and the child's peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=123_000, help="how many the store holds")
    parser.add_argument("--limit", type=float, default=2, help="what the training process may have, in gigabytes")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        return print("needs Linux")
    if options.folder:
        torch.manual_seed(0)
        return train(Path(options.folder))
    with tempfile.TemporaryDirectory() as folder:
        size = write_store(Path(folder), options.images)
        limit = int(options.limit * GIB)
        command = [sys.executable, __file__, "--folder", folder]
        child = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
        )
    found = json.loads(child.stdout)
    print(f"store of {options.images} images, {size:.1f} GiB; limit {options.limit:.1f} GiB")
    print(f"trained on all of it in {found['seconds']:.0f} s")
    print(f"peak: own memory {found['own']:.2f} GiB, reclaimable pages of files {found['mapped']:.2f} GiB")


if __name__ == "__main__":
    main()
