"""Captions trained per second: this package's decoders beside the textbook loop, and beside the floor.

    python benchmarks/bench_training.py [--width 1280]

The textbook loop projects the features and scores the vocabulary inside every time step, one caption a row, padded.
The floor is the matrix products that no arrangement avoids, timed alone, forward and backward. Sides take turns in one
process, and medians are printed. All tensors are random; lengths are drawn like Flickr8k's.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from caption_utils.batches import Batch
from caption_utils.decoder import DecoderConfig, build_decoder
from caption_utils.recipe import TrainConfig
from caption_utils.training import caption_loss

VOCAB, EMBED, HIDDEN, ATTENTION, REGIONS, IMAGES, REPEATS = 3500, 512, 256, 256, 49, 32, 7


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
    packed = pack_padded_sequence(padded, lengths, batch_first=True)
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
    config = DecoderConfig(VOCAB, width, attention, embed_dim=EMBED, hidden_dim=HIDDEN, attention_dim=ATTENTION)
    decoder = build_decoder(config)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        caption_loss(decoder, batch, TrainConfig()).backward()
        optimizer.step()

    return step


def floor_step(width: int, luong: bool, batch: Batch) -> Callable[[], None]:
    """The unavoidable products of one step: keys, gates, scores and context, vocabulary; forward and backward."""
    tokens, captions = len(batch.targets), len(batch.owner)
    steps = tokens / captions
    shapes = [  # (rows, inner, columns): rows x inner times inner x columns
        (IMAGES * REGIONS, width, HIDDEN if luong else ATTENTION), (tokens, EMBED, 4 * HIDDEN),
        (tokens, HIDDEN, 4 * HIDDEN), (tokens, HIDDEN, VOCAB),
        (tokens, width + HIDDEN, HIDDEN) if luong else (tokens, width, 4 * HIDDEN),
    ]
    pairs = [(torch.rand(rows, inner, requires_grad=True), torch.rand(inner, columns, requires_grad=True))
             for rows, inner, columns in shapes]
    weights = torch.rand(IMAGES, round(steps * 5), REGIONS, requires_grad=True)
    queries = torch.rand(IMAGES, round(steps * 5), HIDDEN, requires_grad=True)
    keys = torch.rand(IMAGES, REGIONS, HIDDEN, requires_grad=True)

    def step() -> None:
        products = [a @ b for a, b in pairs]
        products += [weights @ batch.features, queries @ keys.transpose(1, 2)]
        torch.autograd.backward(products, [torch.ones(()).expand_as(product) for product in products])

    return step


def medians(steps: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Median seconds of each step; the sides take turns, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def main() -> None:
    """Print a row for each attention."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1280, help="feature width: 1280 or 2048")
    width = parser.parse_args().width
    torch.manual_seed(0)
    batch, padded, features = make_batch(width)
    print(f"{torch.get_num_threads()} threads, features {REGIONS}x{width}, captions per second")
    print(f"{'attention':<11}{'textbook':>10}{'ours':>8}{'ratio':>8}{'ours/floor time':>18}")
    for attention in ("bahdanau", "luong"):
        luong = attention == "luong"
        seconds = medians({"textbook": textbook_step(width, luong, padded, features),
                           "ours": our_step(width, attention, batch), "floor": floor_step(width, luong, batch)})
        textbook, ours = len(batch.owner) / seconds["textbook"], len(batch.owner) / seconds["ours"]
        to_floor = seconds["ours"] / seconds["floor"]
        print(f"{attention:<11}{textbook:>10.0f}{ours:>8.0f}{ours / textbook:>7.1f}x{to_floor:>17.2f}x")


if __name__ == "__main__":
    main()
