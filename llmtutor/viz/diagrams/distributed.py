"""Drawings, chapter 13: parts of vectors on their way around a ring, with their numbers."""

from collections.abc import Sequence

import numpy as np

from llmtutor.viz.diagrams.language import CELL, matrix, number
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Drawing,
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

BETWEEN, BELOW = 84.0, 44.0
"""Units between two ranks, for an arrow and its label: side by side, and one under the other."""
WIDEST_PART = "1000"
"""Of the running example: all ranks are as wide as one that holds it."""
Table = Sequence[Sequence[float]]


def draw_hop(table: Table, step: int = 0) -> Drawing:
    """Four ranks in a square, what each holds, and the one part that each sends to the right.

    Raises:
        ValueError: not four ranks with four parts each.
    """
    if [len(parts) for parts in table] != [4] * 4:
        raise ValueError(f"expected four ranks with four parts each, got {table!r}")
    sent = [(rank - step) % 4 for rank in range(4)]
    ranks = [_holding(rank, table[rank], sent[rank]) for rank in range(4)]
    wide, high = ranks[0].width, ranks[0].height
    right, lower = wide + BETWEEN, high + BELOW
    corners = ((0.0, 0.0), (right, 0.0), (right, lower), (0.0, lower))  # clockwise
    # From side to side in the middle of a frame, and down past the name of the one below.
    middle, centre = high / 2 + 8, wide / 2
    ways = [
        ((wide + 4, middle), (right - 4, middle)),
        ((right + centre, high + 4), (right + centre, lower - 2)),
        ((right - 4, lower + middle), (wide + 4, lower + middle)),
        ((centre, lower - 2), (centre, high + 4)),
    ]
    placed = [(Shape(0, 0, "".join(line(way, head=True) for way in ways)), 0.0, 0.0)]
    placed += [(shape, x, y) for shape, (x, y) in zip(ranks, corners, strict=True)]
    for rank, ((x0, y0), (x1, y1)) in enumerate(ways):
        words = text(f"part {sent[rank]}", SMALL)
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        if y0 == y1:
            placed.append((words, x - words.width / 2, y - words.height - 3))
        else:
            placed.append((words, x + (-8 - words.width if rank == 1 else 8), y - 8))
    said = "; ".join(
        f"rank {rank} holds {_said(parts)} and sends part {sent[rank]}, "
        f"{number(parts[sent[rank]], 0)}, to rank {(rank + 1) % 4}"
        for rank, parts in enumerate(table)
    )
    return Drawing(over(right + wide, lower + high, *placed), "One hop of the ring", f"{said}.")


def _holding(rank: int, parts: Sequence[float], sent: int) -> Shape:
    """A rank with its parts, of which the one that it sends stands out."""
    marked = np.arange(len(parts))[:, None] == sent
    cells = matrix(np.array(parts)[:, None], "vector", digits=0, marked=marked, bold=True)
    width = text(WIDEST_PART, SMALL).width + 28
    return named(box(cells, "rank", pad=5, corner=2, width=width), f"rank {rank}")


def _said(values: Sequence[float]) -> str:
    return ", ".join(number(value, 0) for value in values)


def draw_steps(tables: Sequence[Table]) -> Drawing:
    """What all ranks hold, from the start to the end of an all-reduce, step by step.

    The first half stands at the left, the second at the right. What a rank has just received is
    marked.

    Raises:
        ValueError: not the 2 (R − 1) + 1 tables of R ranks.
    """
    n = len(tables[0])
    if len(tables) != 2 * (n - 1) + 1:
        raise ValueError(f"expected {2 * (n - 1) + 1} tables for {n} ranks, got {len(tables)}")
    grids, said = [], []
    for i, table in enumerate(tables):
        step = i - 1
        # In step s rank r receives part r − s − 1: see `llmtutor.train.ring`.
        marked = np.array(
            [[step >= 0 and (r - step - 1) % n == p for p in range(n)] for r in range(n)]
        )
        title = "at the start" if step < 0 else f"after step {step}"
        names = [f"rank {r}" for r in range(n)] if i < n else ()
        grid = matrix(np.array(table), "vector", digits=0, rows=names, marked=marked, bold=True)
        grids.append(column(text(title, SMALL), grid, gap=2, align="end"))
        rows = "; ".join(f"rank {r} {_said(parts)}" for r, parts in enumerate(table))
        said.append(f"{title}: {rows}")
    # The second half begins one grid lower, beside its first step.
    first = column(_heading("reduce-scatter"), *grids[:n], gap=8, align="end")
    pad = space(height=grids[0].height)
    second = column(_heading("all-gather"), pad, *grids[n:], gap=8, align="end")
    return Drawing(
        row(first, second, gap=14, align="start"),
        f"An all-reduce of {n} ranks, step by step",
        f"{'. '.join(said)}.",
    )


def _heading(words: str) -> Shape:
    return lines(words, bold=True)


def draw_tensor_cut(
    x: Sequence[float], up: Table, hidden: Sequence[float], down: Table, n: int = 2
) -> Drawing:
    """A feed-forward part on ``n`` ranks: columns of ``up``, rows of ``down``, and one sum.

    ``hidden`` is what stands between them, after the activation function: the ranks' pieces of it
    side by side.
    """
    up_, down_, h = np.array(up), np.array(down), np.array(hidden)
    width = len(h) // n
    lanes: list[Shape] = []
    shares: list[list[float]] = []
    for rank in range(n):
        mine = slice(rank * width, (rank + 1) * width)
        shares.append((h[mine] @ down_[mine]).tolist())
        pieces = (
            _named("x", [x], "vector"),
            _named("columns", up_[:, mine], "weight"),
            _named("hidden", [h[mine].tolist()], "vector"),
            _named("rows", down_[mine], "weight"),
            _named("share", [shares[-1]], "new"),
        )
        lanes.append(named(box(row(*pieces, gap=8), "rank", pad=6, corner=2), f"rank {rank}"))
    whole = np.sum(shares, axis=0).tolist()
    total = row(
        *(
            piece
            for i, share in enumerate(shares)
            for piece in ([text("+")] if i else []) + [_numbers([share], "new")]
        ),
        text("="),
        _numbers([whole], "stream"),
        text("the one sum", SMALL),
        gap=8,
    )
    said = "; ".join(
        f"rank {rank} holds columns {rank * width} to {(rank + 1) * width - 1} of the first "
        f"matrix and the same rows of the second, has the hidden numbers "
        f"{_said(h[rank * width : (rank + 1) * width].tolist())} and the share {_said(share)}"
        for rank, share in enumerate(shares)
    )
    return Drawing(
        column(*lanes, total, gap=10),
        "A feed-forward part on two ranks",
        f"The input is {_said(x)} on each rank. {said}. Their sum is {_said(whole)}.",
    )


def _numbers(values: Table | np.ndarray, role: str) -> Shape:
    return matrix(np.array(values), role, digits=0)


def _named(name: str, values: Table | np.ndarray, role: str) -> Shape:
    """Numbers under their name, as tall as two rows, so that the names of a lane are level."""
    shape = _numbers(values, role)
    missing = 2 * CELL + 4 - shape.height
    return named(column(space(height=missing / 2), shape, space(height=missing / 2), gap=0), name)
