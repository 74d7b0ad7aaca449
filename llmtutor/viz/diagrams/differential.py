"""Drawings, chapter 17: two maps and their difference, and the layer that subtracts them."""

from collections.abc import Sequence

from torch import Tensor

from llmtutor.layers.attention.differential import DifferentialAttention
from llmtutor.viz.diagrams.language import CELL, matrix, number
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    Drawing,
    Shape,
    box,
    column,
    line,
    named,
    over,
    row,
    space,
    text,
)


def draw_difference(
    words: Sequence[str], first: Tensor, second: Tensor, lam: float, wanted: int
) -> Drawing:
    """The weights of one query in both maps, (k,) each, and ``first − lam · second``.

    The row of the token that is ``wanted`` stands out.
    """
    left = first - lam * second
    marks = [[i == wanted] for i in range(len(words))]
    maps = [
        matrix(values[:, None], role, digits=2, rows=names, marked=marks)  # type: ignore[arg-type]
        for values, role, names in (
            (first, "query", words),
            (second, "key", ()),
            (left, "value", ()),
        )
    ]
    shares = [float(w[wanted] / w.abs().sum()) for w in (first, left)]
    picture = row(
        named(maps[0], "map 1"),
        _sign(f"− {number(lam, 2)} ×", len(words)),
        named(maps[1], "map 2"),
        _sign("=", len(words)),
        named(maps[2], "difference"),
        gap=8,
        align="end",
    )
    said = "; ".join(
        f"{word} {number(a, 2)} and {number(b, 2)} leave {number(c, 2)}"
        for word, a, b, c in zip(words, first.tolist(), second.tolist(), left.tolist(), strict=True)
    )
    return Drawing(
        picture,
        f"Two maps of {words[-1]} and their difference",
        f"Weights in map 1, in map 2, and map 1 less {number(lam, 2)} times map 2: {said}. Of all "
        f"weight, {words[wanted]} has {shares[0]:.0%} in map 1 and {shares[1]:.0%} in the "
        "difference.",
    )


def draw_layer(layer: DifferentialAttention) -> Drawing:
    """One head of the layer from its input to its part of the output, with the sizes it has."""
    width = layer.head_dim
    parts = [
        box(f"{name}\n{size} wide", role, width=58, pad=5)
        for name, role, size in (
            ("q₁", "query", width),
            ("k₁", "key", width),
            ("q₂", "query", width),
            ("k₂", "key", width),
            ("v", "value", 2 * width),
        )
    ]
    step, map_y, head_y = 66.0, 122.0, 194.0
    middles = [n * step + 29 for n in range(5)]
    top = box(text("x, one vector for each token", SMALL), "vector", width=330)
    maps = [box(f"softmax\nmap {n}", "plain", width=92) for n in (1, 2)]
    minus = box(f"map 1 − λ · map 2\nλ starts at {number(layer.lambda_init, 2)}", "new", width=150)
    y = 50.0
    ways = [line([(m, top.height), (m, y)], head=True) for m in middles]
    bottom = y + parts[0].height
    for n in range(2):
        target = (middles[2 * n] + middles[2 * n + 1]) / 2
        for m in middles[2 * n : 2 * n + 2]:
            ways.append(line([(m, bottom), (target + (m - target) / 3, map_y)], head=True))
        ways.append(
            line(
                [(target, map_y + maps[0].height), (middles[1] + (2 * n - 1) * 25, head_y)],
                head=True,
            )
        )
    head_x = middles[1] - minus.width / 2 + 10
    product = box(text("× v", SMALL), "value", width=46)
    after = head_y + minus.height / 2
    ways += [
        line([(middles[4], bottom), (middles[4], after - product.height / 2)], head=True),
        line([(head_x + minus.width, after), (middles[4] - 23, after)], head=True),
    ]
    norm_y = head_y + minus.height + 26
    norm = box(f"RMSNorm of {2 * width} numbers\n× (1 − λ at the start)", "norm", width=190)
    norm_x = middles[4] + 29 - norm.width
    ways.append(line([(middles[4], after + product.height / 2), (middles[4], norm_y)], head=True))
    out = box(text("beside the other heads, W_O", SMALL), "weight", width=190)
    out_y = norm_y + norm.height + 20
    ways.append(line([(middles[4], norm_y + norm.height), (middles[4], out_y)], head=True))
    picture = over(
        330,
        out_y + out.height,
        (Shape(0, 0, "".join(ways)), 0, 0),
        (top, 0, 0),
        *((part, n * step, y) for n, part in enumerate(parts)),
        *((m, (middles[2 * n] + middles[2 * n + 1]) / 2 - 46, map_y) for n, m in enumerate(maps)),
        (minus, head_x, head_y),
        (product, middles[4] - 23, after - product.height / 2),
        (norm, norm_x, norm_y),
        (out, norm_x, out_y),
    )
    return Drawing(
        picture,
        "One differential head",
        f"From each token come two queries and two keys, {width} wide, and a value, {2 * width} "
        "wide. Each query with its key makes a map; λ times the second is taken from the first, "
        f"with λ starting at {number(layer.lambda_init, 2)} in this layer. The difference weighs "
        "the values; the result is normalised, multiplied by 1 less the λ of the start, and laid "
        "beside the other heads for the output projection.",
    )


def _sign(words: str, n: int) -> Shape:
    """A sign between matrices of ``n`` rows that end on one line."""
    return column(text(words), space(height=n * CELL / 2 - 8), gap=0)
