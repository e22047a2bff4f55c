"""Results as HTML, every word of it escaped: the card of a photo, the line of one that failed, the history."""

import base64
import html
import io
import re
from collections.abc import Sequence

from PIL import Image, ImageOps

from caption_utils.app.heatmaps import attention_page
from caption_utils.app.session import PREVIEW_SIDE, Result
from caption_utils.captioner import Caption
from caption_utils.errors import InputError

THUMBNAIL_SIDE = 72  # pixels
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Without https, other hosts than this one have no clipboard: then the caption is marked, and copied the old way.
COPY = (
    "const button = this, caption = button.closest('.cu-card').querySelector('.cu-caption'), "
    "done = () => { button.textContent = 'Copied' }, "
    "mark = () => { getSelection().selectAllChildren(caption); "
    "document.execCommand('copy') ? done() : button.textContent = 'Marked: press Ctrl+C' }; "
    "navigator.clipboard ? navigator.clipboard.writeText(caption.textContent).then(done, mark) : mark()"
)
EMPTY = '<div class="cu-empty">The caption will appear here, with the photo.</div>'
STYLE = """<style>
.cu { font-family: system-ui, sans-serif; color: var(--jp-ui-font-color1, #1c2733); max-width: 1120px;
  margin: 0 auto; }
.cu .widget-html-content { line-height: 1.45; overflow: visible; width: 100%; min-width: 0; flex: 1 1 0; }
.cu h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; font-weight: 700; letter-spacing: -0.01em; }
.cu h2 { font-size: 12px; margin: 10px 0 2px; font-weight: 600; text-transform: uppercase; letter-spacing: 0.06em;
  color: var(--jp-ui-font-color2, #5a6572); }
.cu p { margin: 0 0 6px; font-size: 14px; overflow-wrap: anywhere; }
.cu .cu-quiet { color: var(--jp-ui-font-color2, #5a6572); font-size: 13px; }
.cu .cu-panel { border: 1px solid var(--jp-border-color2, #d9dee4); border-radius: 14px; padding: 16px;
  background: var(--jp-layout-color1, #fff); box-sizing: border-box; }
.cu .cu-panel, .cu .cu-panel > * { overflow: visible; }
.cu button { border-radius: 10px; height: 38px; line-height: 36px; font-size: 14px; }
.cu .cu-go button, .cu button.cu-go { background: #0072B2; color: #fff; font-weight: 600; font-size: 16px; height: 46px;
  line-height: 44px; }
.cu button.cu-go:disabled { opacity: 0.6; }
.cu .cu-upload button, .cu button.cu-upload { background: none; border: 2px solid #0072B2; font-weight: 600;
  color: var(--jp-ui-font-color1, #1c2733); }
.cu button.cu-small { height: 26px; line-height: 24px; font-size: 11px; border-radius: 8px; padding: 0; }
.cu .cu-tile img { border-radius: 10px; object-fit: cover; }
.cu .cu-right { padding: 0 8px 0 28px; box-sizing: border-box; }
@media (max-width: 760px) { .cu .cu-right { padding: 20px 8px 0 0; } .cu .cu-left { max-width: none; } }
.cu-card { margin: 0 0 26px; }
.cu-card .cu-caption { font-size: 27px; line-height: 1.25; font-weight: 600; margin: 0 0 6px; user-select: all;
  letter-spacing: -0.01em; }
.cu-card .cu-caption::first-letter { text-transform: uppercase; }
.cu-card .cu-name { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; max-width: 100%; }
.cu-card .attention { margin: 12px 0 0; }
.cu-card .attention > img { border-radius: 14px; }
.cu-card .attention-word img { border-radius: 14px; }
.cu-card .attention-word { font-size: 17px; padding: 6px 12px; border-radius: 999px;
  border-color: var(--jp-border-color1, #aab4be); }
.cu-card ol { margin: 4px 0 0; padding-left: 22px; font-size: 14px; }
.cu-card ol b { font-weight: 500; color: var(--jp-ui-font-color2, #5a6572); }
.cu-empty { border: 2px dashed var(--jp-border-color2, #cfd6dd); border-radius: 14px; padding: 72px 16px;
  text-align: center; color: var(--jp-ui-font-color2, #5a6572); font-size: 16px; }
.cu .cu-copy { display: inline-block; box-sizing: border-box; height: 26px; line-height: 20px; border-radius: 8px;
  color: inherit; text-decoration: none; border: 1px solid var(--jp-border-color1, #aab4be); background: none;
  font-family: inherit; font-size: 12px;
  padding: 2px 10px; cursor: pointer; }
.cu button.cu-copy { margin-left: 6px; }
.cu-failed { border-left: 4px solid #D55E00; padding: 8px 12px; margin: 0 0 14px; font-size: 15px;
  background: rgba(213, 94, 0, 0.09); border-radius: 0 10px 10px 0; overflow-wrap: anywhere; }
.cu-history { width: 100%; border-collapse: collapse; font-size: 14px; table-layout: fixed; }
.cu-history td { padding: 6px 8px 6px 0; vertical-align: middle; text-align: left; overflow: hidden;
  text-overflow: ellipsis; border-top: 1px solid var(--jp-border-color2, #e3e7eb); }
.cu-history td:first-child { width: 84px; }
.cu-history img { display: block; border-radius: 8px; max-width: none; }
.cu-working { display: inline-block; width: 14px; height: 14px; margin-right: 8px; border-radius: 50%;
  border: 3px solid rgba(0, 114, 178, 0.25); border-top-color: #0072B2; vertical-align: -3px;
  animation: cu-turn 0.9s linear infinite; }
@keyframes cu-turn { to { transform: rotate(360deg); } }
</style>"""


def escape(text: str) -> str:
    """Any text, a file's name say, as HTML that shows it: nothing in it is markup, nor turns its surroundings about."""
    shown = CONTROL.sub("�", text).encode("utf-8", "replace").decode("utf-8")
    return f"<bdi>{html.escape(shown)}</bdi>"


def result_card(result: Result) -> str:
    """A photo's caption in large type, its probability, the photo with its words, and the runners-up."""
    best, *others = result.captions
    return "\n".join(
        [
            '<div class="cu-card">',
            f'<div class="cu-caption" dir="ltr">{html.escape(best.text)}</div>',
            f'<div class="cu-quiet">{_probability(best)} <button class="cu-copy" onclick="{COPY}">Copy</button></div>',
            f'<div class="cu-quiet cu-name">{_origin(result)}</div>',
            attention_page(result.preview, best, PREVIEW_SIDE),
            '<p class="cu-quiet">Point at a word, or tap it, to see where the model looked.</p>',
            _runners_up(others),
            "</div>",
        ]
    )


def failed_line(name: str, message: str) -> str:
    """One sentence about a photo that could not be captioned; its name is shown whether or not the message has it."""
    message = message.removeprefix(str(InputError(f"{name}: ")))  # which makes one line of a name of several
    return f'<div class="cu-failed">{escape(name)}: {escape(message)}</div>'


def history_table(results: Sequence[Result], captioned: int, csv: str) -> str:
    """The last of what was captioned before, newest first, and a link that saves all of it as a CSV file."""
    if not results:
        return ""
    data = base64.b64encode(csv.encode("utf-8", "replace")).decode()
    address = f"data:text/csv;charset=utf-8;base64,{data}"
    link = f'<a class="cu-copy" download="captions.csv" href="{address}">Save as CSV</a>'
    rows = "\n".join(map(_history_row, reversed(results)))
    count = f"the last {len(results)} of {captioned}" if captioned > len(results) else str(captioned)
    return f'<h2>This session: {count}</h2>\n<p>{link}</p>\n<table class="cu-history">{rows}</table>'


def search_name(beams: int) -> str:
    """A number of beams in words."""
    return "greedy" if beams == 1 else f"{beams} beams"


def thumbnail(image: Image.Image, side: int) -> bytes:
    """A square JPEG of the picture, ``side`` pixels wide, its edges cropped."""
    buffer = io.BytesIO()
    ImageOps.fit(image, (side, side)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _probability(caption: Caption) -> str:
    share = f"{100 * caption.probability:.1f} %" if caption.probability >= 0.01 else _odds(caption.probability)
    return f"Probability {share} · {100 * caption.per_word:.0f} % a word"


def _odds(probability: float) -> str:
    return "next to none" if probability < 1e-12 else f"1 in {round(1 / probability):,}"


def _runners_up(captions: Sequence[Caption]) -> str:
    if not captions:
        return ""
    rows = "".join(f"<li>{html.escape(c.text)} <b>{100 * c.per_word:.0f} % a word</b></li>" for c in captions)
    return f'<h2>Runners-up</h2><ol start="2">{rows}</ol>'


def _history_row(result: Result) -> str:
    best, side = result.captions[0], THUMBNAIL_SIDE
    data = base64.b64encode(thumbnail(result.preview, side)).decode()
    image = f'<img src="data:image/jpeg;base64,{data}" alt="" width="{side}" height="{side}">'
    below = f'<span class="cu-quiet">{_origin(result)}</span>'
    return f"<tr><td>{image}</td><td>{html.escape(best.text)}<br>{below}</td></tr>"


def _origin(result: Result) -> str:
    return f"{escape(result.photo)} · {escape(result.model)}, {search_name(result.beams)}"
