"""The committed demo set: its scenes, and their captions."""

import csv
from collections import defaultdict

import pytest

from caption_utils.demo.scenes import DEMO, Scene, load_scenes


@pytest.fixture(scope="session")
def demo() -> dict[str, Scene]:
    return load_scenes(DEMO)


@pytest.fixture(scope="session")
def told() -> dict[str, list[str]]:
    """File name → captions of the committed set."""
    with open(DEMO / "captions.txt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    by_name = defaultdict(list)
    for row in rows:
        by_name[row["image"]].append(row["caption"])
    return dict(by_name)
