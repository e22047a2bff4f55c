"""METEOR 1.5 (Denkowski and Lavie 2014) by its authors' scorer, a Java program that comes with ``pycocoevalcap``."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from caption_utils.errors import InputError
from caption_utils.metrics.bootstrap import Score
from caption_utils.metrics.scores import tokenized

OPTIONS = ("-", "-", "-stdio", "-l", "en", "-norm")  # as ``pycocoevalcap`` calls it
PATIENCE, PER_IMAGE = 600, 0.1  # seconds; reading its table of paraphrases takes about fifteen
SIZE = 23  # statistics of a caption
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75  # the English parameters of version 1.5
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # of exact, stemmed, synonymous and paraphrased matches


def meteor(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    """METEOR in percent, each caption against the reference that matches it best.

    The scorer aligns each caption with its references; ``aggregate`` of the summed statistics is what it reports for a
    corpus, which is not the mean of its scores of single captions.

    Raises ``InputError`` if there is no Java runtime or the scorer fails.
    """
    gold, spoken = tokenized(captions, references)
    bar = "|||"  # separates the parts of a line, so no part may contain it
    lines = [f" {bar} ".join(text.replace(bar, " ") for text in ["SCORE", *gold[i], *spoken[i]]) for i in gold]
    return Score(_without_whole_chunks(_statistics(lines)), aggregate)


def aggregate(sums: np.ndarray) -> np.ndarray:
    """METEOR in percent from summed statistics ``(..., 23)``: Denkowski and Lavie 2014, section 2, equations 1 to 5.

    Their order: words of caption and reference, function words of both; for each of four kinds of match the matched
    content words of both and function words of both; chunks; matched words of both.
    """
    words, function = sums[..., 0:2], sums[..., 2:4]
    matches = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 2, 2)  # kind of match, content or function, whose
    matched = sums[..., 21:23].mean(axis=-1)
    weighted = np.einsum("...kcw,k,c->...w", matches, WEIGHTS, np.array([DELTA, 1 - DELTA]))
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = np.moveaxis(weighted / (DELTA * (words - function) + (1 - DELTA) * function), -1, 0)
        mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
        fragmentation = sums[..., 20] / matched
    return 100 * np.where(matched > 0, mean * (1 - GAMMA * fragmentation**BETA), 0.0)


def _without_whole_chunks(rows: np.ndarray) -> np.ndarray:
    """As in the scorer, a caption that equals its reference has no chunk: nothing is fragmented."""
    matches = rows[:, 4:20].reshape(-1, 8, 2).sum(axis=1)  # words of caption and reference
    whole = (matches == rows[:, :2]).all(axis=1) & (rows[:, 20] == 1)
    return np.where(whole[:, None] & (np.arange(SIZE) == 20), 0.0, rows)


def _statistics(lines: Sequence[str]) -> np.ndarray:
    """Run the scorer on its input lines: a row ``(23,)`` for each.

    Its other command, which turns statistics into scores, is not used: in some locales it expects decimal commas.
    """
    java = shutil.which("java")
    if not java:
        raise InputError("needs a Java runtime; install one (on Debian: default-jre-headless)")
    from pycocoevalcap import meteor as room  # here, so that training imports no scorer

    jar = Path(room.__path__[0]) / "meteor-1.5.jar"
    command, seconds = [java, "-Xmx2G", "-jar", str(jar), *OPTIONS], PATIENCE + PER_IMAGE * len(lines)
    try:
        text = "".join(f"{line}\n" for line in lines)
        done = subprocess.run(
            command, input=text, capture_output=True, encoding="utf-8", cwd=jar.parent, timeout=seconds
        )
        rows = np.array([line.split() for line in done.stdout.splitlines()], dtype=float)
    except subprocess.TimeoutExpired:
        raise InputError(f"its Java scorer did not end within {seconds:.0f} s; try again") from None
    except (OSError, ValueError) as error:
        raise InputError(f"its Java scorer failed ({error}); check that java -version works") from None
    if rows.shape != (len(lines), SIZE):
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise InputError(f"its Java scorer failed ({reason}); check that java -version works")
    return rows
