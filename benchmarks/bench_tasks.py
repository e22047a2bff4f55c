"""What people wait for, whole tasks from start to end: what is committed now beside version 0.1, in the same run.

    python benchmarks/bench_tasks.py [--data data/flickr8k] [--only TASK]

Both versions run in fresh checkouts, with the packages of this environment. They take turns, command by command;
medians of the seconds, their ratio and the largest memory of a process are printed, for one photo beside ``import
torch``, which tells how much of it is not ours. With ``--data``, the road from photographs to a measured model is
timed, too: features, ten epochs of Bahdanau and evaluation, half an hour for both. Last come trainings on the demo set
at the same time, beside one alone.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from caption_utils.app.photos import sample_photos
from caption_utils.data.images import load_image
from caption_utils.runtime import repository

VERSIONS = {"now": "HEAD", "version 0.1": "6a534fc"}
LARGE, SMALL = (4000, 3000), (224, 224)
MAIN = [sys.executable, "-m", "caption_utils"]
CAPTION, TRAIN, EVALUATE = [*MAIN, "caption"], [*MAIN, "train"], [*MAIN, "evaluate"]
AT_ONCE, BUSY = 3, "a training on the demo set"
# Bars: how many times as fast as version 0.1; as long as alone, at most; most of its time beyond importing PyTorch
FOLDER, NOTEBOOKS, SLOWER, BEYOND = 1.9, 1 / 0.6, 5, 0.6
DISTINCT = 20  # photos; the others are copies
# In a small process of its own: the peak of a child counts what its parent held when it was started.
MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
sys.exit(done.stderr[-2000:] if done.returncode else 0)
"""


class Task(NamedTuple):
    """Command lines, one after the other, how often, a bar, and another command line that takes its turns with them."""

    lines: list[list[str]]
    turns: int = 1
    bar: float | None = None
    beside: list[str] | None = None


class Cost(NamedTuple):
    """Seconds, and the largest memory of a process in megabytes."""

    seconds: float
    peak: float


def make_photos(folder: Path, size: tuple[int, int], count: int) -> None:
    """``count`` photos of ``size``, made of the samples."""
    folder.mkdir()
    for number, source in enumerate(islice(cycle(sample_photos()), count)):
        path = folder / f"{number:04d}.jpg"
        if number < DISTINCT:
            load_image(source).resize(size).save(path, quality=90)
        else:
            shutil.copy(folder / f"{number % DISTINCT:04d}.jpg", path)


def tasks(photos: Path, data: Path | None) -> dict[str, Task]:
    """The tasks by name, in the order in which they are measured. Folders of photos are made in ``photos``."""
    for name, size, count in (("one", SMALL, 1), ("small", SMALL, 500), ("large", LARGE, 100)):
        make_photos(photos / name, size, count)
    found = {
        "caption one photo": Task([[*CAPTION, str(photos / "one")]], 10, beside=[sys.executable, "-c", "import torch"]),
        "a folder of 500 photos of 224 pixels": Task([[*CAPTION, str(photos / "small")]], 3, FOLDER),
        "a folder of 100 photos of 12 megapixels": Task([[*CAPTION, str(photos / "large")]], 3, FOLDER),
        "all notebooks, on the demo set": Task([[sys.executable, "tools/notebooks.py", "run"]], bar=NOTEBOOKS),
    }
    if data:
        source, model = ["--data", str(data.resolve())], "data/models/road"
        found["Flickr8k: features, ten epochs, evaluation"] = Task(
            [
                [*TRAIN, *source, "--attention", "bahdanau", "--epochs", "10", "--out", model],
                [*EVALUATE, *source, "--model", model],
            ]
        )
    return found


def checkout(commit: str, folder: Path) -> Path:
    """A new ``folder`` with the files of ``commit``. Raises ``SystemExit`` without the repository's history."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=repository(), capture_output=True)
    if archive.returncode:
        sys.exit(f"version {commit} is not here; measure in a clone with the whole history (git fetch --unshallow)")
    subprocess.run(["tar", "--extract"], cwd=folder, input=archive.stdout, check=True)
    return folder


def environment(checkout: Path) -> dict[str, str]:
    """The variables of `make run`, and of a user who has set nothing about threads."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    return kept | {"PYTHONPATH": str(checkout), "CAPTION_DATA": "demo", "CAPTION_PROFILE": "fast"}


def start(line: list[str], checkout: Path) -> subprocess.Popen:
    """A command line that begins in ``checkout`` and is measured."""
    line = [sys.executable, "-c", MEASURE, *line]
    return subprocess.Popen(line, cwd=checkout, env=environment(checkout), stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen) -> Cost:
    """What it took. Raises ``SystemExit`` if it failed; its messages were shown."""
    told, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(process.args[3:])} failed")
    return Cost(*map(float, told.split()))


def together(costs: Iterable[Cost]) -> Cost:
    """Of command lines that ran one after the other."""
    seconds, peaks = zip(*costs, strict=True)
    return Cost(sum(seconds), max(peaks))


def middle(costs: Iterable[Cost]) -> Cost:
    """The median of the seconds, and the largest memory."""
    seconds, peaks = zip(*costs, strict=True)
    return Cost(statistics.median(seconds), max(peaks))


def compare(name: str, task: Task, checkouts: dict[str, Path]) -> None:
    """Print what a task takes in each version."""
    turns: dict[str, list[Cost]] = {version: [] for version in checkouts}
    beside = []
    for _ in range(task.turns):
        costs = [[ended(start(line, checkout)) for checkout in checkouts.values()] for line in task.lines]
        for version, lines in zip(checkouts, zip(*costs, strict=True), strict=True):
            turns[version].append(together(lines))
        if task.beside:
            beside.append(ended(start(task.beside, checkouts["now"])))
    found = {version: middle(costs) for version, costs in turns.items()}
    now, before = (cost.seconds for cost in found.values())
    verdict = f"{before / now:.2f} times as fast"
    if task.bar:
        verdict += f" (bar {task.bar:.2f})"
    if task.beside:
        found[task.beside[-1]] = alone = middle(beside)
        share = (now - alone.seconds) / (before - alone.seconds)
        verdict += f", {share:.0%} of what exceeds {task.beside[-1]} (bar {BEYOND:.0%})"
    cells = [f"{side} {cost.seconds:.2f} s {cost.peak:.0f} MB" for side, cost in found.items()]
    print(f"{name}: {', '.join(cells)}; {verdict}", flush=True)


def busy(checkout: Path) -> None:
    """Print what a training takes alone, and each of several at once."""
    train = [*TRAIN, "--data", "data/demo", "--attention", "bahdanau", "--epochs", "3", "--out"]
    ended(start([*train, "data/models/features"], checkout))  # extracts the features
    alone = ended(start([*train, "data/models/alone"], checkout)).seconds
    running = [start([*train, f"data/models/{number}"], checkout) for number in range(AT_ONCE)]
    slowest = max(ended(process).seconds for process in running)
    verdict = f"{slowest / alone:.1f} times as long (bar {SLOWER})"
    print(f"{BUSY}: alone {alone:.0f} s, beside {AT_ONCE - 1} others {slowest:.0f} s; {verdict}", flush=True)


def main() -> None:
    """Print a line for each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", metavar="TASK", default="", help="tasks with this in their name")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkouts = {}
        for version, commit in VERSIONS.items():
            checkouts[version] = checkout(commit, Path(folder) / version)
        for name, task in tasks(Path(folder), options.data).items():
            if options.only in name:
                compare(name, task, checkouts)
        if options.only in BUSY:
            busy(checkouts["now"])


if __name__ == "__main__":
    main()
