"""``python tools/figure.py``: draw the figures of the README and of results/README.md, in results/figures."""

import io
from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
import skimage
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from caption_utils.app.heatmaps import attention_figure
from caption_utils.captioner import Captioner
from caption_utils.config import MEASURES
from caption_utils.data.images import load_image
from caption_utils.plots import COLOURS, DPI, draw_lines
from caption_utils.runtime import repository

RESULTS = repository() / "results"
POINTING = "bahdanau-pointing-flickr8k"  # the shipped model whose maps are sharpest
PHOTOGRAPHS = ("astronaut.png", "camera.png")
HATCHES = ("", "//", "..", "xx", "\\\\", "++")
DATA, SEARCH = "flickr8k", "beam 5"
SCORES = {"bleu1": "BLEU-1", "bleu2": "BLEU-2", "bleu3": "BLEU-3", "bleu4": "BLEU-4", "meteor": "METEOR"}


def draw_captions() -> None:
    """The attention figures of the photographs, one above the other."""
    captioner = Captioner.load(RESULTS / "checkpoints" / POINTING)
    panels = [panel(captioner, name) for name in PHOTOGRAPHS]
    sheet = Image.new("RGB", (max(p.width for p in panels), sum(p.height for p in panels)), "white")
    for i, picture in enumerate(panels):
        sheet.paste(picture, ((sheet.width - picture.width) // 2, sum(p.height for p in panels[:i])))
    sheet.save(RESULTS / "figures" / "captions.jpg", quality=85)


def panel(captioner: Captioner, name: str) -> Image.Image:
    """The attention figure of one of scikit-image's photographs."""
    photo = load_image(f"{skimage.data_dir}/{name}")
    buffer = io.BytesIO()
    attention_figure(photo, captioner.caption(photo)).savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def draw_results() -> None:
    """Learning curves of the shipped models, and their scores beside the published ones; the same bytes each time."""
    curves = {path.stem: pd.read_csv(path, index_col="epoch") for path in sorted((RESULTS / "curves").glob("*.csv"))}
    tables = {}
    for column, label in ({"train_loss": "training loss"} | MEASURES).items():
        if lines := {name: curve[column] for name, curve in curves.items() if column in curve}:
            tables[label] = pd.DataFrame(lines)
    matplotlib.rcParams["svg.hashsalt"] = "results"
    results(tables, measured() | published()).savefig(RESULTS / "figures" / "results.svg", metadata={"Date": None})


def results(curves: Mapping[str, pd.DataFrame], scores: Mapping[str, pd.DataFrame]) -> Figure:
    """A panel of lines for each y label → table of ``curves``, and one of grouped bars for the series of ``scores``.

    Each table of ``scores`` has a row for each score, with its ``value``, ``low`` and ``high``. Missing bounds and
    scores are not drawn.
    """
    figure = Figure((11, 3.4), dpi=DPI, layout="constrained")
    ratios = [1] * len(curves) + [2]
    *left, right = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
    for ax, (ylabel, table) in zip(left, curves.items(), strict=True):
        draw_lines(ax, table, ylabel)
    _draw_score_bars(right, scores)
    return figure


def _draw_score_bars(ax: Axes, scores: Mapping[str, pd.DataFrame]) -> None:
    labels = list(dict.fromkeys(label for table in scores.values() for label in table.index))
    width = 0.84 / len(scores)
    for i, (series, table) in enumerate(scores.items()):
        table = table.reindex(labels)
        place = np.arange(len(labels)) + (i - (len(scores) - 1) / 2) * width
        bounds = np.abs(table[["low", "high"]].to_numpy().T - table["value"].to_numpy())  # (2, scores)
        ax.bar(
            place,
            table["value"],
            width,
            yerr=bounds,
            label=series,
            color=COLOURS[i % len(COLOURS)],
            hatch=HATCHES[i % len(HATCHES)],
            edgecolor="white",
            error_kw={"linewidth": 1.2, "capsize": 2},
        )
    ax.set_xticks(range(len(labels)), labels)
    ax.set_ylabel("percent")
    ax.legend(fontsize=8)
    ax.grid(axis="y", alpha=0.3)


def measured() -> dict[str, pd.DataFrame]:
    """The last row of each shipped model on Flickr8k, on test images if there is one."""
    table = pd.read_csv(RESULTS / "metrics.csv")
    shipped = [folder.name for folder in sorted((RESULTS / "checkpoints").iterdir())]
    table = table[
        table["model"].isin(shipped)
        & (table["search"] == SEARCH)
        & (table["scheme"] == "official")
        & (table["data"] == DATA)
    ]
    ordered = table.sort_values("split", key=lambda split: split == "test", kind="stable")
    last = ordered.groupby("model").tail(1).sort_values("model")
    return {f"{row['model']} ({row['split']})": _scores(row) for _, row in last.iterrows()}


def published() -> dict[str, pd.DataFrame]:
    """The scores of results/published.csv."""
    table = pd.read_csv(RESULTS / "published.csv")
    return {f"{row['source']}, {row['model']} ({row['split']})": _scores(row) for _, row in table.iterrows()}


def _scores(row: pd.Series) -> pd.DataFrame:
    """A row for each score that ``row`` has: value and bounds, if any."""
    found = {label: [row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high")] for name, label in SCORES.items()}
    return pd.DataFrame(found, index=["value", "low", "high"]).T.astype(float).dropna(subset="value")


if __name__ == "__main__":
    (RESULTS / "figures").mkdir(parents=True, exist_ok=True)
    draw_captions()
    draw_results()
