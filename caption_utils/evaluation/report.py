"""A model folder and a data set to everything that is reported of the two, and to a row of ``results/metrics.csv``."""

import csv
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from caption_utils.captioner import Caption, Captioner
from caption_utils.config import BEAMS
from caption_utils.data.datasets import CaptionDataset
from caption_utils.data.layouts import summary
from caption_utils.data.splits import LISTS
from caption_utils.data.vocab import tokenize
from caption_utils.demo.scenes import Scene, load_scenes
from caption_utils.encoders.store import extract
from caption_utils.errors import InputError
from caption_utils.evaluation.grounding import grounding, grounding_scores, truth
from caption_utils.evaluation.occlusion import deletion_scores, deletion_test
from caption_utils.evaluation.sharpness import sharpness_scores
from caption_utils.files import replacing
from caption_utils.metrics.bootstrap import Difference, Score, paired_difference
from caption_utils.metrics.diversity import diversity
from caption_utils.metrics.meteor import meteor
from caption_utils.metrics.perplexity import likelihood, per_word, unknown_rate
from caption_utils.metrics.scores import caption_scores
from caption_utils.runtime import device, repository
from caption_utils.training.batches import CaptionBatches
from caption_utils.training.checkpoint import Model
from caption_utils.training.run import BATCH, read_dataset

SCORES = ("perplexity", "perplexity_per_word", "bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "cider")
DIGITS = 4
PHOTOS = 200  # of the deletion test, which encodes each about 17 times


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured of one model on the images of one split.

    ``about`` names model, data and search. ``captions`` and their natural ``log_probabilities`` belong to ``images``,
    in this order, as do the statistics of ``scores``. ``missing`` says why a score or a share could not be had.
    ``sharpness`` says how sharp attention over so many ``regions`` is, see ``sharpness_scores``, and ``attention``
    whether the model looks at what it names, see ``attention_scores``.
    """

    about: dict[str, object]
    images: list[str]
    captions: list[str]
    log_probabilities: list[float]
    scores: dict[str, Score]
    diversity: dict[str, float | None]
    missing: dict[str, str]
    regions: int
    sharpness: dict[str, Score]
    attention: dict[str, Score]
    cost: dict[str, object]

    def row(self) -> dict[str, object]:
        """A row of ``results/metrics.csv``: ``about``, scores, diversity, cost, bounds of the scores' 95 % intervals.

        What is missing is ``None``.
        """
        row = {**self.about, **dict.fromkeys(SCORES), **self.diversity, **self.cost}
        row |= {f"{name}_{end}": None for name in SCORES for end in ("low", "high")}
        return rounded(row | with_bounds(self.scores))

    def report(self) -> dict[str, object]:
        """``row``, then ``sharpness`` beside that of even attention, then ``attention`` and on how many images."""
        images = len(next(iter(self.attention.values())).statistics)
        sharpness, attention = (rounded(with_bounds(scores)) for scores in (self.sharpness, self.attention))
        even = rounded({"even_regions": self.regions, "even_peak": 1 / self.regions})
        return self.row() | sharpness | even | {"attention_images": images} | attention


def with_bounds(scores: Mapping[str, Score]) -> dict[str, float]:
    """Each score's value, and the bounds of its interval as ``NAME_low`` and ``NAME_high``."""
    found: dict[str, float] = {}
    for name, score in scores.items():
        low, high = score.interval()
        found |= {name: score.value, f"{name}_low": low, f"{name}_high": high}
    return found


def rounded(row: Mapping[str, object]) -> dict[str, object]:
    """With numbers of four decimal places."""
    return {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in row.items()}


def evaluate_model(
    folder: str | Path, data: str | Path | CaptionDataset, split: str = "val", beams: int = BEAMS
) -> Evaluation:
    """Measure a model folder on one split: perplexity by teacher forcing, all else on freely decoded captions.

    ``data`` is split as the model's training data was. With the official lists it needs the photos, captions and list
    of this one split alone. Photos that the model was trained on are left out, but for ``train``. Raises
    ``InputError`` as reading model and data does, and where only chance could tell the split's photos from those of
    the training.
    """
    start = time.perf_counter()
    captioner = Captioner.load(folder, device())
    model = captioner.model
    whole, dataset = read_split(data, model, split)
    batches = CaptionBatches(dataset, extract(dataset, captioner.encoder), model.vocab, BATCH, device())
    found = [best for batch in batches.in_order() for best, *_ in captioner.captions(batch.features, beams)]
    captions = [caption.text for caption in found]
    about = {
        "commit": _commit(),
        "data": dataset.name,
        "scheme": whole.scheme,
        "split": split,
        "images": len(captions),
        **_about(folder, model, beams),
        "unknown_rate": unknown_rate(batches.in_order(), model.vocab.unk),
    }
    references = [dataset.captions_of(name) for name in dataset.image_names]
    scores, missing = _scores(captions, references)
    scores["perplexity"] = likelihood(model.decoder, batches.in_order())
    words = [sum(len(tokenize(text)) + 1 for text in texts) for texts in references]
    scores["perplexity_per_word"] = per_word(scores["perplexity"], words)
    variety = diversity(captions, whole.table.loc[whole.table["split"] == "train", "caption"])
    if variety["training_copies"] is None:
        missing["training_copies"] = f"{dataset.name} holds no training photos"
    attention = attention_scores(captioner, dataset, found)
    cost = {"seconds": round(time.perf_counter() - start, 1), "device": device().type}
    likelihoods = [caption.log_probability for caption in found]
    maps = [caption.attention for caption in found]
    regions, sharpness = captioner.encoder.grid**2, sharpness_scores(maps)
    about_attention = regions, sharpness, attention
    return Evaluation(
        about, dataset.image_names, captions, likelihoods, scores, variety, missing, *about_attention, cost
    )


def read_split(data: str | Path | CaptionDataset, model: Model, split: str) -> tuple[CaptionDataset, CaptionDataset]:
    """The data set, split as the model's training data was, and its ``split``: but for ``train``, what is unseen.

    Raises ``InputError`` as ``evaluate_model`` does.
    """
    scheme = str(model.training.get("split", "official"))
    whole = read_dataset(data, scheme)
    _refuse_chance(whole, scheme, split)
    return whole, whole.split(split) if split == "train" else _unseen(whole.split(split), model)


def attention_scores(captioner: Captioner, dataset: CaptionDataset, found: Sequence[Caption]) -> dict[str, Score]:
    """Does the model look at what it names, and is that there? ``found`` holds a caption for each image of ``dataset``.

    On drawn scenes, told by their ``scenes.json``: ``true``, the percent of captions that are, and of the pointing
    game ``pointing_hit`` and ``pointing_mass`` to compare with ``pointing_chance``, and ``pointing_absent``; see
    ``grounding_scores``. On photographs the deletion test of the first 200, by greedy captions: ``fall_attended``,
    ``fall_random`` and ``fall_difference``, see ``deletion_scores``.
    """
    if (dataset.root / "scenes.json").is_file():
        scenes = _scenes_of(dataset)
        table = grounding([caption.tokens for caption in found], [caption.attention for caption in found], scenes)
        game = grounding_scores(table, len(scenes))
        true = truth([caption.text for caption in found], scenes)
        return {"true": true, **{f"pointing_{name}": score for name, score in game.items()}}
    photos = [dataset.path(name) for name in dataset.image_names[:PHOTOS]]
    falls = deletion_scores(deletion_test(captioner, photos), len(photos))
    return {f"fall_{name}": score for name, score in falls.items()}


def _scenes_of(dataset: CaptionDataset) -> list[Scene]:
    """The scene of each image. Raises ``InputError`` for an image that was not drawn."""
    scenes = load_scenes(dataset.root)
    for name in dataset.image_names:
        if name not in scenes:
            raise InputError(f"{dataset.root / 'scenes.json'}: has no scene {name}; take the photo out of the demo set")
    return [scenes[name] for name in dataset.image_names]


def _refuse_chance(dataset: CaptionDataset, scheme: str, split: str) -> None:
    """Raises ``InputError`` if the model's split was official and the data's is not, since the two would mix."""
    if scheme == "official" and dataset.scheme != "official" and split in LISTS:
        raise InputError(
            f"{dataset.root}: no list tells its {split} photos from those that the model was trained on; "
            f"put {LISTS[split]} there"
        )


def _unseen(dataset: CaptionDataset, model: Model) -> CaptionDataset:
    """Without the photos that the model was trained on, which it tells. Raises ``InputError`` if none is left."""
    seen = list(filter(model.saw, dataset.image_names))
    if len(seen) == len(dataset.image_names):
        raise InputError(f"{dataset.root}: the model was trained on all {len(seen)} photos of this split; take others")
    if seen:
        print(f"Photos that the model was trained on (left out): {summary(seen)}", file=sys.stderr)
    return replace(dataset, table=dataset.table[~dataset.table["image"].isin(seen)])


def _about(folder: str | Path, model: Model, beams: int) -> dict[str, object]:
    return {
        "model": Path(folder).name,
        "encoder": model.encoder,
        "attention": model.decoder.config.attention,
        "search": f"beam {beams}" if beams > 1 else "greedy",
        "seed": model.training.get("seed"),
        "vocab_size": len(model.vocab),
    }


def _scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[dict[str, Score], dict[str, str]]:
    """Scores by name, and why others are missing."""
    scores = caption_scores(captions, references)
    missing = {} if "cider" in scores else {"cider": "needs two images, to tell common words from rare ones"}
    try:
        return scores | {"meteor": meteor(captions, references)}, missing
    except InputError as reason:
        return scores, missing | {"meteor": str(reason)}


def compare(first: Evaluation, second: Evaluation) -> dict[str, Difference]:
    """First minus second, by paired bootstrap, for each score that both have, ``sharpness`` and ``attention`` included.

    Perplexities by token compare only where the vocabularies are of one size. Raises ``InputError`` if the two were not
    measured on the same images.
    """
    if first.images != second.images:
        raise InputError(
            f"{second.about['model']}: measured on other images than {first.about['model']}; evaluate "
            "both on the same split"
        )
    ours, theirs = ({**each.scores, **each.sharpness, **each.attention} for each in (first, second))
    shared = [name for name in (*SCORES, *first.sharpness, *first.attention) if name in ours and name in theirs]
    if first.about["vocab_size"] != second.about["vocab_size"]:
        shared.remove("perplexity")
    return {name: paired_difference(ours[name], theirs[name]) for name in shared}


def write_captions(path: str | Path, evaluation: Evaluation) -> None:
    """Write the captions in COCO's result format, a photo a line; ``image_id`` is the photo's name in the data set.

    Raises ``InputError`` for a file that cannot be written.
    """
    columns = zip(evaluation.images, evaluation.captions, evaluation.log_probabilities, strict=True)
    lines = [
        json.dumps({"image_id": name, "caption": caption, "log_probability": round(number, DIGITS)}, ensure_ascii=False)
        for name, caption, number in columns
    ]
    with replacing(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def append_row(path: str | Path, row: Mapping[str, object]) -> None:
    """Add a row to a csv whose columns are the row's names, creating it; whole or not at all.

    Raises ``InputError`` for a file with other columns or one that cannot be written.
    """
    rows = _read_rows(Path(path)) or [list(row)]
    if any(len(cells) != len(row) for cells in rows) or rows[0] != list(row):
        raise InputError(f"{path}: its columns are not {', '.join(row)}; record into another file")
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([*rows, row.values()])


def _read_rows(path: Path) -> list[list[str]]:
    """Rows of a csv, header first; none if there is no such file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [cells for cells in csv.reader(file) if cells]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as csv ({error}); record into another file") from None


def _commit() -> str:
    """Short hash of the repository's commit, empty outside one."""
    command = ["git", "-C", str(repository()), "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True)
    except OSError:  # no git on this machine
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
