"""From nothing to one caption: the command ``caption`` for a photo, beyond what ``import torch`` alone takes.

    python benchmarks/bench_start.py [--against CHECKOUT] [--turns 10]

The sides take turns, and medians are printed: ``import torch``, the command, the same command of another CHECKOUT, say
a worktree of an older commit, and ``caption --help``.
"""

import argparse
import statistics
import sys
from pathlib import Path

from bench_captioning import process

from caption_utils.app.widget import sample_photos
from caption_utils.runtime import repository

BAR, HELP_BAR = 0.6, 0.3  # share of the other checkout's time, seconds


def main() -> None:
    """Print seconds and peak megabytes of each side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--turns", type=int, default=10)
    options = parser.parse_args()
    here, caption = repository(), [sys.executable, "-m", "caption_utils", "caption"]
    photo = str(sample_photos()[0])
    sides = {
        "import torch": process([sys.executable, "-c", "import torch"], here),
        "caption --help": process([*caption, "--help"], here),
        "caption": process([*caption, photo], here),
    }
    if options.against:
        sides[f"caption, {options.against}"] = process([*caption, photo], options.against)
    turns = [[run() for run in sides.values()] for _ in range(options.turns)]
    seconds = [statistics.median(turn[side][0] for turn in turns) for side in range(len(sides))]
    torch, shown, now, *before = seconds
    for side, name in enumerate(sides):
        print(f"{name}: {seconds[side]:.2f} s, peak {max(turn[side][1] for turn in turns):.0f} MB")
    print(f"caption --help within {HELP_BAR} s: {shown <= HELP_BAR}")
    print(f"caption beyond import torch: {now - torch:.2f} s")
    for other in before:
        print(f"  {(now - torch) / (other - torch):.2f} of {other - torch:.2f} s there (bar {BAR})")


if __name__ == "__main__":
    main()
