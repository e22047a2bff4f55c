"""``python tools/ablation.py DATA``: what each part of the model is worth, a row for each change and seed.

Each row is a model trained on DATA by one recipe with one change, measured on the validation images. When a run ends,
its row is appended to ``results/ablation.csv`` and its learning curve is copied to ``results/curves/ablation``: all
changes with the first seed, then with the second. Existing rows are skipped; an interrupted run resumes.
"""

import argparse
import csv
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from caption_utils.captioner import Captioner
from caption_utils.config import TrainConfig
from caption_utils.data.datasets import CaptionDataset, load_dataset
from caption_utils.data.word_vectors import load_word_vectors
from caption_utils.encoders.encoder import load_encoder
from caption_utils.encoders.store import extract
from caption_utils.errors import InputError
from caption_utils.evaluation.records import append_row
from caption_utils.evaluation.report import evaluate_model, rounded, with_bounds
from caption_utils.evaluation.unseen import best_captions
from caption_utils.metrics.scores import caption_scores
from caption_utils.runtime import device, sleep_while_waiting
from caption_utils.training.batches import CaptionBatches
from caption_utils.training.checkpoint import Model, load_model
from caption_utils.training.preparation import build_vocabulary, fields_of, training_batches
from caption_utils.training.progress import best
from caption_utils.training.run import new_decoder, train_model
from caption_utils.training.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
TABLE, CURVES, MODELS = ROOT / "results/ablation.csv", ROOT / "results/curves/ablation", ROOT / "data/models/ablation"
SEEDS = (0, 1)
LOCAL = {"encoder_name": "efficientnet_lite2_local_260px"}
ARGUMENTS = ("encoder_name", "tokenizer", "word_vectors")  # of ``train_model``; all else are settings
RECIPE: dict[str, Any] = {
    "encoder_name": "efficientnet_lite2_260px",
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
BASE = "Bahdanau"
MIN_COUNT, STEPS, TURNS = 3, 15, 5
LUONG = {"attention": "luong"}
UNTIED = {"tie_weights": False}
# what is changed in the recipe -> the settings that differ
CHANGES: dict[str, dict[str, Any]] = {
    BASE: {},
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
    "1.5-entmax": {"normalizer": "entmax"},
    "no deep output": {"deep_output": False},
    "no tied weights": UNTIED,
    "gate, no tied weights": {"gate": True} | UNTIED,
    "GloVe, frozen": {"word_vectors": "glove-50d", "freeze_word_vectors": True},
    "GloVe, trained on": {"word_vectors": "glove-50d"},
    "GloVe, trained on, no tied weights": {"word_vectors": "glove-50d"} | UNTIED,
    "WordPiece": {"tokenizer": "wordpiece"},
}
SCORES = ("bleu4", "cider")


def measure(data: CaptionDataset, change: str, seed: int) -> dict[str, object]:
    """Train the recipe with one change, or go on with it, and return its row."""
    folder = MODELS / f"{slug(change)}-{seed}"
    settings = RECIPE | CHANGES[change] | {"seed": seed}
    arguments = {name: settings.pop(name) for name in ARGUMENTS if name in settings}
    history = train_model(data, folder, settings=settings, **arguments)
    CURVES.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "log.csv", CURVES / f"{folder.name}.csv")
    beam = evaluate_model(folder, data, "val", 5).report()
    row: dict[str, object] = {"change": change, "seed": seed, "parameters": parameters(folder)}
    row["relative_speed"] = relative_speed(data, change)
    row["epoch"] = int(best(history.to_dict("records"))["epoch"])
    row |= {name: beam[name] for name in ("perplexity", "perplexity_per_word")}
    for search, report in {"greedy": greedy_scores(folder, data), "beam5": beam}.items():
        row |= {f"{search}_{score}{end}": report[f"{score}{end}"] for score in SCORES for end in ("", "_low", "_high")}
    row |= {"effective_regions": beam["effective_regions"], "peak": beam["peak"], "moved": beam["change"]}
    return row | {f"fall_difference{end}": beam[f"fall_difference{end}"] for end in ("", "_low", "_high")}


def greedy_scores(folder: Path, data: CaptionDataset) -> dict[str, float]:
    """BLEU-4 and CIDEr of greedy captions of the validation images, with the bounds of their intervals."""
    captioner, val = Captioner.load(folder, device()), data.split("val")
    found = best_captions(captioner, extract(val, captioner.encoder), val.image_names, beams=1)
    references = [val.captions_of(name) for name in val.image_names]
    scores = caption_scores([caption.text for caption in found], references)
    return rounded(with_bounds({name: scores[name] for name in SCORES}))


def relative_speed(data: CaptionDataset, change: str) -> float:
    """Captions per CPU second in training, as a multiple of the recipe's: the median of turns in the same process."""
    with tempfile.TemporaryDirectory() as folder:
        sides = [steps(data, RECIPE | CHANGES[each], Path(folder)) for each in (change, BASE)]
        seconds = [[next(side) for side in sides] for _ in range(1 + TURNS)][1:]
    return round(statistics.median(base / changed for changed, base in seconds), 3)


def steps(data: CaptionDataset, settings: dict[str, Any], folder: Path) -> Iterator[float]:
    """Train for ``STEPS`` steps again and again; each time the CPU seconds that they took."""
    train = data.split("train")
    encoder, config = load_encoder(settings["encoder_name"], device()), TrainConfig(**fields_of(TrainConfig, settings))
    vocab = build_vocabulary(train, MIN_COUNT, settings.get("tokenizer", "words"))
    vectors = load_word_vectors(settings["word_vectors"], vocab.counts) if "word_vectors" in settings else None
    decoder = new_decoder(encoder, vocab, vectors, settings, config).to(device())
    model = Model(decoder, vocab, encoder.name, encoder.fingerprint)
    batches = training_batches(data, encoder, vocab, config, device(), CaptionBatches)
    trainer = Trainer(model, config, folder, batches, batches)
    for first in count(step=STEPS):
        start = time.process_time()
        for share in batches.shuffled(1, steps=slice(first, first + STEPS)):
            trainer.train_step(share)
        yield time.process_time() - start


def parameters(folder: Path) -> int:
    """How many numbers a decoder holds."""
    return sum(each.numel() for each in load_model(folder).decoder.parameters())


def slug(change: str) -> str:
    """A change as part of a file's name."""
    return change.lower().replace(",", "").replace(" ", "-")


def measured() -> set[tuple[str, int]]:
    """Changes and seeds that already have a row."""
    if not TABLE.exists():
        return set()
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {(row["change"], int(row["seed"])) for row in csv.DictReader(file)}


def main() -> None:
    """Measure the missing rows one by one."""
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
