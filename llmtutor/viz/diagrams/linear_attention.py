"""Drawings, chapter 25: a memory matrix that is written and read, and a text in chunks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmtutor.viz.diagrams.language import CELL, matrix, number, state, vector
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Drawing,
    Shape,
    arrow,
    column,
    named,
    row,
    space,
    text,
)

Words = Sequence[str]


def draw_writes(
    lines: Words, keys: Tensor, written: Tensor, states: Tensor, columns: Words
) -> Drawing:
    """For each line of a text: its key (d_key,) times what it writes (d_value,), and the state.

    ``keys`` is (n, d_key), ``written`` (n, d_value), ``states`` (n, d_key, d_value), the state
    after each line; ``columns`` names the components of a value.
    """
    steps, said = [], []
    for name, k, w, after in zip(lines, keys, written, states, strict=True):
        product = row(
            named(vector(k, "key", upright=True), "key"),
            _low(text("×")),
            named(vector(w, "value", digits=2), "written"),
            _low(arrow(18)),
            named(matrix(after, "state", digits=2, columns=columns), "state after it"),
            gap=8,
            align="end",
        )
        steps.append(column(text(name, bold=True), product, gap=4, align="start"))
        said.append(f"“{name}” writes {_said(w)} under the key {_said(k)}")
    return Drawing(
        column(*steps, gap=14, align="start"),
        "A memory matrix is written to",
        f"Each line adds the product of its key and of what is written: {'; '.join(said)}. "
        f"In the end the rows of the state are {_rows(states[-1])}.",
    )


def draw_reads(names: Words, queries: Tensor, memory: Tensor, columns: Words) -> Drawing:
    """What queries (n, d_key) read from a state (d_key, d_value): their product with it."""
    answers = queries @ memory
    below = row(
        named(matrix(queries, "query", rows=names), "queries"),
        _low(text("×")),
        named(matrix(memory, "state", digits=2, columns=columns), "state"),
        _low(text("=")),
        named(matrix(answers, "new", digits=2, columns=columns), "read"),
        gap=6,
        align="end",
    )
    pairs = zip(names, answers, strict=True)
    return Drawing(
        below,
        "A memory matrix is read",
        "Each query times the state is what it reads: "
        + "; ".join(f"{name} {_said(a)}" for name, a in pairs)
        + f" ({', '.join(columns)}).",
    )


def draw_chunks(seq: int, chunk: int) -> Drawing:
    """A text of ``seq`` tokens in chunks: what is computed at once, what comes by the state."""
    places = torch.arange(seq)
    seen = places[:, None] >= places
    same = places[:, None] // chunk == places // chunk
    grid = matrix((seq, seq), "state", shown=seen, marked=seen & same)
    n = seq // chunk
    circles = [state(f"S{c}") for c in range(n + 1)]
    parts: list[Shape] = [circles[0]]
    for c in range(n):
        parts += [arrow(20, label=f"chunk {c + 1}"), circles[c + 1]]
    legend = column(
        row(vector(1, "new"), text("token with token, inside a chunk", SMALL), gap=5),
        row(vector(1, "state"), text("through the state before the chunk", SMALL), gap=5),
        gap=4,
        align="start",
    )
    inside = int((seen & same).sum())
    return Drawing(
        column(grid, legend, row(*parts, gap=4, align="end"), gap=12),
        f"{seq} tokens in chunks of {chunk}",
        f"A row for each query, a column for each key; the future is crossed out. Of the "
        f"{int(seen.sum())} pairs that may see each other, {inside} lie inside a chunk and are "
        f"computed as products; the other {int(seen.sum()) - inside} go through a state, of which "
        f"there are {n + 1}, S0 to S{n}, each handed on by a chunk.",
    )


def _low(shape: Shape) -> Shape:
    """In the middle of a grid of two rows that stands on the same line."""
    return column(shape, space(height=CELL - shape.height / 2), gap=0)


def _said(values: Tensor) -> str:
    return " ".join(number(float(value), 2) for value in values)


def _rows(values: Tensor) -> str:
    return " and ".join(f"({_said(one)})" for one in values)
