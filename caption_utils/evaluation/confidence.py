"""Does a model know what it does not know? Its confidence, fitted on one half of the validation photos.

``fit_confidence`` writes it into the model folder and measures it on the other half; see ``calibration.Calibration``.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from caption_utils.calibration import Calibration, Subspace, gist
from caption_utils.captioner import Captioner
from caption_utils.data.datasets import CaptionDataset
from caption_utils.data.splits import name_digest
from caption_utils.encoders.encoder import load_encoder
from caption_utils.encoders.store import FeatureStore, extract
from caption_utils.errors import InputError
from caption_utils.evaluation.unseen import best_captions, read_split
from caption_utils.metrics.scores import caption_scores
from caption_utils.runtime import device
from caption_utils.training.checkpoint import load_model
from caption_utils.training.preparation import BATCH, check_folder

DIRECTIONS = 32  # 16 or 64 tell photographs from other pictures as well
TAIL = 0.05  # share of the validation photos that count as unfamiliar
LEAST = 20  # photos to fit to, and as many to measure on
MOST = 10000  # training photos that are looked at
GROUPS = 5


@dataclass(frozen=True, eq=False)
class Captioned:
    """I captioned photos: their ``gists (I, D)``, and of their captions ``per_word`` and ``cider``.

    ``cider`` is that of each image, times 100, with the document frequencies of all validation captions.
    """

    gists: Tensor
    per_word: np.ndarray  # (I,)
    cider: np.ndarray  # (I,)

    def __getitem__(self, rows: np.ndarray) -> "Captioned":
        return Captioned(self.gists[torch.from_numpy(rows)], self.per_word[rows], self.cider[rows])


@dataclass(frozen=True, eq=False)
class Reliability:
    """How good a confidence that was ``fitted`` to so many photos is on others.

    ``rank_correlation`` is Spearman's, with per-image CIDEr. ``table`` has a row for each fifth of the captions, from
    least to most confident: number of ``captions``, mean ``confidence``, the share ``above_median``, which should
    equal it, and mean ``cider``.
    """

    fitted: int
    rank_correlation: float
    table: pd.DataFrame


def fit_confidence(folder: str | Path, data: str | Path | CaptionDataset) -> Reliability:
    """Fit a model's confidence, write it into its ``folder``, and measure it on photos that it was not fitted to.

    Needs the features of training and validation photos, and stores them. Raises ``InputError`` as reading model and
    data does, if the model was trained on other photos, if there are too few validation photos, and if nothing can be
    written into the folder.
    """
    model = load_model(folder, device())
    check_folder(folder)
    captioner = Captioner(model, model.own_encoder(load_encoder(model.encoder, device())))
    whole, val = read_split(data, model, "val")
    train = whole.split("train")
    if model.trained_on and not any(map(model.saw, train.image_names)):
        remedy = "give the data that it was trained on"
        raise InputError(f"{whole.root}: the model was trained on none of the training photos here; {remedy}")
    first, second = halves(captioner, val)
    names = train.image_names[:: len(train.image_names) // MOST + 1]
    calibration = calibrate(first, gists_of(extract(train, captioner.encoder), names))
    calibration.save(folder)
    return reliability(calibration, first, second)


def halves(captioner: Captioner, val: CaptionDataset) -> tuple[Captioned, Captioned]:
    """Validation photos with the captions of beam search: one half to fit to and one to measure on.

    A hash of a photo's name decides its half. Raises ``InputError`` if one has fewer than ``LEAST`` photos.
    """
    first = np.array([name_digest(name)[0] % 2 == 0 for name in val.image_names])
    sizes = sorted([first.sum(), (~first).sum()])
    if sizes[0] < LEAST:
        raise InputError(
            f"{val.root}: the halves of its validation photos are {sizes[1]} and {sizes[0]}; to fit a confidence takes "
            f"{LEAST} or more in each"
        )
    captioned = _captioned(captioner, val)
    return captioned[first], captioned[~first]


def _captioned(captioner: Captioner, dataset: CaptionDataset) -> Captioned:
    """Each photo of ``dataset`` with its best caption, from stored features."""
    store, names = extract(dataset, captioner.encoder), dataset.image_names
    found = best_captions(captioner, store, names)
    scores = caption_scores([best.text for best in found], [dataset.captions_of(name) for name in names])
    per_word = np.array([best.per_word for best in found])
    return Captioned(gists_of(store, names), per_word, scores["cider"].statistics[:, 0])


def gists_of(store: FeatureStore, names: list[str]) -> Tensor:
    """The ``calibration.gist`` of each photo, ``(I, D)``, from stored features."""
    return torch.cat([gist(store[names[start : start + BATCH]]) for start in range(0, len(names), BATCH)])


def calibrate(captioned: Captioned, training: Tensor) -> Calibration:
    """Fit to validation photos with their captions, and to the gists ``(J, D)`` of training photos."""
    directions = torch.linalg.eigh(torch.cov(training.T)).eigenvectors.flip(1)
    directions = directions[:, : min(DIRECTIONS, training.shape[1] // 2)]
    photos = Subspace(training.mean(dim=0).half().float(), directions.half().float())  # in the precision of the file
    distances = photos.distances(captioned.gists).sort().values
    line = platt(captioned.per_word, captioned.cider > np.median(captioned.cider))
    return Calibration(line, photos, distances[-max(1, round(TAIL * len(distances))) :])


def platt(per_word: np.ndarray, good: np.ndarray) -> Tensor:
    """Intercept and slope ``(2,)`` of the log-odds that a caption is ``good (I,)`` over its log ``per_word (I,)``.

    The targets lie a little inside 0 and 1, so that a best line always exists (Platt 1999, section 2.2).
    """
    evidence, wins = torch.from_numpy(np.log(per_word)), int(good.sum())
    target = torch.from_numpy(np.where(good, (wins + 1) / (wins + 2), 1 / (len(good) - wins + 2)))
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.binary_cross_entropy_with_logits(line[0] + line[1] * evidence, target)
        found.backward()
        return found

    optimizer.step(loss)
    return line.detach().float()


def reliability(calibration: Calibration, first: Captioned, second: Captioned) -> Reliability:
    """How the confidence fitted to ``first`` does on ``second``; a caption is good above the median of ``first``."""
    confidence = np.array([each.value for each in calibration.judge(second.gists, second.per_word.tolist())])
    columns = {"confidence": confidence, "above_median": second.cider > np.median(first.cider), "cider": second.cider}
    ordered = pd.DataFrame(columns).sort_values("confidence", kind="stable", ignore_index=True)
    groups = ordered.groupby(ordered.index * GROUPS // len(ordered))
    table = groups.mean()
    table.insert(0, "captions", groups.size())
    correlation = ordered.corr(method="spearman").loc["confidence", "cider"]
    return Reliability(len(first.cider), float(correlation), table)
