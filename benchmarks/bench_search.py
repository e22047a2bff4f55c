"""Images captioned per second: beam search over many images at once, beside the textbook's one image at a time.

    python benchmarks/bench_search.py [--images 1000] [--data FLICKR8K] [--batch 250] [--model FOLDER]

The textbook search takes one image, makes its beams the batch, computes their keys anew at every step, and keeps its
captions in Python lists, with PyTorch as it is. ``one`` is this package's search, given one image at a time. Both
follow the same rules as the batched search and must find the same captions, except where the scores of two tie but for
rounding. The three take five turns, in each of which the batched search has all images and the others a fifth of them,
and the medians of these turns are printed. Features are those of the validation images of ``--data``, by default random
ones of the model's sizes. 1,000 images take two cores one to four minutes.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from caption_utils.model.packing import one_each
from torch import Tensor

from caption_utils.config import SearchConfig
from caption_utils.data.datasets import load_dataset
from caption_utils.data.vocab import Vocabulary
from caption_utils.encoders.encoder import encoder_spec, load_encoder
from caption_utils.encoders.store import extract
from caption_utils.model.decoder import Decoder, State
from caption_utils.search import beam as search
from caption_utils.search.beam import beam_search
from caption_utils.search.constraints import NEVER_SAID
from caption_utils.search.hypotheses import Hypothesis
from caption_utils.training.checkpoint import Model, load_model
from caption_utils.training.zoo import default_model

TURNS = 5
Beam = tuple[list[int], float]
Continuation = tuple[float, int, int]  # log-probability, which beam, word
Search = Callable[[Tensor], list[Hypothesis]]


@torch.inference_mode()
def textbook(decoder: Decoder, image: Tensor, config: SearchConfig) -> Hypothesis:
    """The best caption of an image's features ``(1, N, D)``."""
    beams, ended, greedy, state = [([], 0.0)], [], 0, decoder.init_state(image)
    regions = state.features
    while beams and max(total for _, total in beams) > bar(ended, config.beams):
        scores, state = textbook_step(decoder, regions, beams, state)
        options = continuations(scores, beams, config)
        chosen = options[: config.beams]
        best = next((option for option in options if option[1] == greedy), None)
        if best and best not in chosen:
            chosen.append(best)
        ended += [(total, beams[k][0]) for total, k, word in chosen if word == Vocabulary.eos]
        chosen = [option for option in chosen if option[2] != Vocabulary.eos]
        greedy = chosen.index(best) if best in chosen else None
        state = state.select(torch.tensor([k for _, k, _ in chosen], dtype=torch.long))
        beams = [([*beams[k][0], word], total) for total, k, word in chosen]
    found = sorted(ended, reverse=True)[: config.beams]
    captions = [Hypothesis(words, total, torch.empty(0)) for total, words in found]
    return max(captions, key=lambda caption: caption.score(config.length_penalty))


def bar(ended: list[tuple[float, list[int]]], beams: int) -> float:
    """The log-probability that a caption must surpass to be among the best."""
    return sorted((total for total, _ in ended), reverse=True)[beams - 1] if len(ended) >= beams else -math.inf


def textbook_step(decoder: Decoder, regions: Tensor, beams: list[Beam], state: State) -> tuple[Tensor, State]:
    """Log-probabilities ``(K, V)`` of the next word, from features and keys of each beam's own."""
    features = regions.expand(len(beams), -1, -1).contiguous()
    layout = one_each(len(beams), features.device)
    state = replace(state, features=features, keys=decoder.attention.keys(features), layout=layout)
    read = torch.tensor([words[-1] if words else Vocabulary.bos for words, _ in beams])
    logits, _, state = decoder.step(read, state)
    return logits.log_softmax(dim=1), state


def continuations(scores: Tensor, beams: list[Beam], config: SearchConfig) -> list[Continuation]:
    """Likely continuations of the beams by a word, likeliest first."""
    found = []
    for k, (words, total) in enumerate(beams):
        if len(words) == config.max_length:
            found.append((total + scores[k, Vocabulary.eos].item(), k, Vocabulary.eos))
            continue
        values, likely = scores[k].topk(config.beams + 4 + len(words))  # all but ``beams`` of them may be forbidden
        found += [
            (total + value, k, word)
            for value, word in zip(values.tolist(), likely.tolist(), strict=True)
            if word not in NEVER_SAID
            and (words or word != Vocabulary.eos)
            and not repeats(words, word, config.no_repeat_ngram)
        ]
    return sorted(found, reverse=True)


def repeats(words: list[int], word: int, n: int) -> bool:
    """Whether n words come twice with ``word`` after ``words``; never if n is 0."""
    said = [*words, word]
    grams = [tuple(said[i : i + n]) for i in range(len(said) - n + 1)]
    return n > 0 and len(set(grams)) < len(grams)


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
    scores = [[caption.score(search.LENGTH_PENALTY) for caption in pair] for pair in others]
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
    parser.add_argument("--batch", type=int, default=search.IMAGES_AT_ONCE, help="images for each core (%(default)s)")
    parser.add_argument("--model", help="model folder (default: the shipped one that captions)")
    options = parser.parse_args()
    model, config = load_model(options.model or default_model()), SearchConfig(5)
    search.IMAGES_AT_ONCE = options.batch
    decoder = model.decoder
    sides: dict[str, Search] = {
        "textbook": lambda chunk: [textbook(decoder, image, config) for image in chunk.split(1)],
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
