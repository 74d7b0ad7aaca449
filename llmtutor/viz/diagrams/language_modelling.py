"""Drawings, chapter 03: counts of a word, a row that is looked up, slopes, a window of embeddings.

The description of a drawing says the numbers that stand in it, so neither can be wrong alone.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from llmtutor.model.mlp import WindowMLP
from llmtutor.viz.diagrams.language import CELL, matrix, named, number, token, vector
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Drawing,
    Shape,
    arrow,
    box,
    column,
    line,
    lines,
    over,
    row,
    text,
)


def draw_counts(word: str, counts: Mapping[str, Mapping[str, int]], at: int) -> Drawing:
    """A word whose letter ``at`` is guessed from the one before, and the table of all pairs.

    ``counts[a][b]`` is how often b came after a.
    """
    letters = sorted(set(word))
    table = np.array([[counts[a].get(b, 0) for b in letters] for a in letters])
    known, came = word[at - 1], word[at]
    pills = [
        token(letter, role={at - 1: "query", at: "new"}.get(t, "token"))
        for t, letter in enumerate(word)
    ]
    pair = np.zeros_like(table, dtype=bool)
    pair[letters.index(known), letters.index(came)] = True
    grid = matrix(table, "vector", digits=0, rows=letters, columns=letters, marked=pair)
    rows = [
        f"after {a} came " + ", ".join(f"{b} {n}" for b, n in zip(letters, line, strict=True) if n)
        for a, line in zip(letters, table, strict=True)
    ]
    picture = column(
        row(*pills, gap=2),
        arrow(18, to="down", label=f"one more for: {came} after {known}"),
        row(lines("the letter\nwe know", SMALL), named(grid, "what came next"), gap=10),
    )
    return Drawing(
        picture,
        f"The pairs of letters in {word}",
        f"In the word, {known} is known and {came} comes next: one more in that cell of a table "
        f"with a row for each known letter and a column for each next one. {'; '.join(rows)}.",
    )


def draw_lookup(names: Sequence[str], table: Tensor, id: int) -> Drawing:
    """Row ``id`` of a table (vocab, d): the same as a vector with a single 1, times the table."""
    one_hot = torch.zeros(len(names))
    one_hot[id] = 1
    marked = torch.zeros_like(table, dtype=torch.bool)
    marked[id] = True
    picture = column(
        token(names[id], id),
        arrow(14, to="down"),
        row(
            vector(one_hot, "token", digits=0),
            text("@"),
            matrix(table, digits=1, rows=names, marked=marked),
            text("="),
            vector(table[id], digits=1),
            gap=6,
        ),
        gap=4,
    )
    rows = "; ".join(f"{name} {_said(x)}" for name, x in zip(names, table, strict=True))
    return Drawing(
        picture,
        f"The embedding of {names[id]} is row {id} of the table",
        f"A vector with a 1 in place {id} and 0 elsewhere, times a table with the rows {rows}, "
        f"gives {_said(table[id])}.",
    )


def draw_slopes(
    nodes: Mapping[str, tuple[float, float]],
    ways: Mapping[tuple[str, str], tuple[str, str, float]],
) -> Drawing:
    """A computation from top to bottom: of each node its value and the slope of the loss for it.

    ``nodes`` maps a name to (value, slope), in the order of the computation; ``ways`` maps
    (from, to) to the words of a step, the formula of its own slope, and that slope; words and
    formula may be empty.
    """
    depth: dict[str, int] = {}
    for name in nodes:
        before = [depth[start] + 1 for start, end in ways if end == name]
        depth[name] = max(before, default=0)
    shapes = {name: _node(name, *numbers) for name, numbers in nodes.items()}
    middles, placed = {}, []
    for level in range(max(depth.values()) + 1):
        beside = [name for name in nodes if depth[name] == level]
        for i, name in enumerate(beside):
            shape = shapes[name]
            middle = WIDTH / 2 + (i - (len(beside) - 1) / 2) * APART
            middles[name] = middle, level * STOREY
            placed.append((shape, middle - shape.width / 2, level * STOREY))
    arrows, labels = [], []
    for (start, end), (words, formula, slope) in ways.items():
        (x0, y0), (x1, y1) = middles[start], middles[end]
        y0 += shapes[start].height + 2
        # Two that end in one meet it from their own sides.
        x1 += 0.22 * (x0 - x1)
        x0 += 0.22 * (middles[end][0] - x0)
        arrows.append(line([(x0, y0), (x1, y1 - 2)], head=True))
        its_slope = f"slope {formula} = {_short(slope)}" if formula else f"slope {_short(slope)}"
        label = lines(f"{words}\n{its_slope}".lstrip(), SMALL)
        left = (x0 + x1) / 2 < WIDTH / 2
        beside_it = min(x0, x1) - label.width - 4 if left else max(x0, x1) + 4
        labels.append((label, beside_it, (y0 + y1) / 2 - label.height / 2))
    height = max(y for _, y in middles.values()) + shapes[next(reversed(shapes))].height
    legend = row(box("value"), box("slope", "new"), gap=0)
    labels.append((legend, WIDTH - legend.width, height - legend.height))
    said = ", ".join(f"{n} is {_short(v)} with slope {_short(g)}" for n, (v, g) in nodes.items())
    steps = ", ".join(f"{a} to {b} has {_short(s)}" for (a, b), (_, _, s) in ways.items())
    return Drawing(
        over(WIDTH, height, (Shape(0, 0, "".join(arrows)), 0, 0), *placed, *labels),
        "Forward the values, backward the slopes",
        f"Each node shows its value and the slope of the loss for it: {said}. "
        f"Of the steps, each has a slope of its own: {steps}.",
    )


WIDTH, APART, STOREY = 350.0, 130.0, 92.0
"""Of a drawing of slopes: its width, the middles of neighbours, and one level to the next."""


def draw_window(model: WindowMLP, words: Sequence[str]) -> Drawing:
    """What becomes of the last ``window`` tokens on their way to the logits, with all sizes."""
    if len(words) != model.window:
        raise ValueError(f"expected {model.window} tokens, the window, got {len(words)}")
    d_embedding = model.embedding.weight.shape[1]
    d_hidden, vocab_size = model.hidden.weight.shape[0], model.vocab_size
    wide = model.window * d_embedding
    per_cell = math.ceil(max(wide, d_hidden, vocab_size) / MOST_CELLS)

    def strip(n: int, role: str = "vector") -> Shape:
        return _strip(n / per_cell, role)

    upright = [
        column(token(word), arrow(12, to="down"), _upright(d_embedding / per_cell))
        for word in words
    ]
    picture = column(
        row(*upright, gap=10),
        text(f"look up: {d_embedding} numbers for each token", SMALL),
        arrow(12, to="down"),
        named(strip(wide), f"x: side by side, {wide} numbers", below=True),
        arrow(12, to="down"),
        box(f"x W₁ + b₁, W₁ is {wide} × {d_hidden}", "weight"),
        box("tanh", "plain"),
        named(strip(d_hidden), f"hidden, {d_hidden} numbers", below=True),
        arrow(12, to="down"),
        box(f"W₂ is {d_hidden} × {vocab_size}, and b₂", "weight"),
        named(
            strip(vocab_size, "token"),
            f"{vocab_size} logits: one for each next token",
            below=True,
        ),
        text(f"each cell stands for {per_cell} of the numbers", SMALL),
        gap=4,
    )
    return Drawing(
        picture,
        f"A window of {model.window} tokens on its way to the logits",
        f"Each of the tokens {' '.join(repr(word) for word in words)} becomes {d_embedding} "
        f"numbers; side by side they are {wide}. A matrix of {wide} × {d_hidden} and tanh make "
        f"{d_hidden} hidden numbers, a matrix of {d_hidden} × {vocab_size} makes "
        f"{vocab_size} logits.",
    )


MOST_CELLS, NARROW = 32, 10.6
"""Of the longest strip in a drawing of a window, and units of the side of such a cell."""


def _strip(n_cells: float, role: str = "vector") -> Shape:
    """So many narrow cells; the last is a part of one where the number is not whole."""
    return row(*(_narrow(side, CELL, role) for side in _sides(n_cells)), gap=0)


def _upright(n_cells: float) -> Shape:
    """The same from top to bottom."""
    return column(*(_narrow(CELL, side, "vector") for side in _sides(n_cells)), gap=0)


def _sides(n_cells: float) -> list[float]:
    """Units of each cell along the strip."""
    rest = n_cells - int(n_cells)
    return [NARROW] * int(n_cells) + [NARROW * rest] * (rest > 0)


def _narrow(width: float, height: float, role: str) -> Shape:
    rect = f'<rect class="lt-{role}" width="{width:.4g}" height="{height:.4g}"/>'
    return Shape(width, height, rect)


def _node(name: str, value: float, slope: float) -> Shape:
    """Value and slope beside each other, under a name."""
    cells = row(box(_short(value)), box(_short(slope), "new"), gap=0)
    return named(cells, name)


def _short(value: float) -> str:
    """At most two digits behind the point, no zeros at the end: 1, 0.5, 0.69."""
    shown = number(value, 2)
    return shown.rstrip("0").rstrip(".")


def _said(x: Tensor) -> str:
    return "(" + ", ".join(number(float(value)) for value in x) + ")"
