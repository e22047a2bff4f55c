"""Images captioned per second: beam search over many images at once, beside one image at a time.

    python benchmarks/bench_search.py [--images 1000] [--data FLICKR8K] [--batch 50] [--model FOLDER]

``one`` is the same search, given one image at a time. It must find the same captions, except where the scores of two
tie but for rounding. The two take five turns, in each of which the batched search has all images and the other a fifth
of them, and the medians of these turns are printed. Features are those of the validation images of ``--data``, by
default random ones of the model's sizes.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from caption_utils.config import LENGTH_PENALTY, SearchConfig
from caption_utils.data.datasets import load_dataset
from caption_utils.encoders.encoder import encoder_spec, load_encoder
from caption_utils.encoders.store import extract
from caption_utils.search import beam as search
from caption_utils.search.beam import beam_search
from caption_utils.search.hypotheses import Hypothesis
from caption_utils.training.checkpoint import Model, load_model
from caption_utils.training.zoo import default_model

TURNS = 5
Search = Callable[[Tensor], list[Hypothesis]]


def take_turns(features: Tensor, sides: dict[str, Search]) -> tuple[dict[str, float], dict[str, list[Hypothesis]]]:
    """Median images per second of each side, and its caption of each image."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    captions: dict[str, list[Hypothesis]] = {name: [] for name in sides}
    for turn in features.chunk(TURNS):
        for name, run in sides.items():
            images = features if name == "batched" else turn
            start = time.perf_counter()
            captions[name] += run(images)
            speeds[name].append(len(images) / (time.perf_counter() - start))
    captions["batched"] = captions["batched"][: len(features)]
    return {name: statistics.median(values) for name, values in speeds.items()}, captions


def compare(captions: list[Hypothesis], batched: list[Hypothesis]) -> tuple[int, int, int]:
    """How many captions have the batched one's words, how many others tie with it in score, and how many differ."""
    others = [pair for pair in zip(captions, batched, strict=True) if pair[0].ids != pair[1].ids]
    scores = [[caption.score(LENGTH_PENALTY) for caption in pair] for pair in others]
    tied = sum(math.isclose(*pair, abs_tol=1e-4) for pair in scores)
    return len(captions) - len(others), tied, len(others) - tied


def load_features(images: int, data: str | None, model: Model) -> Tensor:
    """Features ``(images, N, D)`` of validation images of ``data``, or random ones."""
    if data is None:
        sizes = images, encoder_spec(model.encoder).grid ** 2, model.decoder.config.feature_dim
        return torch.rand(sizes, generator=torch.Generator().manual_seed(0))
    dataset = load_dataset(data).split("val")
    return extract(dataset, load_encoder(model.encoder))[dataset.image_names[:images]]


def main() -> None:
    """Print a row for each side. Ends with an error if a caption differs from the batched one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--data", help="data set whose validation images to caption")
    parser.add_argument("--batch", type=int, default=search.IMAGES_AT_ONCE, help="images at once (%(default)s)")
    parser.add_argument("--model", help="model folder (default: the shipped one that captions)")
    options = parser.parse_args()
    model, config = load_model(options.model or default_model()), SearchConfig(5)
    search.IMAGES_AT_ONCE = options.batch
    decoder = model.decoder
    sides: dict[str, Search] = {
        "one": lambda chunk: [beam_search(decoder, image, config)[0][0] for image in chunk.split(1)],
        "batched": lambda chunk: [found for found, *_ in beam_search(decoder, chunk, config)],
    }
    speeds, captions = take_turns(load_features(options.images, options.data, model).float(), sides)
    print(f"{torch.get_num_threads()} threads, {len(captions['batched'])} images, beam 5")
    batched, found = speeds.pop("batched"), captions.pop("batched")
    print(f"batched  {batched:8.1f} images per second")
    results = {name: compare(captions[name], found) for name in speeds}
    for name, (equal, tied, other) in results.items():
        print(
            f"{name:<9}{speeds[name]:8.1f}, batched is {batched / speeds[name]:.1f} times as fast; captions: {equal} "
            f"equal, {tied} tied, {other} others"
        )
    if any(other for _, _, other in results.values()):
        raise SystemExit("the captions differ")


if __name__ == "__main__":
    main()
