"""Tests of tools/diagrams.py: the stored diagrams are up to date, and the notebooks show and describe each."""

import math
import re
from collections import defaultdict
from pathlib import Path

import diagrams
import pytest
from diagrams_data import TREE, searched
from test_notebooks import read, text_of

from notebooks import paths

DRAWN = sorted(path.stem for path in diagrams.FIGURES.glob("*.svg"))


@pytest.fixture(scope="module")
def shown():
    """Diagram -> its alt texts in the notebooks."""
    found = defaultdict(list)
    for path in paths():
        for alt, name in re.findall(r"!\[(.*?)\]\(\.\./docs/figures/(\w+)\.svg\)", text_of(read(path))):
            found[name].append(alt)
    return found


def test_the_script_draws_the_stored_diagrams_again(tmp_path, monkeypatch):
    stored = {path.name: path.read_bytes() for path in diagrams.FIGURES.glob("*.svg")}
    monkeypatch.setattr(diagrams, "FIGURES", tmp_path / "figures")
    diagrams.main()
    assert {path.name: path.read_bytes() for path in Path(tmp_path, "figures").iterdir()} == stored != {}


@pytest.mark.parametrize("name", DRAWN)
def test_a_notebook_shows_it_and_says_what_it_shows(shown, name):
    assert shown[name] and all(len(alt.split()) > 20 for alt in shown[name])


def test_the_tree_keeps_the_two_best_of_each_step_and_adds_up():
    sums = {"": 0.0}
    for level in searched():
        for before, word, p, total, _ in level:
            assert math.isclose(total, sums[before] + p)
            sums[f"{before} {word}".strip()] = total
        best = sorted((total for *_, total, _ in level), reverse=True)[:2]
        assert sorted((total for *_, total, kept in level if kept), reverse=True) == best


def test_the_words_after_each_hypothesis_have_probabilities():
    assert all(sum(map(math.exp, words.values())) <= 1 for words in TREE.values())
