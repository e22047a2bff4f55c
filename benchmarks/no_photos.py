"""Pictures that are no photographs: drawn scenes, charts, noise, screens of text, and scikit-image's for science."""

import io
from pathlib import Path
from random import Random

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from skimage.data import data_dir

from caption_utils.demo.scenes import DEMO

EACH = 20  # pictures of each kind that is made
# microscopes, telescopes, scans, and textures that fill the picture
SCIENCE = "brick cell grass gravel hubble_deep_field ihc microaneurysms moon phantom retina page text".split()
WORDS = "import return error value index the of window file None self total = ( ) : # 42 0.17 request update".split()
THEMES = (("white", "black"), ("#1e1e1e", "#d4d4d4"), ("#fdf6e3", "#586e75"), ("#0c2a12", "#4af626"))


def no_photos() -> dict[str, list[Image.Image]]:
    """Kind → RGB pictures of it, the same each time."""
    rng, noise = Random(0), np.random.default_rng(0)
    scenes = sorted((DEMO / "Images").glob("*.webp"))
    found = [path for name in SCIENCE for path in Path(data_dir).glob(f"{name}.*")]
    return {
        "drawn scenes": [Image.open(path).convert("RGB") for path in rng.sample(scenes, EACH)],
        "charts": [chart(number, noise) for number in range(EACH)],
        "noise": [noisy(number, noise) for number in range(EACH)],
        "screens of text": [screen(rng) for _ in range(EACH)],
        "science": [Image.open(path).convert("RGB") for path in found],
    }


def chart(number: int, noise: np.random.Generator) -> Image.Image:
    """Lines, bars, points, a heatmap or a pie, by ``number``."""
    figure = Figure(figsize=(noise.uniform(4, 7), noise.uniform(3, 5)), layout="constrained")
    axes, x = figure.add_subplot(), np.arange(noise.integers(4, 12))
    colours = [f"C{i}" for i in noise.permutation(10)]
    if number % 5 == 0:
        for colour in colours[:3]:
            axes.plot(x, noise.normal(size=len(x)).cumsum(), color=colour, label=f"run {colour[1]}")
        axes.legend()
    elif number % 5 == 1:
        axes.bar(x, noise.uniform(1, 9, len(x)), color=colours[0])
    elif number % 5 == 2:
        axes.scatter(*noise.normal(size=(2, 80)), c=noise.uniform(size=80))
    elif number % 5 == 3:
        axes.imshow(noise.uniform(size=(len(x), 8)).cumsum(axis=1), aspect="auto")
    else:
        axes.pie(noise.uniform(1, 5, len(x)), labels=[f"part {i}" for i in x], colors=colours)
    axes.set_title(f"experiment {number}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def noisy(number: int, noise: np.random.Generator) -> Image.Image:
    """Noise with grains of 1 to 32 pixels, in colour or in grey, uniform or normal."""
    grain, channels = 2 ** (number % 6), 3 if number % 2 else 1
    shape = (256 // grain, 256 // grain, channels)
    values = noise.uniform(0, 255, shape) if number % 4 < 2 else noise.normal(128, 40, shape)
    pixels = np.broadcast_to(values.clip(0, 255).astype(np.uint8), (*shape[:2], 3))
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((256, 256), Image.Resampling.BICUBIC)


def screen(rng: Random) -> Image.Image:
    """Lines of words and symbols as in an editor or a terminal, below a title bar."""
    paper, ink = rng.choice(THEMES)
    image = Image.new("RGB", (rng.randint(320, 640), rng.randint(240, 420)), paper)
    pen, font, step = ImageDraw.Draw(image), ImageFont.load_default(size := rng.randint(11, 18)), size + 5
    pen.rectangle((0, 0, image.width, step), fill=rng.choice(("#888888", "#2d5fa4", "#444444")))
    for y in range(step + 4, image.height, step):
        line = " ".join(rng.choices(WORDS, k=rng.randint(0, image.width // 60)))
        pen.text((8 + 20 * rng.randint(0, 2), y), line, fill=ink, font=font)
    return image
