import os
import shutil
from importlib import import_module

import numpy as np
import pytest
from hand_made import CAPTIONS, REFERENCES

from caption_utils.errors import InputError
from caption_utils.metrics.meteor import aggregate, meteor

# what the scorer prints of "a dog runs on the grass", "two birds", "zebra", "the men ride horses quickly" and "a cat"
LINES = """\
6.0 6.0 3.0 2.0 3.0 3.0 2.0 2.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 3.0 5.0 5.0
2.0 5.0 1.0 3.0 1.0 1.0 1.0 1.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 1.0 2.0 2.0
1.0 3.0 0.0 1.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0
5.0 5.0 1.0 2.0 0.0 0.0 0.0 0.0 1.0 1.0 0.0 0.0 0.0 0.0 0.0 0.0 1.0 1.0 0.0 1.0 1.0 2.0 3.0
2.0 2.0 1.0 1.0 1.0 1.0 1.0 1.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 1.0 2.0 2.0
"""
EACH = [36.7955402952331, 23.15974118896124, 0.0, 18.081427245998102, 100.0]
TOGETHER = 26.067819213945337


@pytest.fixture
def java(tmp_path, monkeypatch):
    """Puts a shell script in the place of Java."""

    def put(script):
        (tmp_path / "java").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "java").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return put


@pytest.mark.java
@pytest.mark.skipif(not shutil.which("java"), reason="METEOR's scorer needs a Java runtime")
def test_meteor_is_that_of_the_papers_scorer():
    """Values of ``pycocoevalcap`` 1.2 on these captions; the last two only must not break it."""
    score = meteor([*CAPTIONS, "", "a ||| dog"], [*REFERENCES, ["a dog"], ["a zebra ||| b"]])
    assert aggregate(score.statistics[:4].sum(axis=0)) == pytest.approx(43.50535861946042, abs=1e-9)
    each = [46.819166975574594, 23.159741188961238, 85.45454545454547, 47.66362624370249, 0.0]
    assert aggregate(score.statistics)[:5] == pytest.approx(each, abs=1e-9)


def test_scores_from_statistics_are_those_the_scorer_computes(java):
    java(f"cat >/dev/null; printf '{LINES}'")
    score = meteor(["a"] * 5, [["a"]] * 5)
    assert score.value == pytest.approx(TOGETHER, abs=1e-9)
    assert aggregate(score.statistics) == pytest.approx(EACH, abs=1e-9)


def test_resampling_is_scoring_the_images_again(java):
    java(f"cat >/dev/null; printf '{LINES}'")
    score = meteor(["a"] * 5, [["a"]] * 5)
    drawn = np.random.default_rng(3).integers(5, size=5)
    assert score.resampled(1, seed=3)[0] == pytest.approx(aggregate(score.statistics[drawn].sum(axis=0)))


def test_the_scorer_is_given_a_line_for_each_caption(java, tmp_path):
    java(f"cat >{tmp_path}/lines")
    with pytest.raises(InputError):
        meteor(["A dog's ball .", "x|||y"], [["The ball!", "é"], ["a ||| b"]])
    assert (tmp_path / "lines").read_text(encoding="utf-8").splitlines() == [
        "SCORE ||| the ball ||| é ||| a dog 's ball",
        "SCORE ||| a b ||| x y",
    ]


def test_without_java_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"^needs a Java runtime; install one .*$"):
        meteor(CAPTIONS, REFERENCES)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo first >&2; echo Unable to access jarfile >&2; exit 1", "Unable to access jarfile"),
        ("exit 3", "exit status 3"),
        ("cat >/dev/null; echo 1 2 3", "exit status 0"),
        ("cat >/dev/null; echo Error", "could not convert"),
        (f"cat >/dev/null; printf '{LINES}'", "exit status 0"),  # one line too many
    ],
)
def test_a_scorer_that_fails_is_one_line(java, script, reason):
    java(script)
    with pytest.raises(InputError, match=f"^its Java scorer failed .*{reason}.*; check that java -version works$"):
        meteor(CAPTIONS, REFERENCES)


def test_a_java_that_cannot_be_started_is_one_line(java):
    java("")
    os.chmod(shutil.which("java"), 0o755)
    with open(shutil.which("java"), "wb") as file:
        file.write(b"\x7fELF nothing of a program")
    with pytest.raises(InputError, match="its Java scorer failed"):
        meteor(CAPTIONS, REFERENCES)


def test_a_scorer_that_hangs_is_ended(java, tmp_path, monkeypatch):
    java(f"echo $$ >{tmp_path}/pid; exec sleep 600")
    monkeypatch.setattr(import_module(meteor.__module__), "PATIENCE", 1)
    with pytest.raises(InputError, match="did not end within 1 s; try again"):
        meteor(CAPTIONS, REFERENCES)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
