"""Drawings, chapter 07: what a norm does to a vector, what it averages over, where it stands.

Numbers are those of the vectors and models that are passed in, and the five places of a norm are
read from the configuration of a block.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Bool
from torch import Tensor

from llmtutor.model.block import BlockConfig
from llmtutor.viz.diagrams.language import CELL, number, vector
from llmtutor.viz.diagrams.model import plus_sign
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    WIDEST,
    Drawing,
    Shape,
    box,
    column,
    line,
    lines,
    over,
    row,
    text,
)

DOT = 4.0
"""Radius of an entry on a number line."""
ROW = 54.0
"""From one number line to the next."""


def draw_steps(norms: Mapping[str, Sequence[tuple[str, Tensor]]], title: str) -> Drawing:
    """For each norm its steps, (what is done, the vector after it): strips and number lines.

    All lines have one scale, so that a shift is seen as parallel threads from row to row, and a
    division as threads that close in on 0.
    """
    entries = [float(v) for steps in norms.values() for _, after in steps for v in after]
    low, high = min(0.0, *entries), max(0.0, *entries)
    strips = [vector(after, digits=_digits(after)).width for s in norms.values() for _, after in s]
    left = max(strips) + 16
    unit = (WIDEST - left - 2 * DOT - 2) / ((high - low) or 1.0)
    blocks, said = [], []
    for name, steps in norms.items():
        blocks.append(_threads(name, steps, left, lambda v: left + DOT + (v - low) * unit))
        words = ", then ".join(f"{what}: {_said(after)}" for what, after in steps)
        said.append(f"{name}: {words}.")
    return Drawing(column(*blocks, gap=14, align="start"), title, " ".join(said))


def _threads(
    name: str, steps: Sequence[tuple[str, Tensor]], left: float, place: Callable[[float], float]
) -> Shape:
    """Number lines below each other, the strip of each at its left, threads between the entries."""
    title = text(name, bold=True)
    height = title.height + ROW * len(steps)
    drawn: list[str] = []
    placed = [(title, 0.0, 0.0)]
    ends = [title.height + ROW * i + 32 for i in range(len(steps))]
    for (_, before), (_, after), y0, y1 in zip(steps, steps[1:], ends, ends[1:], strict=False):
        for a, b in zip(before, after, strict=True):
            drawn.append(line([(place(float(a)), y0), (place(float(b)), y1)], "off"))
    for (what, after), y in zip(steps, ends, strict=True):
        zero = place(0.0)
        drawn.append(line([(left, y), (WIDEST - 1, y)]))
        drawn.append(line([(zero, y - 7), (zero, y + 7)]))
        drawn += [_dot(place(float(v)), y) for v in after]
        strip = vector(after, digits=_digits(after))
        placed += [(text(what, SMALL), 0.0, y - 29), (strip, 0.0, y - CELL / 2)]
    zero_label = text("0", SMALL)
    placed.append((zero_label, place(0.0) - zero_label.width / 2, ends[-1] + 8))
    return over(WIDEST, height, (Shape(0, 0, "".join(drawn)), 0, 0), *placed)


def _dot(x: float, y: float) -> str:
    return f'<circle class="lt-vector" cx="{x:.4g}" cy="{y:.4g}" r="{DOT:g}"/>'


def _digits(values: Tensor) -> int:
    """As many as it takes: none for whole numbers."""
    return 0 if bool((values == values.round()).all()) else 2


def _said(values: Tensor) -> str:
    digits = _digits(values)
    return f"({', '.join(number(float(v), digits) for v in values)})"


def draw_shared(sharing: Mapping[str, Bool[Tensor, "batch seq d_model"]], title: str) -> Drawing:
    """For each norm, which numbers of a batch share one mean: a table for each sequence.

    Those that share it are marked, and hold a dot.
    """
    panels, said = [], []
    for name, shared in sharing.items():
        grids = [
            column(text(f"sequence {i}", SMALL), _grid(rows), gap=2)
            for i, rows in enumerate(shared)
        ]
        panels.append(column(lines(name, SMALL, bold=True), *grids, gap=7))
        batch, seq, width = (int(shared.any(dim).sum()) for dim in OTHER_AXES)
        said.append(
            f"{name.replace(chr(10), ' ')}: {int(shared.sum())} numbers, of {batch} of "
            f"{len(shared)} sequences, {seq} of {shared.shape[1]} positions, "
            f"{width} of {shared.shape[2]} channels."
        )
    key = text("a row for each position, a column for each channel", SMALL)
    picture = column(row(*panels, gap=14, align="start"), key, gap=8)
    return Drawing(picture, title, " ".join(said))


OTHER_AXES = ((1, 2), (0, 2), (0, 1))
"""Of batch, positions and channels, for each the two others."""


def _grid(marked: Bool[Tensor, "seq d_model"]) -> Shape:
    """A row for each position."""
    cells = [[_cell(bool(mark)) for mark in some] for some in marked]
    return column(*(row(*some, gap=0) for some in cells), gap=0)


def _cell(marked: bool) -> Shape:
    look = "new" if marked else "plain"
    body = f'<rect class="lt-{look}" width="{CELL}" height="{CELL}"/>'
    if marked:
        body += f'<circle class="lt-token" cx="{CELL / 2}" cy="{CELL / 2}" r="3"/>'
    return Shape(CELL, CELL, body)


PLACE_WIDTH, PLACE_X, BRANCH = 66.0, 10.0, 45.0
"""Of one of the five pictures: its width, where its stream runs, the middle of its branch."""
SLOT = 30.0
"""Height of a place on the branch: before f, f itself, after f."""


def draw_places(blocks: Mapping[str, BlockConfig | None], title: str) -> Drawing:
    """One sub-layer f for each block, with the norm where its configuration says; None has none."""
    panels, said = [], []
    for name, block in blocks.items():
        placement = None if block is None else block.norm_placement
        panels.append(column(text(name, SMALL, bold=True), _place(placement), gap=5))
        said.append(f"{name}: {FORMULAS[placement]}.")
    return Drawing(row(*panels, gap=6, align="start"), title, " ".join(said))


FORMULAS = {
    None: "x + f(x)",
    "pre": "x + f(norm(x))",
    "post": "norm(x + f(x))",
    "res-post": "x + norm(f(x))",
    "sandwich": "x + norm(f(norm(x)))",
}
"""A sub-layer, by the placement of its norms."""


def _place(placement: str | None) -> Shape:
    """Three slots on the branch, one on the stream below the sum; what is absent is a line."""
    norm, f = (box(text(words, SMALL), role, pad=5, width=40) for words, role in NORM_AND_F)
    slots = {
        0: norm if placement in ("pre", "sandwich") else None,
        1: f,
        2: norm if placement in ("res-post", "sandwich") else None,
    }
    top, plus = 12.0, 12.0 + 3 * SLOT + 14
    height = plus + 48
    ways = [
        line([(PLACE_X, 0), (PLACE_X, height)], "stream"),
        line([(PLACE_X, 6), (BRANCH, 6), (BRANCH, plus), (PLACE_X + 10, plus)], head=True),
    ]
    placed: list[tuple[Shape, float, float]] = [(Shape(0, 0, "".join(ways)), 0.0, 0.0)]
    for slot, shape in slots.items():
        if shape is not None:
            y = top + SLOT * slot + (SLOT - shape.height) / 2
            placed.append((shape, BRANCH - shape.width / 2, y))
    placed.append((plus_sign(), PLACE_X - 9, plus - 9))
    if placement == "post":
        placed.append((norm, 0.0, plus + 17))
    return over(PLACE_WIDTH, height, *placed)


NORM_AND_F = (("norm", "norm"), ("f", "weight"))

STEP, DOUBLING = 11.0, 8.0
"""Units from one block to the next, and by which a stream is wider where it is twice as large."""


def draw_growth(sizes: Mapping[str, Sequence[float]], marks: Sequence[int], title: str) -> Drawing:
    """The residual stream of several models, from the embedding down: the wider, the larger.

    ``sizes`` holds the size after so many blocks, from 0; those in ``marks`` are written beside it.
    The width grows by DOUBLING with each doubling of 1 + size, so that small and large ones fit.
    """
    panels, said = [], []
    for name, of_stream in sizes.items():
        panels.append(column(text(name, SMALL, bold=True), _tapered(of_stream, marks), gap=6))
        values = ", ".join(f"{_short(of_stream[n])} after {n}" for n in marks)
        said.append(f"{name}: {values}.")
    blocks = _blocks(marks, max(map(len, sizes.values())))
    return Drawing(
        row(column(text("block", SMALL), blocks, gap=6), *panels, gap=9, align="start"),
        title,
        f"Root mean square of the stream after so many blocks, its width. {' '.join(said)}",
    )


def _tapered(of_stream: Sequence[float], marks: Sequence[int]) -> Shape:
    widths = [DOUBLING * math.log2(1 + size) + 2 for size in of_stream]
    widest = max(widths)
    labels = {n: text(_short(of_stream[n]), SMALL) for n in marks}
    right = [((widest + width) / 2, STEP * i + 8) for i, width in enumerate(widths)]
    left = [((widest - width) / 2, STEP * i + 8) for i, width in enumerate(widths)]
    points = " ".join(f"{x:.4g},{y:.4g}" for x, y in (*right, *left[::-1]))
    height = STEP * (len(of_stream) - 1) + 16
    width = max(right[n][0] + 3 + label.width for n, label in labels.items())
    placed = [
        (label, right[n][0] + 3, right[n][1] - label.height / 2) for n, label in labels.items()
    ]
    stream = Shape(widest, height, f'<polygon class="lt-stream" points="{points}"/>')
    return over(max(width, widest), height, (stream, 0, 0), *placed)


def _blocks(marks: Sequence[int], n: int) -> Shape:
    """Numbers of the marked blocks, at their heights."""
    labels = [(text(str(mark), SMALL), STEP * mark + 8) for mark in marks]
    width = max(label.width for label, _ in labels)
    placed = [(label, width - label.width, y - label.height / 2) for label, y in labels]
    return over(width, STEP * (n - 1) + 16, *placed)


def _short(size: float) -> str:
    return f"{size:.0f}" if size >= 99.5 else f"{size:.2g}" if size >= 10 else f"{size:.1f}"
