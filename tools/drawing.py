"""SVG for ``tools/diagrams.py``, on a white panel that looks the same on dark and light pages."""

import re
from html import escape

INK, FAINT, PANEL, EDGE = "#1f2933", "#66717e", "#ffffff", "#d3d9e0"
FILLS = {  # of a box and of its frame; one kind of thing has one colour in all diagrams
    "picture": ("#e3eefb", "#2f6db5"),
    "attention": ("#fdecd6", "#c8701a"),
    "lstm": ("#e2f4e8", "#2f8452"),
    "word": ("#efe8fa", "#7450b0"),
    "plain": ("#f3f4f6", "#9aa5b1"),
    "hole": ("#ffffff", "#cbd2d9"),
    "right": ("#e2f4e8", "#2f8452"),
    "wrong": ("#fde5e3", "#c03d34"),
}
SCENES = (  # what lies on the grass, below the sky
    '<path d="M14 42 H44 V72 H14z" fill="#c9a27a"/><path d="M9 42 L29 24 L49 42z" fill="#8a5a44"/>'
    '<circle cx="71" cy="72" r="14" fill="#d64541"/><circle cx="80" cy="18" r="8" fill="#f7d154"/>',
    '<path d="M50 10 L72 34 L50 62 L28 34z" fill="#3b78c3"/><path d="M50 62 Q58 72 46 84" stroke="#3b78c3" fill="none" '
    'stroke-width="3"/>',
    '<circle cx="34" cy="74" r="15" fill="#e5a823"/><circle cx="72" cy="70" r="11" fill="#7450b0"/>',
    '<ellipse cx="56" cy="32" rx="17" ry="21" fill="#d64541"/><path d="M56 53 V84" stroke="#66717e" stroke-width="2"/>',
)
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"


def colour(kind: str) -> str:
    """The strong colour of a kind of thing."""
    return FILLS[kind][1]


def marked(words: str, size: float) -> str:
    """``h_{t-1}`` with a subscript, ``*h*`` in italics, ``~h`` with a tilde above."""
    words = re.sub(r"~(\w)", "\\1\u0303", escape(words, quote=False))
    serif = f'font-style="italic" font-family="Georgia, Times, serif" font-size="{round(size * 1.08, 1)}"'
    words = re.sub(r"\*(.+?)\*", rf"<tspan {serif}>\1</tspan>", words)
    small, down = round(size * 0.72, 1), round(size * 0.25, 1)
    lowered = rf'<tspan font-size="{small}" dy="{down}">\1</tspan><tspan dy="-{down}">&#8203;</tspan>'
    return re.sub(r"_\{(.+?)\}", lowered, words)


def text(x, y, words, size=15, fill=INK, anchor="middle", weight=400, halo=False) -> str:
    """One line of text, centred at height ``y``; a halo sets it off from lines behind it."""
    style = f'font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}"'
    style += f' stroke="{PANEL}" stroke-width="9" stroke-linejoin="round" paint-order="stroke"' if halo else ""
    return f'<text x="{x:g}" y="{y + size * 0.35:g}" {style}>{marked(words, size)}</text>'


def rect(x, y, width, height, kind="plain", radius=8, dashed=False) -> str:
    """A frame in the colours of its kind."""
    fill, stroke = FILLS[kind]
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"'
    return f'<rect {place} fill="{fill}" stroke="{stroke}" stroke-width="1.5"{dashes}/>'


def box(x, y, width, height, lines, kind="plain", size=15, **style) -> str:
    """A frame with centred lines of text; all but the first are smaller."""
    lines = [lines] if isinstance(lines, str) else lines
    top = y + height / 2 - (len(lines) - 1) * size * 0.65
    rows = [
        text(x + width / 2, top + i * size * 1.3, line, size if i == 0 else size - 2, INK if i == 0 else FAINT)
        for i, line in enumerate(lines)
    ]
    return "\n".join([rect(x, y, width, height, kind, **style), *rows])


def scene(x: float, y: float, side: float, which: int = 0) -> str:
    """A drawn picture, one of ``SCENES``."""
    ground = '<path d="M0 0H100V62H0z" fill="#cfe6f7"/><path d="M0 62H100V100H0z" fill="#a9d08e"/>'
    return f'<g transform="translate({x:g} {y:g}) scale({side / 100:g})">{ground}{SCENES[which]}</g>'


def numbered(number: int, x: float, y: float, width: float, lines: list[str], kind: str) -> str:
    """A box with its number in a disc at its corner."""
    disc = f'<circle cx="{x:g}" cy="{y:g}" r="12" fill="{colour(kind)}"/>'
    return "\n".join([box(x, y, width, 54, lines, kind), disc + text(x, y, str(number), 14, "#ffffff", weight=600)])


def arrow(*points, kind=None, dashed=False, head=True, width=1.8) -> str:
    """A line through points, its corners rounded, with a head at the end."""
    stroke = colour(kind) if kind else FAINT
    path = f"M{points[0][0]:g} {points[0][1]:g}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        start, end = toward(corner, before), toward(corner, after)
        path += f" L{start[0]:g} {start[1]:g} Q{corner[0]:g} {corner[1]:g} {end[0]:g} {end[1]:g}"
    path += f" L{points[-1][0]:g} {points[-1][1]:g}"
    style = f'stroke="{stroke}" stroke-width="{width:g}"' + (' stroke-dasharray="5 4"' if dashed else "")
    tip = triangle(points[-2], points[-1], stroke) if head else ""
    return f'<path d="{path}" fill="none" {style}/>{tip}'


def toward(point, other, radius=9) -> tuple[float, float]:
    """The point at a distance of ``radius`` from one point on the way to another."""
    length = ((other[0] - point[0]) ** 2 + (other[1] - point[1]) ** 2) ** 0.5
    share = min(radius / length, 0.5)
    return round(point[0] + share * (other[0] - point[0]), 1), round(point[1] + share * (other[1] - point[1]), 1)


def triangle(before, tip, fill) -> str:
    """The head of an arrow that arrives from ``before`` at ``tip``."""
    length = ((tip[0] - before[0]) ** 2 + (tip[1] - before[1]) ** 2) ** 0.5
    dx, dy = (tip[0] - before[0]) / length, (tip[1] - before[1]) / length
    corners = [(2, 0), (-8, 4.5), (-8, -4.5)]
    points = " ".join(f"{tip[0] + a * dx - b * dy:.1f},{tip[1] + a * dy + b * dx:.1f}" for a, b in corners)
    return f'<polygon points="{points}" fill="{fill}"/>'


def svg(width: int, height: int, title: str, *parts: str) -> str:
    """A whole picture: its parts on a panel, with a title for screen readers."""
    start = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    panel = f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10" fill="{PANEL}" stroke="{EDGE}"/>'
    lines = [f'{start} role="img" font-family="{SANS}">', f"<title>{escape(title)}</title>", panel, *parts, "</svg>"]
    return "\n".join(lines) + "\n"
