"""One model measured whole, on one split of a data set; and two models compared."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caption_utils.captioner import Caption, Captioner
from caption_utils.config import BEAMS, SearchConfig
from caption_utils.data.datasets import CaptionDataset
from caption_utils.data.vocab import tokenize
from caption_utils.encoders.store import extract
from caption_utils.errors import InputError
from caption_utils.evaluation.attention import attention_scores
from caption_utils.evaluation.sharpness import sharpness_scores
from caption_utils.evaluation.unseen import best_captions, read_split
from caption_utils.metrics.bootstrap import Difference, Score, paired_difference
from caption_utils.metrics.diversity import diversity
from caption_utils.metrics.meteor import meteor
from caption_utils.metrics.perplexity import likelihood, per_word, unknown_rate
from caption_utils.metrics.scores import caption_scores
from caption_utils.runtime import device, repository
from caption_utils.training.batches import CaptionBatches
from caption_utils.training.checkpoint import Model
from caption_utils.training.preparation import BATCH

SCORES = ("perplexity", "perplexity_per_word", "bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "cider")
COLUMNS = tuple(  # of a row
    "commit data scheme split images model encoder attention search seed vocab_size unknown_rate".split()
    + [*SCORES, "distinct", "words_used", "mean_length", "training_copies", "repeated_bigram", "seconds", "device"]
    + [f"{name}_{end}" for name in SCORES for end in ("low", "high")]
)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured of one model on the images of one split.

    ``about`` names model, data and search, ``cost`` what measuring took. ``captions`` has the best caption of each of
    ``images``, whose order the statistics of ``scores`` share. ``missing`` says why a score or a share is missing.
    ``sharpness`` says how sharp the attention is (``sharpness_scores``), and ``attention`` whether the model
    looks at what it names (``attention_scores``).
    """

    about: dict[str, object]
    images: list[str]
    captions: list[Caption]
    scores: dict[str, Score]
    diversity: dict[str, float | None]
    missing: dict[str, str]
    sharpness: dict[str, Score]
    attention: dict[str, Score]
    cost: dict[str, object]

    def row(self) -> dict[str, object]:
        """A row of ``results/metrics.csv``: ``about``, scores, diversity, cost, bounds of the scores' 95 % intervals.

        Its names are ``COLUMNS``. What is missing is ``None``.
        """
        row = dict.fromkeys(COLUMNS) | self.about | self.diversity | self.cost
        return rounded(row | with_bounds(self.scores))

    def report(self) -> dict[str, object]:
        """``row``, ``sharpness``, that of even attention, and ``attention`` with the number of its images."""
        regions = self.captions[0].attention[0].size
        even = {"even_regions": regions, "even_peak": 1 / regions}
        images = {"attention_images": len(next(iter(self.attention.values())).statistics)}
        return self.row() | rounded(with_bounds(self.sharpness) | even | images | with_bounds(self.attention))


def with_bounds(scores: Mapping[str, Score]) -> dict[str, float]:
    """Each score's value, and the bounds of its interval as ``NAME_low`` and ``NAME_high``."""
    found: dict[str, float] = {}
    for name, score in scores.items():
        low, high = score.interval()
        found |= {name: score.value, f"{name}_low": low, f"{name}_high": high}
    return found


def rounded(row: Mapping[str, object]) -> dict[str, object]:
    """The row with its numbers rounded to four decimal places."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}


def evaluate_model(
    folder: str | Path, data: str | Path | CaptionDataset, split: str = "val", beams: int = BEAMS
) -> Evaluation:
    """Measure a model folder on one split: perplexity by teacher forcing, all else on freely decoded captions.

    ``data`` is split as the model's training data was. With the official lists it needs the photos, captions and list
    of this one split alone. Photos that the model was trained on are left out, except from ``train``. Raises
    ``InputError`` as reading model and data does, and if only chance could tell the split's photos from the training
    photos.
    """
    start = time.perf_counter()
    SearchConfig(beams)  # raises
    captioner = Captioner.load(folder, device())
    whole, dataset = read_split(data, captioner.model, split)
    store = extract(dataset, captioner.encoder)
    captions = best_captions(captioner, store, dataset.image_names, beams)
    texts = [caption.text for caption in captions]
    references = [dataset.captions_of(name) for name in dataset.image_names]
    batches = CaptionBatches(dataset, store, captioner.model.vocab, BATCH, device())
    likelihoods = _likelihoods(captioner.model, batches, references)
    scores, missing = _scores(texts, references)
    variety = diversity(texts, whole.table.loc[whole.table["split"] == "train", "caption"])
    if variety["training_copies"] is None:
        missing["training_copies"] = f"{dataset.name} holds no training photos"
    measured_on = {"data": dataset.name, "scheme": whole.scheme, "split": split, "images": len(captions)}
    unknown = {"unknown_rate": unknown_rate(batches.in_order(), captioner.model.vocab.unk)}
    return Evaluation(
        {"commit": _commit()} | measured_on | _about(folder, captioner.model, beams) | unknown,
        dataset.image_names,
        captions,
        likelihoods | scores,
        variety,
        missing,
        sharpness_scores([caption.attention for caption in captions]),
        attention_scores(captioner, dataset, captions),
        {"seconds": round(time.perf_counter() - start, 1), "device": device().type},
    )


def _about(folder: str | Path, model: Model, beams: int) -> dict[str, object]:
    return {
        "model": Path(folder).resolve().name,
        "encoder": model.encoder,
        "attention": model.decoder.config.attention,
        "search": f"beam {beams}" if beams > 1 else "greedy",
        "seed": model.training.get("seed"),
        "vocab_size": len(model.vocab),
    }


def _likelihoods(model: Model, batches: CaptionBatches, references: Sequence[Sequence[str]]) -> dict[str, Score]:
    """Perplexity per token, and per word, so that vocabularies of words and of word pieces compare."""
    tokens = likelihood(model.decoder, batches.in_order())
    words = [sum(len(tokenize(text)) + 1 for text in texts) for texts in references]
    return {"perplexity": tokens, "perplexity_per_word": per_word(tokens, words)}


def _scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[dict[str, Score], dict[str, str]]:
    """Scores by name, and why others are missing."""
    scores = caption_scores(captions, references)
    missing = {} if "cider" in scores else {"cider": "needs two images, to tell common words from rare ones"}
    try:
        return scores | {"meteor": meteor(captions, references)}, missing
    except InputError as reason:
        return scores, missing | {"meteor": str(reason)}


def _commit() -> str:
    """Short hash of the repository's commit, empty outside one."""
    command = ["git", "-C", str(repository()), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git on this machine
        return ""


def compare(first: Evaluation, second: Evaluation) -> dict[str, Difference]:
    """First minus second, by paired bootstrap, for each score that both have, ``sharpness`` and ``attention`` included.

    Perplexities compare only between vocabularies of one size, or per word if one of them is of word pieces. Raises
    ``InputError`` if the two were not measured on the same images.
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
        if all(each["perplexity"].value == each["perplexity_per_word"].value for each in (ours, theirs)):  # of words
            shared.remove("perplexity_per_word")
    return {name: paired_difference(ours[name], theirs[name]) for name in shared}
