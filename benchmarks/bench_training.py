"""Captions trained per second: this package's decoders beside the textbook loop, and beside the floor.

    python benchmarks/bench_training.py

The textbook loop projects the features and scores the vocabulary inside every time step, one caption a row, padded.
The floors are a step's matrix products timed alone, forward and backward, each over all steps at once and without the
gradient of the features, which nothing needs. ``plain``: as the equations write them, by the library that PyTorch takes
of itself, as in the textbook loop; ``equations``: the same by the faster of its two libraries (``products.py``), as in
this package; ``arranged``: by the faster one and as this package arranges them, with the context's matrix applied to an
image's regions. A step takes turns with the textbook's, then with the floors; medians of speeds, and of the ratios
within a round, are printed. All tensors are random; lengths are drawn like Flickr8k's. Where there is a GPU, everything
is on it, in the precision that training uses there.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from caption_utils.model.products import fast_products
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from caption_utils.config import DecoderConfig, TrainConfig
from caption_utils.model.decoder import Batch, build_decoder
from caption_utils.runtime import device
from caption_utils.training.loss import caption_loss
from caption_utils.training.trainer import clip_gradients, precision

VOCAB, EMBED, HIDDEN, ATTENTION, REGIONS, IMAGES = 3500, 512, 256, 256, 49, 32
WIDTHS = 1280, 2048  # EfficientNet-Lite2, ResNet-101
FLOORS = "plain", "equations", "arranged"
ROUNDS = {"textbook": 9, "floors": 45}


class Textbook(nn.Module):
    """A decoder as tutorials write it: everything inside the loop, every padded position computed."""

    def __init__(self, width: int, luong: bool):
        super().__init__()
        self.luong = luong
        self.embedding = nn.Embedding(VOCAB, EMBED)
        self.feature_projection = nn.Linear(width, HIDDEN if luong else ATTENTION)
        self.query_projection = nn.Linear(HIDDEN, ATTENTION)
        self.v = nn.Linear(ATTENTION, 1)
        self.cell = nn.LSTMCell(EMBED + (0 if luong else width), HIDDEN)
        self.combine = nn.Linear(width + HIDDEN, HIDDEN)
        self.output = nn.Linear(HIDDEN, VOCAB)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Features ``(B, N, D)`` and padded tokens ``(B, T)`` to logits ``(B, T, V)``."""
        hidden = cell = features.new_zeros(len(features), HIDDEN)
        logits = []
        for t in range(tokens.shape[1]):
            embedded = self.embedding(tokens[:, t])
            if self.luong:
                hidden, cell = self.cell(embedded, (hidden, cell))
                scores = (self.feature_projection(features) * hidden[:, None]).sum(dim=2)
                out = torch.tanh(self.combine(torch.cat([self.attend(scores, features), hidden], dim=1)))
            else:
                combined = self.feature_projection(features) + self.query_projection(hidden)[:, None]
                context = self.attend(self.v(torch.tanh(combined)).squeeze(2), features)
                out, cell = self.cell(torch.cat([embedded, context], dim=1), (hidden, cell))
                hidden = out
            logits.append(self.output(out))
        return torch.stack(logits, dim=1)

    @staticmethod
    def attend(scores: Tensor, features: Tensor) -> Tensor:
        """Context ``(B, D)`` of scores ``(B, N)``."""
        return (scores.softmax(dim=1)[..., None] * features).sum(dim=1)


def make_batch(width: int) -> tuple[Batch, Tensor, Tensor]:
    """A packed batch, and the same captions padded: tokens ``(B, T)`` and features ``(B, N, D)``."""
    count = IMAGES * 5
    lengths = (torch.randn(count) * 3.9 + 11.8).round().clamp(3, 37).long().sort(descending=True).values
    tokens = torch.randint(4, VOCAB, (count, int(lengths[0])))
    padded = tokens.masked_fill(torch.arange(tokens.shape[1]) >= lengths[:, None], 0)
    owner = torch.randperm(count) // 5
    features = torch.rand(IMAGES, REGIONS, width)
    packed = pack_padded_sequence(padded, lengths.cpu(), batch_first=True)
    return Batch(features, packed, packed.data, owner), padded, features[owner]


def textbook_step(width: int, luong: bool, padded: Tensor, features: Tensor) -> Callable[[], None]:
    """One training step of the textbook decoder."""
    model = Textbook(width, luong)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(features, padded).flatten(0, 1), padded.flatten(), ignore_index=0).backward()
        optimizer.step()

    return step


def our_step(width: int, attention: str, batch: Batch) -> Callable[[], None]:
    """One training step of this package."""
    sizes = DecoderConfig(VOCAB, width, attention, embed_dim=EMBED, hidden_dim=HIDDEN, attention_dim=ATTENTION)
    decoder, config = build_decoder(sizes), TrainConfig()
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        caption_loss(decoder, batch, config).backward()
        clip_gradients(list(decoder.parameters()), config.clip_norm)
        optimizer.step()

    return step


class Product(NamedTuple):
    """``left (…, rows, inner)`` times ``right (…, inner, columns)``, and whether each needs its gradient."""

    left: Tensor
    right: Tensor
    grad_left: bool = True
    grad_right: bool = True


def matrix_product(rows: int, inner: int, columns: int, constant_input: bool = False) -> Product:
    """An input times a weight."""
    return Product(torch.rand(rows, inner), torch.rand(inner, columns), grad_left=not constant_input)


def context_products(width: int, luong: bool, tokens: int, arranged: bool) -> list[Product]:
    """The sum over regions, and the matrix that the context meets."""
    columns = HIDDEN if luong else 4 * HIDDEN
    alphas = torch.rand(IMAGES, tokens // IMAGES, REGIONS)
    if arranged:
        by_region = matrix_product(IMAGES * REGIONS, width, columns, constant_input=True)
        return [by_region, Product(alphas, torch.rand(IMAGES, REGIONS, columns))]
    features = torch.rand(IMAGES, REGIONS, width)
    return [Product(alphas, features, grad_right=False), matrix_product(tokens, width, columns)]


def score_products(luong: bool, tokens: int) -> list[Product]:
    """Luong's general score of every query and key; Bahdanau's query and the product of ``v`` with a tanh.

    The gradient of the tanh is a product of one column with one row, which needs no time of its own.
    """
    if luong:
        queries = torch.rand(IMAGES, tokens // IMAGES, HIDDEN)
        return [Product(queries, torch.rand(IMAGES, HIDDEN, REGIONS)), matrix_product(tokens, HIDDEN, HIDDEN)]
    scores = matrix_product(tokens * REGIONS, ATTENTION, 1, constant_input=True)
    return [scores, matrix_product(tokens, HIDDEN, ATTENTION)]


def floor_step(width: int, luong: bool, batch: Batch, arranged: bool) -> Callable[[], None]:
    """The products of one step: keys, gates, scores and context, vocabulary; forward and backward."""
    tokens = len(batch.targets)
    products = [
        matrix_product(IMAGES * REGIONS, width, HIDDEN if luong else ATTENTION, constant_input=True),
        matrix_product(tokens, EMBED, 4 * HIDDEN),
        matrix_product(tokens, HIDDEN, 4 * HIDDEN),
        matrix_product(tokens, HIDDEN, VOCAB),
        *score_products(luong, tokens),
        *context_products(width, luong, tokens, arranged),
    ]

    def step() -> None:
        for left, right, grad_left, grad_right in products:
            result = left @ right
            if grad_left:
                result @ right.mT
            if grad_right:
                left.mT @ result

    return step


def take_turns(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in each round; the sides take turns, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    where = torch.get_default_device()
    with torch.autocast(where.type, precision(where), enabled=where.type == "cuda"):
        for _ in range(rounds + 1):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                if where.type == "cuda":
                    torch.cuda.synchronize()
                times[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in times.items()}


def measure(width: int, attention: str) -> str:
    """A row of the table: captions per second of both sides, their ratio, and our time in units of each floor."""
    batch, padded, features = make_batch(width)
    luong = attention == "luong"
    ours = fast_products(our_step(width, attention, batch))
    textbook = take_turns({"textbook": textbook_step(width, luong, padded, features), "ours": ours}, ROUNDS["textbook"])
    seconds = take_turns(
        {
            "ours": ours,
            "plain": floor_step(width, luong, batch, arranged=False),
            "equations": fast_products(floor_step(width, luong, batch, arranged=False)),
            "arranged": fast_products(floor_step(width, luong, batch, arranged=True)),
        },
        ROUNDS["floors"],
    )
    speeds = [len(batch.owner) / statistics.median(times) for times in textbook.values()]
    ratio = median_ratio(textbook["textbook"], textbook["ours"])
    floors = "".join(f"{median_ratio(seconds['ours'], seconds[name]):>12.2f}" for name in FLOORS)
    return f"{attention:<11}{REGIONS}x{width}{speeds[0]:>10.0f}{speeds[1]:>8.0f}{ratio:>8.1f}{floors}"


def median_ratio(times: list[float], others: list[float]) -> float:
    """The median over the rounds of one time in units of another."""
    return statistics.median(one / other for one, other in zip(times, others, strict=True))


def main() -> None:
    """Print a row for each attention and each width of features."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.manual_seed(0)
    torch.set_default_device(device())
    gpu = torch.cuda.get_device_name() if torch.get_default_device().type == "cuda" else None
    print(f"{gpu or f'{torch.get_num_threads()} threads'}, captions per second")
    floors = "".join(f"{f'/{name}':>12}" for name in FLOORS)
    print(f"{'attention':<11}features{'textbook':>9}{'ours':>8}{'ratio':>8}{floors}")
    for width in WIDTHS:
        for attention in ("bahdanau", "luong"):
            print(measure(width, attention), flush=True)


if __name__ == "__main__":
    main()
