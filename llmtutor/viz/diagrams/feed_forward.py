"""Drawings, chapter 08: a layer that widens and narrows, its gated form, units at work."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from llmtutor.experiments.units import Reading
from llmtutor.viz.diagrams.language import CELL, matrix, number, vector
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    WIDEST,
    Drawing,
    Shape,
    arrow,
    box,
    column,
    named,
    over,
    row,
    text,
    text_width,
)

SLOPE = 12.0
"""Units by which a funnel is wider at one end, on either side."""
Act = Callable[[Tensor], Tensor]


def draw_plain(
    x: Tensor, up: Tensor, down: Tensor, act: Act = F.relu, name: str = "ReLU"
) -> Drawing:
    """One vector (d_model,) through two matrices, (d_ff, d_model) and (d_model, d_ff)."""
    return Drawing(
        _plain(x, up, down, act, name),
        f"From {len(x)} numbers to {len(up)} and back",
        _plain_said(x, up, down, act, name),
    )


def draw_beside(
    x: Tensor,
    plain: tuple[Tensor, Tensor],
    gated: tuple[Tensor, Tensor, Tensor],
    names: tuple[str, str],
) -> Drawing:
    """The same vector through ``plain`` (up, down; ReLU) and ``gated`` (gate, up, down; SiLU)."""
    titles = [text(name, bold=True) for name in names]
    left = column(titles[0], _plain(x, *plain, F.relu, "ReLU"), gap=6)
    right = column(titles[1], _gated(x, *gated), gap=6)
    return Drawing(
        row(left, right, gap=8, align="start"),
        "Without a gate and with one",
        f"{names[0]}: {_plain_said(x, *plain, F.relu, 'ReLU')} "
        f"{names[1]}: {_gated_said(x, *gated)}",
    )


def _plain(x: Tensor, up: Tensor, down: Tensor, act: Act, name: str) -> Shape:
    compared = up @ x
    hidden = act(compared)
    return column(
        named(vector(x), "x"),
        _funnel(named(matrix(up), _size("W₁", up)), wider=True),
        vector(compared),
        _bend(name),
        named(vector(hidden), f"{len(hidden)} hidden units", below=True),
        _funnel(named(matrix(down), _size("W₂", down)), wider=False),
        vector(down @ hidden),
        gap=4,
    )


def _gated(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Shape:
    opened, value = F.silu(gate @ x), up @ x
    left = column(
        named(matrix(gate), _size("gate", gate)), vector(gate @ x), _bend("SiLU"),
        vector(opened, digits=2), gap=4,
    )  # fmt: skip
    right = column(named(matrix(up), _size("up", up)), vector(value), gap=4)
    hidden = opened * value
    return column(
        named(vector(x), "x"),
        _funnel(row(left, text("×", bold=True), right, gap=3, align="end"), wider=True),
        named(vector(hidden, digits=2), f"{len(hidden)} hidden units", below=True),
        _funnel(named(matrix(down), _size("down", down)), wider=False),
        vector(down @ hidden, digits=2),
        gap=4,
    )


def _bend(name: str) -> Shape:
    return column(arrow(9, to="down"), box(text(name, SMALL), pad=4), arrow(9, to="down"), gap=0)


def _funnel(inside: Shape, wider: bool) -> Shape:
    """A frame around a shape that is wider below, or above."""
    width, height = inside.width + 2 * SLOPE + 8, inside.height + 10
    narrow, wide = (SLOPE, width - SLOPE), (0.0, width)
    top, bottom = (narrow, wide) if wider else (wide, narrow)
    corners = [(top[0], 0.0), (top[1], 0.0), (bottom[1], height), (bottom[0], height)]
    places = " ".join(f"{x:g},{y:g}" for x, y in corners)
    frame = Shape(width, height, f'<polygon class="lt-plain" points="{places}"/>')
    return over(width, height, (frame, 0, 0), (inside, (width - inside.width) / 2, 5))


def _plain_said(x: Tensor, up: Tensor, down: Tensor, act: Act, name: str) -> str:
    compared = up @ x
    hidden = act(compared)
    return (
        f"x = {_said(x)} is compared with the rows {_rows(up)} and gives {_said(compared)}; "
        f"{name} makes {_said(hidden)} of it; as much of the columns {_rows(down.T)} is "
        f"{_said(down @ hidden)}."
    )


def _gated_said(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> str:
    opened, value = F.silu(gate @ x), up @ x
    hidden = opened * value
    return (
        f"The gate's rows {_rows(gate)} give {_said(gate @ x)}, SiLU makes {_said(opened, 2)} of "
        f"it; the rows {_rows(up)} give {_said(value)}; the products are {_said(hidden, 2)}; as "
        f"much of the columns {_rows(down.T)} is {_said(down @ hidden, 2)}."
    )


def draw_units(units: Sequence[tuple[str, Sequence[Reading]]], title: str) -> Drawing:
    """For each unit, (name, readings), the texts in which it is strong: the darker, the stronger.

    The colour is the size without the sign, as a part of the unit's largest that is drawn; the
    number belongs to the last token.
    """
    blocks, said = [], []
    for name, readings in units:
        largest = max(abs(value) for reading in readings for value in reading.values)
        lines = [_line(reading, largest) for reading in readings]
        blocks.append(column(text(name, SMALL, bold=True), *lines, gap=3, align="start"))
        ends = ", ".join(
            f"{_shown(reading.words[-1])} ({number(reading.values[-1])}, then "
            f"{_shown(reading.following)})"
            for reading in readings
        )
        said.append(f"{name} is strongest at {ends}")
    return Drawing(column(*blocks, gap=9, align="start"), title, f"{'; '.join(said)}.")


def _line(reading: Reading, largest: float) -> Shape:
    """Tokens from left to right, as many of the last as there is room for."""
    strength = text(number(reading.values[-1]), SMALL)
    after = row(text("→", SMALL), _word(reading.following, 0), text("", SMALL), strength, gap=4)
    room, cells = WIDEST - 6 - after.width, []
    for word, value in zip(reversed(reading.words), reversed(reading.values), strict=True):
        cell = _word(word, abs(value) / largest)
        if cell.width > room:
            break
        room -= cell.width
        cells.append(cell)
    return row(row(*reversed(cells), gap=0), after, gap=5)


def _word(word: str, share: float) -> Shape:
    """A token whose frame is filled by a share; a space in front of it is room."""
    shown = _shown(word)
    width = text_width(shown, SMALL, mono=True) + 6
    fill = f'style="fill-opacity:{share:.2g};stroke-opacity:0.35"'
    frame = f'<rect class="lt-new" {fill} width="{width:.4g}" height="{CELL - 4}" rx="3"/>'
    words = text(shown, SMALL, mono=True)
    return Shape(width, CELL - 4, frame + words.at(3, (CELL - 4 - words.height) / 2))


def _shown(word: str) -> str:
    return word.replace("\n", "⏎").replace(" ", "␣") or "∅"


def _size(name: str, weight: Tensor) -> str:
    return f"{name}: {len(weight)} × {weight.shape[1]}"


def _said(values: Tensor, digits: int = 1) -> str:
    return f"({', '.join(number(float(value), digits) for value in values)})"


def _rows(values: Tensor) -> str:
    return ", ".join(_said(some) for some in values)
