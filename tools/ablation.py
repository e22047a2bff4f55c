"""``python tools/ablation.py DATA``: what each part of the model is worth, a row for each change and seed.

Every row is a model trained on DATA by one recipe with one change, measured on the validation images. Rows go into
``results/ablation.csv`` and learning curves into ``results/curves/ablation`` as each run ends: all changes with the
first seed, then with the second. Rows that are there are left alone; an interrupted run goes on after its last epoch.
"""

import argparse
import csv
import shutil
import sys
from pathlib import Path
from typing import Any

from caption_utils.captioner import Captioner
from caption_utils.data.datasets import CaptionDataset, load_dataset
from caption_utils.encoders.store import extract
from caption_utils.errors import InputError
from caption_utils.evaluation.report import append_row, evaluate_model, rounded, with_bounds
from caption_utils.metrics.scores import caption_scores
from caption_utils.runtime import sleep_while_waiting
from caption_utils.training.batches import CaptionBatches
from caption_utils.training.checkpoint import load_model
from caption_utils.training.run import BATCH, train_model

ROOT = Path(__file__).resolve().parent.parent
TABLE, CURVES, MODELS = ROOT / "results/ablation.csv", ROOT / "results/curves/ablation", ROOT / "data/models/ablation"
SEEDS = (0, 1)
LOCAL = {"ENCODER_NAME": "efficientnet_lite2_local_260px"}
RECIPE: dict[str, Any] = {
    "attention": "bahdanau",
    "epochs": 5,
    "images_per_batch": 16,
    "learning_rate": 2e-3,
    "schedule": "one_cycle",
    "label_smoothing": 0.05,
    "weight_decay": 0.02,
    "dropout": 0.3,
    "feature_dropout": 0.2,
    "embed_dim": 256,
    "hidden_dim": 256,
    "attention_dim": 128,
    "region_dim": 256,
    "deep_output": True,
    "tie_weights": True,
}
LUONG = {"attention": "luong"}
# what is changed in the recipe -> settings; those in capitals are arguments of ``train_model``
CHANGES: dict[str, dict[str, Any]] = {
    "Bahdanau": {},
    "regions of an earlier stage": LOCAL,
    "regions of an earlier stage, 1.5-entmax": LOCAL | {"normalizer": "entmax"},
    "no attention": {"attention": "none"},
    "Luong, general": LUONG,
    "Luong, dot": LUONG | {"score": "dot"},
    "Luong, concat": LUONG | {"score": "concat"},
    "Luong, general, input feeding": LUONG | {"input_feeding": True},
    "gate": {"gate": True},
    "doubly stochastic, 0.01": {"doubly_stochastic": 0.01},
    "doubly stochastic, 0.1": {"doubly_stochastic": 0.1},
    "doubly stochastic, 1": {"doubly_stochastic": 1.0},
    "hard attention": {"hard": True},
    "sparsemax": {"normalizer": "sparsemax"},
    "1.5-entmax": {"normalizer": "entmax"},
    "words from the context": {"from_context": 0.5},
    "1.5-entmax, words from the context": {"normalizer": "entmax", "from_context": 0.5},
    "no deep output": {"deep_output": False},
    "no tied weights": {"tie_weights": False},
    "GloVe, frozen": {"WORD_VECTORS": "glove-50d", "freeze_word_vectors": True},
    "GloVe, trained on": {"WORD_VECTORS": "glove-50d"},
    "WordPiece": {"TOKENIZER": "wordpiece"},
}
SCORES = ("bleu4", "cider")


def measure(data: CaptionDataset, change: str, seed: int) -> dict[str, object]:
    """Train the recipe with one change, or go on with it, and return its row."""
    folder = MODELS / f"{slug(change)}-{seed}"
    arguments = {"encoder_name": "efficientnet_lite2_260px"}
    arguments |= {name.lower(): value for name, value in CHANGES[change].items() if name.isupper()}
    settings = RECIPE | {name: value for name, value in CHANGES[change].items() if name.islower()} | {"seed": seed}
    history = train_model(data, folder, settings=settings, **arguments)
    CURVES.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "log.csv", CURVES / f"{folder.name}.csv")
    beam = evaluate_model(folder, data, "val", 5).report()
    row: dict[str, object] = {"change": change, "seed": seed, "parameters": parameters(folder)}
    row["captions_per_second"] = round(history["captions_per_second"].median(), 1)
    row["epoch"] = int(history.loc[history["val_perplexity"].idxmin(), "epoch"])
    row |= {name: beam[name] for name in ("perplexity", "perplexity_per_word")}
    for search, report in {"greedy": greedy_scores(folder, data), "beam5": beam}.items():
        row |= {f"{search}_{score}{end}": report[f"{score}{end}"] for score in SCORES for end in ("", "_low", "_high")}
    row |= {"effective_regions": beam["effective_regions"], "peak": beam["peak"], "moved": beam["change"]}
    return row | {f"fall_difference{end}": beam[f"fall_difference{end}"] for end in ("", "_low", "_high")}


def greedy_scores(folder: Path, data: CaptionDataset) -> dict[str, float]:
    """BLEU-4 and CIDEr of greedy captions of the validation images, with the bounds of their intervals."""
    captioner, val = Captioner.load(folder), data.split("val")
    batches = CaptionBatches(val, extract(val, captioner.encoder), captioner.model.vocab, BATCH)
    texts = [best.text for batch in batches.in_order() for best, *_ in captioner.captions(batch.features, 1)]
    scores = caption_scores(texts, [val.captions_of(name) for name in val.image_names])
    return rounded(with_bounds({name: scores[name] for name in SCORES}))


def parameters(folder: Path) -> int:
    """How many numbers a model learns."""
    return sum(each.numel() for each in load_model(folder).decoder.parameters())


def slug(change: str) -> str:
    """A change as part of a file's name."""
    return change.lower().replace(",", "").replace(" ", "-")


def measured() -> set[tuple[str, int]]:
    """Changes and seeds that have a row."""
    if not TABLE.exists():
        return set()
    return {(row["change"], int(row["seed"])) for row in csv.DictReader(TABLE.open(encoding="utf-8", newline=""))}


def main() -> None:
    """Measure what is missing, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA", help="data set: folder or caption file of Flickr8k, with its lists")
    try:
        data = load_dataset(parser.parse_args().data)
        for change, seed in ((change, seed) for seed in SEEDS for change in CHANGES):
            if (change, seed) not in measured():
                print(f"{change}, seed {seed}", file=sys.stderr)
                append_row(TABLE, measure(data, change, seed))
    except InputError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    sleep_while_waiting()
    main()
