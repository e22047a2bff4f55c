"""``python tools/diagrams.py``: draw the diagrams of the model in docs/figures, which the notebooks show."""

from collections.abc import Callable
from pathlib import Path

from diagrams_data import beam_search, packed_batch, self_critical, splits
from drawing import FAINT, FILLS, INK, arrow, box, colour, numbered, scene, svg, text

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
GRID = 7


def grid(x: float, y: float, cell: float, kind: str, weight: Callable[[int, int], float]) -> str:
    """A square of cells, the darker the smaller its weight from 0 to 1."""
    frames = f'fill="{INK}" stroke="{colour(kind)}" stroke-width="1"'
    cells = [
        f'<rect x="{x + cell * j:g}" y="{y + cell * i:g}" width="{cell:g}" height="{cell:g}" {frames} '
        f'fill-opacity="{0.75 * (1 - weight(i, j)):.2f}" stroke-opacity="0.7"/>'
        for i in range(GRID)
        for j in range(GRID)
    ]
    return "\n".join(cells)


def looked_at(i: int, j: int) -> float:
    """The weight of a cell when the ball is named: large at the ball, small elsewhere."""
    return max(0, 1 - 0.3 * ((i - 4.55) ** 2 + (j - 4.45) ** 2))


def model() -> str:
    """From photograph to word, with shapes."""
    top, middle = 150, 195
    return svg(
        940,
        340,
        "Encoder, regions, attention, LSTM, word",
        scene(28, top, 90),
        text(418, 75, "weights for “ball”", anchor="end"),
        text(73, 262, "photograph"),
        text(73, 282, "3 × S × S", 13, FAINT),
        arrow((120, middle), (146, middle)),
        f'<path d="M150 {top - 8} L238 {top + 14} L238 {top + 76} L150 {top + 98}z" fill="{FILLS["picture"][0]}" '
        f'stroke="{colour("picture")}" stroke-width="1.5" stroke-linejoin="round"/>',
        text(193, middle - 8, "encoder", weight=600),
        text(193, middle + 11, "CNN, frozen", 12, FAINT),
        arrow((240, middle), (266, middle)),
        scene(270, top, 91),
        grid(270, top, 13, "picture", lambda i, j: 1),
        text(316, 262, "regions *f*_{1} … *f*_{N}"),
        text(316, 282, "N × D", 13, FAINT),
        arrow((363, middle), (412, middle), kind="picture"),
        box(416, top, 118, 90, ["", ""], "attention"),
        text(475, middle - 10, "attention", weight=600),
        text(475, middle + 12, "weights *α*_{t}: N", 13, FAINT),
        scene(430, 30, 91),
        grid(430, 30, 13, "attention", looked_at),
        arrow((475, top - 2), (475, 124), kind="attention"),
        arrow((536, middle), (650, middle), kind="attention"),
        text(596, middle - 14, "context *c*_{t}"),
        text(596, middle + 17, "D", 13, FAINT),
        box(654, top, 100, 90, ["", ""], "lstm"),
        text(704, middle - 10, "LSTM", weight=600),
        text(704, middle + 12, "state *h*_{t}: H", 13, FAINT),
        arrow((704, top - 2), (704, 75), (560, 75), (560, top + 16), (537, top + 16), kind="lstm"),
        text(634, 58, "*h*_{t−1}, what has been said"),
        arrow((756, middle), (818, middle), kind="lstm"),
        text(786, middle - 16, "logits"),
        text(786, middle + 17, "V", 13, FAINT),
        box(822, top + 17, 90, 56, "“ball”", "word", 17),
        text(867, 246, "word *y*_{t}"),
        arrow((867, 262), (867, 304), (704, 304), (704, 242), kind="word"),
        text(786, 288, "embedding, E"),
        text(786, 319, "for the next step", 13, FAINT),
    )


def step(x: float, title: str, subtitle: str, *parts: str) -> str:
    """A step of one of the two decoders: heading and parts."""
    return "\n".join([text(x, 34, title, 18, weight=600), text(x, 56, subtitle, 13, FAINT), *parts])


def bahdanau() -> str:
    """Attend with the last state, then step the LSTM."""
    return step(
        235,
        "Bahdanau: attend, then step",
        "additive score",
        box(40, 92, 120, 44, "last state *h*_{t−1}", "lstm"),
        box(310, 92, 120, 44, "regions *f*", "picture"),
        arrow((160, 114), (192, 114), (192, 176), kind="lstm"),
        arrow((310, 114), (278, 114), (278, 176), kind="picture"),
        numbered(1, 130, 180, 210, ["attend with *h*_{t−1}", "*c*_{t}, *α*_{t} = attend(*h*_{t−1}, *f*)"], "attention"),
        arrow((235, 236), (235, 316), kind="attention"),
        text(249, 277, "context *c*_{t}", anchor="start"),
        arrow((100, 138), (100, 347), (116, 347), kind="lstm"),
        box(340, 248, 110, 50, ["embedding", "of *y*_{t−1}"], "word"),
        arrow((395, 300), (395, 347), (354, 347), kind="word"),
        numbered(2, 120, 320, 230, ["step the LSTM", "on [embedding; context]"], "lstm"),
        arrow((235, 376), (235, 496), kind="lstm"),
        text(249, 436, "new state *h*_{t}", anchor="start"),
        numbered(3, 130, 500, 210, ["next word *y*_{t}", "from *h*_{t}"], "word"),
    )


def luong() -> str:
    """Step the LSTM, then attend with the new state."""
    return step(
        705,
        "Luong: step, then attend",
        "dot, general or concat score",
        box(510, 92, 120, 44, "last state *h*_{t−1}", "lstm"),
        box(780, 89, 120, 50, ["embedding", "of *y*_{t−1}"], "word"),
        arrow((630, 114), (662, 114), (662, 176), kind="lstm"),
        arrow((780, 114), (748, 114), (748, 176), kind="word"),
        numbered(1, 600, 180, 210, ["step the LSTM", "on the embedding"], "lstm"),
        arrow((705, 236), (705, 316), kind="lstm"),
        text(719, 277, "new state *h*_{t}", anchor="start"),
        arrow((705, 252), (560, 252), (560, 437), (586, 437), kind="lstm"),
        box(822, 254, 90, 44, "regions *f*", "picture"),
        arrow((867, 300), (867, 347), (824, 347), kind="picture"),
        numbered(2, 590, 320, 230, ["attend with *h*_{t}", "*c*_{t}, *α*_{t} = attend(*h*_{t}, *f*)"], "attention"),
        arrow((705, 376), (705, 406), kind="attention"),
        text(719, 390, "context *c*_{t}", anchor="start"),
        numbered(3, 590, 410, 230, ["attentional vector *~h*_{t}", "tanh(*W*_{c} [*c*_{t}; *h*_{t}])"], "attention"),
        arrow((705, 466), (705, 496), kind="attention"),
        numbered(4, 600, 500, 210, ["next word *y*_{t}", "from *~h*_{t}"], "word"),
    )


def attentions() -> str:
    """Both decoders side by side, their steps numbered."""
    line = arrow((470, 26), (470, 554), head=False, width=1, dashed=True)
    return svg(940, 580, "Bahdanau's decoder beside Luong's", bahdanau(), line, luong())


def main() -> None:
    """Write each diagram into docs/figures."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    for draw in (model, attentions, packed_batch, beam_search, splits, self_critical):
        path = FIGURES / f"{draw.__name__}.svg"
        path.write_text(draw(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
