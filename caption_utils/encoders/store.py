"""Features of every image, computed once: a memory-mapped float16 store on disk that survives interruption."""

import errno
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from random import Random
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from caption_utils.data.datasets import CaptionDataset
from caption_utils.data.folders import attached
from caption_utils.encoders.encode import encode
from caption_utils.encoders.encoder import Encoder
from caption_utils.errors import InputError
from caption_utils.runtime import progress_bar, sent, writable_dir

COPIED = 512  # rows copied to a GPU at a time, some 60 MB
SAMPLE = 1 << 14  # bytes hashed at the beginning, middle and end of a photo
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ALL = slice(None)


class FeatureStore:
    """Features of named images: ``store[names]`` is a float16 tensor ``(B, N, D)``; decoders take ``.float()`` of it.

    On disk: ``features.npy`` (all rows), ``done.npy`` (which rows are valid) and ``index.json`` (the images' names).
    """

    def __init__(self, folder: str | Path):
        """Raises ``InputError`` if one of its files is damaged."""
        folder = Path(folder)
        try:
            names = json.loads((folder / "index.json").read_text(encoding="utf-8"))["names"]
            self.folder, self.row = folder, {name: i for i, name in enumerate(names)}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise _damaged(folder / "index.json", error) from None
        self.array: Any = _mapped(folder / "features.npy", "r")  # (images, N, D), NumPy's or PyTorch's

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, names: Sequence[str]) -> Tensor:
        """Raises ``InputError`` for one name in place of several, and for the first that is not in the store."""
        if isinstance(names, str):
            raise InputError("one name where a list of names belongs; put it into brackets: [name]")
        try:
            rows = torch.tensor([self.row[name] for name in names], dtype=torch.long)
        except KeyError as error:
            raise InputError(f"{self.folder}: holds no features of {error}; extract those of this data set") from None
        if isinstance(self.array, Tensor):
            return self.array.index_select(0, sent(rows, self.array.device))
        return torch.from_numpy(self.array[rows.numpy()])

    def to(self, device: torch.device) -> "FeatureStore":
        """The same features in a GPU's memory if they fit into half of what is free there, else this store."""
        if self.array.nbytes > free_memory(device) / 2:
            return self
        resident = copy(self)
        resident.array = torch.empty(self.array.shape, dtype=torch.float16, device=device)
        for start in range(0, len(self), COPIED):
            rows = slice(start, start + COPIED)
            resident.array[rows] = torch.from_numpy(np.array(self.array[rows]))
        return resident


def free_memory(device: torch.device) -> int:
    """Free bytes of a GPU's memory; 0 on a CPU, where memory-mapped features need no copy."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def extract(
    dataset: CaptionDataset, encoder: Encoder, cache: str | Path | None = None, mirror: bool = False, rows: slice = ALL
) -> FeatureStore:
    """The store of the features of ``dataset``'s images; only missing rows are computed.

    ``mirror`` stores the features of the left-right mirrored images instead. Several processes may fill one store. If
    each has some ``rows`` of its own, the store is complete when all have returned; if they have all rows, they share
    the work: one that finds a store begun takes its rows in random order, and all skip those that others have done. Its
    folder lies in ``cache``, by default the writable data folder; its name is a hash of encoder, weights, transform and
    photos, so that a change in any of them makes a new store. If Kaggle has attached one of that name, it is copied and
    completed. Images that cannot be decoded raise an ``InputError`` that names them, after the others are stored.
    """
    names = dataset.image_names
    folder = Path(cache or writable_dir("features")) / f"{encoder.name}-{_key(dataset, encoder, mirror)}"
    joins = folder.exists()
    if not joins:
        _begin(folder, names, encoder)
    store = FeatureStore(folder)  # a damaged one is told before any work
    done, every = _mapped(folder / "done.npy", "r"), range(len(names))
    if missing := [row for row in every[rows] if not done[row]]:
        if joins and every[rows] == every:
            Random().shuffle(missing)  # the generator of its own leaves seeded ones alone
        _fill(folder, {row: dataset.path(names[row]) for row in missing}, encoder, mirror, quiet=bool(rows.start))
    return store


def _key(dataset: CaptionDataset, encoder: Encoder, mirror: bool) -> str:
    digest = hashlib.blake2b(f"{encoder.fingerprint} {mirror}".encode(), digest_size=8)
    for name in dataset.image_names:
        digest.update(f"{name} {_stamp(dataset.path(name))}\n".encode())
    return digest.hexdigest()


def _stamp(path: Path) -> str:
    """A file's size and a digest of three samples of its bytes, which cover a small file."""
    digest = hashlib.blake2b(digest_size=8)
    try:
        if not path.is_file():  # a dead link or a pipe; decoding reports it
            return "unreadable"
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            last = max(0, size - SAMPLE)
            for start in (0, last // 2, last):
                file.seek(start)
                digest.update(file.read(SAMPLE))
    except OSError:
        return "unreadable"
    return f"{size} {digest.hexdigest()}"


def _begin(folder: Path, names: list[str], encoder: Encoder) -> None:
    """Create the store atomically, empty or from an attached one; of several processes at once, the first wins.

    Once it is there, what others have begun is removed.
    """
    made = folder.with_name(f"{folder.name}.{uuid4().hex}")
    try:
        made.mkdir(parents=True)
        if (earlier := attached(folder.name)) and (earlier / "index.json").exists():
            for file in earlier.iterdir():
                shutil.copyfile(file, made / file.name)  # without read-only permissions
        else:
            _create(made, names, encoder)
        made.rename(folder)
    except OSError as error:
        if not folder.exists():
            remedy = "free some disk space" if error.errno in FULL else "check that its folder can be written"
            raise InputError(f"{folder}: cannot hold the features ({error}); {remedy}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    for other in folder.parent.glob(f"{folder.name}.*"):  # of a process that was killed, or comes too late
        shutil.rmtree(other, ignore_errors=True)


def _create(folder: Path, names: list[str], encoder: Encoder) -> None:
    shape = len(names), encoder.grid**2, encoder.width
    index = {"encoder": encoder.name, "fingerprint": encoder.fingerprint, "names": names}
    np.lib.format.open_memmap(folder / "features.npy", mode="w+", dtype=np.float16, shape=shape).flush()
    _reserve(folder / "features.npy")
    np.save(folder / "done.npy", np.zeros(len(names), dtype=bool))
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


def _reserve(path: Path) -> None:
    """Reserve the disk space: on a full disk, writing to a sparse memory-mapped file would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _mapped(path: Path, mode: Literal["r", "r+"]) -> np.ndarray:
    try:
        return np.load(path, mmap_mode=mode)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: damaged ({error}); delete its folder to compute it again")


def _fill(folder: Path, images: dict[int, Path], encoder: Encoder, mirror: bool, quiet: bool) -> None:
    """Compute the rows of ``images`` that no other process has done meanwhile; mark each once it is written."""
    features, done = _mapped(folder / "features.npy", "r+"), _mapped(folder / "done.npy", "r+")
    damaged: list[str] = []
    begun: deque[int] = deque()  # rows whose photos are on their way through the encoder
    with progress_bar(total=len(images), desc=f"{encoder.name} features", unit="image", disable=quiet) as progress:

        def left() -> Iterator[Path]:
            for row, path in images.items():
                if done[row]:
                    progress.update()
                else:
                    begun.append(row)
                    yield path

        for found in encode(encoder, left(), mirror):
            row = begun.popleft()
            if isinstance(found, InputError):
                damaged.append(str(found))
            else:
                features[row], done[row] = found.half().cpu().numpy(), True
            progress.update()
    if damaged:
        more = f"; and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        raise InputError(f"{len(damaged)} of {len(images)} images cannot be read: {'; '.join(damaged[:3])}{more}")
