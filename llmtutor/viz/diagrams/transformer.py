"""Drawings, chapter 09: additions with their numbers, shapes on their way, two models in a row."""

from collections.abc import Sequence

from torch import Tensor

from llmtutor.model.config import ModelConfig
from llmtutor.viz.diagrams.language import vector
from llmtutor.viz.diagrams.model import STREAM_X, part_words, plus_sign, wrapped
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Shape,
    arrow,
    box,
    column,
    line,
    over,
    row,
    text,
)

AXIS, BRANCH = 36.0, 96.0
"""Where the stream runs through its numbers, and where a branch begins beside them."""
COLUMN, PART_HEIGHT = 172.0, 38.0
"""Of a model beside another one."""
Reading = tuple[str, str, Tensor, Tensor]
"""A part that adds to the stream: its name and role, what it reads, what it answers."""
Station = tuple[str, str, tuple[int, ...]]
"""A name, the role of its colour ("stream" and "token" stand on the line), a tensor's shape."""


def additions_shape(x: Tensor, readings: Sequence[Reading]) -> Shape:
    """A stream of a few numbers (d,), to which parts add; each sum stands below its addition."""
    pieces = [_in_stream(vector(x))]
    for name, role, read, answer in readings:
        x = x + answer
        pieces += [_branch(name, role, read, answer), _in_stream(vector(x))]
    return column(*pieces, gap=0, align="start")


def _in_stream(numbers: Shape) -> Shape:
    """Numbers with the line of the stream in their middle."""
    return over(BRANCH, numbers.height, (numbers, AXIS - numbers.width / 2, 0))


def _branch(name: str, role: str, read: Tensor, answer: Tensor) -> Shape:
    """From the stream through the norm and the part, and back to a plus."""
    width = text(name, SMALL).width + 16
    norm = box(text("norm", SMALL), "norm", width=width)
    part = box(text(name, SMALL), role, width=width)
    upper = row(norm, arrow(14), vector(read, digits=2))
    lower = row(part, arrow(14), vector(answer))
    top, second = 12.0, 26 + upper.height
    middle, out = BRANCH + width / 2, BRANCH + upper.width - 20
    turn, end = top + upper.height + 7, second + lower.height + 36
    ways = [
        line([(AXIS, 0), (AXIS, end)], "stream"),
        line([(AXIS, top + upper.height / 2), (BRANCH, top + upper.height / 2)], head=True),
        line([(out, turn - 7), (out, turn), (middle, turn), (middle, second)], head=True),
        line([(out, second + lower.height), (out, end - 16), (AXIS + 10, end - 16)], head=True),
    ]
    return over(
        BRANCH + max(upper.width, lower.width) + 2,
        end,
        (Shape(0, 0, "".join(ways)), 0, 0),
        (upper, BRANCH, top),
        (lower, BRANCH, second),
        (plus_sign(), AXIS - 9, end - 25),
    )


def trace_shape(stations: Sequence[Station]) -> Shape:
    """Tensors in the order in which they come: those of the stream on its line, others beside it.

    Each has its name and its shape.
    """
    placed, y, width = [], 0.0, 190.0
    for name, role, shape in stations:
        left = 0.0 if role in ("stream", "token") else 2.5 * STREAM_X
        label = box(text(name, SMALL), "vector" if role == "stream" else role, width=width - left)
        size = text(f"({', '.join(map(str, shape))})", SMALL, mono=True)
        placed += [(label, left, y), (size, width + 12, y + (label.height - size.height) / 2)]
        y += label.height + 8
    first, last = placed[0][0].height, y - 8
    stream = Shape(0, 0, line([(STREAM_X, first), (STREAM_X, last - 8)], "stream"))
    widest = max(shape.width + x for shape, x, _ in placed)
    return over(widest, last, (stream, 0, 0), *placed)


def beside_shape(left: tuple[str, ModelConfig], right: tuple[str, ModelConfig]) -> Shape:
    """Two models of equal blocks, side by side; what differs stands out in the second."""
    usual = [words for words, _ in _parts(left[1])]
    columns = []
    for name, config in (left, right):
        parts = _parts(config)
        marked = [
            (w, r if w == before else "new") for (w, r), before in zip(parts, usual, strict=True)
        ]
        columns.append(column(text(name, bold=True), _stack(marked), gap=6))
    return row(*columns, gap=14, align="start")


def _stack(parts: Sequence[tuple[str, str]]) -> Shape:
    """Parts on the stream, those of the block beside it, with a plus where they add."""
    placed: list[tuple[Shape, float, float]] = []
    for i, (words, role) in enumerate(parts):
        left = 24.0 if 0 < i < 5 else 0.0
        width = COLUMN - left
        y = i * (PART_HEIGHT + 8)
        placed.append(
            (box(wrapped(words, width - 12), role, width=width, height=PART_HEIGHT), left, y)
        )
        if i in (2, 4):
            placed.append((plus_sign(), 1, y + PART_HEIGHT / 2 - 9))
    height = len(parts) * (PART_HEIGHT + 8) - 8
    stream = Shape(0, 0, line([(10, PART_HEIGHT), (10, height - PART_HEIGHT)], "stream"))
    return over(COLUMN, height, (stream, 0, 0), *placed)


def _parts(config: ModelConfig) -> list[tuple[str, str]]:
    """What a model is made of, from ids to logits, with the role of each."""
    block = config.blocks[0]
    below = "" if config.position is None else f" + {part_words(config.position)}"
    norm = (part_words(block.norm), "norm")
    last = ("no norm" if config.norm is None else part_words(config.norm), "norm")
    head = "the embedding again" if config.tie_weights else "a matrix of their own"
    return [
        (f"Embedding{below}", "weight"),
        norm,
        (part_words(block.mixer), "query"),
        *([norm, (part_words(block.ffn), "weight")] if block.ffn.present else []),
        last,
        (f"Logits: {head}", "weight"),
    ]
