"""What the confidence in a caption is worth: on photographs, and on pictures that are none.

    python benchmarks/bench_confidence.py [--data FLICKR8K] [--model FOLDER] [--record FILE]

On the half of the validation photos to which it was not fitted (by ``python -m caption_utils confidence``): Spearman's
rank correlation with per-image CIDEr; and for each fifth of the captions, from least to most confident, mean
confidence, share above the median, which it should equal, and mean CIDEr. Then how often a photograph gets more
confidence than a picture that is none (the area under the curve), beside the same for the probability per word alone.
Then the confidence in captions of scikit-image's photographs, the like of which Flickr8k hardly has. ``--record``
writes all this into a csv, in place of earlier rows of the model.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from no_photos import no_photos
from PIL import Image
from scipy.stats import mannwhitneyu, spearmanr

from caption_utils.app.photos import sample_photos
from caption_utils.captioner import Caption, Captioner
from caption_utils.data.images import Source
from caption_utils.evaluation.confidence import halves, reliability
from caption_utils.evaluation.unseen import read_split
from caption_utils.files import replacing
from caption_utils.runtime import device, repository
from caption_utils.training.zoo import default_model

COLUMNS = ["model", "measure", "of", "pictures", "value"]
Row = tuple[str, str, int, float]  # the last four of ``COLUMNS``


def on_photos(captioner: Captioner, data: str) -> tuple[list[Row], np.ndarray, np.ndarray]:
    """Rows about validation photos, and of those measured confidence and probability per word."""
    first, second = halves(captioner, read_split(data, captioner.model, "val")[1])
    found = reliability(captioner.calibration, first, second)
    confidence = np.array([sure.value for sure in captioner.calibration.judge(second.gists, second.per_word.tolist())])
    count = len(confidence)
    rows = [
        ("rank correlation with CIDEr", "confidence", count, found.rank_correlation),
        ("rank correlation with CIDEr", "per word", count, spearmanr(second.per_word, second.cider).statistic),
    ]
    for number, group in found.table.iterrows():
        measures = ((name, group[name]) for name in ("confidence", "above_median", "cider"))
        rows += [(name, f"fifth {number + 1}", int(group["captions"]), value) for name, value in measures]
    return rows, confidence, second.per_word


def area(higher: np.ndarray, lower: np.ndarray) -> float:
    """The area under the ROC curve: how often one of ``higher`` is above one of ``lower``; a tie counts half."""
    return mannwhitneyu(higher, lower).statistic / (len(higher) * len(lower))


def best_captions(captioner: Captioner, images: list[Source]) -> list[Caption]:
    """The best caption of each image."""
    return [best for best, *_ in captioner.captions(captioner.features(images))]


def on_others(captioner: Captioner, others: dict[str, list[Image.Image]], *photos: np.ndarray) -> list[Row]:
    """Areas under the curve, of ``photos``' confidence and probability per word against those of ``others``."""
    found = {kind: best_captions(captioner, images) for kind, images in others.items()}
    together = [caption for captions in found.values() for caption in captions]
    confidence, per_word = photos
    rows = []
    for kind, captions in {"no photographs": together, **found}.items():
        sure = np.array([caption.confidence for caption in captions])
        rows.append(("area, confidence", kind, len(captions), area(confidence, sure)))
    alone = area(per_word, np.array([caption.per_word for caption in together]))
    return [*rows, ("area, per word", "no photographs", len(together), alone)]


def record(path: Path, table: pd.DataFrame) -> None:
    """Into a csv, after the rows of other models."""
    earlier = pd.read_csv(path) if path.is_file() else table[:0]
    kept = earlier[~earlier["model"].isin(table["model"])]
    with replacing(path) as temporary:
        pd.concat([kept, table] if len(kept) else [table]).to_csv(temporary, index=False, lineterminator="\n")


def main() -> None:
    """Print all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(repository() / "data" / "flickr8k"), help="(%(default)s)")
    parser.add_argument("--model", type=Path, help="model folder (default: the shipped one that captions)")
    parser.add_argument("--record", type=Path, metavar="FILE")
    options = parser.parse_args()
    if not Path(options.data).exists():
        print(f"not measured: needs Flickr8k in {options.data}, or another place with --data")
        return
    folder = options.model or default_model()
    captioner = Captioner.load(folder, device())
    if captioner.calibration is None:
        raise SystemExit(f"{folder}: has no confidence; fit it with python -m caption_utils confidence")
    rows, *photos = on_photos(captioner, options.data)
    rows += on_others(captioner, no_photos(), *photos)
    samples = sample_photos()
    for path, caption in zip(samples, best_captions(captioner, samples), strict=True):
        print(f"{path.stem}: {caption.text} ({caption.confidence:.2f}) {caption.doubt}")
        rows.append(("confidence", path.stem, 1, caption.confidence))
    table = pd.DataFrame([(folder.name, *row) for row in rows], columns=COLUMNS).round({"value": 3})
    print(table.to_string(index=False))
    if options.record:
        record(options.record, table)


if __name__ == "__main__":
    main()
