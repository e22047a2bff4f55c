"""Diagrams about captions: a packed batch, beam search, two ways to split a data set, learning from scores."""

from drawing import FAINT, INK, arrow, box, colour, rect, scene, svg, text

CAPTIONS = ["two red kites above a small house", "a yellow ball on the grass", "a red balloon", "one kite"]
TONES = ("#efe8fa", "#d9c9f2")  # of the steps, in turn
BOLD = {"anchor": "start", "weight": 600}
KEPT = 2
TREE = {  # words so far -> each next word, and its log-probability
    "": {"a": -0.5, "two": -1.3, "the": -2.4},
    "a": {"dog": -0.6, "man": -1.1},
    "two": {"dogs": -0.7, "men": -1.5},
    "a dog": {"runs": -0.9, "in": -1.6},
    "a man": {"jumps": -0.2, "runs": -2.3},
    "a man jumps": {"<eos>": -0.4, "up": -1.5},
    "a dog runs": {"<eos>": -0.5, "on": -1.3},
}
BEAM_LEGEND = (
    "On the lines: log-probability of the word. In the boxes: their sum so far.",
    "At each step the two best are kept (solid), whichever hypothesis they continue.",
    "The winner, *a man jumps*, was behind after step 2, where greedy search would have dropped it.",
)
DRAWN = {0: 2, 1: 4, 2: 1, 3: 3}  # image -> which of its captions is drawn for testing
REWARDS = {  # of captions drawn for the first scene
    "a red ball near a house": 2.5,
    "there is a house on the grass": 1.7,
    "a blue ball and a house": 0.9,
    "a red ball on the": 0.5,
    "two kites on the beach": 0.1,
}


def cell(x: float, y: float, width: float, words: str, step: int) -> str:
    """A word of a batch, in the tone of its step."""
    frame = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="34" rx="5" fill="{TONES[step % 2]}"/>'
    return frame + text(x + width / 2, y + 17, words, 14)


def packed_batch() -> str:
    """Captions sorted by length, a column for each step, and the columns laid end to end."""
    rows = [["<bos>", *caption.split()] for caption in CAPTIONS]
    columns = [[i for i, row in enumerate(rows) if len(row) > step] for step in range(len(rows[0]))]
    size = sum(map(len, columns))
    return svg(
        890,
        404,
        "A packed batch: captions that have ended drop out",
        text(114, 40, "step *t*", anchor="end"),
        text(114, 246, "batch size", anchor="end"),
        *(text(114, 81 + 42 * i, f"caption {i + 1}", 14, FAINT, "end") for i in range(len(rows))),
        *(column(rows, step, len(captions)) for step, captions in enumerate(columns)),
        text(
            34, 300, f"Packed, step after step: {size} words instead of {len(rows) * len(columns)}, no padding", **BOLD
        ),
        *strip(columns),
        text(34, 380, "the number is the caption, the tone the step", 13, FAINT, "start"),
    )


def column(rows: list[list[str]], step: int, size: int) -> str:
    """A step: the word of each caption that is long enough, and holes for the others."""
    x = 130 + 92 * step
    words = [cell(x, 64 + 42 * i, 84, rows[i][step], step) for i in range(size)]
    holes = [rect(x + 1, 65 + 42 * i, 82, 32, "hole", 5, dashed=True) for i in range(size, len(rows))]
    return "\n".join([text(x + 42, 40, str(step), 14, FAINT), *words, *holes, text(x + 42, 246, str(size), weight=600)])


def strip(columns: list[list[int]]) -> list[str]:
    """The same words as they lie in memory."""
    laid = [(i, step) for step, captions in enumerate(columns) for i in captions]
    return [cell(34 + 38 * place, 322, 38, str(i + 1), step) for place, (i, step) in enumerate(laid)]


def searched() -> list[list[tuple[str, str, float, float, bool]]]:
    """For each step and candidate: words so far, next word, its log-probability, the sum, and whether it is kept."""
    levels, kept = [], {"": 0.0}
    while open_ones := [words for words in kept if words in TREE]:
        found = [(words, word, p, kept[words] + p) for words in open_ones for word, p in TREE[words].items()]
        best = sorted(found, key=lambda item: -item[3])[:KEPT]
        levels.append([(*item, item in best) for item in found])
        kept = {f"{words} {word}".strip(): total for words, word, _, total in best}
    return levels


def minus(value: float, sign: str = "") -> str:
    return f"{value:{sign}.1f}".replace("-", "−")


def beam_search() -> str:
    """The tree of two beams: what is kept, what is dropped, and the sums of the log-probabilities."""
    places, lines, boxes = {"": (124, 218)}, [], [box(32, 195, 92, 46, "<bos>", "word")]
    levels = searched()
    winner = max(total for *_, total, _ in levels[-1])
    for depth, level in enumerate(levels):
        x, level = 232 + 190 * depth, sorted(level, key=lambda item: places[item[0]][1])
        boxes.append(text(x + 47, 32, f"step {depth + 1}", 14, FAINT))
        for i, (before, word, p, total, kept) in enumerate(level):
            (start, height), y = places[before], 58 + 320 / len(level) * (i + 0.5)
            kind = "right" if total == winner else "word" if kept else "plain"
            lines.append(arrow((start, height), (x - 3, y), kind=kind, dashed=not kept))
            boxes.append(box(x, y - 23, 94, 46, [word, minus(total)], kind))
            boxes.append(text((start + x) / 2, (height + y) / 2, minus(p), 13, INK if kept else FAINT, halo=True))
            places[f"{before} {word}".strip()] = (x + 94, y)
    legend = [text(32, 404 + 26 * i, line, anchor="start") for i, line in enumerate(BEAM_LEGEND)]
    return svg(940, 484, "Beam search with two beams, as a tree", *lines, *boxes, *legend)


def part(x: float, title: str, slots: dict[int, set[int]], shared: bool) -> str:
    """Train or test: a frame with images, and the captions that each of them has there."""
    parts = [rect(x, 96, 208, 262), text(x + 104, 118, title, 14, FAINT)]
    for image, captions in slots.items():
        y = 138 + 53 * image
        frame = colour("wrong") if shared else colour("picture")
        parts += [f'<rect x="{x + 12}" y="{y - 2}" width="46" height="46" rx="3" fill="{frame}"/>']
        parts += [scene(x + 14, y, 42, image)]
        parts += [box(x + 66 + 27 * i, y + 9, 22, 24, str(i + 1), "word", 13, radius=5) for i in captions]
    return "\n".join(parts)


def splits() -> str:
    """Captions drawn one by one, so that images lie on both sides; and whole images."""
    everything = set(range(5))
    return svg(
        940,
        410,
        "A split by caption, which leaks, beside a split by image",
        text(239, 36, "Split by caption: leaks", 18, colour("wrong"), weight=600),
        text(239, 60, "rows of the caption file are drawn", 13, FAINT),
        part(24, "train", {image: everything - {i} for image, i in DRAWN.items()}, shared=True),
        part(246, "test", {image: {i} for image, i in DRAWN.items()}, shared=True),
        text(239, 384, "every test image was trained on", fill=colour("wrong")),
        text(701, 36, "Split by image", 18, colour("right"), weight=600),
        text(701, 60, "images are drawn, and captions follow", 13, FAINT),
        part(486, "train", {image: everything for image in (0, 1, 2)}, shared=False),
        part(708, "test", {3: everything}, shared=False),
        text(701, 384, "no test image was seen before", fill=colour("right")),
    )


def advantages() -> list[tuple[float, float]]:
    """For each drawn caption the mean reward of the others, and by how much its own is better."""
    total, others = sum(REWARDS.values()), len(REWARDS) - 1
    return [((total - reward) / others, reward - (total - reward) / others) for reward in REWARDS.values()]


def scored(y: float, caption: str, reward: float, baseline: float, advantage: float) -> str:
    """A drawn caption: its reward, what it is compared with, and what becomes of it."""
    better = advantage > 0
    kind, change = ("right", "likelier") if better else ("wrong", "less likely")
    return "\n".join(
        [
            box(330, y - 19, 250, 38, caption, "word"),
            text(628, y, minus(reward)),
            text(704, y, minus(baseline)),
            text(786, y, minus(advantage, "+"), fill=colour(kind), weight=600),
            arrow((838, y + 11 * (1 if better else -1)), (838, y - 11 * (1 if better else -1)), kind=kind),
            text(850, y, change, 14, colour(kind), "start"),
        ]
    )


def self_critical() -> str:
    """Five captions drawn for a picture, their rewards, and the way back to the decoder."""
    rows = [
        scored(84 + 50 * i, caption, reward, *compared)
        for i, ((caption, reward), compared) in enumerate(zip(REWARDS.items(), advantages(), strict=True))
    ]
    heads = {455: "captions drawn", 628: "reward *r*", 704: "others *b*", 786: "*r* − *b*", 870: "become"}
    return svg(
        940,
        398,
        "Learning from the score of drawn captions",
        *(text(x, 38, words, 14, FAINT) for x, words in heads.items()),
        scene(28, 139, 90),
        text(73, 252, "photograph"),
        arrow((121, 184), (163, 184)),
        box(167, 154, 100, 60, ["decoder", "draws"], "lstm"),
        *(arrow((270, 184), (298, 184), (298, 84 + 50 * i), (326, 84 + 50 * i), kind="lstm") for i in (0, 1, 3, 4)),
        arrow((270, 184), (326, 184), kind="lstm"),
        *rows,
        arrow((870, 312), (870, 356), (217, 356), (217, 218)),
        text(540, 378, "gradient of −(*r* − *b*) log *p*(caption)", 15, FAINT),
    )
