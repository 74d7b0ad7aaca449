"""Drawings, every chapter: shapes that know their size, put beside and below each other.

A shape is SVG around its own origin. ``row`` and ``column`` make one shape of several, so nobody
counts coordinates, and ``Drawing`` refuses what a phone cannot show. Colours are roles, such as
"query", which the page's style sheet turns into one colour on a light page and another on a dark
one; the same thing has the same role in every chapter.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Literal

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from llmtutor.checks import check_name

WIDEST = 360
"""Units that a phone of 390 pixels shows at their size, beside the margins of a page."""
SIZE, SMALL = 13.0, 11.0
"""Of letters, in units."""
ROLES = (
    *("plain", "token", "vector", "query", "key", "value", "weight", "norm", "stream"),
    *("off", "cache", "rank", "expert", "state", "new"),
)
"""What a colour stands for; ``style.css`` has one for each."""
Align = Literal["start", "middle", "end"]
SHARE = {"start": 0.0, "middle": 0.5, "end": 1.0}


@dataclass(frozen=True)
class Shape:
    """A piece of a drawing: its size in units, and the SVG that fills it."""

    width: float
    height: float
    body: str

    def at(self, x: float, y: float) -> str:
        """The SVG with the upper left corner at (x, y)."""
        return f'<g transform="translate({_n(x)} {_n(y)})">{self.body}</g>' if x or y else self.body


@dataclass(frozen=True)
class Drawing:
    """A shape with a title and a description for those who do not see it.

    In a notebook it shows itself as the last value of a cell: HTML, and as text its description.

    Raises:
        ValueError: a drawing wider than a phone; no title or description.
    """

    shape: Shape
    title: str
    description: str

    def __post_init__(self) -> None:
        if self.shape.width > WIDEST:
            raise ValueError(
                f"{self.title!r} is {self.shape.width:.0f} units wide and a phone shows {WIDEST}: "
                "put its parts below each other, or show fewer"
            )
        if not self.title.strip() or not self.description.strip():
            raise ValueError("a drawing needs a title and a description: what is there to be seen?")

    def svg(self) -> str:
        """One ``<svg>`` element, with its own style."""
        width, height = self.shape.width, self.shape.height
        content = f"{self.title}{self.description}{self.shape.body}"
        name = "d" + hashlib.sha256(content.encode("utf-8")).hexdigest()[:10]
        # No less than its own size where there is room, and a little larger at most.
        return (
            f'<svg class="lt-drawing" role="img" aria-labelledby="{name}-t {name}-d" '
            f'viewBox="-1 -1 {_n(width + 2)} {_n(height + 2)}" '
            f'style="width:100%;max-width:{_n(1.15 * width + 2)}px">'
            f'<title id="{name}-t">{escape(self.title)}</title>'
            f'<desc id="{name}-d">{escape(self.description)}</desc>'
            f"<style>{_style()}</style>{self.shape.body}</svg>"
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": self.svg(), "text/plain": f"{self.title}. {self.description}"}


@cache
def _style() -> str:
    text = files("llmtutor.viz.diagrams").joinpath("style.css").read_text(encoding="utf-8")
    return " ".join(text.split())


def _n(number: float) -> str:
    return f"{round(number, 2):g}"


@cache
def text_width(words: str, size: float = SIZE, mono: bool = False, bold: bool = False) -> float:
    """Width of a line in the widest font that a reader may have, DejaVu."""
    family = "DejaVu Sans Mono" if mono else "DejaVu Sans"
    font = FontProperties(family=family, size=size, weight="bold" if bold else "normal")
    width, _, _ = text_to_path.get_text_width_height_descent(words, font, ismath=False)
    return float(width)


def text(words: str, size: float = SIZE, *, mono: bool = False, bold: bool = False) -> Shape:
    """One line of text."""
    width = text_width(words, size, mono, bold)
    names = "lt-text" + " lt-mono" * mono + " lt-bold" * bold
    return Shape(
        width,
        1.3 * size,
        f'<text class="{names}" x="{_n(width / 2)}" y="{_n(size)}" font-size="{_n(size)}" '
        f'text-anchor="middle">{escape(words)}</text>',
    )


def lines(words: str, size: float = SIZE, **look: bool) -> Shape:
    """Text with line ends, each line in the middle."""
    return column(*(text(line, size, **look) for line in words.split("\n")), gap=0)


def space(width: float = 0, height: float = 0) -> Shape:
    """Nothing, of that size."""
    return Shape(width, height, "")


def box(
    content: str | Shape = "",
    role: str = "plain",
    *,
    width: float = 0,
    height: float = 0,
    corner: float = 4,
    pad: float = 7,
    dashed: bool = False,
) -> Shape:
    """A frame around text or a shape; ``width`` and ``height`` are the least it has."""
    check_name("role", role, ROLES)
    inner = lines(content) if isinstance(content, str) else content
    width, height = max(width, inner.width + 2 * pad), max(height, inner.height + 2 * pad - 4)
    dash = " lt-dashed" if dashed else ""
    frame = (
        f'<rect class="lt-{role}{dash}" width="{_n(width)}" height="{_n(height)}" '
        f'rx="{_n(min(corner, height / 2))}"/>'
    )
    x, y = (width - inner.width) / 2, (height - inner.height) / 2
    return Shape(width, height, frame + inner.at(x, y))


def row(*shapes: Shape, gap: float = 8, align: Align = "middle") -> Shape:
    """Shapes from left to right, which start, end or have their middle at one height."""
    height = max(shape.height for shape in shapes)
    x, parts = 0.0, []
    for shape in shapes:
        parts.append(shape.at(x, SHARE[align] * (height - shape.height)))
        x += shape.width + gap
    return Shape(x - gap, height, "".join(parts))


def column(*shapes: Shape, gap: float = 8, align: Align = "middle") -> Shape:
    """Shapes from top to bottom, which start, end or have their middle at one place."""
    width = max(shape.width for shape in shapes)
    y, parts = 0.0, []
    for shape in shapes:
        parts.append(shape.at(SHARE[align] * (width - shape.width), y))
        y += shape.height + gap
    return Shape(width, y - gap, "".join(parts))


def over(width: float, height: float, *placed: tuple[Shape, float, float]) -> Shape:
    """Shapes at places of their own, (shape, x, y), the later ones on top."""
    return Shape(width, height, "".join(shape.at(x, y) for shape, x, y in placed))


def named(shape: Shape, label: str, *, below: bool = False) -> Shape:
    """A shape with a small label above or below it."""
    words = lines(label, SMALL)
    return column(shape, words, gap=3) if below else column(words, shape, gap=3)


def line(
    points: Sequence[tuple[float, float]],
    role: str = "plain",
    *,
    head: bool = False,
    width: float | None = None,
) -> str:
    """SVG of a line through points, with an arrow's head at its end; ``width`` in units."""
    check_name("role", role, ROLES)
    places = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
    stroke = "" if width is None else f' style="stroke-width:{_n(width)}"'
    drawn = f'<polyline class="lt-line lt-line-{role}"{stroke} points="{places}"/>'
    if not head:
        return drawn
    (x0, y0), (x1, y1) = points[-2:]
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5 or 1.0
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    left, right = ((x1 - 6 * dx + s * 3.5 * dy, y1 - 6 * dy - s * 3.5 * dx) for s in (1, -1))
    places = " ".join(f"{_n(x)},{_n(y)}" for x, y in ((x1, y1), left, right))
    return f'{drawn}<polygon class="lt-head lt-line-{role}" points="{places}"/>'


def arrow(
    length: float = 22, *, to: Literal["right", "down", "up"] = "right", label: str = ""
) -> Shape:
    """An arrow, with a small label beside it."""
    if to == "right":
        shape = Shape(length, 8, line([(0, 4), (length, 4)], head=True))
        return named(shape, label) if label else shape
    ends = [(4.0, 0.0), (4.0, length)]
    shape = Shape(8, length, line(ends if to == "down" else ends[::-1], head=True))
    if not label:
        return shape
    words = lines(label, SMALL)
    # As much room on the other side: the arrow stays in the middle.
    return row(space(words.width), shape, words, gap=4)
