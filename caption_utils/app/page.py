"""Results as HTML, from the templates of ``page.html``: cards, failures, the history."""

import base64
import html
import io
import re
from collections.abc import Sequence
from importlib.resources import files
from string import Formatter
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image, ImageOps

from caption_utils.app.heatmaps import VEIL, fitted, place, spread, veil
from caption_utils.app.session import Result
from caption_utils.captioner import Caption
from caption_utils.data.images import load_image
from caption_utils.errors import InputError

PAGE_SIDE, THUMBNAIL_SIDE = 400, 72  # pixels
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
CSS, JS, HTML = (files(__package__).joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
TEMPLATES = dict(re.findall(r'<template id="(\w+)">\n(.*?)\n</template>', HTML, re.DOTALL))


class Markup(str):
    """HTML, as opposed to text that has yet to be escaped."""


class Escaping(Formatter):
    """``str.format`` that escapes text, replaces its control characters, and joins lists of ``Markup``."""

    def format_field(self, value: object, format_spec: str) -> str:
        if isinstance(value, list):
            return "\n".join(value)
        if isinstance(value, Markup):
            return value
        shown = CONTROL.sub("�", format(value, format_spec))
        return html.escape(shown.encode("utf-8", "replace").decode("utf-8"))


def fill(template: str, **values: object) -> Markup:
    """A template of ``page.html`` with its values in place."""
    return Markup(Escaping().format(TEMPLATES[template], **values))


ROWS: WeakKeyDictionary[Result, Markup] = WeakKeyDictionary()  # of the history, as long as a session keeps it
STYLE = fill("style", css=Markup(CSS))  # once a page


def attention_page(image: Image.Image, caption: Caption) -> str:
    """The photo above its words, as HTML; pointing at, tapping or focusing a word shows where the model looked."""
    return STYLE + _attention(fitted(load_image(image), PAGE_SIDE), caption)


def result_card(result: Result) -> str:
    """A photo's caption in large type, its probability, the photo with its words, and the other captions."""
    best = result.captions[0]
    items = [fill("other", caption=caption) for caption in result.captions[1:]]
    return fill(
        "card",
        result=result,
        search=search_name(result.beams),
        chance=_chance(best.probability),
        doubt=fill("doubt", text=best.doubt) if best.doubt else "",
        confidence="" if best.confidence is None else f" · confidence {best.confidence:.0%}",
        copy=Markup(html.escape(JS)),
        attention=_attention(result.preview, best),
        spread=f" For each word, it {spread(best)}." if best.tokens else "",
        others=fill("others", items=items) if items else "",
    )


def failed_line(name: str, error: Exception, advice: str) -> str:
    """The message of an ``InputError``, with ``name`` only once, or ``advice`` about any other error."""
    message = str(error).removeprefix(str(InputError(f"{name}: ")))
    if not isinstance(error, InputError):
        reason = "out of memory" if isinstance(error, MemoryError) else " ".join(message.split())
        message = advice.format(reason or type(error).__name__)
    return fill("failed", name=name, message=message)


def history_table(results: Sequence[Result], captioned: int, csv: str) -> str:
    """The latest results, newest first, and a link that saves ``csv``, the table of all ``captioned`` photos."""
    count = f"the last {len(results)} of {captioned}" if captioned > len(results) else captioned
    data = base64.b64encode(csv.encode("utf-8", "replace")).decode()
    return fill("history", count=count, csv=data, rows=[*map(_row, reversed(results))]) if results else ""


def search_name(beams: int) -> str:
    """A number of beams in words."""
    return "greedy" if beams == 1 else f"{beams} beams"


def thumbnail(image: Image.Image, side: int) -> Markup:
    """A square of ``side`` pixels, cropped from the picture, at twice the resolution for sharp screens."""
    return _image(ImageOps.fit(image, (2 * side, 2 * side)), "jpeg", "", side)


def _row(result: Result) -> Markup:
    """The result's row of the history, made once, since every click shows the whole history."""
    if result not in ROWS:
        image = thumbnail(result.preview, THUMBNAIL_SIDE)
        ROWS[result] = fill("row", result=result, search=search_name(result.beams), image=image)
    return ROWS[result]


def _attention(photo: Image.Image, caption: Caption) -> Markup:
    image = _image(photo, "jpeg", f"photo: {caption.text}", photo.width)
    return fill("attention", photo=photo, image=image, words=[*map(_word, caption.tokens, caption.attention)])


def _word(word: str, attention: np.ndarray) -> Markup:
    size = attention.shape[1], attention.shape[0]
    mask = Image.new("RGB", size, VEIL)
    mask.putalpha(veil(attention, size))
    return fill("word", word=word, mask=_image(mask, "png", f"looked at: {place(attention)}", 28))


def _image(picture: Image.Image, kind: str, alt: str, width: int) -> Markup:
    buffer = io.BytesIO()
    picture.save(buffer, kind, optimize=True)
    return fill("image", kind=kind, data=base64.b64encode(buffer.getvalue()).decode(), alt=alt, width=width)


def _chance(probability: float) -> str:
    if probability >= 0.01:
        return f"{probability:.1%}"
    return "almost zero" if probability < 1e-12 else f"1 in {round(1 / probability):,}"
