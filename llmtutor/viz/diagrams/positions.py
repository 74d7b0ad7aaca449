"""Drawings, chapter 05: words without order, where a position can enter, how far a query looks."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from llmtutor.layers.positions import Position
from llmtutor.layers.positions.alibi import alibi_slopes
from llmtutor.layers.positions.relative import t5_buckets
from llmtutor.viz.diagrams.language import CELL, matrix, named, number, token, vector
from llmtutor.viz.diagrams.shapes import (
    SMALL,
    WIDEST,
    Drawing,
    Shape,
    arrow,
    box,
    column,
    line,
    lines,
    over,
    row,
    space,
    text,
)

HOOKS = ("embed", "rotate", "score_bias")
"""Methods of ``Position``, each a place where a position can enter."""


def hook_of(scheme: type[Position]) -> str:
    """The hook that a scheme fills; empty if it fills none."""
    return next((hook for hook in HOOKS if hook in vars(scheme)), "")


def draw_orders(words: Sequence[Sequence[str]], outputs: Sequence[Tensor]) -> Drawing:
    """Sentences of the same words, and below each word what attention gives it, (seq, width).

    The components of an output are named by the words of the first sentence.
    """
    first, blocks, said = words[0], [], []
    for sentence, values in zip(words, outputs, strict=True):
        pills = [token(word) for word in sentence]
        wide = max(pill.width for pill in pills)
        strips = [
            column(over(wide, pill.height, (pill, (wide - pill.width) / 2, 0)),
                   vector(x, "new", upright=True, digits=2), gap=4)
            for pill, x in zip(pills, values, strict=True)
        ]  # fmt: skip
        names = column(
            space(height=pills[0].height), *(_line(f"of {w}") for w in first), gap=0, align="end"
        )
        left = column(space(height=4), names, gap=0)
        blocks.append(row(left, *strips, gap=5, align="start"))
        said.append(
            f"{' '.join(sentence)}: "
            + "; ".join(f"{w} {_said(x)}" for w, x in zip(sentence, values, strict=True))
        )
    return Drawing(
        column(*blocks, gap=14),
        "The same words in two orders",
        f"Below each word, how much of {', '.join(first)} it receives. {'. '.join(said)}. The "
        "vectors have changed places with their words and are otherwise the same.",
    )


def draw_places(schemes: Mapping[str, type[Position]]) -> Drawing:
    """Where each scheme enters a transformer, by the hook that its class fills."""
    by_hook = {hook: [n for n, s in schemes.items() if hook_of(s) == hook] for hook in (*HOOKS, "")}
    what = {"embed": "add a vector", "rotate": "turn q and k", "score_bias": "add a number"}
    plain = [_entry(what[hook], by_hook[hook]) for hook in HOOKS]
    wide = max(entry.width for entry in plain)
    entries = {hook: _entry(what[hook], by_hook[hook], wide) for hook in HOOKS}
    below = column(
        token("token"),
        arrow(12, to="down"),
        vector(4),
        text("embedding", SMALL),
        gap=3,
    )
    boxes = [box(text(name, SMALL), name, pad=6) for name in ("query", "key", "value")]
    q, k, v = boxes
    scores = named(matrix((3, 3), "query"), "scores q · k / √dₕ", below=True)
    weighted = box("softmax, times values", "plain", pad=6)
    steps = [
        (below, "embed"),
        (row(q, k, v, gap=5), "rotate"),
        (scores, "score_bias"),
        (weighted, ""),
    ]
    middle = 105.0
    placed, ways, top, tops = [], [], 0.0, []
    for shape, hook in steps:
        placed.append((shape, middle - shape.width / 2, top))
        tops.append(top)
        bottom = top + shape.height
        if hook:
            entry = entries[hook]
            at = bottom + 17
            ways.append(line([(middle, bottom + 3), (middle, bottom + 36)], head=True))
            ways.append(line([(WIDEST - 6 - wide, at), (middle + 3, at)], "key", head=True))
            placed.append((entry, WIDEST - 6 - wide, at - entry.height / 2))
            top = bottom + 40
        else:
            top = bottom
    frame_top = tops[1] - 8
    frame = (
        f'<rect class="lt-plain lt-dashed" style="fill:none" x="4" y="{frame_top:g}" '
        f'width="{2 * middle - 8:g}" height="{top - frame_top + 24:g}" rx="9"/>'
    )
    caption = text("attention, in every block", SMALL, bold=True)
    placed.append((caption, middle - caption.width / 2, top + 4))
    said = {hook: ", ".join(names) for hook, names in by_hook.items()}
    return Drawing(
        over(WIDEST - 4, top + 28, (Shape(0, 0, frame + "".join(ways)), 0, 0), *placed),
        "Three places where a position can enter",
        "From top to bottom: a token and its embedding, then in every block queries, keys and "
        f"values, scores, softmax. To the embedding a vector is added by {said['embed']}. "
        f"Queries and keys are turned by {said['rotate']}. To the scores a number is added by "
        f"{said['score_bias']}." + (f" Nowhere: {said['']}." if said[""] else ""),
    )


def draw_buckets(n_buckets: int = 32, max_distance: int = 128, upto: int = 140) -> Drawing:
    """Which distances share one of T5's numbers: the buckets as pieces of a ruler."""
    places = torch.arange(upto)
    of = t5_buckets(-places, n_buckets, max_distance)
    scale = (WIDEST - 16) / upto
    spans = []
    for bucket in range(n_buckets):
        inside = places[of == bucket]
        spans.append((int(inside[0]), int(inside[-1]) + 1))
    parts, labels = [], []
    for bucket, (start, end) in enumerate(spans):
        role = "new" if bucket % 2 else "key"
        parts.append(
            f'<rect class="lt-{role}" style="stroke-width:0.7" x="{start * scale:.5g}" y="0" '
            f'width="{(end - start) * scale:.5g}" height="26"/>'
        )
        words = text(str(bucket), 10)
        if words.width + 3 < (end - start) * scale:
            x = (start + end) * scale / 2 - words.width / 2
            labels.append((words, x, 6.0))
    ticks: list[tuple[Shape, float, float]] = []
    for distance in (0, n_buckets // 2, max_distance // 4, max_distance // 2, max_distance):
        x = distance * scale
        words = text(str(distance), SMALL)
        parts.append(line([(x, 26), (x, 32)]))
        ticks.append((words, max(0.0, x - words.width / 2), 33.0))
    parts.append(line([(upto * scale - 9, 40), (upto * scale - 1, 40)], head=True))  # and on
    ruler = over(upto * scale, 48, (Shape(0, 0, "".join(parts)), 0, 0), *labels, *ticks)
    exact = sum(end - start == 1 for start, end in spans)
    said = ", ".join(f"{b}: {a} to {e - 1}" for b, (a, e) in enumerate(spans) if e - a > 1)
    return Drawing(
        column(ruler, text("tokens back", SMALL), gap=2),
        f"{n_buckets} buckets of distance",
        f"The first {exact} buckets hold one distance each. The others: {said} and all beyond.",
    )


def draw_slopes(n_heads: int, upto: int = 32) -> Drawing:
    """By what ALiBi multiplies the weight of a key, head by head: the darker, the nearer to 1."""
    wide, rows, said = 7.8, [], []
    for n, slope in enumerate(alibi_slopes(n_heads), 1):
        factors = [math.exp(-slope * distance) for distance in range(upto + 1)]
        label = text(f"head {n}, 1/{1 / slope:g}", SMALL)
        rows.append(row(label, _shades([factors], wide, CELL - 4), space(2), gap=6))
        marks = ", ".join(f"{number(factors[d], 2)} at {d}" for d in (1, 8, upto))
        said.append(f"head {n} with slope 1/{1 / slope:g} leaves {marks}")
    ends = over(
        (upto + 1) * wide + 8,
        16,
        *((text(str(d), SMALL), (d + 0.5) * wide - text(str(d), SMALL).width / 2, 0)
          for d in (0, 8, 16, 24, 32) if d <= upto),
    )  # fmt: skip
    return Drawing(
        column(*rows, ends, text("tokens back", SMALL), gap=3, align="end"),
        "What is left of a weight, by head and distance",
        f"The factor on the weight of a key by its distance: {'; '.join(said)}.",
    )


def draw_asked(puzzles: Mapping[str, tuple[str, Sequence[int], Sequence[int]]]) -> Drawing:
    """For each puzzle, (letters, queries, sources): an arc from a query to what it has to find."""
    blocks, said = [], []
    for name, (letters, queries, sources) in puzzles.items():
        pills = [token(letter) for letter in letters]
        step = (WIDEST - 8) / len(pills)
        middles = [(n + 0.5) * step for n in range(len(pills))]
        high = 62.0
        arcs, labels = [], []
        for n, (query, source) in enumerate(zip(queries, sources, strict=True)):
            role = ("query", "value")[n % 2]  # neighbours are told apart
            x0, x1 = middles[query], middles[source]
            peak = high * (1 - 0.92 * (query - source) / len(pills) - 0.06)
            arcs.append(
                f'<path class="lt-line lt-line-{role}" style="stroke-width:1.3" '
                f'd="M{x0:.4g} {high} C{x0:.4g} {peak:.4g} {x1:.4g} {peak:.4g} {x1:.4g} '
                f'{high - 3}"/>'
            )
            arcs.append(line([(x1, high - 4), (x1, high + 1)], role, head=True))
            words = text(str(query - source), SMALL, bold=True)
            labels.append((words, x0 - words.width / 2, high + pills[0].height + 4))
        placed = [
            (pill, x - pill.width / 2, high + 2) for pill, x in zip(pills, middles, strict=True)
        ]
        height = high + pills[0].height + 20
        picture = over(
            WIDEST - 8, height, (Shape(0, 0, "".join(arcs)), 0, 0), *placed, *labels
        )  # fmt: skip
        blocks.append(column(text(name, bold=True), picture, gap=0))
        back = ", ".join(str(q - s) for q, s in zip(queries, sources, strict=True))
        said.append(f"{name}: “{letters}”, the queries look {back} tokens back")
    return Drawing(
        column(*blocks, text("below each query: tokens back", SMALL), gap=10),
        "Who asks, and where the answer is",
        f"An arc leads from each query to the letter that it has to find. {'; '.join(said)}.",
    )


def draw_looks(weights: Mapping[str, Tensor], cell: float = 8, across: int = 3) -> Drawing:
    """Attention of heads, (q, k) each, as shades: a row for each query, a column for each key."""
    grids, said = [], []
    for name, values in weights.items():
        allowed = torch.ones_like(values).tril().bool()
        table = [
            [float(v) if seen else math.nan for v, seen in zip(some, may, strict=True)]
            for some, may in zip(values, allowed, strict=True)
        ]
        grids.append(named(_shades(table, cell, cell), name))
        last = values[-1]
        said.append(f"{name}: the last query gives {number(float(last.max()), 2)} to the key "
                    f"{len(last) - 1 - int(last.argmax())} back")  # fmt: skip
    wide = max(grid.width for grid in grids)
    equal = [over(wide, g.height, (g, (wide - g.width) / 2, 0)) for g in grids]
    rows = [row(*equal[i : i + across], gap=10) for i in range(0, len(equal), across)]
    legend = row(
        _shades([[1.0]], 12, 12), text("weight 1", SMALL), space(8),
        _shades([[0.0]], 12, 12), text("0", SMALL), space(8),
        _shades([[math.nan]], 12, 12), text("masked", SMALL), gap=4,
    )  # fmt: skip
    return Drawing(
        column(*rows, legend, gap=12),
        "What heads can do by position alone",
        f"A row for each query, a column for each key. {'; '.join(said)}.",
    )


def _entry(what: str, names: Sequence[str], wide: float = 0) -> Shape:
    """A way in: what happens, and who does it."""
    return box(column(lines(what, SMALL, bold=True), lines("\n".join(names), SMALL), gap=2),
               "new", width=wide, pad=5)  # fmt: skip


def _shades(table: Sequence[Sequence[float]], wide: float, high: float) -> Shape:
    """Cells filled by shares from 0 to 1; nan is crossed out."""
    body = []
    for i, some in enumerate(table):
        for j, value in enumerate(some):
            place = f'x="{j * wide:g}" y="{i * high:g}" width="{wide:g}" height="{high:g}"'
            if math.isnan(value):
                body.append(f'<rect class="lt-off" style="stroke-opacity:0.25" {place}/>')
                x, y = j * wide, i * high
                body.append(
                    f'<path class="lt-hatch" style="stroke-opacity:0.6" '
                    f'd="M{x + 1:g} {y + high - 1:g}L{x + wide - 1:g} {y + 1:g}"/>'
                )
            else:
                # Under the shade a plain cell, so that zero is a colour of its own.
                body.append(f'<rect class="lt-plain" style="stroke-opacity:0.25" {place}/>')
                shade = f"fill:var(--query-edge);stroke:none;fill-opacity:{value:.2g}"
                body.append(f'<rect class="lt-query" style="{shade}" {place}/>')
    return Shape(wide * len(table[0]), high * len(table), "".join(body))


def _line(words: str) -> Shape:
    """A label as high as a cell."""
    label = text(words, SMALL)
    return over(label.width, CELL, (label, 0, (CELL - label.height) / 2))


def _said(values: Tensor) -> str:
    return " ".join(number(float(value), 2) for value in values)
