"""Captions trained per second: the textbook loop, the plain model, and what training takes on this machine.

    python benchmarks/bench_training.py

The textbook loop projects the features and scores the vocabulary inside every time step, one caption a row, padded.
``plain`` is ``caption_utils.model``; ``training`` is the same, or ``caption_utils.fast`` where that is chosen. They
take turns, a step each; medians of their captions per second and of the ratios within a turn are printed. All tensors
are random; lengths are drawn like Flickr8k's. Where there is a GPU, everything is on it, in the precision that training
uses there.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from caption_utils.config import DecoderConfig, TrainConfig
from caption_utils.model.decoder import Batch, Decoder, build_decoder
from caption_utils.runtime import device
from caption_utils.training.loss import TeacherForcing, caption_loss
from caption_utils.training.trainer import precision, teacher_forcing

VOCAB, EMBED, HIDDEN, ATTENTION, REGIONS, IMAGES = 3500, 512, 256, 256, 49, 32
WIDTHS = 1280, 2048  # EfficientNet-Lite2, ResNet-101
TURNS = 9


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


def step_of(decoder: Decoder, forward: TeacherForcing, batch: Batch) -> Callable[[], None]:
    """One training step of this package, by ``forward``."""
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-4, fused=True)
    config = TrainConfig()

    def step() -> None:
        optimizer.zero_grad()
        caption_loss(forward, batch, config).backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), config.clip_norm)
        optimizer.step()

    return step


def take_turns(steps: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Seconds of each step in each turn, after one turn that does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    where = torch.get_default_device()
    for _ in range(TURNS + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            with torch.autocast(where.type, precision(where), enabled=where.type == "cuda"):
                step()
            if where.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in times.items()}


def measure(width: int, attention: str) -> str:
    """A row of the table: captions per second of each side, and how many times as fast as the textbook it is."""
    batch, padded, features = make_batch(width)
    sizes = DecoderConfig(VOCAB, width, attention, embed_dim=EMBED, hidden_dim=HIDDEN, attention_dim=ATTENTION)
    decoder = build_decoder(sizes)
    times = take_turns(
        {
            "textbook": textbook_step(width, attention == "luong", padded, features),
            "plain": step_of(decoder, decoder, batch),
            "training": step_of(decoder, teacher_forcing(decoder, torch.get_default_device()), batch),
        }
    )
    cells = []
    for seconds in times.values():
        ratio = statistics.median(one / other for one, other in zip(times["textbook"], seconds, strict=True))
        cells.append(f"{len(batch.owner) / statistics.median(seconds):>10.0f}{ratio:>6.1f}")
    return f"{attention:<11}{REGIONS}x{width}" + "".join(cells)


def main() -> None:
    """Print a row for each attention and each width of features."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.manual_seed(0)
    torch.set_default_device(device())
    gpu = torch.cuda.get_device_name() if torch.get_default_device().type == "cuda" else None
    print(f"{gpu or f'{torch.get_num_threads()} threads'}, captions per second and times the textbook's")
    print(f"{'attention':<11}features{'textbook':>15}{'plain':>16}{'training':>16}")
    for width in WIDTHS:
        for attention in ("bahdanau", "luong"):
            print(measure(width, attention), flush=True)


if __name__ == "__main__":
    main()
