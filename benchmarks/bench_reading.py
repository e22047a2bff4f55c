"""How fast captions are read, beside a plain ``json.load`` of the same file.

Run with ``python benchmarks/bench_reading.py``. Makes a file the size of COCO's in Karpathy's layout (123,287
images, 616,435 captions) in a temporary folder. Each measurement is a child process of its own, so that its
peak memory counts nothing else; the two readers take turns.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES, CAPTIONS = 123_287, 5
MEASURE = """
import resource, sys, time
{imports}
start = time.perf_counter()
{read}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
print(time.perf_counter() - start, peak)
"""
READERS = {
    "json.load": {"imports": "import json", "read": "json.load(open(sys.argv[1], encoding='utf-8'))"},
    "load_dataset": {
        "imports": "from caption_utils.data.datasets import load_dataset",
        "read": "assert len(load_dataset(sys.argv[1], require_images=False).table) == int(sys.argv[2])",
    },
}


def write_karpathy(path: Path, images: int) -> None:
    """A stand-in for ``dataset_coco.json``: invented words, about eleven a caption."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(1, 8))) for _ in range(10_000)]
    entries = [_entry(i, words, rng) for i in range(images)]
    path.write_text(json.dumps({"images": entries, "dataset": "coco"}), encoding="utf-8")


def _entry(i: int, words: list[str], rng: random.Random) -> dict:
    sentences = []
    for k in range(CAPTIONS):
        tokens = rng.choices(words, k=rng.randint(8, 14))
        raw = " ".join(tokens) + "."
        sentences.append({"tokens": tokens, "raw": raw, "imgid": i, "sentid": CAPTIONS * i + k})
    split = ("train", "restval", "val", "test")[i % 4]
    return {
        "filepath": "val2014",
        "sentids": [s["sentid"] for s in sentences],
        "filename": f"{i:012d}.jpg",
        "imgid": i,
        "split": split,
        "sentences": sentences,
        "cocoid": i,
    }


def measure(reader: str, path: Path, captions: int) -> tuple[float, float]:
    """Seconds and peak gibibytes of one run in a fresh process."""
    command = [sys.executable, "-c", MEASURE.format(**READERS[reader]), str(path), str(captions)]
    seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(peak)


def main() -> None:
    """Print the medians of all repeats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset_coco.json"
        write_karpathy(path, options.images)
        captions = CAPTIONS * options.images
        print(f"{options.images} images, {captions} captions, {path.stat().st_size / 1e6:.0f} MB")
        runs = [{name: measure(name, path, captions) for name in READERS} for _ in range(options.repeats)]
    for name in READERS:
        columns = zip(*(run[name] for run in runs), strict=True)
        seconds, peak = map(statistics.median, columns)
        print(f"{name:<14}{seconds:6.2f} s {peak:6.2f} GiB")


if __name__ == "__main__":
    main()
