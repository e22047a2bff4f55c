"""Duplicate photos: the same bytes, or nearly the same perceptual hash."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd

from caption_utils.data.images import MOST_THREADS, load_image
from caption_utils.errors import InputError
from caption_utils.prefetch import prefetch

HASHED = ("L", 64)  # a JPEG is decoded grey and small, but still read to its end; the hash looks at 32 pixels a side
BLOCK = 1024  # rows of the distance matrix held at a time


def fingerprint(paths: list[Path]) -> pd.DataFrame:
    """SHA-256 ``digest`` and ``phash`` (64 values, 1 or -1) of each file; ``None`` if unreadable."""
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    found = list(prefetch(_fingerprint, paths, threads, ahead=threads))
    return pd.DataFrame(found, columns=["digest", "phash"], dtype=object)


def _fingerprint(path: Path) -> tuple[str | None, np.ndarray | None]:
    import imagehash  # imports SciPy, which reading captions does not need

    try:
        data = path.read_bytes()
    except OSError:
        return None, None
    digest = hashlib.sha256(data).hexdigest()
    try:
        bits = imagehash.phash(load_image(data, draft=HASHED)).hash.ravel()
    except InputError:
        return digest, None
    return digest, np.where(bits, 1, -1).astype(np.float32)


def close_pairs(hashes: list[np.ndarray], max_distance: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices ``i < j`` and Hamming distance of all pairs at most ``max_distance`` apart.

    Hashes are vectors of ±1, so their distance is ``(length - dot product) / 2``, for many pairs a matrix product.
    """
    signs, found = np.array(hashes, dtype=np.float32), [np.empty((0, 3), int)]
    for start in range(0, len(signs), BLOCK):
        distance = (signs.shape[1] - signs[start : start + BLOCK] @ signs[start:].T) / 2
        i, j = np.nonzero(np.triu(distance <= max_distance, k=1))
        found.append(np.stack([i + start, j + start, distance[i, j].astype(int)], axis=1))
    first, second, distances = np.concatenate(found).T
    return first, second, distances
