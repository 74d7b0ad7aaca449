"""Drawings, every chapter: the words of the book's visual language.

A token is a pill, a vector a strip of cells, a matrix a grid in a frame, a head a box of three
colours, a cache a dashed drawer, a rank a double frame, an expert a hexagon, a state a circle, the
residual stream a thick line. They look so on every page.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Shape,
    box,
    column,
    line,
    lines,
    named,
    over,
    row,
    space,
    text,
)

CELL = 22
"""Units of a side of an empty cell."""


def token(words: str, id: int | None = None, role: str = "token") -> Shape:
    """A piece of text, with its id below; a space shows as ␣."""
    pill = box(text(words.replace(" ", "␣").replace("\n", "⏎"), mono=True), role, corner=12)
    return pill if id is None else named(pill, f"{id:,}", below=True)


def tokens(words: Sequence[str], gap: float = 4) -> Shape:
    """A text, cut into its tokens."""
    return row(*(token(word) for word in words), gap=gap)


def vector(
    values: Sequence[float] | Tensor | int,
    role: str = "vector",
    *,
    upright: bool = False,
    digits: int = 1,
) -> Shape:
    """A strip of cells: the numbers, or so many empty cells."""
    if isinstance(values, int):
        cells = [Shape(CELL, CELL, _cell(CELL, CELL, role)) for _ in range(values)]
    else:
        labels = [number(float(value), digits) for value in values]
        cells = _cells(labels, role)
    return column(*cells, gap=0) if upright else row(*cells, gap=0)


def matrix(
    values: np.ndarray | Tensor | tuple[int, int],
    role: str = "weight",
    *,
    digits: int = 1,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    shown: np.ndarray | Tensor | None = None,
    marked: np.ndarray | Tensor | None = None,
    bold: bool = False,
) -> Shape:
    """A grid in a frame: numbers, or so many empty cells, with names of rows and columns.

    Cells that are False in ``shown`` are crossed out, those that are True in ``marked`` stand out,
    with ``bold`` also by their numbers: beside a vector, whose colour is much like theirs.
    """
    if isinstance(values, tuple):
        n_rows, n_columns = values
        labels = [[""] * n_columns for _ in range(n_rows)]
    else:
        table = np.asarray(values)
        n_rows, n_columns = table.shape
        labels = [[number(float(v), digits) for v in line] for line in table]
    width = max(
        CELL,
        *(
            box(text(label, SMALL), pad=4).width if label else 0
            for line in labels
            for label in line
        ),
        *(text(name, SMALL).width + 4 for name in columns),
    )
    grid = []
    for i, some in enumerate(labels):
        cells = []
        for j, label in enumerate(some):
            visible = shown is None or bool(shown[i][j])
            look = role if visible else "off"
            strong = marked is not None and bool(marked[i][j])
            if strong:
                look = "new"
            words = label if visible else ""
            cells.append(_labelled_cell(words, width, look, not visible, bold and strong))
        grid.append(row(*cells, gap=0))
    inside = column(*grid, gap=0)
    frame = _cell(inside.width + 4, inside.height + 4, role)
    framed = over(inside.width + 4, inside.height + 4, (Shape(0, 0, frame), 0, 0), (inside, 2, 2))
    return _with_names(framed, rows, columns, width)


def mask(allowed: Tensor, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> Shape:
    """Who may look at whom: a row for each query, a column for each key, (q, k) of bool."""
    return matrix(
        (len(allowed), allowed.shape[1]), "query", shown=allowed, rows=rows, columns=columns
    )


def head(name: str = "head", width: float = 0) -> Shape:
    """A head of attention: its queries, keys and values side by side."""
    inside = row(*(box(text(n, SMALL), r, pad=5) for n, r in ROLES_OF_HEAD), gap=3)
    return named(box(inside, "plain", corner=9, width=width), name)


ROLES_OF_HEAD = (("q", "query"), ("k", "key"), ("v", "value"))


def cache(slots: int, filled: int, names: Sequence[str] = (), label: str = "cache") -> Shape:
    """A dashed drawer of slots, of which the first ``filled`` hold something."""
    cells = []
    for i in range(slots):
        name = names[i] if i < len(names) else ""
        width = max(CELL, text(name, SMALL).width + 8)
        cells.append(_labelled_cell(name, width, "cache" if i < filled else "plain", False))
    return named(box(row(*cells, gap=2), "plain", dashed=True), label)


def rank(n: int, content: str = "") -> Shape:
    """A process of a job: a double frame."""
    inner = box(f"rank {n}" + (f"\n{content}" if content else ""), "rank", corner=2)
    return box(inner, "plain", pad=3, corner=4)


def ring(n_ranks: int, label: str = "") -> Shape:
    """Ranks in a circle, each of which sends to the next."""
    one = rank(n_ranks - 1)
    words = lines(label, SMALL) if label else space()
    # Room for the arrows between ranks, and for the label between two that are opposite.
    room = (words.width + one.width) / 2 + 8
    radius = max(60.0, room, (one.width + 24) * n_ranks / (2 * math.pi))
    middle_x, middle_y = radius + one.width / 2, radius + one.height / 2
    angles = [2 * math.pi * i / n_ranks - math.pi / 2 for i in range(n_ranks)]
    places = [(middle_x + radius * math.cos(a), middle_y + radius * math.sin(a)) for a in angles]
    ways = []
    for i in range(n_ranks):
        ways.append(_between(places[i], places[(i + 1) % n_ranks], one))
    return over(
        2 * middle_x,
        2 * middle_y,
        (Shape(0, 0, "".join(ways)), 0, 0),
        *((rank(i), x - one.width / 2, y - one.height / 2) for i, (x, y) in enumerate(places)),
        (words, middle_x - words.width / 2, middle_y - words.height / 2),
    )


def expert(name: str = "expert", role: str = "expert") -> Shape:
    """A feed-forward part among others, of which a router chooses: a hexagon."""
    inner = lines(name, SMALL)
    width, height = inner.width + 30, inner.height + 14
    edge = [(10, 0), (width - 10, 0), (width, height / 2), (width - 10, height), (10, height)]
    places = " ".join(f"{x:g},{y:g}" for x, y in [*edge, (0, height / 2)])
    frame = f'<polygon class="lt-{role}" points="{places}"/>'
    return Shape(width, height, frame + inner.at((width - inner.width) / 2, 7))


def state(name: str = "h") -> Shape:
    """What a recurrent layer carries from one token to the next: a circle."""
    inner = lines(name, SMALL)
    radius = max(16.0, inner.width / 2 + 6)
    frame = f'<circle class="lt-state" cx="{radius:g}" cy="{radius:g}" r="{radius:g}"/>'
    y = radius - inner.height / 2
    return Shape(2 * radius, 2 * radius, frame + inner.at(radius - inner.width / 2, y))


def stream(length: float, to: Literal["down", "right"] = "down") -> Shape:
    """The residual stream: a thick line, to which blocks add."""
    if to == "right":
        return Shape(length, 10, line([(0, 5), (length, 5)], "stream"))
    return Shape(10, length, line([(5, 0), (5, length)], "stream"))


def head_sharing(n_heads: int, n_kv_heads: int) -> Shape:
    """Which query heads share the keys and values of which head (chapter 14)."""
    queries = [box(text(f"q{i}", SMALL), "query", pad=5) for i in range(n_heads)]
    upper = row(*queries, gap=4)
    pairs = [
        row(
            box(text(f"k{i}", SMALL), "key", pad=5),
            box(text(f"v{i}", SMALL), "value", pad=5),
            gap=0,
        )
        for i in range(n_kv_heads)
    ]
    kept = row(*pairs, gap=8)
    lower = box(kept, dashed=True)  # the drawer of a cache
    pad = (lower.width - kept.width) / 2
    width, between = max(upper.width, lower.width), 34.0
    upper_x, lower_x = (width - upper.width) / 2, (width - lower.width) / 2
    top, bottom = upper.height, upper.height + between
    ways = []
    for i in range(n_heads):
        start = upper_x + i * (queries[0].width + 4) + queries[i].width / 2
        j = i * n_kv_heads // n_heads
        end = lower_x + pad + j * (pairs[0].width + 8) + pairs[j].width / 2
        ways.append(line([(start, top), (end, bottom)]))
    return over(
        width,
        bottom + lower.height,
        (Shape(0, 0, "".join(ways)), 0, 0),
        (upper, upper_x, 0),
        (lower, lower_x, bottom),
    )


def number(value: float, digits: int = 1) -> str:
    """For a cell: a true minus sign, −∞, no −0.

    >>> number(-0.04), number(-1.26, 2), number(float("-inf"))
    ('0.0', '−1.26', '−∞')
    """
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    shown = f"{value:.{digits}f}"
    if float(shown) == 0:
        shown = shown.lstrip("-")
    return shown.replace("-", "−")


def _cell(width: float, height: float, role: str) -> str:
    return f'<rect class="lt-{role}" width="{width:.4g}" height="{height:.4g}"/>'


def _labelled_cell(label: str, width: float, role: str, crossed: bool, bold: bool = False) -> Shape:
    """One cell; a crossed one has a line through it, for those who do not see its colour."""
    body = _cell(width, CELL, role)
    if crossed:
        body += f'<path class="lt-hatch" d="M3 {CELL - 3}L{width - 3:.4g} 3"/>'
    words = text(label, SMALL, bold=bold)
    inside = words.at((width - words.width) / 2, (CELL - words.height) / 2) if label else ""
    return Shape(width, CELL, body + inside)


def _cells(labels: Sequence[str], role: str) -> list[Shape]:
    """Cells of one width, wide enough for all labels."""
    width = max(CELL, *(text(label, SMALL).width + 8 for label in labels))
    return [_labelled_cell(label, width, role, False) for label in labels]


def _with_names(grid: Shape, rows: Sequence[str], columns: Sequence[str], width: float) -> Shape:
    """Names of rows at the left of a framed grid, names of columns above it."""
    placed, left, top = [], 0.0, 0.0
    if rows:
        left = max(text(name, SMALL).width for name in rows) + 6
    if columns:
        top = 1.3 * SMALL + 2
    for i, name in enumerate(rows):
        words = text(name, SMALL)
        y = top + 2 + i * CELL + (CELL - words.height) / 2
        placed.append((words, left - 6 - words.width, y))
    for j, name in enumerate(columns):
        words = text(name, SMALL)
        placed.append((words, left + 2 + j * width + (width - words.width) / 2, 0.0))
    return over(left + grid.width, top + grid.height, (grid, left, top), *placed)


def _between(start: tuple[float, float], end: tuple[float, float], around: Shape) -> str:
    """An arrow from one place to another that leaves and meets the boxes around them."""
    (x0, y0), (x1, y1) = start, end
    dx, dy = x1 - x0, y1 - y0
    # The share of the way that lies inside a box.
    inside = min(
        (around.width / 2 + 3) / abs(dx) if dx else 1.0,
        (around.height / 2 + 3) / abs(dy) if dy else 1.0,
    )
    return line(
        [(x0 + inside * dx, y0 + inside * dy), (x1 - inside * dx, y1 - inside * dy)], head=True
    )
