"""Drawings, chapter 24: how a norm over positions carries the future back, and a claim's budget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from llmtutor.viz.diagrams.language import CELL, number, token
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Drawing,
    Shape,
    box,
    line,
    lines,
    over,
    text,
)
from llmtutor.viz.labels import spread

STEP = 52.0
"""Units from one position to the next."""
DECADE = 46.0
"""Units of a factor of ten."""
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def draw_leak(words: Sequence[str], x: Tensor, changed: Tensor, other: str) -> Drawing:
    """The mean squares of the vectors (seq, d_model) of a window, and the one RMS made of them.

    ``changed`` are the vectors with ``other`` in the place of the last token.
    """
    squares = x.square().mean(-1)
    rms, after = (float(v.square().mean().sqrt()) for v in (x, changed))
    n, width = len(words), STEP * len(words)
    middles = [i * STEP + STEP / 2 for i in range(n)]
    pill_y, square_y, norm_y = 0.0, 46.0, 112.0
    norm = box(
        f"one RMS of all {x.numel()} numbers: {number(rms, 3)}\n"
        f"with {other} at the end: {number(after, 3)}",
        "norm",
        width=width - 8,
    )
    out_y = norm_y + norm.height + 44
    placed, ways = [(norm, 4.0, norm_y)], []
    for i, (word, middle) in enumerate(zip(words, middles, strict=True)):
        last = i == n - 1
        pill = token(word)
        square = box(text(number(float(squares[i]), 2), SMALL), "vector", width=STEP - 8, pad=4)
        out = box(text(f"÷ {number(rms, 2)}", SMALL), "new" if i < n - 1 else "vector", pad=4)
        placed += [
            (pill, middle - pill.width / 2, pill_y),
            (square, middle - square.width / 2, square_y),
            (out, middle - out.width / 2, out_y),
        ]
        role, thick = ("new", 3.0) if last else ("plain", 1.2)
        ways.append(line([(middle, pill_y + 28), (middle, square_y)], role, width=thick))
        ways.append(
            line([(middle, square_y + CELL), (middle, norm_y)], role, head=True, width=thick)
        )
        role, thick = ("plain", 1.2) if last else ("new", 3.0)
        ways.append(
            line([(middle, norm_y + norm.height), (middle, out_y)], role, head=True, width=thick)
        )
    said = ", ".join(
        f"{word.replace(' ', '␣')} {number(float(s), 2)}"
        for word, s in zip(words, squares.tolist(), strict=True)
    )
    return Drawing(
        over(width, out_y + 24, (Shape(0, 0, "".join(ways)), 0, 0), *placed),
        "Where the leak flows",
        f"Each token of the window has a vector; the means of its squares are {said}. All of them "
        f"go into one root mean square, {number(rms, 3)}, by which every position is divided, the "
        f"first as well. With {other} in the place of the last token it is {number(after, 3)}: "
        "every position before it is told, by thick arrows, that the last token is another one.",
    )


@dataclass(frozen=True)
class Mark:
    """A number of tokens that a claim has, or implies."""

    name: str
    tokens: float
    doubtful: bool = False


def draw_budget(marks: Sequence[Mark], tokens_per_second: float, n_params: float) -> Drawing:
    """Numbers of tokens on one line, each with the time it takes at a speed, and its FLOPs.

    A factor of ten is always as far; FLOPs are 6 a parameter and token.
    """
    low = math.floor(min(math.log10(mark.tokens) for mark in marks))
    high = math.ceil(max(math.log10(mark.tokens) for mark in marks))
    height, axis_x, label_x = DECADE * (high - low), 52.0, 92.0
    ordered = sorted(marks, key=lambda mark: mark.tokens)
    places = [DECADE * (high - math.log10(mark.tokens)) for mark in ordered]
    boxes = [
        box(
            lines(
                f"{mark.name}: {short(mark.tokens)}\n{duration(mark.tokens / tokens_per_second)}"
                f", {power_of_ten(6 * n_params * mark.tokens)} FLOPs",
                SMALL,
            ),
            "new" if mark.doubtful else "token",
            width=258,
        )
        for mark in ordered
    ]
    gap = max(shape.height for shape in boxes) + 4
    spots = spread(places, gap, gap / 2, height - gap / 2)
    ways = [line([(axis_x, 0), (axis_x, height)], "stream")]
    placed: list[tuple[Shape, float, float]] = []
    for power in range(low, high + 1):
        y = DECADE * (high - power)
        ways.append(line([(axis_x - 5, y), (axis_x + 5, y)]))
        name = text(short(10.0**power), SMALL)
        placed.append((name, axis_x - 10 - name.width, y - name.height / 2))
    for shape, place, spot in zip(boxes, places, spots, strict=True):
        ways.append(line([(axis_x, place), (axis_x + 12, place), (label_x, spot)]))
        placed.append((shape, label_x, spot - shape.height / 2))
    said = "; ".join(
        f"{mark.name}, {short(mark.tokens)} tokens, {duration(mark.tokens / tokens_per_second)}"
        + (" (doubtful)" if mark.doubtful else "")
        for mark in ordered
    )
    shifted = [(shape, x, y + 10) for shape, x, y in placed]
    return Drawing(
        over(label_x + 258, height + 20, (Shape(0, 0, "".join(ways)), 0, 10), *shifted),
        "The budget of a claim",
        f"A line of tokens from {short(10.0**low)} to {short(10.0**high)}, with the time that each "
        f"number takes at {short(tokens_per_second)} tokens a second: {said}.",
    )


def power_of_ten(value: float) -> str:
    """With one digit before it.

    >>> power_of_ten(2.1e21)
    '2 · 10²¹'
    """
    digit, power = f"{value:.0e}".split("e")
    return f"{digit} · 10{str(int(power)).translate(SUPERSCRIPTS)}"


def short(value: float) -> str:
    """A number with three digits and a letter for its size.

    >>> short(2.72e12), short(66e6), short(640)
    ('2.72 T', '66 M', '640')
    """
    for size, letter in PREFIXES:
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """In the largest unit of which there are two at least.

    >>> duration(90), duration(7200), duration(86400 * 84)
    ('90 s', '2 h', '84 days')
    """
    for size, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
