"""Figures. Each function returns a ``matplotlib.figure.Figure`` and never shows it; a notebook shows a cell's last."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from caption_utils.config import MEASURES

# the palette of Okabe and Ito, safe for colour-blind readers
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vPX"  # one more than colours, so that no two lines are alike
WRAP = 42  # characters of a caption on a line
DPI = 80
FEW = 20  # points; lines of more have no markers


def panels(
    count: int, width: float = 8.0, height: float = 3.0, columns: int | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of ``width`` inches with ``count`` axes in rows of ``columns``, each row ``height`` inches high."""
    columns = columns or count
    rows = -(-count // columns)
    figure = Figure((width, rows * height), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[count:]:
        unused.remove()
    return figure, list(axes[:count])


def sample_grid(images: Sequence[Image.Image], texts: Sequence[Sequence[str]], columns: int = 3) -> Figure:
    """Pictures in rows, each above its text; ``texts`` has a sequence of lines for each picture."""
    labels = ["\n".join(map(_wrapped, text)) for text in texts]
    deepest = max(label.count("\n") + 1 for label in labels)
    figure, axes = panels(len(images), height=2.0 + 0.17 * deepest, columns=columns)
    for ax, image, label in zip(axes, images, labels, strict=True):
        ax.imshow(image)
        ax.set(xticks=[], yticks=[], anchor="NW")
        ax.set_xlabel(label, loc="left", fontsize=8, parse_math=False)
    return figure


def _wrapped(line: str) -> str:
    kept = line.replace(" .", "\N{NO-BREAK SPACE}.")  # no full stop on a line of its own
    return textwrap.fill(kept, WRAP, subsequent_indent="  ")


def bars(groups: Mapping[str, Mapping[str, float]], xlabel: str) -> Figure:
    """A panel of horizontal bars for each group of label → length, first label on top."""
    longest = max(map(len, groups.values()))
    figure, axes = panels(len(groups), width=3 * len(groups), height=0.8 + 0.18 * longest)
    for ax, (title, lengths), colour in zip(axes, groups.items(), cycle(COLOURS), strict=False):
        ax.barh(list(map(str, lengths)), list(lengths.values()), color=colour)
        ax.invert_yaxis()
        ax.set(title=title, xlabel=xlabel)
    return figure


def histogram(values: Mapping[str, Sequence[float]], bins: int | Sequence[float], xlabel: str) -> Figure:
    """Outlined histograms on one axis, each in percent of its own values, so that sizes do not matter."""
    figure, (ax,) = panels(1, width=6.5)
    edges = np.histogram_bin_edges(np.concatenate([np.asarray(v, float) for v in values.values()]), bins)
    for (label, numbers), colour in zip(values.items(), cycle(COLOURS), strict=False):
        shares = 100 * np.histogram(numbers, edges)[0] / len(numbers)
        ax.stairs(shares, edges, label=label, color=colour, fill=True, alpha=0.25)
        ax.stairs(shares, edges, color=colour, linewidth=1.8)
    ax.set(xlabel=xlabel, ylabel="percent")
    ax.legend()
    return figure


def lines(tables: Mapping[str, pd.DataFrame], log_x: bool = False, log_y: bool = False) -> Figure:
    """A panel for each y label → table: a line for each column over the index, whose name is the x label."""
    figure, axes = panels(len(tables), width=max(5.0, 4.0 * len(tables)))
    for ax, (ylabel, table) in zip(axes, tables.items(), strict=True):
        draw_lines(ax, table, ylabel)
        ax.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
    return figure


def draw_lines(ax: Axes, table: pd.DataFrame, ylabel: str) -> None:
    """A line for each column of ``table`` over its index."""
    size = 4 if len(table) <= FEW else 0
    for column, colour, marker in zip(table, cycle(COLOURS), cycle(MARKERS), strict=False):
        ax.plot(table.index, table[column], color=colour, marker=marker, markersize=size, label=str(column))
    ax.set(xlabel=table.index.name, ylabel=ylabel)
    ax.legend(fontsize=8)
    ax.grid(alpha=0.3)


def learning_curve(history: pd.DataFrame) -> Figure:
    """Training loss and validation perplexity, or CIDEr, over the epochs of a history as ``fit`` returns it."""
    by_epoch = history.set_index("epoch")
    titles = {"train_loss": "training loss"} | MEASURES
    return lines({title: by_epoch[[name]] for name, title in titles.items() if name in by_epoch})


def word_tree(sentences: Sequence[Sequence[str]], labels: Sequence[str]) -> Figure:
    """Sentences as a tree from left to right, in which shared beginnings are drawn once.

    Each sentence ends in its label. Sentences come best first, and a branch is at the height of its best one.
    """
    prefixes = [[tuple(words[:n]) for n in range(1, len(words) + 1)] for words in sentences]
    best = {prefix: i for i in reversed(range(len(sentences))) for prefix in prefixes[i]}
    order = sorted(range(len(sentences)), key=lambda i: [*(best[prefix] for prefix in prefixes[i]), i])
    height = {prefix: -order.index(i) for prefix, i in best.items()}
    longest = max(map(len, sentences))
    figure, (ax,) = panels(1, width=1.0 + 0.85 * longest, height=0.5 + 0.4 * len(sentences))
    box = {"fc": "white", "ec": "none", "pad": 2}
    for i, (row, label) in enumerate(zip(prefixes, labels, strict=True)):
        x, y, last = len(row), -order.index(i), height[row[-1]]
        if y != last:  # a better sentence goes on from here
            ax.plot([x - 1, x], [last, y], color="#bbbbbb", linewidth=1, zorder=0)
        ax.text(x, y, label, color=COLOURS[1], fontsize=9, va="center", ha="center", bbox=box if y != last else None)
    for prefix, y in height.items():
        x = len(prefix) - 1
        ax.text(x, y, prefix[-1], fontsize=9, va="center", ha="center", bbox=box)
        if x:
            ax.plot([x - 1, x], [height[prefix[:-1]], y], color="#bbbbbb", linewidth=1, zorder=0)
    ax.set(xlim=(-0.6, longest + 0.5), ylim=(0.6 - len(sentences), 0.5))
    ax.axis("off")
    return figure


def padding(batches: Mapping[str, Sequence[int]]) -> Figure:
    """A panel for each title → caption lengths of a batch: a row per caption, words dark and padding light."""
    figure, axes = panels(len(batches), height=2.8)
    steps = max(max(lengths) for lengths in batches.values())
    for ax, (title, lengths) in zip(axes, batches.items(), strict=True):
        words = np.arange(max(lengths)) < np.asarray(lengths)[:, None]  # (B, T)
        colours = np.array([[0xF3, 0xD9, 0xC6], [0x00, 0x72, 0xB2]], dtype=np.uint8)
        ax.imshow(colours[words.astype(int)], aspect="auto", interpolation="nearest")
        ax.set(title=title, xlabel="step", ylabel="caption", xlim=(-0.5, steps - 0.5))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
