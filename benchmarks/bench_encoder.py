"""CPU time of one photo in the encoder, in batches of 1 and of 16: what is committed now beside version 0.1.

    python benchmarks/bench_encoder.py [--encoder efficientnet_lite2_260px] [--turns 5]

Each version runs in a fresh checkout, on one thread, and encodes the same random pictures. They take turns; medians
are printed, and the largest difference between the two versions' features.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_tasks import VERSIONS, checkout, environment

MODULES = {"now": "caption_utils.encoders.encoder", "version 0.1": "caption_utils.encoder"}
FASTER, APART = 2.2, 1e-4  # times as fast; the largest difference between features
PICTURES, BATCHES = 32, (1, 16)
MEASURE = """
import sys, time
from importlib import import_module
import numpy as np, torch

module, name, file, pictures, *batches = sys.argv[1:]
torch.set_num_threads(1)
encoder = import_module(module).load_encoder(name)
torch.manual_seed(0)
images = torch.randint(0, 256, (int(pictures), 3, encoder.size, encoder.size), dtype=torch.uint8)
encoder(images[:2])
for batch in map(int, batches):
    start = time.process_time()
    features = [encoder(part) for part in images.split(batch)]
    print((time.process_time() - start) * 1000 / len(images))
np.save(file, torch.cat(features).numpy())
"""


def measure(version: str, checkout: Path, encoder: str, features: Path) -> list[float]:
    """Milliseconds a photo for each of ``BATCHES``; the features of all pictures go to the file ``features``."""
    sizes = map(str, (PICTURES, *BATCHES))
    line = [sys.executable, "-c", MEASURE, MODULES[version], encoder, str(features), *sizes]
    told = subprocess.run(line, cwd=checkout, env=environment(checkout), stdout=subprocess.PIPE, text=True, check=True)
    return [*map(float, told.stdout.split())]


def main() -> None:
    """Print a line for each size of batch, and one for the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="efficientnet_lite2_260px")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkouts = {version: checkout(commit, folder / version) for version, commit in VERSIONS.items()}
        files = {version: folder / f"{version}.npy" for version in checkouts}
        turns: dict[str, list[list[float]]] = {version: [] for version in checkouts}
        for _ in range(options.turns):
            for version, rows in turns.items():
                rows.append(measure(version, checkouts[version], options.encoder, files[version]))
        apart = np.abs(np.subtract(*map(np.load, files.values()))).max()
    medians = [map(statistics.median, zip(*rows, strict=True)) for rows in turns.values()]
    for batch, now, before in zip(BATCHES, *medians, strict=True):
        print(
            f"{options.encoder}, batches of {batch}: {now:.1f} ms a photo, version 0.1 {before:.1f} ms, "
            f"{before / now:.2f} times as fast (bar {FASTER})"
        )
    print(f"largest difference between features: {apart:.1e} (bar {APART:.0e})")


if __name__ == "__main__":
    main()
