"""``python tools/figure.py``: draw the README's picture, results/figures/captions.jpg."""

import io

import skimage
from PIL import Image

from caption_utils.captioner import Captioner
from caption_utils.heatmaps import attention_figure
from caption_utils.images import load_image
from caption_utils.runtime import repository

MODEL, PICTURE = "results/checkpoints/bahdanau-flickr8k", "results/figures/captions.jpg"
PHOTOGRAPHS = ("astronaut.png", "camera.png")
COLUMNS = 8


def panel(captioner: Captioner, name: str) -> Image.Image:
    """The attention figure of one of scikit-image's photographs."""
    photo = load_image(f"{skimage.data_dir}/{name}")
    buffer = io.BytesIO()
    attention_figure(photo, captioner.caption(photo), COLUMNS).savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def main() -> None:
    """Stack the figures and write them."""
    captioner = Captioner.load(repository() / MODEL)
    panels = [panel(captioner, name) for name in PHOTOGRAPHS]
    sheet = Image.new("RGB", (max(p.width for p in panels), sum(p.height for p in panels)), "white")
    for i, picture in enumerate(panels):
        sheet.paste(picture, (0, sum(p.height for p in panels[:i])))
    (repository() / PICTURE).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(repository() / PICTURE, quality=85)


if __name__ == "__main__":
    main()
