"""``python tools/figure.py``: draw the README's figures, captions.jpg and results.svg in results/figures."""

import io

import matplotlib
import pandas as pd
import skimage
from PIL import Image

from caption_utils.app.heatmaps import attention_figure
from caption_utils.captioner import Captioner
from caption_utils.data.images import load_image
from caption_utils.plots import results
from caption_utils.runtime import repository
from caption_utils.training.zoo import default_model

RESULTS = repository() / "results"
PHOTOGRAPHS = ("astronaut.png", "camera.png")
COLUMNS = 8
DATA, SEARCH = "flickr8k", "beam 5"
SCORES = {"bleu1": "BLEU-1", "bleu2": "BLEU-2", "bleu3": "BLEU-3", "bleu4": "BLEU-4", "meteor": "METEOR"}


def draw_captions() -> None:
    """The attention figures of the photographs, one above the other."""
    captioner = Captioner.load(default_model())
    panels = [panel(captioner, name) for name in PHOTOGRAPHS]
    sheet = Image.new("RGB", (max(p.width for p in panels), sum(p.height for p in panels)), "white")
    for i, picture in enumerate(panels):
        sheet.paste(picture, (0, sum(p.height for p in panels[:i])))
    sheet.save(RESULTS / "figures" / "captions.jpg", quality=85)


def panel(captioner: Captioner, name: str) -> Image.Image:
    """The attention figure of one of scikit-image's photographs."""
    photo = load_image(f"{skimage.data_dir}/{name}")
    buffer = io.BytesIO()
    attention_figure(photo, captioner.caption(photo), COLUMNS).savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def draw_results() -> None:
    """How the shipped models learnt, and their scores beside the published ones; the same bytes each time."""
    curves = {path.stem: pd.read_csv(path, index_col="epoch") for path in sorted((RESULTS / "curves").glob("*.csv"))}
    columns = {"training loss": "train_loss", "validation perplexity": "val_perplexity"}
    tables = {
        label: pd.DataFrame({name: curve[column] for name, curve in curves.items()})
        for label, column in columns.items()
    }
    matplotlib.rcParams["svg.hashsalt"] = "results"
    results(tables, measured() | published()).savefig(RESULTS / "figures" / "results.svg", metadata={"Date": None})


def measured() -> dict[str, pd.DataFrame]:
    """The last row of each shipped model on Flickr8k, of the test images if it was measured on these."""
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
